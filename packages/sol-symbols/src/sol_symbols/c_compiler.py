"""Compiling C code and loading it, with whatever C compiler the machine has."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

__all__ = ["compile_library", "find_compiler"]

_FLAGS = ("-O2", "-shared", "-fPIC", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
_ATTEMPTS = (("-march=native", "-DVECTOR_FUNCTIONS", "-lmvec"), ("-march=native",), ())
"""Further flags, best first; glibc's libmvec has exponentials and the like of whole vectors."""
_LIMIT = 120  # seconds


def find_compiler() -> list[str] | None:
    """The command of the C compiler: the environment's ``CC``, else ``cc``; ``None`` if there is no such program."""
    try:
        command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    except ValueError:  # a quotation that does not end
        return None
    return command if shutil.which(command[0]) else None


@functools.cache
def compile_library(source: str) -> ctypes.CDLL | str:
    """C code compiled and loaded, or the reason why that failed; tried once a process.

    ``VECTOR_FUNCTIONS`` is defined where glibc has versions of the mathematical functions for whole vectors. The
    compiler's files are deleted once they are loaded. A compiler that takes longer than two minutes is ended.
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
                status, output = _run(run)
                if status is None:
                    return f"{shlex.join(command)} did not finish in {_LIMIT} s"
                if status:
                    lines = output.strip().splitlines() or [f"status {status}"]
                    reason = f"{shlex.join(command)} failed: {next((x for x in lines if 'error' in x), lines[0])}"
                    continue
                try:
                    return ctypes.CDLL(str(library))
                except OSError as error:
                    reason = f"what {shlex.join(command)} made cannot be loaded: {error}"
    except OSError as error:
        return str(error)
    return reason


def _run(command: list[str]) -> tuple[int | None, str]:
    """Status and error output of a compiler; no status where it was ended because it took too long."""
    # In its own session: Ctrl-C, which the caller handles, would end this attempt alone. The session is ended whole,
    # because a compiler starts processes of its own.
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace", start_new_session=True
    ) as process:
        try:
            _, output = process.communicate(timeout=_LIMIT)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                return None, ""
            raise
    return process.returncode, output
