"""Names and notes of others on a terminal: nothing that a terminal obeys, and no crash where it lacks Unicode."""

import json
import os
import re
import subprocess
import sys

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from sol_export import export_rule
from sol_learner.runtime.progress import Phase, _bars, _Live
from sol_symbols import STANDARD, ZOO, Feature, UpdateRule
from sol_symbols.cli import main
from sol_symbols.errors import printable
from sol_symbols.escaping import escaped

SOL = [sys.executable, "-m", "sol_symbols.cli"]
EVIL = ["\x1b]0;owned\x07\x1b[2J", "a\rb", "\u202egnp.exe", "\x9b31m", "\udcff", "a\u200bb"]


@pytest.mark.parametrize("text", EVIL)
def test_a_terminal_is_shown_escapes(text, tmp_path, capsys):
    assert printable(printable(text)).isprintable()
    record = json.loads(ZOO["adam"].to_json())
    record["provenance"] = {"note": f"x{text}", f"k{text}": 1}
    (tmp_path / "rule.json").write_text(json.dumps(record))
    assert main(["show", str(tmp_path / "rule.json")]) == 0
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert main(["show", f"runs/{text}"]) == 2
    assert capsys.readouterr().err.replace("\n", "").isprintable()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_results_are_printed_whatever_the_encoding(encoding, tmp_path):
    out = os.fsencode(tmp_path) + b"/run-\xff"
    small = {"episodes": 1, "generations": 0, "front": "false", "steps": 10, "evaluation-episodes": 2}
    small |= {"baseline-trainings": 12, "library-generations": 1, "prune-episodes": 1, "tuning-episodes": 1, "jobs": 1}
    words = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([*SOL, "learn", "quadratic", "--out", out, *words], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert os.path.exists(out + b"/report.html")
    assert b"terms" in done.stdout


def test_brackets_in_titles_are_no_markup():
    with open(os.devnull, "w") as file, _bars(Console(file=file, force_terminal=True)) as bars:
        live = _Live(bars)
        live.phase(Phase.TUNE, "tuning [/red] [task]", 2)
        live.note("a note [/] of [/others]")
        live.step(1, loss=0.1)


def test_code_that_calls_exit_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr("sol_learner.task_registry.find_tasks", lambda: sys.exit(0))
    assert main(["tasks"]) == 2
    assert "called sys.exit(0)" in capsys.readouterr().err


WORDS = [
    "<script>alert(1)</script> &amp; <!-- x",
    "[a](javascript:alert) ![b](c) <http://d>",
    "*a* _b_ `c` ~~d~~ #",
    "a | b \\| c",
    r"\input{/etc/passwd} \\write18{id} ^^5c",
    "50% $x$ $$ \\( & # ~ ^ { }",
    "# a #",
    "1. a",
    "é 中 ✓",
    "\\",
]


@pytest.mark.parametrize("words", WORDS)
def test_markdown_shows_words_as_they_are(words):
    text = export_rule(described(words), "markdown", words)
    heading, *_ = (token for token in MarkdownIt().parse(text) if token.type == "inline")
    assert {token.type for token in heading.children} <= {"text", "text_special"}
    assert "".join(token.content for token in heading.children) == words
    cells = [token for token in MarkdownIt().enable("table").parse(text) if token.type == "inline"]
    (cell,) = (token for token in cells if "thing: " in token.content)
    assert {token.type for token in cell.children} <= {"text", "text_special"}
    shown = "".join(token.content for token in cell.children)
    assert shown == f"thing: {words.replace('$', '')}"


@pytest.mark.parametrize("words", WORDS)
def test_tex_shows_words_as_they_are(words):
    """Nothing is left of the words that TeX obeys, once its own escapes are taken away."""
    text = export_rule(described(words), "latex", words)
    assert text.startswith(f"% {words}\n")
    assert f"thing: {escaped(words.replace('$', ''), 'tex')}" in text
    rest = re.sub(r"\\text(backslash|asciicircum|asciitilde)\{\}|\\[#$%&_{}]|\$[<=>|]\$", "", escaped(words, "tex"))
    assert not set(rest) & set("\\#$%&_{}^~<=>|")


def described(words):
    """A rule with a feature of another author's, who describes it in these words."""
    return UpdateRule.parse("own + g", STANDARD.extended(Feature("own", "g*2", f"thing: {words}")))
