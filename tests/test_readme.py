"""The README's Python block runs as it stands, and what it prints is true of the project."""

import re
from pathlib import Path

from sol_symbols import UpdateRule, expand_terms, symbol

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RULE = UpdateRule.parse((ROOT / "docs" / "mnistnet.txt").read_text().strip(), name="mnistnet-optimizer")

NAMES = {
    **{r"\ell^p": "pd", r"\ell": "ld", r"\tilde n": "la_n", r"\tilde o": "la_o", "a": "ad", "r": "rs"},
    **{r"\varsigma": "calm", r"\bar\rho": "tensor_pace", r"\sigma": "tensor_scale", r"\omega": "wu"},
}


def test_the_shipped_optimizer_runs(run_page):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    run_page(f"```python\n{block}```\n```python\nassert torch.isfinite(model[0].weight).all()\n```")


def test_the_formula_is_the_rules():
    """The typeset formula, read back as a rule's text, is the rule of the picture."""
    text = re.search(r"\\phi_t &= (.*?)\\end", README, re.DOTALL)[1]
    text = re.sub(r"\\\\\s*&\\quad", "", text).replace(r"\,", " ").replace(r"\left.", "").replace(r"\right.", "")
    text = text.replace(r"\left", "").replace(r"\right", "")
    for latex, name in NAMES.items():
        text = re.sub(rf"(?<![\w\\]){re.escape(latex)}_(t|\{{t-1\}})", name, text)
    text = re.sub(r"(?<=[\w)]) +(?=[\w(])", "*", " ".join(text.split()))
    shown = UpdateRule.parse(f"{text} where lr = 1, T = 100")
    difference = expand_terms(shown.expression - RULE.expression)
    assert all(abs(term.as_coeff_Mul()[0]) < 1e-9 for term in difference), difference
    assert f"\\alpha = {RULE.lr:g}$" in README
    assert {symbol("ad"), symbol("tensor_pace")} <= RULE.expression.free_symbols


def test_the_formula_has_the_length_that_is_printed():
    size = RULE.complexity
    assert f"The rule has {size.terms} terms and keeps {size.states} states per" in " ".join(README.split())


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_readme_is_short():
    assert len(README.split()) < 800


def test_the_test_command_is_what_ci_runs():
    command = "pip install -c constraints.txt nox uv && nox"
    assert command in README
    script = (ROOT / ".ci" / "run").read_text()
    assert "-c constraints.txt nox uv\nnox\n" in script
