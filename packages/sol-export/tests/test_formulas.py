"""LaTeX, Markdown and MathML: every symbol defined, nothing too wide, and what an engine says of it."""

import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest

from sol_export import export_rule
from sol_export.equations import equations, meanings
from sol_export.latex import align
from sol_symbols import STANDARD, ZOO, Feature, SolError, UpdateRule, latex

LONG = UpdateRule.parse(
    "0.391*ad + ag + 0.52*b*g + 0.362*cd*sign(g) + 0.56*g**3 + 0.001*g/(v + 1) + 0.5*exp(m*m_prev*sign(m_prev) + "
    "tanh(rs)) + 0.1*tanh(0.333*ag*m_hat*rs + 0.2222*cd*g*m_hat*rs + 0.11111*g*ld*rs*sign(m_hat) + "
    "0.222*g*rs*sign(m_hat)) + c_1*g where T = 50, c_1 = 2.5, lr = 1e-05"
)
RULES = [*ZOO.values(), LONG]
NAMES = [*ZOO, "long"]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_every_live_name_has_its_equation_before_it_is_used(rule):
    lefts = [equation.left for equation in equations(rule, 4)]
    averaged = [] if rule.evaluation is None else [r"\theta^{\mathrm{eval}}_t"]
    named = [*map(latex, rule.live), *averaged, r"\phi_t", r"\theta_t"]
    assert [left for left in lefts if not left.startswith("u_")] == named
    used = {meaning.symbol for meaning in meanings(rule, 4)}
    assert used >= {latex(name) for name in (*rule.live, *rule.values)} | {r"\alpha"}


def test_long_rules_are_broken_between_terms_and_inside_of_functions():
    rows = {equation.left: equation.right for equation in equations(LONG, 4)}
    assert len(rows[r"\phi_t"]) > 1
    assert len(rows["u_{1}"]) > 1
    assert r"\tanh{\left(u_{1} \right)}" in " ".join(rows[r"\phi_t"])
    assert all(line.startswith(("+ ", "-")) for right in rows.values() for line in right[1:])


@pytest.mark.parametrize(("digits", "text"), [(2, "0.39"), (4, "0.391"), (None, "0.391")])
def test_constants_have_the_precision_that_is_asked_for(digits, text):
    assert f"&= {text} a_t" in align(LONG, digits)
    if digits:
        assert f" {text} a_t" in export_rule(LONG, "latex", digits=digits)


def test_source_code_is_not_rounded():
    with pytest.raises(SolError, match="torch source keeps constants exact"):
        export_rule(LONG, "torch", digits=3)


@pytest.mark.parametrize("digits", [0, -3])
def test_constants_need_a_digit(digits):
    with pytest.raises(SolError, match=f"digits must be from 1 to 17, all that a float64 has, got {digits}"):
        export_rule(LONG, "latex", digits=digits)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_mathml_is_well_formed(rule):
    page = export_rule(rule, "mathml").removeprefix("<!DOCTYPE html>")
    for name in ("charset", "viewport"):
        page = re.sub(rf"<meta [^>]*{name}[^>]*>", "", page)
    tree = ElementTree.fromstring(page)
    formulas = [node for node in tree.iter("div") if node.get("class") == "formula"]
    assert len(formulas) == len(equations(rule, 4))
    assert len(formulas[1]) == 1 + len(equations(rule, 4)[-2].terms)  # the left-hand side, and one formula a term
    maths = [node for node in tree.iter() if node.tag.endswith("}math")]
    assert "\\" not in "".join(text for node in maths for text in node.itertext())
    rows = [[*row] for row in tree.iter("tr")][1:]
    assert {row[1][0].text for row in rows if len(row) > 1 and len(row[1])} >= {"lr", *rule.live, *rule.values}


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_markdown_has_the_formula_and_a_table_of_symbols(rule):
    text = export_rule(rule, "markdown", "Mine")
    assert text.startswith(
        re.sub(r"operatorname{(\w+)}", r"mathop{\\mathrm{\1}}", f"# Mine\n\n$\\phi_t = {rule.latex(4)}$\n")
    )
    assert "operatorname" not in text  # GitHub refuses it
    rows = [line for line in text.splitlines() if line.startswith("| $")]
    assert len(rows) == len(meanings(rule, 4))
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)


def test_words_in_descriptions_are_names_formulas_or_words():
    description = "50% of $x_1 & {more} #1 ~^ \\ <b> m's sign, at $ m or v"
    rule = UpdateRule.parse("f_x + m + v", STANDARD.extended(Feature("f_x", "g*2", description)))
    (item,) = re.findall(r"^.*50.*$", export_rule(rule, "latex"), re.MULTILINE)
    assert r": 50\% of x\_1 \& \{more\} \#1 \textasciitilde{}\textasciicircum{} \textbackslash{} $<$b$>$" in item
    assert r"$m_t$'s sign, at  $m_t$ or $v_t$" in item
    assert "50% of x_1 &amp; {more} #1 ~^ \\ &lt;b&gt; <math" in export_rule(rule, "mathml")


def test_latex_is_balanced(rule):
    source = export_rule(rule, "latex")
    assert source.count("{") == source.count("}")
    assert sorted(re.findall(r"\\begin{(.+?)}", source)) == sorted(re.findall(r"\\end{(.+?)}", source))
    assert source.count(r"\left") == source.count(r"\right")
    rows = source.partition(r"\begin{align*}")[2].partition(r"\end{align*}")[0]
    assert rows.count("&=") == len(rule.live) + 2 + (rule.evaluation is not None)


def many_terms():
    """A rule of 100 terms."""
    features = ["ad", "sign(g)", "m_hat", "rs", "g", "tanh(m)", "sign(m)", "g**3", "ag", "b*g"]
    factors = ["ld", "cd", "1/(1 + v)", "exp(-s)", "1", "ld**2", "cd*ld", "sqrt(v)", "m_prev**2", "log(1 + s)"]
    terms = [f"{0.37 * (i + 1):.3f}*{a}*{b}" for i, a in enumerate(features) for b in factors]
    return UpdateRule.parse(f"{' + '.join(terms)} where T = 10")


DOCUMENTS = {name: ZOO[name] for name in ("adam", "powersign-cd", "adabelief", "sol-mnistnet")}
DOCUMENTS |= {"long": LONG, "100 terms": many_terms(), "constant": UpdateRule.parse("1")}


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no TeX engine is installed")
@pytest.mark.parametrize("rule", DOCUMENTS.values(), ids=DOCUMENTS)
def test_the_document_compiles_and_fits_the_page(rule, tmp_path):
    (tmp_path / "rule.tex").write_text(export_rule(rule, "latex"))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "rule.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "rule.pdf").read_bytes().startswith(b"%PDF")
    assert "Overfull" not in done.stdout
