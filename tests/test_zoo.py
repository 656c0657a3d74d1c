"""Rules of the zoo against the libraries that implement the same optimizers: float64, 50 steps, 1e-12 relative."""

import jax
import numpy as np
import optax
import pytest
import pytorch_optimizer
import torch

from sol_symbols import STANDARD, ZOO, Hyperparameter, Recurrence, UpdateRule, evaluator

jax.config.update("jax_enable_x64", True)

LR, STEPS = 0.01, 50


@pytest.fixture(autouse=True)
def double():
    """PyTorch keeps what it calls scalars, such as NAdam's product of momenta, in its default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def gradients(seed=0, count=60):
    """[STEPS, count]: coordinates of scales 1e-6 to 10, some silent, some that stop or start."""
    rng = np.random.default_rng(seed)
    g = 10 ** rng.uniform(-6, 1, count) * (rng.normal(size=(STEPS, count)) + rng.normal(size=count))
    g[:, :3] = 0
    g[20:, 3:6] = 0
    g[:20, 6:9] = 0
    return g


def start(seed=1, count=60):
    return np.random.default_rng(seed).normal(size=count)


def rule_path(rule, horizon=None):
    phi, w = evaluator(rule, horizon=horizon), start()
    state, path = phi.init(w), []
    for t, g in enumerate(gradients(), start=1):
        update, state = phi(g, state, w, t)
        w = w - LR * update
        path.append(w)
    return np.stack(path)


def torch_path(make):
    parameter = torch.nn.Parameter(torch.tensor(start()))
    optimizer, path = make([parameter]), []
    for g in gradients():
        parameter.grad = torch.tensor(g)
        optimizer.step()
        path.append(parameter.detach().numpy().copy())
    return np.stack(path)


def optax_path(transformation):
    w, path = jax.numpy.asarray(start()), []
    state = transformation.init(w)
    for g in gradients():
        updates, state = transformation.update(jax.numpy.asarray(g), state, w)
        w = optax.apply_updates(w, updates)
        path.append(np.asarray(w))
    return np.stack(path)


def of_torch(kind, **settings):
    return lambda: torch_path(lambda parameters: kind(parameters, lr=LR, **settings))


def of_optax(kind, **settings):
    return lambda: optax_path(kind(LR, **settings))


OPTIM, EXTRA = torch.optim, pytorch_optimizer
REFERENCES = [
    ("sgd", of_torch(OPTIM.SGD)),
    ("sgd", of_optax(optax.sgd)),
    ("momentum", of_torch(OPTIM.SGD, momentum=0.9)),
    ("momentum", of_optax(optax.sgd, momentum=0.9)),
    ("nesterov", of_torch(OPTIM.SGD, momentum=0.9, nesterov=True)),
    ("nesterov", of_optax(optax.sgd, momentum=0.9, nesterov=True)),
    ("signsgd", of_optax(optax.sign_sgd)),
    ("signum", of_optax(optax.signum, beta=0.9)),
    ("adagrad", of_torch(OPTIM.Adagrad)),
    ("rmsprop", of_torch(OPTIM.RMSprop)),
    ("adam", of_torch(OPTIM.Adam)),
    ("adam", of_optax(optax.adam)),
    ("adamw", of_torch(OPTIM.AdamW)),
    ("adamw", of_optax(optax.adamw, weight_decay=0.01)),
    ("nadam", of_optax(optax.nadam)),
    ("nadam", of_torch(OPTIM.NAdam, momentum_decay=float("inf"))),
    ("adabelief", of_optax(optax.adabelief)),
    ("adabelief", of_torch(EXTRA.AdaBelief)),
    ("lion", of_optax(optax.lion, weight_decay=0.0)),
    ("lion", of_torch(EXTRA.Lion, weight_decay=0.0)),
]


@pytest.mark.parametrize(("name", "reference"), REFERENCES, ids=lambda value: value if isinstance(value, str) else "")
def test_zoo_rules_are_the_optimizers_of_libraries(name, reference):
    np.testing.assert_allclose(rule_path(ZOO[name]), reference(), rtol=1e-12, atol=1e-15)


def test_every_rule_that_names_a_twin_is_compared_with_it():
    assert {name for name, rule in ZOO.items() if "same as" in rule.provenance} == {name for name, _ in REFERENCES}


def test_pytorchs_schedule_of_nadam_is_a_rule_with_a_state_more():
    """What ``nadam`` leaves out on purpose, and how a user writes it."""
    wider = STANDARD.extended(
        Hyperparameter("psi", 0.004, 0.0, float("inf"), "momentum decay"),
        Recurrence("mus", "mus_prev*beta1*(1 - 0.96**(psi*t)/2)", init=1.0, description="product of momentum factors"),
    )
    after = "beta1*(1 - 0.96**(psi*(t + 1))/2)"
    own = f"({after}*m/(1 - mus*{after}) + (1 - beta1*(1 - 0.96**(psi*t)/2))*g/(1 - mus))/(sqrt(v_hat) + eps)"
    rule = UpdateRule.parse(own, wider)
    np.testing.assert_allclose(rule_path(rule), of_torch(OPTIM.NAdam)(), rtol=1e-12, atol=1e-15)
    assert np.abs(rule_path(rule) - rule_path(ZOO["nadam"])).max() > 1e-3
