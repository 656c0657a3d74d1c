"""Every page's code runs as it stands, and prints what the page says."""

import re
import shutil
from pathlib import Path

import pytest

import sol_symbols

DOCS = Path(__file__).parents[1] / "docs"
# A minute's worth of learning, of pages that run it: what stands there, and what is run instead.
FEWER = {
    "tutorial": (
        "LearnConfig(seed=0, max_terms=6)",
        "LearnConfig(seed=0, max_terms=6, episodes=2, library_generations=2, generations=2, evaluation_episodes=2,"
        " population=4, meta_batch=2, tuning_episodes=1, validation_episodes=2, prune_episodes=1)",
    ),
}
# Without code, or run by a test of their own.
ELSEWHERE = {"index", "glossary", "zoo", "results", "write-a-task", "commands", "faq", "reliability"}


def page(name):
    return (DOCS / f"{name}.md").read_text()


@pytest.mark.parametrize("name", ["tutorial", "read-a-formula", "concepts", "compare"])
def test_a_pages_code_runs(name, run_page):
    text = page(name)
    if name in FEWER:
        assert FEWER[name][0] in text
        text = text.replace(*FEWER[name])
    run_page(text)


def test_an_operator_is_one_line(run_page, tmp_path):
    """The page's lines, put into the table of a copy of the package; the copy does what the page says."""
    text = page("add-an-operator")
    entries = re.findall(r"```python\n# in the table of (.*)\n(.*)\n```\n", text)
    package = tmp_path / "copy" / "sol_symbols"
    shutil.copytree(Path(sol_symbols.__file__).parent, package)
    table = package / "operators.py"
    before = table.read_text()
    assert {path for path, _ in entries} == {f"packages/sol-symbols/src/sol_symbols/{table.name}"}
    lines = "".join(f"\n    {line}," for _, line in entries)
    table.write_text(before.replace("\n)\n\nOPERATORS", f"{lines}\n)\n\nOPERATORS"))
    assert table.read_text() != before
    more = (
        "```python\n"
        ">>> from sol_export import export_rule, verify_source\n"
        ">>> max(verify_source(rule, export_rule(rule, 'torch'), 'torch').values()) < 1e-5\nTrue\n"
        ">>> from sol_learner.networks import SymbolicNetwork\n"
        ">>> from sol_symbols import ZOO\n"
        ">>> layer = ('identity*2', 'mul*2', 'softsign*2', 'sinh')\n"
        ">>> 'softsign' in str(SymbolicNetwork(ZOO['adam'], units=(layer,)).units)\nTrue\n"
        ">>> from sol_learner.search.terms import is_admissible\n"  # the learner's library takes such a term
        ">>> is_admissible(STANDARD.parse('sinh(ad)'), STANDARD, scale_free=True)\nTrue\n```\n"
    )
    run_page(re.sub(r"```python\n# in the table.*\n.*\n```\n", "", text) + more, path=tmp_path / "copy")


def test_no_page_with_code_is_forgotten():
    run = {"tutorial", "read-a-formula", "concepts", "compare", "add-an-operator"}
    assert {path.stem for path in DOCS.glob("*.md")} <= run | ELSEWHERE
    assert "```python" not in "".join(map(page, ELSEWHERE - {"write-a-task"}))


@pytest.mark.parametrize("path", [*DOCS.glob("*.md")], ids=lambda path: path.stem)
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert (DOCS / target).exists(), target
