"""The README's Python blocks run as they stand, and what it prints is true of the project."""

import re
from pathlib import Path

from sol_export import export_rule
from sol_symbols import UpdateRule

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
RULE = UpdateRule.parse(re.search(r"φ = (.+)", README)[1], name="mnistnet-optimizer")


def block(number):
    return f"```python\n{BLOCKS[number]}```"


def test_the_emitted_optimizer_in_ten_lines(run_page, tmp_path):
    (tmp_path / "optimizer.py").write_text(export_rule(RULE, "torch"))
    run_page(block(0) + "\n```python\nassert torch.isfinite(model[0].weight).all()\n```")


def test_learning_on_ones_own_task(run_page):
    fewer = "LearnConfig(seed=0, episodes=4, library_generations=4, generations=4, evaluation_episodes=4)"
    assert "LearnConfig(seed=0)" in BLOCKS[1]
    printed = run_page(block(1).replace("LearnConfig(seed=0)", fewer))
    assert UpdateRule.parse(printed.splitlines()[0]).lr
    assert "learned" in printed


def test_the_formula_has_the_length_that_is_printed():
    assert f"{RULE.complexity.terms} terms, {RULE.complexity.states} states" in README


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_test_command_is_what_ci_runs():
    command = "pip install -c constraints.txt nox uv && nox"
    assert command in README
    script = (ROOT / ".ci" / "run").read_text()
    assert "-c constraints.txt nox uv\nnox\n" in script
