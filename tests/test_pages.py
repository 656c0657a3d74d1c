"""Every page's code runs as it stands, and prints what the page says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sol_symbols

DOCS = Path(__file__).parents[1] / "docs"
# A minute's worth of learning, of pages that run it: what stands there, and what is run instead.
_SHORT = (
    "LearnConfig(seed=0, max_terms=6)",
    "LearnConfig(seed=0, max_terms=6, episodes=2, library_generations=2, generations=2, evaluation_episodes=2,"
    " population=4, meta_batch=2, tuning_episodes=1, validation_episodes=2, prune_episodes=1)",
)
FEWER = {"tutorial": _SHORT, "episodes": _SHORT}
# Without code, or run by a test of their own.
ELSEWHERE = {"index", "glossary", "sol-general", "zoo", "results", "write-a-task", "commands", "faq", "reliability"}


def page(name):
    return (DOCS / f"{name}.md").read_text()


RUN = ["tutorial", "read-a-formula", "concepts", "compare", "episodes", "recipes"]


@pytest.mark.parametrize("name", RUN)
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
    assert {path.stem for path in DOCS.glob("*.md")} <= {*RUN, "add-an-operator"} | ELSEWHERE
    assert "```python" not in "".join(map(page, ELSEWHERE - {"write-a-task"}))


def test_recipes_that_are_not_run_say_so():
    _, *recipes = re.split(r"^## ", page("recipes"), flags=re.MULTILINE)
    assert len(recipes) == 6
    for recipe in recipes:
        assert ("```python\n" in recipe) != ("```py\n" in recipe)
        assert ("```py\n" in recipe) == ("not run by this project's tests" in recipe)


def test_the_notebook_runs(tmp_path):
    notebook = json.loads((DOCS / "quickstart.ipynb").read_text())
    few = "quick = dict(baselines=('sgd',), baseline_trainings=2, evaluation_episodes=2, generations=1, population=4)\n"
    for cell in notebook["cells"]:
        cell["source"] = [few if line.startswith("quick = ") else line for line in cell["source"]]
    assert [cell for cell in notebook["cells"] if few in cell["source"]]
    shutil.copy(DOCS / "run_notebooks.py", tmp_path)
    (tmp_path / "quickstart.ipynb").write_text(json.dumps(notebook))
    done = subprocess.run([sys.executable, "run_notebooks.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trainings against" in done.stdout
    assert done.stdout.endswith("quickstart.ipynb runs\n")
    assert {path.name for path in tmp_path.iterdir()} == {"run_notebooks.py", "quickstart.ipynb"}


@pytest.mark.parametrize("path", [*DOCS.glob("*.md")], ids=lambda path: path.stem)
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert (DOCS / target).exists(), target
