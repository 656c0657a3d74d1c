"""The emitted PyTorch file is the rule, and rules of the zoo are the optimizers of torch.optim."""

import copy
from dataclasses import replace

import pytest
import pytorch_optimizer
import torch

from sol_symbols import ZOO, Layout, UpdateRule, evaluator

LEARNED = [
    "0.391*ad + 0.115*sign(g) + 0.0287*sign(m) + 0.362*cd*sign(g) + 105.0*m_hat - 4.72*ld*m_hat where T = 50",
    "0.5*exp(ld)*g - 0.1*tanh(rs) + ag*g where lr = 0.01, T = 30",
    "1 where lr = 0.001",
    "ld where lr = 0.001, T = 20",
    "g + 0.01*w where lr = 0.1",
    "c1*ad + (rs + c2)**2*sign(m_prev) where lr = 0.01, beta1 = 0.8, c1 = 0.3, c2 = 0.5",
    "s*abs(g)/(1 + s) + sqrt(v) where lr = 0.01, beta2 = 0.9",
]


def parameters(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(7, 3), (5,), (), (2, 1, 4)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def gradients(dtype, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield [
            10 ** (-3 * torch.rand(p.shape, generator=generator, dtype=dtype))
            * torch.randn(p.shape, generator=generator, dtype=dtype)
            for p in parameters(dtype)
        ]


def train(optimizer, params, dtype, steps, start=0):
    for step, grads in enumerate(gradients(dtype, steps)):
        if step < start:
            continue
        for p, g in zip(params, grads):
            p.grad = g.clone()
        optimizer.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(params, grads)), "the gradient was changed"


def rules():
    yield from ((name, rule) for name, rule in ZOO.items())
    yield from ((text[:30], UpdateRule.parse(text)) for text in LEARNED)


@pytest.mark.filterwarnings("ignore:the schedule has ended")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in rules()])
def test_the_emitted_file_is_the_rule(load, rule, dtype):
    rule = rule.with_horizon(rule.horizon or 40)
    lr = rule.lr if rule.lr and rule.name != "sol-attack" else 0.01  # its large terms cancel, which rounds float32
    ours, theirs = parameters(dtype), torch.cat([p.detach().flatten() for p in parameters(dtype)])
    optimizer, layout = load(rule)(ours, lr=lr), Layout.of(ours)
    phi = evaluator(rule, torch, layout=layout)
    state = phi.init(theirs)
    for t, grads in enumerate(gradients(dtype, 50), start=1):
        for p, g in zip(ours, grads):
            p.grad = g
        optimizer.step()
        update, state = phi(torch.cat([g.flatten() for g in grads]), state, theirs, t)
        theirs = theirs - lr * update
    for p, expected in zip(ours, layout.split(theirs)):
        torch.testing.assert_close(p.detach(), expected, rtol=1e-6, atol=1e-6 if dtype == torch.float32 else 1e-12)
        assert p.dtype == dtype


OPTIM = torch.optim
REFERENCES = {
    "sgd": (OPTIM.SGD, {}),
    "momentum": (OPTIM.SGD, {"momentum": 0.9}),
    "nesterov": (OPTIM.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (OPTIM.Adagrad, {}),
    "rmsprop": (OPTIM.RMSprop, {}),
    "adam": (OPTIM.Adam, {}),
    "adamw": (OPTIM.AdamW, {}),
    "lion": (pytorch_optimizer.Lion, {}),  # torch.optim has none
}


@pytest.mark.parametrize("name", REFERENCES)
def test_zoo_rules_are_the_optimizers_of_torch(load, name, tmp_path):
    """Over 100 steps in float64, and through a save, a load and a resume that change nothing at all."""
    kind, settings = REFERENCES[name]
    straight, stopped, theirs = (parameters(torch.float64) for _ in range(3))
    train(load(ZOO[name])(straight, lr=0.01), straight, torch.float64, 100)
    first = load(ZOO[name])(stopped, lr=0.01)
    train(first, stopped, torch.float64, 40)
    torch.save({"optimizer": first.state_dict(), "params": [p.detach() for p in stopped]}, tmp_path / "checkpoint")
    saved = torch.load(tmp_path / "checkpoint", weights_only=True)
    resumed = [torch.nn.Parameter(p) for p in saved["params"]]
    second = load(ZOO[name])(resumed, lr=0.5)
    second.load_state_dict(saved["optimizer"])
    train(second, resumed, torch.float64, 100, start=40)
    train(kind(theirs, lr=0.01, **settings), theirs, torch.float64, 100)
    for p, q, expected in zip(straight, resumed, theirs):
        assert torch.equal(p, q)
        torch.testing.assert_close(q, expected, rtol=1e-12, atol=1e-14)


def test_maximize_weight_decay_groups_and_closures(load):
    kind = load(ZOO["adam"])
    up, down = parameters(torch.float64), parameters(torch.float64)
    train(kind(up, lr=0.01, maximize=True), up, torch.float64, 5)
    train(kind(down, lr=-0.0 + 0.01), down, torch.float64, 5)
    start = parameters(torch.float64)
    for a, b, p in zip(up, down, start):
        torch.testing.assert_close(a - p, p - b)
    ours, theirs = parameters(torch.float64), parameters(torch.float64)
    train(kind(ours, lr=0.01, weight_decay=0.1), ours, torch.float64, 20)
    train(OPTIM.AdamW(theirs, lr=0.01, weight_decay=0.1), theirs, torch.float64, 20)
    for p, expected in zip(ours, theirs):
        torch.testing.assert_close(p, expected, rtol=1e-12, atol=1e-14)

    p, q = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = kind([{"params": [p], "lr": 0.5}, {"params": [q]}], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (p + q).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 6.0
    torch.testing.assert_close(p.detach(), torch.full((3,), 0.5))
    torch.testing.assert_close(q.detach(), torch.full((3,), 0.75))


def test_only_live_states_are_allocated(load):
    params = parameters(torch.float32)
    optimizer = load(ZOO["lion"])(params)
    train(optimizer, params, torch.float32, 2)
    assert {key for p in params for key in optimizer.state[p]} == {"m_slow"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1}, "lr must be a finite number >= 0, got -1"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\] must be a number in \[0, 1\), got 1.0"),
        ({"eps": -1e-8}, "eps must be a finite number >= 0, got -1e-08"),
        ({"lr": float("nan")}, "lr must be a finite number >= 0, got nan"),
        ({"lr": float("inf")}, "lr must be a finite number >= 0, got inf"),
        ({"lr": torch.tensor([0.1, 0.1])}, "a finite number >= 0"),
        ({"weight_decay": -0.1}, "weight_decay must be a finite number >= 0, got -0.1"),
        ({"lr": "0.1"}, "lr must be a finite number >= 0, got '0.1'"),
        ({"lr": None}, "lr must be a finite number >= 0, got None"),
        ({"eps": [1e-8]}, r"eps must be a finite number >= 0, got \[1e-08\]"),
        ({"betas": (0.9, 0.99, 0.999)}, r"betas must be 2 numbers, got \(0.9, 0.99, 0.999\)"),
        ({"betas": 0.9}, "betas must be 2 numbers, got 0.9"),
        ({"betas": ("0.9", 0.999)}, r"betas\[0\] must be a number in \[0, 1\), got '0.9'"),
    ],
)
def test_wrong_hyperparameters_are_refused(load, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(ZOO["adam"])(parameters(torch.float32), **arguments)


def test_a_rule_without_a_horizon_asks_for_one(load):
    with pytest.raises(TypeError, match="horizon"):
        load(ZOO["powersign-ld"])(parameters(torch.float32), lr=0.01)


SCHEDULED = [
    "0.5*ad*cd + pd*sign(g)*wu + 0.2*g*(1 - ld)",
    "exp(ld)*m_hat + min(t/warmup, 1)*(T - t)/T*sign(g)",
    "tensor_rate*wu*la_n*(0.3 + cd) where rate_gain = 0.3",
    "wu*ad",
]


def unscheduled(rule):
    """The limit for ever longer schedules and ever shorter warm-ups."""
    return replace(rule, values={**rule.values, "T": 1e18, "warmup": 0.0})


@pytest.mark.filterwarnings("error:the schedule has ended")
@pytest.mark.parametrize("flags", [{}, {"foreach": False}, {"capturable": True}], ids=str)
@pytest.mark.parametrize("text", [*SCHEDULED, "sol-elementwise", "powersign-cd"])
def test_the_schedule_can_be_switched_off(load, text, flags):
    """The horizon does not matter then, and need not be given; a saved state brings the switch along."""
    rule = ZOO[text] if text in ZOO else UpdateRule.parse(text)
    ours, expected = parameters(torch.float64), torch.cat([p.detach().flatten() for p in parameters(torch.float64)])
    horizon = {"horizon": 5} if flags and rule.needs_horizon else {}
    optimizer = load(rule)(ours, lr=0.01, schedule=False, **horizon, **flags)
    phi = evaluator(unscheduled(rule), torch, layout=Layout.of(ours))
    state = phi.init(expected)
    for t, grads in enumerate(gradients(torch.float64, 20), start=1):
        for p, g in zip(ours, grads):
            p.grad = g
        optimizer.step()
        update, state = phi(torch.cat([g.flatten() for g in grads]), state, expected, t)
        expected = expected - 0.01 * update
        if t == 10:
            saved, optimizer = optimizer.state_dict(), load(rule)(ours, lr=0.01, **{**horizon, "schedule": False})
            optimizer.load_state_dict(saved)
            assert not optimizer.param_groups[0]["schedule"]
    torch.testing.assert_close(torch.cat([p.detach().flatten() for p in ours]), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("part", "stays"),
    [
        ("0.001*T*sign(g)", "0.05*sign(g)"),
        ("step(t - 1)*100/T*sign(g)", "2*step(t - 1)*sign(g)"),
        ("(1 - 0.9**t)/T*sign(g)", "(1 - 0.9**t)/50*sign(g)"),
        ("tanh(1/t)/T*sign(g)", "tanh(1/t)/50*sign(g)"),
    ],
)
def test_a_horizon_that_is_no_schedule_stays(load, part, stays):
    """Only the share of the steps made, such as t/T, is 0: what a step does at its own time stays."""
    kind = load(UpdateRule.parse(f"ld*g + {part}"))
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'horizon'"):
        kind(parameters(torch.float64), schedule=False)
    ours, theirs = parameters(torch.float64), parameters(torch.float64)
    train(kind(ours, horizon=50, schedule=False), ours, torch.float64, 5)
    train(load(UpdateRule.parse(f"g + {stays}"))(theirs), theirs, torch.float64, 5)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_schedulers_of_pytorch_take_over(load):
    """A decay of the formula is the same as one of the learning rate; groups choose for themselves."""
    kind, decays = load(UpdateRule.parse("ld*ad")), load(UpdateRule.parse("ad"))
    ours, theirs = parameters(torch.float64), parameters(torch.float64)
    groups = [{"params": ours[:2]}, {"params": ours[2:], "schedule": False}]
    optimizer, reference = kind(groups, horizon=20), decays(theirs)
    decay = [lambda k: 1.0, lambda k: 1 - (k + 1) / 20]
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, decay),
        torch.optim.lr_scheduler.LambdaLR(reference, decay[1]),
    ]
    for grads in gradients(torch.float64, 15):
        for p, q, g in zip(ours, theirs, grads):
            p.grad, q.grad = g, g
        for step in (optimizer, reference, *schedulers):
            step.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["sparse", "complex"])
def test_sparse_and_complex_gradients_are_refused(load, kind):
    if kind == "sparse":
        table = torch.nn.Embedding(4, 2, sparse=True)
        params, loss = list(table.parameters()), table(torch.tensor([1])).sum()
    else:
        params = [torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))]
        loss = params[0].abs().sum()
    optimizer = load(ZOO["sgd"])(params)
    loss.backward()
    with pytest.raises(RuntimeError, match="dense real gradients"):
        optimizer.step()


def test_groups_are_added_with_hyperparameters_of_their_own(load):
    kind, (first, later) = load(ZOO["adam"]), (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = kind([first], lr=0.5)
    first.grad = later.grad = torch.ones(3)
    optimizer.step()
    with pytest.raises(ValueError, match="lr must be a finite number >= 0, got -1"):
        optimizer.add_param_group({"params": [later], "lr": -1})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [later], "lr": 0.25})
    optimizer.step()  # the second of one, the first of the other
    torch.testing.assert_close(first.detach(), torch.zeros(3))
    torch.testing.assert_close(later.detach(), torch.full((3,), 0.75))


def test_learning_rate_schedulers_drive_it(load):
    params = parameters(torch.float32)
    optimizer = load(ZOO["adam"])(params, lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    before = copy.deepcopy(params)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    schedule.step()
    optimizer.step()
    torch.testing.assert_close(params[0], before[0] - 1.1, rtol=1e-4, atol=1e-4)


REDUCING = UpdateRule.parse(
    "(0.3*la*inv0(rms_v) + 0.1*g*inv0(rms(g)) + 0.05*w*inv0(all_rms(w)))"
    "*tensor_rate*exp(0.4*log_spread)*exp(-0.7*is_vector)"
)


@pytest.mark.parametrize(
    "flags", [{"foreach": False}, {"foreach": True}, {"capturable": True}, {"maximize": True}, {"fused": True}], ids=str
)
def test_rules_of_tensors_follow_the_flags(load, flags):
    """In two groups and two dtypes, with a parameter that gets its first gradient late."""
    results = []
    for given in ({}, flags):
        params = [*parameters(torch.float64), *parameters(torch.float32, seed=5), torch.nn.Parameter(torch.empty(0, 3))]
        groups = [{"params": params[:3]}, {"params": params[3:], "lr": 0.02, "rate_gain": 0.2}]
        optimizer = load(REDUCING)(groups, lr=0.01, **given)
        generator = torch.Generator().manual_seed(4)
        for step in range(6):
            for i, p in enumerate(params):
                g = torch.randn(p.shape, generator=generator, dtype=p.dtype) * (-1 if given.get("maximize") else 1)
                p.grad = None if i == 1 and step < 3 else g
            optimizer.step()
        results.append(params)
    for p, q in zip(*results):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
    shapes = {tuple(optimizer.state[p]["log_rate"].shape) for p in params}
    assert shapes == {()}


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.float32)], ids=str)
def test_sums_over_all_parameters_have_the_precision_of_the_finest(load, dtypes):
    params = [torch.nn.Parameter(torch.zeros(2, dtype=dtype)) for dtype in dtypes]
    for p in params:
        p.grad = torch.full((2,), 1.0 if p.dtype == torch.float32 else 1e30, dtype=p.dtype)
    load(UpdateRule.parse("g*inv0(all_rms(g))"))(params, lr=1.0).step()
    (fine,) = (p for p in params if p.dtype == torch.float64)
    torch.testing.assert_close(fine.detach(), torch.full((2,), -(2**0.5), dtype=torch.float64))


def test_rules_of_tensors_are_differentiable(load):
    start = torch.ones(3, requires_grad=True)
    p = start.clone()
    optimizer = load(UpdateRule.parse("g*norm(w)*inv0(norm(g))"))([p], lr=0.1, differentiable=True)
    p.grad = torch.tensor([3.0, 4.0, 0.0])
    optimizer.step()
    (slope,) = torch.autograd.grad(p.sum(), start)
    # p = w - 0.1 |w| g/5, and d|w|/dw = w/|w|
    torch.testing.assert_close(slope, 1 - 0.1 * 7 / 5 / 3**0.5 * torch.ones(3))


def test_rules_of_tensors_do_not_wait_for_the_device(load, monkeypatch):
    """Nothing reads a number of a tensor: no item, no bool, no float."""
    params = parameters(torch.float32)
    optimizer = load(REDUCING)(params, lr=0.01)
    train(optimizer, params, torch.float32, 2)
    read = []
    numbers = {"_local_scalar_dense", "is_nonzero"}

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if any(name in str(func) for name in numbers):
                read.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    for p in params:
        p.grad = torch.ones_like(p)
    with Watch():
        optimizer.step()
    assert {*read} <= {torch.float64}  # what _numbers computed, on the host


def test_a_formula_of_the_loss_takes_it_from_the_closure(load):
    rule = UpdateRule.parse("g*min(1, loss*inv0(all_dot(g, g))) + 0.1*m where lr = 0.5")
    kind, grads = load(rule), next(gradients(torch.float64, 1))

    def moved(closure, **options):
        params = parameters(torch.float64)
        for p, g in zip(params, grads):
            p.grad = -g if options.get("maximize") else g.clone()
        optimizer = kind(params, **options)
        returned = optimizer.step(closure)
        return returned, [p.detach() for p in params]

    returned, expected = moved(lambda: torch.tensor(0.3, dtype=torch.float64, requires_grad=True))
    assert float(returned.detach()) == 0.3
    for closure, options in [
        (lambda: 0.3, {}),
        (lambda: torch.tensor([0.3], dtype=torch.float64).squeeze(), {"foreach": False}),
        (lambda: -0.3, {"maximize": True}),
        (lambda: 0.3, {"capturable": True}),
        (lambda: torch.tensor(0.3, dtype=torch.float64), {"differentiable": False}),
    ]:
        for found, wanted in zip(moved(closure, **options)[1], expected):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    with pytest.raises(RuntimeError, match=r"needs the loss: call step\(lambda: loss\)"):
        moved(None)
