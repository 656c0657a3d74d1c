"""Rules of the zoo against the libraries that implement the same optimizers: float64, 50 steps, 1e-12 relative.

Where no library has an optimizer as published, the reference is the paper's algorithm in NumPy, tensor by tensor.
"""

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
import pytorch_optimizer
import torch

from sol_export import export_rule, load_optimizer
from sol_export.verification import imported
from sol_symbols import STANDARD, ZOO, Hyperparameter, Layout, Recurrence, UpdateRule, evaluator, resolve_rule

jax.config.update("jax_enable_x64", True)

LR, STEPS = 0.01, 50
LAYOUT = Layout(((3,), (), (4, 5), (6,), (2, 3, 5)))  # the first tensor's gradients are 0


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
    phi, w = evaluator(rule, horizon=horizon, layout=LAYOUT), start()
    state, path = phi.init(w), []
    for t, g in enumerate(gradients(), start=1):
        update, state = phi(g, state, w, t)
        w = w - LR * update
        path.append(w)
    return np.stack(path)


def torch_path(make):
    parameters = [torch.nn.Parameter(torch.tensor(w)) for w in LAYOUT.split(start())]
    optimizer, path = make(parameters), []
    for grads in gradients():
        for parameter, g in zip(parameters, LAYOUT.split(grads)):
            parameter.grad = torch.tensor(g)
        optimizer.step()
        path.append(np.concatenate([parameter.detach().numpy().ravel() for parameter in parameters]))
    return np.stack(path)


def optax_path(transformation):
    w, path = [jax.numpy.asarray(x) for x in LAYOUT.split(start())], []
    state = transformation.init(w)
    for g in gradients():
        updates, state = transformation.update([jax.numpy.asarray(x) for x in LAYOUT.split(g)], state, w)
        w = optax.apply_updates(w, updates)
        path.append(np.concatenate([np.asarray(x).ravel() for x in w]))
    return np.stack(path)


def of_paper(update):
    """The path of an algorithm: ``update(g, w, state, t)`` returns the step of one tensor, without the rate."""

    def path():
        w = [x.copy() for x in LAYOUT.split(start())]
        states, found = [{} for _ in w], []
        for t, grads in enumerate(gradients(), start=1):
            for i, g in enumerate(LAYOUT.split(grads)):
                w[i] = w[i] - LR * update(g, w[i], states[i], t)
            found.append(np.concatenate([x.ravel() for x in w]))
        return np.stack(found)

    return path


def averages(g, state, t, beta1=0.9, beta2=0.999):
    """The bias-corrected moments of Adam."""
    state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
    state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g**2
    return state["m"] / (1 - beta1**t), state["v"] / (1 - beta2**t)


def kept(u, g):
    """u where it agrees with g, over the share of those, as in the authors' code: at least 1/1000."""
    mask = (u * np.sign(g) > 0).astype(float)
    return u * mask / max(mask.mean(), 1e-3)


def cautious_adamw(g, w, state, t):
    m, v = averages(g, state, t)
    return kept(m / (np.sqrt(v) + 1e-8), g) + 0.01 * w


def cautious_lion(g, w, state, t):
    m = state.get("m", 0 * g)
    state["m"] = 0.99 * m + 0.01 * g
    return kept(np.sign(0.9 * m + 0.1 * g), g)


def stable_adamw(g, w, state, t):
    m, v = averages(g, state, t, beta2=0.99)
    size = np.sqrt(np.mean(g**2 / np.maximum(v, 1e-16)))
    return (m / (np.sqrt(v) + 1e-8) + 0.01 * w) / max(1, size)


def yogi(g, w, state, t):
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    v = state.get("v", 1e-6 + 0 * g)
    state["v"] = v - 0.001 * np.sign(v - g**2) * g**2
    return state["m"] / (np.sqrt(state["v"]) + 1e-3)


def adam_mini(g, w, state, t):
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * np.mean(g * g)
    return state["m"] / (1 - 0.9**t) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8) + 0.01 * w


def laprop(g, w, state, t):
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * g**2
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-15)
    return state["m"] / (1 - 0.9**t)


def qhadam(g, w, state, t):
    m, v = averages(g, state, t)
    return (0.7 * m + 0.3 * g) / (np.sqrt(v) + 1e-8)


def adopt(g, w, state, t):
    if t == 1:
        state["v"], state["m"] = g**2, 0 * g
        return state["m"]
    normed = np.clip(g / np.maximum(np.sqrt(state["v"]), 1e-6), -((t - 1) ** 0.25), (t - 1) ** 0.25)
    state["m"] = 0.9 * state["m"] + 0.1 * normed
    state["v"] = 0.9999 * state["v"] + 0.0001 * g**2
    return state["m"]


def mars(g, w, state, t):
    c = g + 0.025 * 0.95 / 0.05 * (g - state.get("g", 0))
    state["g"] = g
    m, v = averages(c / max(np.linalg.norm(c), 1), state, t, 0.95, 0.99)
    return m / (np.sqrt(v) + 1e-8)


def muon(g, w, state, t):
    state["m"] = 0.95 * state.get("m", 0) + 0.05 * g
    u = 0.95 * state["m"] + 0.05 * g
    if g.ndim < 2:
        return u / max(np.sqrt(np.mean(u**2)), 1e-30) + 0.1 * w
    x = u.reshape(len(u), -1)
    rows, columns = x.shape
    x = x / max(np.linalg.norm(x), 1e-30)
    for _ in range(5):
        x = 3.4445 * x - 4.775 * (x @ x.T) @ x + 2.0315 * (x @ x.T) @ (x @ x.T) @ x
    return x.reshape(u.shape) * np.sqrt(max(1, rows / columns)) + 0.1 * w


def normalized_sgd(g, w, state, t):
    return g / np.linalg.norm(gradients()[t - 1])


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
    ("nadamw", of_optax(optax.nadamw, weight_decay=0.01)),
    ("nadamw", of_torch(OPTIM.NAdam, momentum_decay=float("inf"), weight_decay=0.01, decoupled_weight_decay=True)),
    ("adabelief", of_optax(optax.adabelief)),
    ("adabelief", of_torch(EXTRA.AdaBelief)),
    ("lion", of_optax(optax.lion, weight_decay=0.0)),
    ("lion", of_torch(EXTRA.Lion, weight_decay=0.0)),
    ("amsgrad", of_torch(OPTIM.Adam, amsgrad=True)),
    ("adamax", of_torch(OPTIM.Adamax)),
    ("radam", of_torch(OPTIM.RAdam)),
    ("schedule-free-adamw", of_optax(optax.contrib.schedule_free_adamw)),
    ("yogi", of_paper(yogi)),
    ("laprop", of_paper(laprop)),
    ("qhadam", of_paper(qhadam)),
    ("adan", of_torch(EXTRA.Adan)),
    ("adopt", of_paper(adopt)),
    ("ademamix", of_torch(EXTRA.AdEMAMix)),
    ("mars", of_paper(mars)),
    ("grams", of_torch(EXTRA.Grams)),
    ("cautious-adamw", of_paper(cautious_adamw)),
    ("cautious-lion", of_paper(cautious_lion)),
    ("stable-adamw", of_paper(stable_adamw)),
    ("tiger", of_torch(EXTRA.Tiger)),
    ("lamb", of_optax(optax.lamb)),
    ("lars", of_optax(optax.lars)),
    ("novograd", of_optax(optax.novograd, b1=0.9)),
    ("adam-mini", of_paper(adam_mini)),
    ("normalized-sgd", of_paper(normalized_sgd)),
    ("muon", of_paper(muon)),
]


@pytest.mark.parametrize(("name", "reference"), REFERENCES, ids=lambda value: value if isinstance(value, str) else "")
def test_zoo_rules_are_the_optimizers_of_libraries(name, reference):
    np.testing.assert_allclose(rule_path(ZOO[name]), reference(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", [(4, 5), (9, 4), (6, 6)])
def test_muon_is_pytorchs_but_for_its_precision(shape, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda x: x.clone())
    parameter = torch.nn.Parameter(torch.randn(shape))
    w = parameter.detach().numpy().copy()
    optimizer, phi = torch.optim.Muon([parameter], lr=LR), evaluator(ZOO["muon"])
    state = phi.init(w)
    for t in range(1, STEPS + 1):
        parameter.grad = torch.randn(shape)
        update, state = phi(parameter.grad.numpy(), state, w, t)
        optimizer.step()
        w = w - LR * update
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-9, atol=1e-12)


def test_muon_for_matrices_and_adamw_for_vectors_are_pytorchs(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda x: x.clone())
    rule = resolve_rule("matrices: muon where lr = 0.02, wd = 0.2; vectors: adamw where lr = 0.003")
    model, layout = torch.nn.Linear(5, 4), Layout(((4, 5), (4,)))
    w = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    optimizers = torch.optim.Muon([model.weight], lr=0.02, weight_decay=0.2), torch.optim.AdamW([model.bias], lr=0.003)
    phi = evaluator(rule, layout=layout)
    state = phi.init(w)
    for t in range(1, STEPS + 1):
        for p in model.parameters():
            p.grad = torch.randn(p.shape)
        g = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
        update, state = phi(g, state, w, t)
        w = w - rule.lr * update
        for optimizer in optimizers:
            optimizer.step()
        found = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
        np.testing.assert_allclose(found, w, rtol=1e-9, atol=1e-12)


def rule_weights(rule):
    """Parameters after each step, and the weights to evaluate with."""
    phi, w = evaluator(rule, layout=LAYOUT), start()
    state, path = phi.init(w), []
    for t, g in enumerate(gradients(), start=1):
        update, state = phi(g, state, w, t)
        w = w - LR * update
        path.append((w, phi.weights(state, w, t, LR)))
    return [np.stack(column) for column in zip(*path)]


@pytest.mark.parametrize("wd", [0.0, 0.1])
def test_schedule_free_adamw_evaluates_at_the_same_weights(wd):
    transformation = optax.contrib.schedule_free_adamw(LR, weight_decay=wd)
    w = jax.numpy.asarray(start())
    state, trained, averaged = transformation.init(w), [], []
    for g in gradients():
        updates, state = transformation.update(jax.numpy.asarray(g), state, w)
        w = optax.apply_updates(w, updates)
        trained.append(w)
        averaged.append(optax.contrib.schedule_free_eval_params(state, w))
    rule = replace(ZOO["schedule-free-adamw"], values={"wd": wd})
    for found, expected in zip(rule_weights(rule), (trained, averaged)):
        np.testing.assert_allclose(found, np.stack(expected), rtol=1e-12, atol=1e-15)


def test_averages_of_parameters_are_those_of_libraries():
    """The moving average starts at the first parameters, the mean has those after each step."""
    w, ema = rule_weights(UpdateRule.parse("ad evaluate ema_weights where beta_avg = 0.95"))
    _, mean = rule_weights(UpdateRule.parse("ad evaluate mean_weights"))
    model = torch.nn.ParameterList([torch.tensor(start())])
    swa = torch.optim.swa_utils
    averages = [swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.95)), swa.AveragedModel(model)]
    averages[0].update_parameters(model)
    moving = start()
    for i, row in enumerate(w):
        model[0].data = torch.tensor(row)
        moving = optax.incremental_update(row, moving, 0.05)
        np.testing.assert_allclose(ema[i], moving, rtol=1e-12)
        for average, found in zip(averages, (ema, mean)):
            average.update_parameters(model)
            np.testing.assert_allclose(found[i], average.module[0].detach(), rtol=1e-12)


def test_every_rule_that_names_a_twin_is_compared_with_it():
    compared = {name for name, _ in REFERENCES}
    assert {name for name, rule in ZOO.items() if "same as" in rule.provenance} <= compared
    assert {*ZOO} - compared == {
        "powersign-ld",
        "powersign-cd",
        "addsign-ld",
        "addsign-cd",
        "sol-mnistnet",
        "sol-elementwise",
        "sol-general",
        "sol-fits",
        "sol-attack",
    }


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


def test_a_polyak_step_is_that_of_optax(tmp_path):
    """A rule that uses the loss; also as the emitted PyTorch and Optax files."""
    rule = UpdateRule.parse("g*min(1, loss*inv0(all_dot(g, g))) where lr = 1")
    losses = np.random.default_rng(1).uniform(0.1, 3, STEPS)
    ours = load_optimizer(rule)
    (tmp_path / "polyak.py").write_text(export_rule(rule, "optax", "Polyak"))
    emitted = imported(tmp_path / "polyak.py").polyak(1.0)
    reference = optax.polyak_sgd(max_learning_rate=1.0)
    phi, w = evaluator(rule, layout=LAYOUT), start()
    parameters = [torch.nn.Parameter(p.clone()) for p in LAYOUT.split(torch.tensor(w))]
    optimizer = ours(parameters)
    trees = [[jax.numpy.asarray(p.detach().numpy()) for p in parameters] for _ in range(2)]
    states = [transformation.init(tree) for transformation, tree in zip((reference, emitted), trees)]
    state = phi.init(w)
    for t, (g, loss) in enumerate(zip(gradients(), losses), start=1):
        update, state = phi(g, state, w, t, float(loss))
        w = w - update
        for p, one in zip(parameters, LAYOUT.split(torch.tensor(g))):
            p.grad = one
        optimizer.step(lambda loss=loss: torch.tensor(loss))
        tree = [jax.numpy.asarray(p.grad.numpy()) for p in parameters]
        for i, transformation in enumerate((reference, emitted)):
            updates, states[i] = transformation.update(tree, states[i], trees[i], value=loss)
            trees[i] = optax.apply_updates(trees[i], updates)
        for found in ([p.detach() for p in parameters], *trees):
            joined = np.concatenate([np.asarray(p).ravel() for p in found])
            np.testing.assert_allclose(joined, w, rtol=1e-9, atol=1e-12)
