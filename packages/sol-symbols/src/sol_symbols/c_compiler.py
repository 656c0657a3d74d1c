"""Compile C source into a shared library and load it into this process."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["compile_library", "find_compiler"]

TIME_LIMIT = 120.0
"""Seconds that a compiler may take."""

_FLAGS = ("-O2", "-shared", "-fPIC", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
_ATTEMPTS = (("-march=native", "-DVECTOR_FUNCTIONS", "-lmvec"), ("-march=native",), ())
"""Further flags, best first; glibc's libmvec has vector versions of exp and the like."""

_WATCHED = """
exec 3<&0 </dev/null
(read -r _; kill -9 0) <&3 >/dev/null 2>&1 &
exec 3<&-
"$@"
status=$?
kill -9 $!
wait $! 2>/dev/null
exit $status
"""
"""A shell script: run a command; kill it, and what it started, when standard input ends."""


def find_compiler() -> list[str] | None:
    """The command of the C compiler: the environment's ``CC``, else ``cc``; ``None`` if there is no such program."""
    try:
        command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    except ValueError:  # a quotation that does not end
        return None
    return command if shutil.which(command[0]) else None


def compile_library(source: str) -> ctypes.CDLL | str:
    """The code compiled and loaded, or the reason why that failed.

    The files are deleted as soon as they are loaded. A compiler that takes longer than two minutes is killed; if this
    process ends, so does the compiler.
    """
    command = find_compiler()
    if command is None:
        return "no C compiler"
    reason = ""
    try:
        with tempfile.TemporaryDirectory(prefix="sol-", ignore_cleanup_errors=True) as folder:
            code, library = Path(folder, "code.c"), Path(folder, "code.so")
            code.write_text(source, encoding="utf-8")
            for flags in _ATTEMPTS:
                run = [*command, *_FLAGS, str(code), "-o", str(library), *flags, "-lm"]
                status, errors = _run(run)
                if status is None:
                    return f"{shlex.join(command)} did not finish in {TIME_LIMIT:g} s"
                if status:
                    lines = errors.strip().splitlines() or [f"status {status}"]
                    reason = f"{shlex.join(command)} failed: {next((x for x in lines if 'error' in x), lines[0])}"
                    continue
                try:
                    return ctypes.CDLL(str(library))
                except OSError as error:
                    reason = f"cannot load the library that {shlex.join(command)} wrote: {error}"
    except OSError as error:
        return str(error)
    return reason


def _run(command: Sequence[str]) -> tuple[int | None, str]:
    """Exit status (``None`` if the time ran out) and standard error of the command."""
    # A separate session: Control-C, which the learner handles, must not end just this attempt. Its processes form a
    # group: a compiler is killed together with the processes that it started. The pipe's other end closes with this
    # process, however it ends.
    theirs, ours = os.pipe()
    try:
        process = subprocess.Popen(
            ["sh", "-c", _WATCHED, "sh", *command],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            errors="replace",
            start_new_session=True,
        )
        try:
            _, errors = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        return process.returncode, errors
    finally:
        os.close(theirs)
        os.close(ours)
