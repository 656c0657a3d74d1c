"""The emitted PyTorch file is the rule, and rules of the zoo are the optimizers of torch.optim."""

import copy

import pytest
import pytorch_optimizer
import torch

from sol_symbols import ZOO, UpdateRule, evaluator

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in rules()])
def test_the_emitted_file_is_the_rule(load, rule, dtype):
    rule = rule.with_horizon(rule.horizon or 40)
    lr = rule.lr or 0.01
    ours, theirs = parameters(dtype), [p.detach().clone() for p in parameters(dtype)]
    optimizer = load(rule)(ours, lr=lr)
    phi = evaluator(rule, torch)
    states = [phi.init(w) for w in theirs]
    for t, grads in enumerate(gradients(dtype, 50), start=1):
        for p, g in zip(ours, grads):
            p.grad = g
        optimizer.step()
        for i, g in enumerate(grads):
            update, states[i] = phi(g, states[i], theirs[i], t)
            theirs[i] = theirs[i] - lr * update
    for p, expected in zip(ours, theirs):
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
    ],
)
def test_wrong_hyperparameters_are_refused(load, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(ZOO["adam"])(parameters(torch.float32), **arguments)


def test_a_rule_without_a_horizon_asks_for_one(load):
    with pytest.raises(TypeError, match="horizon"):
        load(ZOO["powersign-ld"])(parameters(torch.float32), lr=0.01)


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
