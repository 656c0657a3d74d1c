"""Generated documents are fresh, and a small part of the fuzz run of rule texts and files."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from sol_symbols.glossary import glossary_markdown, zoo_markdown

ROOT = Path(__file__).parents[1]


def test_glossary_and_zoo_are_what_the_tables_say():
    assert (ROOT / "docs" / "glossary.md").read_text() == glossary_markdown(), "run: sol glossary -o docs/glossary.md"
    assert (ROOT / "docs" / "zoo.md").read_text() == zoo_markdown(), "run: sol glossary --zoo -o docs/zoo.md"


@pytest.fixture(params=["fuzz_rules", "fuzz_grammar"])
def fuzz(request, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module(request.param)


@pytest.mark.parametrize(("script", "count"), [("fuzz_rules.py", 1500), ("fuzz_grammar.py", 500)])
def test_mutated_rules_are_read_or_refused(script, count, tmp_path):
    """In a process of its own, because audit hooks stay."""
    words = [sys.executable, ROOT / "benchmarks" / script, "--start", "2000000", "--cases", str(count)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "Warning" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_cases_are_of_all_kinds(fuzz):
    cases = [fuzz.case(index) for index in range(300)]
    assert {form for form, _ in cases} == ({"text", "json"} if fuzz.__name__ == "fuzz_rules" else {"text"})
    assert len({text for _, text in cases}) > 290
    assert cases == [fuzz.case(index) for index in range(300)]


def test_the_watch_notices_what_must_not_happen(tmp_path):
    """A case that opens a file, runs code or fails otherwise than with a RuleError turns the run red."""
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import fuzz_rules as fuzz
watch, seen = fuzz.Watch(), []
opens = lambda text: open({str(tmp_path / "made")!r}, "w").close()
for bad in (opens, lambda text: exec("1"), lambda text: __import__("this_is_no_module")):
    fuzz.UpdateRule.parse = staticmethod(bad)
    fuzz.UpdateRule.from_json = staticmethod(bad)
    record = fuzz.empty_record()
    fuzz.run(1, 1, watch, record)
    seen.append((bool(watch.events or record["events"]), bool(record["failures"])))
    watch.events.clear()
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[(True, True), (True, True), (True, True)]"
