"""Optimizers loaded from rules, and emitted files verified against their headers."""

import argparse
import copy
import inspect
import pickle
import traceback

import pytest

from sol_export import export_rule, load_optimizer
from sol_export.commands import Verify
from sol_export.loading import read_emitted
from sol_symbols import ZOO, SolError, UpdateRule, resolve_rule
from sol_symbols.plugins import EXPORTERS, find_plugins

torch = pytest.importorskip("torch")


def trained(kind, **settings):
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = kind([p], **settings)
    for _ in range(5):
        p.grad = p.detach() ** 3
        optimizer.step()
    return p.detach(), optimizer


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam"])
def test_a_name_is_an_optimizer(name):
    reference = {"adam": (torch.optim.Adam, {}), "adamw": (torch.optim.AdamW, {})}
    reference["nadam"] = (torch.optim.NAdam, {"momentum_decay": float("inf")})
    kind, settings = reference[name]
    torch.testing.assert_close(trained(load_optimizer(name), lr=0.1)[0], trained(kind, lr=0.1, **settings)[0])


def test_each_kind_of_parameter_keeps_the_states_of_its_rule_only():
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 4)
    kind = load_optimizer("matrices: muon where lr = 0.02; vectors: adamw where lr = 0.003")
    optimizer = kind(model.parameters())
    for _ in range(3):
        model(torch.randn(8, 5)).square().mean().backward()
        optimizer.step()
    stored = [{name: optimizer.state[p][name].numel() for name in ("b", "m", "v")} for p in model.parameters()]
    assert stored == [{"b": 20, "m": 0, "v": 0}, {"b": 0, "m": 4, "v": 4}]
    resumed = kind(model.parameters())
    resumed.load_state_dict(optimizer.state_dict())
    assert [{name: resumed.state[p][name].numel() for name in ("b", "m", "v")} for p in model.parameters()] == stored
    source = export_rule(resolve_rule("matrices: muon; vectors: adamw"), "torch")
    assert source.count("    if p.dim() > 1:\n") == 2  # one for the states, one for the formula


def test_formulas_files_folders_and_rules(tmp_path):
    rule = UpdateRule.parse("0.5*ad + 0.1*sign(g)", name="mine")
    rule.save(tmp_path / "rule.json")
    places = (tmp_path, tmp_path / "rule.json")
    kinds = [load_optimizer(x) for x in (rule, *places, *map(str, places))]
    assert len({*kinds}) == 1
    assert kinds[0].__name__ == "Mine"
    torch.testing.assert_close(trained(load_optimizer(str(rule)))[0], trained(kinds[0])[0])
    with pytest.raises(TypeError, match="horizon"):
        trained(load_optimizer("ld*sign(g)"))
    trained(load_optimizer("ld*sign(g)"), horizon=10)
    with pytest.raises(SolError, match="unknown name 'nothing'"):
        load_optimizer("nothing")
    with pytest.raises(SolError, match="no rule 'sol-genral'; did you mean 'sol-general'"):
        load_optimizer("sol-genral")
    with pytest.raises(SolError, match=rf"{tmp_path}/nope; {tmp_path} holds 'rule\.json'$"):
        load_optimizer(tmp_path / "nope")
    for nonsense in (None, 3):
        with pytest.raises(SolError, match=f"must be text, a path or an UpdateRule, got {type(nonsense).__name__}"):
            load_optimizer(nonsense)


def test_it_is_the_emitted_file():
    """In inspect, tracebacks, pickles and copies."""
    kind = load_optimizer("lion")
    assert inspect.getsource(inspect.getmodule(kind)) == export_rule(ZOO["lion"], "torch")
    assert inspect.getsource(kind).startswith("class Lion(torch.optim.Optimizer):")
    _, optimizer = trained(kind)
    for other in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        assert type(other) is kind
        assert str(other) == str(optimizer)
    optimizer.param_groups[0]["betas"] = None
    with pytest.raises(TypeError) as caught:
        optimizer.step()
    assert "beta1, beta2 = betas" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        "max(matrices(g), ld)",
        "min(vectors(g), t/T)",
        "clip(matrices(g), ld)",
        "max(vectors(g), beta1)",
        "g*trust(beta1, g)",
        "sign(trust(li, t/T))",
        "li + trust(m_hat - ad, beta1)",
        "g + trust(matrices(g), beta1)",
        "matrices: max(g, ld); vectors: g*trust(ld, g)",
    ],
)
def test_functions_take_arrays_and_numbers(text):
    load_optimizer(text)  # verifies what it loads


def verify(*words):
    parser = argparse.ArgumentParser()
    Verify().add_arguments(parser)
    return Verify().run(parser.parse_args([str(word) for word in words]))


LONG = UpdateRule.parse("-0.5*ad + " + " + ".join(f"{i}.5*sign(g)*m**{i}" for i in range(1, 12)) + " where lr = 0.1")


@pytest.mark.parametrize("to", ["torch", "optax"])
@pytest.mark.parametrize("rule", [ZOO["adam"], ZOO["lamb"], LONG], ids=["adam", "lamb", "long"])
def test_a_file_is_verified_against_its_header(rule, to, tmp_path, capsys):
    pytest.importorskip(to)
    path = tmp_path / "optimizer.py"
    path.write_text(export_rule(rule, to, "MyOwn"))
    assert read_emitted(path).name == "MyOwn"
    assert verify(path) == 0
    assert "verified against the rule; largest relative difference" in capsys.readouterr().out


@pytest.mark.parametrize("to", [*find_plugins(EXPORTERS)])
@pytest.mark.parametrize("rule", [ZOO["adam"], LONG], ids=["adam", "long"])
def test_an_emitted_file_is_no_rule(to, rule, tmp_path):
    path = tmp_path / "optimizer.py"
    path.write_text(export_rule(rule, to))
    for given in (path, str(path)):
        with pytest.raises(SolError, match=rf"^{path} is an emitted file, not a rule; pass the run folder, or the fo"):
            load_optimizer(given)


def test_a_file_that_was_changed_is_found(tmp_path):
    path = tmp_path / "optimizer.py"
    path.write_text(export_rule(ZOO["adam"], "torch").replace("v.mul_(beta2)", "v.mul_(beta1)"))
    with pytest.raises(SolError, match="does not match the rule ad"):
        verify(path)


def test_a_file_is_verified_against_another_rule(tmp_path, capsys):
    path = tmp_path / "optimizer.py"
    path.write_text(export_rule(ZOO["adam"], "torch"))
    assert verify(path, "m_hat/(sqrt(v_hat) + eps)") == 0
    with pytest.raises(SolError, match=r"does not match the rule sign\(li\)"):
        verify(path, "lion")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"import torch", "is not a file that sol export wrote"),
        (b'"""\nsol export --to torch\n"""', "is not a file that sol export wrote"),
        (b"sol export --to torch --name X 'ad", "is not a file that sol export wrote"),
        (b"\xff\xfe", "cannot read .*: not a text file"),
        (b"sol export --to torch --name X RULE", "does not define its rule; give the rule's file as RULE"),
        (b'sol export --to cobol --name X "ad"', "no exporter 'cobol'"),
    ],
)
def test_what_is_not_an_emitted_file_is_said(content, message, tmp_path):
    (tmp_path / "file.py").write_bytes(content)
    with pytest.raises(SolError, match=message):
        verify(tmp_path / "file.py")
    with pytest.raises(SolError, match=r"cannot read .*: No such file"):
        verify(tmp_path / "none.py")
