"""What the emitted PyTorch optimizer keeps between steps: checkpoints, hooks, the clock of schedules, schedulers."""

import copy
import pickle
import warnings

import pytest
import torch

from sol_symbols import ZOO, UpdateRule, evaluator


def parameter(values=(1.0, -2.0, 0.5), dtype=torch.float64):
    return torch.nn.Parameter(torch.tensor(values, dtype=dtype))


def stepped(optimizer, *params, gradient=(0.3, -1.0, 2.0)):
    for p in params:
        p.grad = torch.tensor(gradient, dtype=p.dtype)
    optimizer.step()
    return optimizer


def test_groups_can_hold_entries_of_others_and_must_be_dicts(load):
    p, q = parameter(), parameter()
    optimizer = load(ZOO["adam"])([{"params": [p], "step": 7, "t": 1, "numbers": 2}])
    stepped(optimizer, p)
    torch.testing.assert_close(p, stepped(load(ZOO["adam"])([q]), q).param_groups[0]["params"][0])
    with pytest.raises(TypeError, match=r"^param_group must be a dict, got list$"):
        optimizer.add_param_group([q])


@pytest.mark.parametrize("name", ["muon", "sol-general"])
def test_autocast_around_the_step_changes_nothing(load, name):
    steps = []
    for on in (False, True):
        p = torch.nn.Parameter(torch.randn(16, 8, generator=torch.Generator().manual_seed(0)))
        rule = ZOO[name].with_horizon(9)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            stepped(load(rule)([p]), p, gradient=torch.arange(128.0).view(16, 8).sin().tolist())
        steps.append(p.detach())
    assert torch.equal(*steps)


@pytest.mark.parametrize(
    "wrong", [torch.tensor([0.0, 1.0, 2.0]), {"loss": 1.0}, torch.zeros(0)], ids=["vector", "dict", "empty"]
)
def test_a_loss_that_is_not_one_number_is_refused(load, wrong):
    p, q = parameter(), parameter()
    optimizer = load(UpdateRule.parse("g*loss where lr = 1"))([p])
    p.grad = torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="the loss must be one number, got"):
        optimizer.step(lambda: wrong)
    optimizer.step(lambda: torch.tensor([2.0]))
    assert torch.equal(p, q - 2)


@pytest.mark.parametrize(
    "other",
    [
        "0.8*sign(g) + 0.1*m_hat",  # the same names of states and constants
        "0.3*m_hat + 0.1*sign(g)",  # the same form with other constants
        "ad",
        "0.1*g",  # without states
    ],
)
@pytest.mark.parametrize("text", ["0.1*m_hat + 0.3*sign(g)", "0.2*sign(g)"])
def test_states_of_other_rules_are_refused(load, text, other):
    p, q = parameter(), parameter()
    saved = stepped(load(UpdateRule.parse(other))([p]), p).state_dict()
    optimizer = stepped(load(UpdateRule.parse(text))([q]), q)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="the state of another optimizer or formula"):
        optimizer.load_state_dict(saved)
    assert str(optimizer.state_dict()) == str(before), "changed although it was refused"


def test_states_of_torchs_own_optimizers_are_refused(load):
    p, q = parameter(), parameter()
    for kind in (torch.optim.AdamW, torch.optim.SGD):
        with pytest.raises(ValueError, match="its rule is None"):
            load(ZOO["adam"])([q]).load_state_dict(stepped(kind([p]), p).state_dict())


def test_the_rule_is_checked_after_pickling_too(load):
    p = parameter()
    other = load(ZOO["lion"])([p]).state_dict()
    again = pickle.loads(pickle.dumps(stepped(load(ZOO["adam"])([p]), p)))
    again.load_state_dict(again.state_dict())
    with pytest.raises(ValueError, match="another optimizer or formula"):
        again.load_state_dict(other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_hooks_of_others_have_their_way(load, dtype):
    """A hook before loading exchanges two states; one after loading doubles a state. No state is rounded."""
    params = [parameter((1.0, 2.0), dtype), parameter((3.0, 4.0), dtype)]
    optimizer = load(ZOO["adam"])(params)
    for p, gradient in zip(params, ((0.1, 0.2), (0.3, 0.7))):
        p.grad = torch.tensor(gradient, dtype=dtype)
    optimizer.step()
    first, second = (optimizer.state[p]["m"].clone() for p in params)
    saved = copy.deepcopy(optimizer.state_dict())

    def exchange(_, state):
        return {**state, "state": {0: state["state"][1], 1: state["state"][0]}}

    def double(changed):
        changed.state[params[0]]["m"] *= 2

    before, after = (
        len(optimizer._optimizer_load_state_dict_pre_hooks),
        len(optimizer._optimizer_load_state_dict_post_hooks),
    )
    optimizer.register_load_state_dict_pre_hook(exchange)
    optimizer.register_load_state_dict_post_hook(double)
    optimizer.load_state_dict(saved)
    assert torch.equal(optimizer.state[params[0]]["m"], 2 * second)
    assert torch.equal(optimizer.state[params[1]]["m"], first)
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == before + 1
    assert len(optimizer._optimizer_load_state_dict_post_hooks) == after + 1


def frozen_first(optimizer, head, body, steps):
    """The body's changes; it gets gradients in the second half."""
    changes = []
    for t in range(1, steps + 1):
        before = body.detach().clone()
        head.grad = torch.ones_like(head)
        body.grad = torch.ones_like(body) if t > steps // 2 else None
        optimizer.step()
        changes.append((before - body.detach())[0].item())
    return changes


@pytest.mark.parametrize("flags", [{}, {"capturable": True}, {"foreach": False}], ids=str)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ld*sign(g)", lambda t, own: 1 - t / 10),
        ("g*(t/T)**2", lambda t, own: (t / 10) ** 2),
        ("g*t/T + t*g", lambda t, own: t / 10 + own),
        ("ld*m_hat/(1 - beta1**t)", lambda t, own: (1 - t / 10) / (1 - 0.9**own)),  # m_hat is 1
        ("g*(T - t)", lambda t, own: 10 - t),
        ("ld*g*rms(g)", lambda t, own: 1 - t / 10),
    ],
)
def test_one_clock_for_the_schedule(load, text, expected, flags):
    """A parameter that is frozen at first ends its decay with the others; it counts its own steps for bias."""
    head, body = parameter((0.0, 0.0)), parameter((0.0, 0.0))
    optimizer = load(UpdateRule.parse(text))([head, body], horizon=10, lr=1.0, **flags)
    found = frozen_first(optimizer, head, body, 10)
    assert found == pytest.approx([0.0] * 5 + [expected(t, t - 5) for t in range(6, 11)])


def test_a_group_that_is_added_joins_the_schedule(load):
    head, body = parameter(), parameter()
    optimizer = load(UpdateRule.parse("ld*sign(g)"))([head], horizon=10, lr=1.0)
    for _ in range(5):
        stepped(optimizer, head)
    optimizer.add_param_group({"params": [body]})
    before = body.detach().clone()
    stepped(optimizer, head, body, gradient=(1.0, 1.0, 1.0))
    assert (before - body.detach()).tolist() == pytest.approx([0.4] * 3)


@pytest.mark.parametrize("flags", [{}, {"capturable": True}], ids=str)
def test_the_clock_goes_on_after_loading(load, flags):
    kind = load(UpdateRule.parse("ld*sign(g)"))
    p, q = parameter(), parameter()
    first = kind([p], horizon=10, lr=1.0, **flags)
    for _ in range(4):
        stepped(first, p)
    second = kind([q], horizon=10, lr=1.0, **flags)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    stepped(second, q, gradient=(1.0, 1.0, 1.0))
    assert (parameter().detach() - q.detach()).tolist() == pytest.approx([0.5] * 3)


def test_the_end_of_the_schedule_is_said_once(load):
    p = parameter()
    optimizer = load(UpdateRule.parse("ld*sign(g)"))([{"params": [p]}], horizon=3)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(6):
            stepped(optimizer, p)
    assert [str(warning.message) for warning in found] == [
        "the schedule has ended: step 4 of 3; give horizon in optimizer steps, not in epochs"
    ]
    assert found[0].filename.endswith("test_emitted_torch_state.py")


SCHEDULERS = {
    "one cycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=12),
    "cyclic": lambda optimizer: torch.optim.lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, step_size_up=3),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("text", ["sign(g)", "tanh(m)", "b", "g/(sqrt(v) + eps)", "ad", "sign(li)", "g*rms(g)", "ld*g"])
def test_schedulers_that_cycle_momentum_drive_every_rule(load, text, scheduler):
    """Rates follow the scheduler; beta1 and mu are cycled, and rules without them are left alone."""
    rule = UpdateRule.parse(text).with_horizon(12)
    p = parameter()
    optimizer = load(rule)([p], **({"horizon": 12} if rule.needs_horizon else {}))
    schedule = SCHEDULERS[scheduler](optimizer)
    w, phi = p.detach().numpy().copy(), evaluator(rule)
    state = phi.init(w)
    for t in range(1, 12):
        (group,) = optimizer.param_groups
        cycled = group["betas"][0] if "beta1" in rule.values else group["momentum"]
        values = phi.values | ({"beta1": cycled} if "beta1" in rule.values else {"mu": cycled})
        g = torch.tensor([1.0, -2.0, 0.5]) / t
        (update,), state = phi.step(g.double().numpy(), state, w, t, values)
        w = w - group["lr"] * update
        p.grad = g.double()
        optimizer.step()
        schedule.step()
        torch.testing.assert_close(p.detach(), torch.from_numpy(w), rtol=1e-9, atol=1e-12)
