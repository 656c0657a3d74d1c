"""The emitted PyTorch file under every flag, dtype and kind of tensor; and what PyTorch asks of its own Adam."""

import copy
import math
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.testing._internal import common_optimizers
from torch.utils.flop_counter import FlopCounterMode

from sol_export import export_rule
from sol_symbols import ZOO, UpdateRule, evaluator

# PyTorch's compiler imports what PyTorch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")

OPTIM = torch.optim
RULES = {
    "adam": ZOO["adam"],
    "lion": ZOO["lion"],
    "sgd": ZOO["sgd"],
    "learned": UpdateRule.parse("0.4*ad + 0.1*sign(g)*cd + 0.02*tanh(m_prev)*ld + 0.01*w where lr = 0.01, T = 30"),
    "edges": UpdateRule.parse("0.1*min(g, 0.5) + 0.1*min(m, v) + 0.1*log(1 + s)*sign(ld - 0.5)/(2 + cd) where T = 20"),
}
# Larger than what is joined and not a multiple of anything, without gaps and with gaps, one element, none.
SHAPES = [(7, 3), (5,), (), (150, 1000), (1, 4, 1, 5), (0, 3), (33, 500)]


def parameters(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES]
    found.append(torch.randn((40, 30), generator=generator, dtype=torch.float64).to(dtype).t())
    return [torch.nn.Parameter(x) for x in found]


def train(optimizer, params, steps=5, start=0):
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        grads = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype) for p in params]
        if step < start:
            continue
        for i, (p, g) in enumerate(zip(params, grads)):
            p.grad = None if i == 1 and step == 2 else g.clone()  # one that falls behind by a step
        optimizer.step()
        assert all(p.grad is None or torch.equal(p.grad, g) for p, g in zip(params, grads)), "gradient changed"
    return [p.detach().clone() for p in params]


def assert_same(ours, theirs, rtol=2e-5, atol=2e-6):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


FLAGS = {
    "one by one": {"foreach": False},
    "pieces": {"foreach": True},
    "capturable": {"capturable": True},
    "capturable, one by one": {"capturable": True, "foreach": False},
    "differentiable": {"differentiable": True},
    "tensor lr": {"lr": torch.tensor(0.01)},
}


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_flag_gives_the_same(load, rule, flags):
    kind = load(rule)
    settings = {"lr": 0.01, "maximize": True} | ({"weight_decay": 0.1} if rule is not RULES["learned"] else {})
    ours, theirs = parameters(), parameters()
    if flags.get("differentiable"):  # what is recorded is no leaf
        ours = [p.detach() for p in ours]
    plain = train(kind(theirs, **settings), theirs)
    assert_same(train(kind(ours, **(settings | flags)), ours), plain)


@pytest.mark.parametrize("compiler", ["cc", "false"])  # the second fails, so that PyTorch compiles everything
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_one_kernel_is_compiled_and_never_again(load, rule, compiler, monkeypatch):
    monkeypatch.setenv("CC", compiler)
    torch._dynamo.reset()
    kind = load(rule, fresh=True)
    ours, theirs = parameters(), parameters()
    optimizer = kind([{"params": ours[:3]}, {"params": ours[3:], "lr": 0.02}], lr=0.01, fused=True)
    schedule = OPTIM.lr_scheduler.ExponentialLR(optimizer, 0.9)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(8):
            train(optimizer, ours, step + 1, start=step)
            schedule.step()
    plain = kind([{"params": theirs[:3]}, {"params": theirs[3:], "lr": 0.02}], lr=0.01)
    schedule = OPTIM.lr_scheduler.ExponentialLR(plain, 0.9)
    for step in range(8):
        train(plain, theirs, step + 1, start=step)
        schedule.step()
    assert_same(ours, theirs)


OF_TENSORS = {
    "sol-general": ZOO["sol-general"],
    "lamb": ZOO["lamb"],
    "polyak": UpdateRule.parse("g*min(1, loss*inv0(dot(g, g)))"),
    "polyak-of-all": UpdateRule.parse("m*min(1, loss*inv0(all_dot(g, g)))"),
    "spread": UpdateRule.parse("(la + mean(g))*exp(0.4*log_spread)"),
    "float64": UpdateRule.parse("g*tensor_rate"),
}


@pytest.mark.parametrize("name", OF_TENSORS)
def test_a_rule_of_tensors_is_compiled_for_any_shape(load, name):
    torch._dynamo.reset()
    rule, dtype = OF_TENSORS[name], getattr(torch, name, torch.float32)
    kind = load(rule, fresh=True)
    shapes = [*SHAPES, (16, 3, 3, 3), (8, 16, 2), (30, 7), (9, 9), (64,), (1, 7), (7, 1), (5, 0, 2)]
    horizon = {"horizon": 10} if rule.needs_horizon else {}
    generator, results = torch.Generator().manual_seed(0), []
    starts = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    starts.append(starts[7].clone(memory_format=torch.channels_last))
    starts.append(torch.randn(6, 5, generator=generator, dtype=dtype).t())
    grads = [[torch.randn(p.shape, generator=generator, dtype=dtype) for p in starts] for _ in range(6)]
    for flags in ({"fused": True}, {}):
        params = [torch.nn.Parameter(p.clone()) for p in starts]
        optimizer = kind(params, lr=0.01, maximize=True, **horizon, **flags)
        for step, row in enumerate(grads):
            for p, g in zip(params, row):
                p.grad = g.clone()
            with torch._dynamo.config.patch(error_on_recompile=step > 0):
                optimizer.step(lambda step=step: 0.5 / (1 + step))
        results.append(params)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert_same(*results)


@pytest.mark.parametrize("name", ["adam", "lamb"])
def test_a_step_under_a_dispatch_mode_is_taken_once(load, name):
    """PyTorch does not compile there, and has run the function by the time it says so."""
    torch._dynamo.reset()
    kind = load(ZOO[name], fresh=True)
    ours, theirs = parameters(), parameters()
    with FlopCounterMode(display=False):
        train(kind(ours, lr=0.01, fused=True), ours)
    assert_same(ours, train(kind(theirs, lr=0.01), theirs))


BRANCHING = UpdateRule.parse("(matrices(orth(m)) + vectors(ad))*all_rms(g)*all_dot(orth(g), w)")


@pytest.mark.parametrize("rule", [ZOO["lion"], ZOO["lamb"], BRANCHING], ids=["lion", "lamb", "branching"])
def test_without_a_compiler_fused_warns_once_and_goes_on(load, monkeypatch, rule):
    kind = load(rule, fresh=True)

    def no_compiler(*_, **__):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", no_compiler)
    ours, theirs = parameters(), parameters()
    optimizer = kind(ours, lr=0.01, fused=True)
    with pytest.warns(UserWarning, match="without a compiled kernel: no C\\+\\+ compiler") as caught:
        train(optimizer, ours)
    assert len(caught) == 1
    assert_same(ours, train(kind(theirs, lr=0.01), theirs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["adam", "learned"])
def test_low_precision_is_float32_rounded_once_a_step(load, name, dtype):
    rule = RULES[name]
    ours = parameters(dtype)
    theirs = [p.detach().clone() for p in ours]
    phi = evaluator(rule, torch)
    states = [phi.init(p.float()) for p in theirs]
    optimizer = load(rule)(ours, lr=0.01, foreach=False)
    generator = torch.Generator().manual_seed(1)
    for t in range(1, 6):
        for i, (p, q) in enumerate(zip(ours, theirs)):
            p.grad = (1e-4 * torch.randn(p.shape, generator=generator)).to(dtype)
            update, states[i] = phi(p.grad.float(), states[i], q.float(), t)
            theirs[i] = (q.float() - 0.01 * update).to(dtype)
        optimizer.step()
    unit = torch.finfo(dtype).eps
    for p, q in zip(ours, theirs):
        assert p.dtype == dtype
        # A rounding may fall the other way, and the parameter may have been larger by a step, 0.01, when it did.
        torch.testing.assert_close(p.detach(), q, rtol=unit, atol=unit * 0.01)
    assert {x.dtype for s in optimizer.state.values() for x in s.values() if torch.is_tensor(x)} == {torch.float32}


@pytest.mark.parametrize("flags", [{}, {"capturable": True}, {"fused": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_resumed_is_never_interrupted(load, dtype, flags, tmp_path):
    kind = load(RULES["learned"])
    straight, stopped = parameters(dtype), parameters(dtype)
    train(kind(straight, **flags), straight, 8)
    first = kind(stopped, **flags)
    train(first, stopped, 4)
    torch.save([first.state_dict(), [p.detach() for p in stopped]], tmp_path / "checkpoint")
    state, values = torch.load(tmp_path / "checkpoint", weights_only=True)
    resumed = [torch.nn.Parameter(p) for p in values]
    second = kind(resumed, lr=0.5, c1=3.0)
    second.load_state_dict(state)
    train(second, resumed, 8, start=4)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed))
    unlike = {"params", "clock"}  # the second has made more steps
    one, other = ({k: x for k, x in o.param_groups[0].items() if k not in unlike} for o in (first, second))
    assert one == other


def test_pickled_and_copied_optimizers_go_on(load):
    params = parameters()
    optimizer = load(RULES["adam"])(params)
    train(optimizer, params, 2)
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        twins = [p for group in twin.param_groups for p in group["params"]]
        train(twin, twins, 4, start=2)
        assert all(state["step"] == 4 - (p is twins[1]) for p, state in twin.state.items())


def test_gradients_flow_through_differentiable_steps(load):
    kind = load(RULES["learned"])

    def final(start, lr):
        p = start.clone()
        optimizer = kind([p], lr=lr, differentiable=True, foreach=False)
        for scale in (1.0, -0.5, 2.0):
            p.grad = scale * start**2
            optimizer.step()
        return p.sum()

    start = torch.tensor([0.3, -0.8, 1.5], dtype=torch.float64, requires_grad=True)
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(final, (start, lr))


def test_a_rule_is_compiled_with_its_step(load):
    params, twins = parameters()[:3], parameters()[:3]
    optimizer, plain = (load(RULES["adam"])(p, capturable=True, foreach=False) for p in (params, twins))
    compiled = torch.compile(optimizer.step, backend="eager")
    for p, q in zip(params, twins):
        p.grad = q.grad = torch.ones_like(p)
    for _ in range(3):
        compiled()
        plain.step()
    assert_same(params, twins)


def test_accumulated_and_scaled_gradients(load):
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    twin = copy.deepcopy(model)
    ours, theirs = load(RULES["adam"])(model.parameters(), lr=0.01), OPTIM.Adam(twin.parameters(), lr=0.01)
    scaler, other = (torch.amp.GradScaler("cpu", init_scale=2.0**14) for _ in range(2))
    for step in range(6):
        for net, optimizer, scale in ((model, ours, scaler), (twin, theirs, other)):
            for part in range(2):
                inputs = torch.full((4, 6), 0.1 * (part + step))
                loss = net(inputs).square().mean() * (math.inf if step == 3 else 1.0)
                scale.scale(loss).backward()
            scale.step(optimizer)  # skips the step whose gradients overflow
            scale.update()
            optimizer.zero_grad()
    assert scaler.get_scale() == other.get_scale() == 2.0**13
    assert_same(model.parameters(), twin.parameters())


# -- what PyTorch asks of Adam ---------------------------------------------------------------------------------

(ADAMW,) = [info for info in common_optimizers.optim_db if info.optim_cls is OPTIM.AdamW]
INPUTS = [i for i in ADAMW.optim_inputs_func(device="cpu", dtype=torch.float64) if not i.kwargs.get("amsgrad")]
SCHEDULES = [
    schedules
    for info in common_optimizers.optim_db
    if info.optim_cls in (OPTIM.Adam, OPTIM.AdamW)
    for schedules in info.scheduler_inputs
]


@pytest.mark.parametrize("case", INPUTS, ids=lambda case: case.desc)
@pytest.mark.parametrize("flags", [{}, {"foreach": False}, {"fused": True}], ids=str)
def test_pytorchs_inputs_for_adamw(load, case, flags):
    settings = {"weight_decay": 0.01} | case.kwargs
    ours, theirs = parameters(torch.float64), parameters(torch.float64)
    train(load(RULES["adam"])(ours, **settings, **flags), ours, 20)
    train(OPTIM.AdamW(theirs, **settings), theirs, 20)
    assert_same(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("schedules", SCHEDULES)
def test_pytorchs_schedules_for_adam(load, schedules):
    final = []
    for kind in (load(RULES["adam"]), OPTIM.Adam):
        p = torch.nn.Parameter(torch.tensor([1.5, -2.0], dtype=torch.float64))
        optimizer = kind([p], lr=0.1)
        running = [make(optimizer) for make in schedules]
        for _ in range(20):
            optimizer.zero_grad()
            loss = (p**4).sum()
            loss.backward()
            optimizer.step()
            for schedule in running:
                plateau = isinstance(schedule, OPTIM.lr_scheduler.ReduceLROnPlateau)
                schedule.step(loss.detach()) if plateau else schedule.step()
        final.append(p.detach())
    torch.testing.assert_close(*final, rtol=1e-12, atol=1e-13)


def test_momentum_is_cycled_as_adams_is(load):
    final = []
    for kind in (load(RULES["adam"]), OPTIM.Adam):
        p = torch.nn.Parameter(torch.tensor([1.5, -2.0], dtype=torch.float64))
        optimizer = kind([p], lr=0.1)
        schedule = OPTIM.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)
        for _ in range(20):
            p.grad = p.detach() ** 3
            optimizer.step()
            schedule.step()
        final.append(p.detach())
    torch.testing.assert_close(*final, rtol=1e-12, atol=1e-13)


# Ours takes numbers and tensors in any mixture, so these are no errors.
MIXTURES = ("Tensor lr", "lr as Tensor", "betas must be either", "betas\\[0\\] as a Tensor")
ERRORS = [
    e
    for e in ADAMW.optim_error_inputs_func(device="cpu", dtype=torch.float32)
    if not e.optimizer_error_input.desc.startswith(MIXTURES[1:])
]


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case.optimizer_error_input.desc)
def test_pytorchs_wrong_inputs_for_adamw(load, case):
    given = case.optimizer_error_input
    params = given.params if given.params is not None else parameters()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(case.error_type):
            load(RULES["adam"])(params, **given.kwargs)


# -- distributed tensors ---------------------------------------------------------------------------------------


SHARDED = {
    "learned": (RULES["learned"], "0"),
    "sol-general": (ZOO["sol-general"].with_horizon(10), "1"),  # sums and singular values of whole tensors
    "of all tensors": (
        UpdateRule.parse("(la*inv0(rms_v) + 0.1*g*inv0(norm(g)) + w*inv0(all_rms(w)))*exp(log_spread)"),
        "2",
    ),
}
"""Rules, and the number of reductions over the processes in a step."""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch is built without distributed")
@pytest.mark.parametrize(("name", "flags"), [(name, flags) for name in SHARDED for flags in ([], ["fused"])])
def test_fully_sharded_parameters(name, flags, tmp_path):
    rule, reductions = SHARDED[name]
    (tmp_path / "emitted.py").write_text(export_rule(rule, "torch", "Emitted"))
    command = [sys.executable, Path(__file__).with_name("fully_sharded.py")]
    environment = {"GLOO_SOCKET_IFNAME": "lo"} | os.environ
    ranks = [subprocess.Popen([*command, rank, "2", tmp_path, reductions, *flags], env=environment) for rank in "01"]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
