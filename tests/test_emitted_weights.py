"""Weights to evaluate with, in emitted PyTorch and Optax files."""

import io
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from sol_export import export_rule
from sol_learner import CompareConfig, compare
from sol_symbols import ZOO, UpdateRule

RULE = UpdateRule.parse("ad evaluate ema_weights where lr = 0.05, beta_avg = 0.8")


def model(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))


def train(net, optimizer, steps, start=0):
    for step in range(start, start + steps):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (net(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()


def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("flags", [{}, {"foreach": False}, {"capturable": True}, {"fused": True}], ids=str)
def test_eval_places_the_average_and_train_the_parameters(load, flags):
    """Evaluating does not change the training; the average is PyTorch's."""
    net, twin = model(), model()
    optimizer, undisturbed = (load(RULE)(x.parameters(), **flags) for x in (net, twin))
    swa = torch.optim.swa_utils
    average = swa.AveragedModel(twin, multi_avg_fn=swa.get_ema_multi_avg_fn(0.8))
    average.update_parameters(twin)
    for step in range(8):
        train(net, optimizer, 1, step)
        train(twin, undisturbed, 1, step)
        average.update_parameters(twin)
        optimizer.eval()
        optimizer.eval()  # no harm
        torch.testing.assert_close(flat(net), flat(average.module), rtol=1e-6, atol=1e-6)
        optimizer.train()
        optimizer.train()
        assert torch.equal(flat(net), flat(twin))


def test_loading_while_evaluating_is_refused_since_the_parameters_would_be_lost(load):
    net = model()
    optimizer = load(RULE)(net.parameters())
    train(net, optimizer, 3)
    saved, before = optimizer.state_dict(), flat(net)
    optimizer.eval()
    with pytest.raises(RuntimeError, match=r"replaced by the weights to evaluate with: call train\(\) first"):
        optimizer.load_state_dict(saved)
    optimizer.train()
    optimizer.load_state_dict(saved)
    assert torch.equal(flat(net), before)


def test_weights_of_a_masked_state_and_of_a_schedule():
    names = {"__name__": "emitted"}
    exec(export_rule(RULE, "optax", "Mine"), names)
    params = {"w": jnp.ones((2, 2)), "b": jnp.full(2, 3.0)}
    masked = optax.masked(names["mine"](0.1), {"w": True, "b": False})
    updates, state = masked.update(params, masked.init(params), params)
    after = optax.apply_updates(params, updates)
    found = names["mine_weights"](state, after)
    assert jnp.array_equal(found["b"], after["b"])
    assert not jnp.array_equal(found["w"], after["w"])
    exec(export_rule(ZOO["schedule-free-adamw"], "optax", "Mine"), names)
    with pytest.raises(TypeError, match="learning_rate must be a number, that of the last step, not a schedule"):
        names["mine_weights"](names["mine"](0.1).init(params), params, learning_rate=optax.constant_schedule(0.1))


def test_a_step_while_evaluating_is_refused(load):
    net = model()
    optimizer = load(RULE)(net.parameters())
    optimizer.eval()  # before the first step, the parameters are evaluated
    train(net, optimizer, 2)
    optimizer.eval()
    with pytest.raises(RuntimeError, match=r"call train\(\) first"):
        train(net, optimizer, 1, 2)
    optimizer.train()
    train(net, optimizer, 1, 2)


def test_what_never_got_a_gradient_stays(load):
    net = model()
    net[0].requires_grad_(False)
    optimizer = load(RULE)(net.parameters())
    train(net, optimizer, 3)
    before = net[0].weight.clone()
    optimizer.eval()
    assert torch.equal(net[0].weight, before)


@pytest.mark.parametrize("evaluating", [False, True])
def test_saved_while_training_or_evaluating(load, evaluating):
    """A run that is saved at the weights to evaluate with goes on from the parameters."""
    net, whole = model(), model()
    optimizer, uninterrupted = (load(RULE)(x.parameters()) for x in (net, whole))
    train(net, optimizer, 4)
    if evaluating:
        optimizer.eval()
    file = io.BytesIO()
    torch.save([net.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    again = model(1)
    resumed = load(RULE)(again.parameters())
    weights, state = torch.load(file, weights_only=True)
    again.load_state_dict(weights)
    resumed.load_state_dict(state)
    resumed.train()
    train(again, resumed, 4, 4)
    train(whole, uninterrupted, 8)
    assert torch.equal(flat(again), flat(whole))


def test_low_precision_averages_are_kept_in_float32(load):
    net = model().bfloat16()
    optimizer = load(RULE)(net.parameters())
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    for _ in range(3):
        optimizer.step()
    assert {state["w_avg"].dtype for state in optimizer.state.values()} == {torch.float32}
    optimizer.eval()
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}


def test_rules_without_them_have_no_such_methods(load):
    assert not hasattr(load(ZOO["adam"]), "eval")


def test_compare_measures_them(tmp_path):
    """As it does those of a PyTorch class."""
    path = tmp_path / "averaged.py"
    path.write_text(export_rule(RULE, "torch", "Averaged"))
    rules = {"ours": RULE, "theirs": f"{path}:Averaged", "plain": replace(RULE, evaluation=None)}
    found = compare("quadratic", rules, CompareConfig(episodes=2, steps=5, tune="none"))
    ours, theirs, plain = (result.metric("train", "loss") for result in found.optimizers)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert (ours - plain).abs().min() > 1e-3 * plain.abs().max()


# -- Optax -------------------------------------------------------------------------------------------------


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def descend(optimizer, params, steps):
    state = optimizer.init(params)
    for step in range(steps):
        grads = jax.tree.map(lambda p, s=step: jnp.cos(p + s), params)
        updates, state = jax.jit(optimizer.update)(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


PARAMS = {"a": np.linspace(-1, 1, 6).reshape(2, 3), "b": [np.float64(0.5)]}


def test_schedule_free_is_that_of_optax(emitted, double):
    module = emitted(ZOO["schedule-free-adamw"], "optax")
    params = jax.tree.map(jnp.asarray, PARAMS)
    ours, state = descend(module.emitted(0.1), params, 12)
    theirs, reference = descend(optax.contrib.schedule_free_adamw(0.1), params, 12)
    expected = optax.contrib.schedule_free_eval_params(reference, theirs)
    found = jax.jit(lambda s, p: module.emitted_weights(s, p, learning_rate=0.1))(state, ours)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), (ours, found), (theirs, expected))


def test_the_state_can_be_part_of_a_chain(emitted, double):
    module = emitted(RULE, "optax")
    params = jax.tree.map(jnp.asarray, PARAMS)
    chained = optax.chain(optax.clip_by_global_norm(1.0), module.scale_by_emitted(beta_avg=0.5), optax.scale(-0.1))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, module.emitted_weights(chained.init(params), params), params))
    state, moving = chained.init(params), params
    for step in range(5):
        updates, state = chained.update(jax.tree.map(lambda p, s=step: jnp.cos(p + s), params), state, params)
        params = optax.apply_updates(params, updates)
        moving = optax.incremental_update(params, moving, 0.5)
        found = module.emitted_weights(state, params, beta_avg=0.5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, moving)
    with pytest.raises(ValueError, match="expected a state that contains one ScaleByEmittedState, not 0"):
        module.emitted_weights(optax.EmptyState(), params)
