"""``fused=True`` of emitted elementwise optimizers on the CPU: C that takes all tensors in one call."""

import math
import sys

import cloudpickle
import pytest
import torch
import torch.fx.experimental.proxy_tensor
from torch.utils.flop_counter import FlopCounterMode

from sol_export import export_rule
from sol_symbols import ZOO, UpdateRule, lower
from sol_symbols.c_compiler import find_compiler

ELEMENTWISE = {name: rule for name, rule in ZOO.items() if not lower(rule).reduces}
FUNCTIONS = UpdateRule.parse(
    "tanh(m) + 0.1*exp(-abs(g)) + 0.1*log(1 + s)*cos(g) + min(g, 0.5) + max(m, -0.5) + sign(w) + sqrt(v) + sigmoid(g)"
    " + step(g - 0.3) + clip(g, 2) + v**0.3 + 1/(1 + k1*g**2) where T = 20, k1 = 3"
)
LAYOUTS = {
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "channels last in three dimensions": torch.randn(2, 3, 2, 4, 5).to(memory_format=torch.channels_last_3d),
    "no dimensions": torch.randn(()),
    "empty": torch.randn(0, 3),
    "matrix": torch.randn(30, 7),
}


@pytest.fixture
def only_c(monkeypatch):
    """Refuse every other way to compile."""
    if find_compiler() is None:
        pytest.skip("no C compiler")

    def refuse(*_, **__):
        raise AssertionError("torch.compile was called")

    monkeypatch.setattr(torch, "compile", refuse)


def trained(kind, starts, dtype=torch.float32, steps=4, grads=None, **flags):
    """The parameters after some steps."""
    params = [torch.nn.Parameter(p.to(dtype, copy=True)) for p in starts]
    optimizer = kind(params, lr=0.01, **flags)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        for p in params:
            g = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(dtype)
            p.grad = torch.empty_like(p).copy_(g) if grads is None else grads(g, step)
        optimizer.step()
    return [p.detach() for p in params]


@pytest.mark.usefixtures("only_c")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", [*ELEMENTWISE, "functions"])
def test_it_is_the_formula(load, name, dtype):
    rule = FUNCTIONS if name == "functions" else ELEMENTWISE[name]
    kind, unit = load(rule), torch.finfo(dtype).eps
    flags = {"horizon": 30} if rule.needs_horizon else {}
    flags |= {"weight_decay": 0.1} if "wd" not in rule.values else {}
    for more in ({}, {"maximize": True}):
        ours = trained(kind, LAYOUTS.values(), dtype, fused=True, **flags, **more)
        theirs = trained(kind, LAYOUTS.values(), dtype, **flags, **more)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=50 * unit, atol=50 * unit)


@pytest.mark.usefixtures("only_c")
@pytest.mark.parametrize("name", ["adam", "lion", "nadamw", "functions"])
def test_zeros_infinities_and_nan_are_what_pytorch_makes_of_them(load, name):
    kind = load(FUNCTIONS if name == "functions" else ZOO[name])
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, 1e38, -1e-8])
    both = [
        trained(kind, [torch.ones(8), torch.zeros(8)], grads=lambda *_: special.clone(), **flags)
        for flags in ({"fused": True}, {})
    ]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.usefixtures("only_c")
def test_the_number_of_threads_changes_nothing(load):
    starts = [torch.randn(700_001), torch.randn(3), torch.randn(0), torch.randn(40, 10_000)]
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(trained(load(ZOO["adam"]), starts, fused=True))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_what_it_cannot_take_goes_the_other_way(load):
    class Named(torch.nn.Parameter):
        """A parameter of another class."""

    def train(**flags):
        generator = torch.Generator().manual_seed(0)
        whole = torch.randn(8, 8, generator=generator)
        params = [
            torch.nn.Parameter(torch.randn(5, 6, generator=generator).t()),
            torch.nn.Parameter(whole[:, ::2]),
            Named(torch.randn(4, generator=generator)),
            torch.nn.Parameter(torch.randn(4, generator=generator)),
            torch.nn.Parameter(torch.randn(4, generator=generator).bfloat16()),
        ]
        optimizer = load(ZOO["adam"])(params, lr=0.01, **flags)
        for _ in range(3):
            for i, p in enumerate(params):
                p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
                p.grad = torch.ones(1).expand(4) if i == 3 else p.grad
            optimizer.step()
        return [*params, whole]

    for a, b in zip(train(fused=True), train(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("wrong", ["state", "gradient"])
def test_a_tensor_of_another_shape_is_an_error_and_not_read(load, wrong, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    p = torch.nn.Parameter(torch.ones(4))
    optimizer = load(ZOO["adam"], fresh=True)([p], lr=0.1, fused=True)
    p.grad = torch.ones(4)
    optimizer.step()
    p.data = torch.ones(400_000)
    if wrong == "state":
        p.grad = torch.ones(400_000)
    with pytest.warns(UserWarning, match="without a compiled kernel"), pytest.raises(RuntimeError, match="size"):
        optimizer.step()


def test_what_must_see_every_operation_does(load, monkeypatch):
    """Gradients that are negated lazily, transforms of functions, and modes."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    kind = load(ZOO["sgd"], fresh=True)

    def moved(g):
        p = 0 * g + 1
        p.grad = g
        kind([p], lr=0.5, fused=True).step()
        return p.detach()

    assert moved(torch._neg_view(torch.ones(3))).tolist() == [1.5] * 3
    assert torch.func.vmap(moved)(torch.ones(2, 3)).tolist() == [[0.5] * 3] * 2
    with FlopCounterMode(display=False):
        assert moved(torch.ones(3)).tolist() == [0.5] * 3
    traced = torch.fx.experimental.proxy_tensor.make_fx(moved)(torch.ones(3))
    assert traced(torch.zeros(3)).tolist() == [1.0] * 3


@pytest.mark.usefixtures("only_c")
def test_a_class_of_a_script_can_be_sent_to_a_worker_after_a_step(load):
    kind = load(ZOO["adam"], fresh=True)
    expected = trained(kind, [torch.ones(3)], fused=True)
    module = sys.modules[kind.__module__]
    cloudpickle.register_pickle_by_value(module)
    try:
        other = cloudpickle.loads(cloudpickle.dumps(kind))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert torch.equal(*trained(other, [torch.ones(3)], fused=True), *expected)


def test_autograd_sees_that_the_parameters_changed(load):
    p = torch.nn.Parameter(torch.ones(3))
    loss = (p**2).sum()
    loss.backward(retain_graph=True)
    load(ZOO["adam"])([p], fused=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("command", ["no-such-compiler", "false", "'"])
def test_without_a_c_compiler_pytorch_compiles(load, monkeypatch, command):
    monkeypatch.setenv("CC", command)
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.append(function) or function)
    kind = load(ZOO["adam"], fresh=True)
    starts = [torch.randn(3, 4), torch.randn(7)]
    torch.testing.assert_close(trained(kind, starts, fused=True), trained(kind, starts))
    assert len(compiled) == 1


def test_only_formulas_that_c_can_say_have_it():
    assert "_SOURCE" in export_rule(ZOO["adam"], "torch")
    for rule in (ZOO["lamb"], ZOO["sol-general"], UpdateRule.parse("g*min(1, loss)")):
        assert "_SOURCE" not in export_rule(rule, "torch")
