"""The ``sol`` command: finds sub-commands in the installed packages and runs one.

A sub-command is a class registered under the entry point group ``sol.commands``::

    class Greet:
        '''Say hello.'''                                  # first line: shown by sol --help

        def add_arguments(self, parser): ...              # an argparse.ArgumentParser
        def run(self, arguments) -> int: ...              # exit status; raise SolError for the user's mistakes
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Protocol

from sol_symbols.errors import SolError, printable, quoted
from sol_symbols.plugins import COMMANDS, find_plugins, load_plugin

__all__ = ["Command", "main"]


class Command(Protocol):
    """A sub-command: an instance of the class behind an entry point of the group ``sol.commands``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add options and positional arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status."""


_SIGNED = re.compile(r"-(?!\d*\.?\d*$)[A-Za-z0-9.(].*", re.DOTALL)
"""A word that begins with one minus and is no number."""
_CALCULATES = re.compile(r"[(*+]|\bwhere\b")
"""What no value of a short option has."""


class _Parser(argparse.ArgumentParser):
    """Raises errors as :class:`SolError`: they then look like all others. Formulas can begin with a minus."""

    def with_formulas(self, words: Sequence[str]) -> list[str]:
        """The words, with a blank ahead of a formula that looks like an option: ``-ad``."""

        def is_formula(word: str) -> bool:
            return _SIGNED.fullmatch(word) is not None and (
                word[:2] not in self._option_string_actions or _CALCULATES.search(word) is not None
            )

        end = words.index("--") if "--" in words else len(words)
        return [f" {word}" if is_formula(word) else word for word in words[:end]] + [*words[end:]]

    def error(self, message: str) -> None:  # type: ignore[override]
        message = message.replace("  -", " -")  # see with_formulas
        wrong = message.removeprefix("unrecognized arguments: ").partition(" ")[0].partition("=")[0]
        near = difflib.get_close_matches(wrong, self._option_string_actions, n=1) if wrong.startswith("--") else []
        message += f"; did you mean {near[0]}?" if near else ""
        raise SolError(f"{message}\nusage: {self.format_usage().removeprefix('usage: ').strip()}")


def _summary(plugin: metadata.EntryPoint) -> str:
    try:
        command = load_plugin(COMMANDS, plugin)
    except SolError as error:  # one broken package must not break the others
        return f"({printable(str(error)).partition(chr(10))[0]})"
    return printable(str(command.__doc__ or "")).strip().partition("\n")[0]


def _overview(plugins: dict[str, metadata.EntryPoint]) -> str:
    width = max(len(name) for name in plugins)
    lines = [f"  {name:<{width}}  {_summary(plugin)}" for name, plugin in sorted(plugins.items())]
    return "\n".join(
        [
            "usage: sol COMMAND ...",
            "",
            "Learn an optimizer for a task, as a formula.",
            "",
            "commands:",
            *lines,
            "",
            "sol COMMAND --help shows the options of a command. RULE is a run folder, a rule file, a zoo",
            'name (adam) or a formula in quotes ("ad + 0.1*sign(g)").',
        ]
    )


def _dispatch(words: Sequence[str]) -> int:
    plugins = find_plugins(COMMANDS)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview(plugins))
        return 0
    if words[0] in ("-V", "--version"):
        print(f"sol {metadata.version('sol-symbols')}")
        return 0
    name = words[0]
    if name not in plugins:
        near = difflib.get_close_matches(name, plugins, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        others = "; sol-learner and sol-export bring others"
        raise SolError(f"no command {quoted(name)}{hint or '.'} Commands: {', '.join(sorted(plugins))}{others}")
    kind = load_plugin(COMMANDS, plugins[name])
    command: Command = kind()
    parser = _Parser(
        prog=f"sol {name}", description=kind.__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    command.add_arguments(parser)
    arguments = parser.parse_args(parser.with_formulas(words[1:]))
    try:
        return command.run(arguments)
    except SystemExit as error:  # not a result, whatever its code
        raise SolError(f"sol {name} was ended by code that called sys.exit({error.code!r})") from error


def main(words: Sequence[str] | None = None) -> int:
    """Run ``sol`` with ``words`` (the process's own by default) and return the exit status.

    0: success. 2: the request cannot be fulfilled; one message on standard error. 130: interrupted.
    """
    # Waiting OpenMP threads release their core soon. With the default, a long spin, a learning step takes 2-4 times as
    # long on a busy machine, and is no faster on an idle one.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # PyTorch asks Linux for huge pages: a large array is filled for the first time in a third of the time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    for stream in (sys.stdout, sys.stderr):  # a formula or a file name must not fail on a terminal without Unicode
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _dispatch(sys.argv[1:] if words is None else words)
    except SolError as error:
        print(f"sol: error: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except OSError as error:  # a path that is too long, goes in a circle, or is not ours: not a fault of this project
        if error.filename is None:
            raise
        print(f"sol: error: {quoted(os.fsdecode(error.filename))}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sol: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
