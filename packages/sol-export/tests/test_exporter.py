"""Exporters are found by entry point, and each checks names and digits."""

import sys

import pytest

from sol_export import RoundingExporter, export_rule, exporters, load_exporter
from sol_symbols import STANDARD, ZOO, Feature, SolError, UpdateRule


def test_what_cannot_be_emitted_is_said():
    with pytest.raises(SolError, match="no exporter 'cobol'; installed: c, latex, markdown, mathml, optax, torch"):
        export_rule(ZOO["adam"], "cobol")
    for language, name in (
        ("torch", "class"),
        ("torch", "torch"),
        ("torch", "_Mine"),
        ("optax", "Optax"),
        ("optax", "Lambda"),
        ("torch", "range"),
        ("torch", "ValueError"),
        ("optax", "All"),
        ("optax", "range"),
        ("torch", "\N{CYRILLIC CAPITAL LETTER A}dam"),
        ("torch", "\N{FULLWIDTH LATIN CAPITAL LETTER A}dam"),
        ("optax", "Ad\N{LATIN SMALL LETTER DOTLESS I}m"),
    ):
        with pytest.raises(SolError, match=f"(?i)'{name}' is not a valid name in {language} source"):
            export_rule(ZOO["adam"], language, name)
    with pytest.raises(SolError, match=r"torch source reserves the name\(s\) group: .*; rename them in the rule"):
        export_rule(UpdateRule.parse("group*g where group = 2.5"), "torch")
    with pytest.raises(SolError, match=r"name\(s\) state"):
        export_rule(UpdateRule.parse("state", STANDARD.extended(Feature("state", "2*g"))), "torch")


@pytest.mark.parametrize(
    "name",
    [
        *("initial_lr", "max_lr", "min_lr", "base_lr", "swa_lr", "max_momentum", "base_momentum", "param_names"),
        *("betas", "clock", "rule", "foreach", "float", "super", "zip", "isinstance"),
    ],
)
def test_constants_that_others_write_to_are_refused(name):
    """Schedulers overwrite entries of parameter groups, where constants are kept."""
    with pytest.raises(SolError, match=rf"reserves the name\(s\) {name}: .*schedulers use them; rename"):
        export_rule(UpdateRule.parse(f"{name}*g where {name} = 2.5"), "torch")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("powersign-ld", "PowersignLd"),
        ("mnistnet-optimizer", "MnistnetOptimizer"),
        ("", "Learned"),
        ("3d", "Learned"),
        ("none", "Learned"),
        ("range", "Learned"),
        ("exception", "Learned"),
    ],
)
def test_class_names_are_made_from_rule_names(name, expected):
    rule = UpdateRule.parse("g", name=name)
    assert rule.class_name == expected
    assert f"class {expected}(torch.optim.Optimizer)" in export_rule(rule, "torch")


@pytest.mark.parametrize("to", exporters())
def test_names_of_ones_own_vocabulary_are_exported_with_their_definitions(to):
    vocabulary = STANDARD.extended(Feature("half", "m_hat/2", "half of the momentum"))
    source = export_rule(UpdateRule.parse("half", vocabulary), to)
    assert "half" in source
    assert "RULE" in source  # the command that makes it again needs the rule's file: its text does not say it all


def test_a_third_party_declares_that_it_rounds(plugin):
    """An attribute ``digits`` is not enough: the protocol needs ``with_digits``."""
    module = plugin / "sol_numpy.py"
    module.write_text(module.read_text() + "    digits = 17\n")
    with pytest.raises(SolError, match="numpy source keeps constants exact"):
        export_rule(ZOO["adam"], "numpy", digits=3)
    sys.modules.pop("sol_numpy")
    module.write_text(
        module.read_text() + "\n    def with_digits(self, digits):\n        self.digits = digits\n        return self\n"
    )
    assert isinstance(load_exporter("numpy"), RoundingExporter)
    assert export_rule(ZOO["adam"], "numpy", digits=3) == export_rule(ZOO["adam"], "numpy")
