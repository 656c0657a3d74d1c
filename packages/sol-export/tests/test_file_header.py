"""Every emitted file says where it comes from and how to regenerate it."""

import html
import re
import shlex

import pytest

from sol_export import export_rule, exporters
from sol_symbols import SolError, UpdateRule, lower
from sol_symbols.cli import main


def test_every_file_says_where_it_is_from(rule):
    for language in exporters():
        if language == "c" and lower(rule).reduces:
            continue
        source = export_rule(rule, language)
        assert rule.digest in source
        assert str(rule) in re.sub(r"[\s%]+", " ", source)
    assert UpdateRule.parse(str(rule)).digest == rule.digest


@pytest.mark.parametrize("language", ["torch", "latex", "markdown"])
def test_the_line_that_it_names_generates_it_again(language, capsys):
    digits = None if language == "torch" else 2
    source = export_rule(UpdateRule.parse("-0.53217*ad + 0.21*sign(g)"), language, "Mine", digits)
    (line,) = [text.strip("% ") for text in source.splitlines() if "sol export --to" in text]
    assert main(shlex.split(line)[1:]) == 0
    assert capsys.readouterr().out == source


@pytest.mark.parametrize("language", ["latex", "markdown", "mathml"])
def test_a_document_can_have_any_title(language, capsys):
    """Each exporter has its own rule for names, and the line that generates the file again quotes the title."""
    title = 'Adam\'s 2nd <"child"> ' + "and its descendants " * 4
    source = export_rule(UpdateRule.parse("ad"), language, title)
    (line,) = re.findall("sol (export --to .*)", html.unescape(source.replace("</pre>", "")))
    assert main(shlex.split(line)) == 0
    assert capsys.readouterr().out == source
    for wrong in ("", " ", "two\nlines"):
        with pytest.raises(SolError, match="cannot be a title: use one line of printable text"):
            export_rule(UpdateRule.parse("ad"), language, wrong)
