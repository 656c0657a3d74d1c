"""The emitted Optax file is the rule, is Optax's own optimizer where the zoo has it, and takes part in all of Optax."""

import inspect
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sol_symbols import ZOO, Layout, UpdateRule, evaluator

TEXTS = [
    "0.4*ad + 0.1*sign(g)*cd + 0.02*tanh(m_prev)*ld + 0.01*w where lr = 0.01, T = 30",
    "0.1*min(g, 0.5) + 0.1*min(m, v) + 0.1*log(1 + s)*sign(ld - 0.5)/(2 + cd) where T = 20",
    "1 where lr = 0.001",
    "ld where lr = 0.001, T = 20",
    "log(ld)*g + m/ld where lr = 0.01, T = 3",
]
RULES = {**ZOO, **{text[:25]: UpdateRule.parse(text) for text in TEXTS}}
LEARNED = UpdateRule.parse(TEXTS[0])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def tree(dtype=jnp.float64, seed=0):
    random = np.random.default_rng(seed)
    return {"a": [jnp.asarray(random.normal(size=(4, 3)), dtype)], "b": (jnp.asarray(random.normal(), dtype), {})}


def flat(values):
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(values)])


def descend(optimizer, params, steps, state=None, start=0):
    state = optimizer.init(params) if state is None else state
    for step in range(start, steps):
        grads = tree(jax.tree.leaves(params)[0].dtype, seed=step + 1)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def outputs_first(kind):
    """Matrices as in the definition of a rule, and in PyTorch."""
    return partial(kind, output_last=False) if "output_last" in inspect.signature(kind).parameters else kind


def assert_same(ours, theirs, tolerance=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_emitted_file_is_the_rule(emitted, rule, dtype):
    rule = rule.with_horizon(rule.horizon or 40)
    horizon = {"horizon": rule.horizon} if rule.horizon else {}
    ours, _ = descend(outputs_first(emitted(rule, "optax").emitted)(0.01, **horizon), tree(dtype), 50)
    assert {x.dtype for x in jax.tree.leaves(ours)} == {jnp.dtype(dtype)}
    layout = Layout.of(jax.tree.leaves(ours))
    phi, theirs = evaluator(rule, layout=layout), flat(tree(dtype))
    state = phi.init(theirs)
    with np.errstate(all="ignore"):
        for t in range(1, 51):
            update, state = phi(flat(tree(dtype, seed=t)), state, theirs, t)
            theirs = theirs - np.asarray(0.01 * update, theirs.dtype)
    assert_same(flat(ours), theirs, 1e-12 if dtype == jnp.float64 else 2e-5)


@pytest.mark.parametrize(
    "rule",
    [
        *map(UpdateRule.parse, ["0.5*ad*cd + pd*sign(g)*wu + 0.2*g*(1 - ld)", "min(t/warmup, 1)*(T - t)/T*g", "wu*ad"]),
        *(ZOO["sol-elementwise"], ZOO["powersign-cd"]),
    ],
    ids=str,
)
def test_the_schedule_can_be_switched_off(emitted, rule):
    """As the limit for ever longer schedules and ever shorter warm-ups; no horizon is needed."""
    optimizer = outputs_first(emitted(rule, "optax").emitted)(0.01, schedule=False)
    ours, _ = descend(optimizer, tree(), 20)
    theirs, layout = flat(tree()), Layout.of(jax.tree.leaves(ours))
    phi = evaluator(replace(rule, values={**rule.values, "T": 1e18, "warmup": 0.0}), layout=layout)
    state = phi.init(theirs)
    for t in range(1, 21):
        update, state = phi(flat(tree(seed=t)), state, theirs, t)
        theirs = theirs - 0.01 * update
    assert_same(flat(ours), theirs)


def test_schedules_of_optax_take_over(emitted):
    """A decay of the formula is the same as one of the learning rate."""
    alias = emitted(UpdateRule.parse("ld*ad"), "optax").emitted
    with pytest.raises(TypeError, match="give horizon, the number of steps in the schedule, or schedule=False"):
        alias(0.01)
    ours, _ = descend(alias(lambda k: 0.01 * (1 - (k + 1) / 20), schedule=False), tree(), 15)
    theirs, _ = descend(alias(0.01, horizon=20), tree(), 15)
    assert_same(ours, theirs, 1e-7)  # Optax computes schedules in float32


REFERENCES = {
    "sgd": (optax.sgd, {}),
    "momentum": (optax.sgd, {"momentum": 0.9}),
    "rmsprop": (optax.rmsprop, {"decay": 0.99, "eps_in_sqrt": False}),
    "adam": (optax.adam, {}),
    "adamw": (optax.adamw, {"weight_decay": 0.01}),
    "lion": (optax.lion, {"weight_decay": 0.0}),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_zoo_rules_are_the_optimizers_of_optax(emitted, name):
    kind, settings = REFERENCES[name]
    optimizer, reference = emitted(ZOO[name], "optax").emitted(0.01), kind(0.01, **settings)
    ours, state = descend(optimizer, tree(), 40)
    state = jax.tree.map(jnp.asarray, jax.tree.map(np.asarray, state))  # as through a file
    ours, _ = descend(optimizer, ours, 100, state, start=40)
    assert_same(ours, descend(reference, tree(), 100)[0])


def test_only_live_moments_are_kept(emitted):
    assert emitted(ZOO["lion"], "optax").ScaleByEmittedState._fields == ("m_slow",)
    assert emitted(ZOO["sgd"], "optax").ScaleByEmittedState._fields == ()
    assert emitted(ZOO["adam"], "optax").ScaleByEmittedState._fields == ("count", "m", "v")


@pytest.mark.parametrize("rule", [ZOO["lion"], ZOO["sgd"], LEARNED], ids=["lion", "sgd", "learned"])
class TestOptax:
    """Each of Optax's tools, against the same without it."""

    def test_jit(self, emitted, rule):
        optimizer = emitted(rule, "optax").emitted(0.01)
        compiled = optax.GradientTransformation(jax.jit(optimizer.init), jax.jit(optimizer.update))
        assert_same(descend(compiled, tree(), 5)[0], descend(optimizer, tree(), 5)[0])

    def test_vmap(self, emitted, rule):
        optimizer = emitted(rule, "optax").emitted(0.01)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *(tree(seed=seed) for seed in (0, 7)))

        def run(params):
            return descend(optimizer, params, 5)[0]

        assert_same(jax.vmap(run)(stacked), jax.tree.map(lambda *x: jnp.stack(x), run(tree()), run(tree(seed=7))))

    def test_scan_and_gradients(self, emitted, rule):
        optimizer = emitted(rule, "optax").emitted(0.01)

        def last(params):
            def step(carry, _):
                params, state = carry
                updates, state = optimizer.update(params, state, params)
                return (optax.apply_updates(params, updates), state), None

            (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=4)
            return sum(jnp.sum(x) for x in jax.tree.leaves(params))

        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(jax.grad(last)(tree())))

    def test_multi_transform(self, emitted, rule):
        ours = emitted(rule, "optax").emitted(0.01)
        mixed = optax.multi_transform({"ours": ours, "sgd": optax.sgd(0.1)}, {"a": "ours", "b": "sgd"})
        final = descend(mixed, tree(), 5)[0]
        assert_same(final["a"], descend(ours, tree(), 5)[0]["a"])
        assert_same(final["b"], descend(optax.sgd(0.1), tree(), 5)[0]["b"])

    def test_inject_hyperparams(self, emitted, rule):
        alias = emitted(rule, "optax").emitted
        schedule = optax.linear_schedule(0.1, 0.0, 5)
        optimizer = optax.inject_hyperparams(alias)(schedule, weight_decay=0.1)
        assert_same(descend(optimizer, tree(), 5)[0], descend(alias(schedule, weight_decay=0.1), tree(), 5)[0])

    @pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
    def test_multi_steps(self, emitted, rule, dtype):
        optimizer = emitted(rule, "optax").emitted(0.01)
        every = optax.MultiSteps(optimizer, every_k_schedule=2)
        params, state = tree(dtype), None
        state = every.init(params)
        for _ in range(4):
            updates, state = every.update(tree(dtype, seed=1), state, params)
            params = optax.apply_updates(params, updates)
        plain = tree(dtype)
        state = optimizer.init(plain)
        for _ in range(2):
            updates, state = optimizer.update(tree(dtype, seed=1), state, plain)
            plain = optax.apply_updates(plain, updates)
        assert_same(params, plain, 1e-8 if dtype == jnp.float64 else 1e-2)  # MultiSteps divides in float32

    def test_masked_weight_decay(self, emitted, rule):
        alias = emitted(rule, "optax").emitted
        ours = descend(alias(0.01, weight_decay=0.5, mask={"a": True, "b": False}), tree(), 5)[0]
        assert_same(ours["a"], descend(alias(0.01, weight_decay=0.5), tree(), 5)[0]["a"])
        assert_same(ours["b"], descend(alias(0.01), tree(), 5)[0]["b"])


def test_low_precision_keeps_its_moments_in_float32(emitted):
    params, state = descend(emitted(ZOO["adam"], "optax").emitted(0.01), tree(jnp.bfloat16), 3)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(state[0].m)} == {jnp.dtype(jnp.float32)}


def test_a_formula_of_the_parameters_asks_for_them(emitted):
    optimizer = emitted(LEARNED, "optax").scale_by_emitted()
    with pytest.raises(ValueError, match="depends on the parameters"):
        optimizer.update(tree(), optimizer.init(tree()))


@pytest.mark.parametrize("text", ["ad", "ad + 0.1*w", "sign(g)", "g*rms(g)*exp(-is_vector)", "b"])
def test_python_floats_are_parameters(emitted, text):
    """As arrays without dimensions."""
    optimizer = emitted(UpdateRule.parse(text), "optax").emitted(0.1)
    numbers, arrays = ({"a": 0.5, "b": [-2.0]}, {"a": jnp.asarray(0.5), "b": [jnp.asarray(-2.0)]})
    states = [optimizer.init(params) for params in (numbers, arrays)]
    for t in range(1, 4):
        gradients = {"a": 0.3 / t, "b": [-1.5 * t]}
        updates, states[0] = optimizer.update(gradients, states[0], numbers)
        expected, states[1] = optimizer.update(jax.tree.map(jnp.asarray, gradients), states[1], arrays)
        assert_same(updates, expected)
        numbers, arrays = optax.apply_updates(numbers, updates), optax.apply_updates(arrays, expected)


@pytest.mark.parametrize("text", ["ad", "sign(g)", "g*rms(g)", "g + 0.1*w"])
@pytest.mark.parametrize("value", [1.0 + 2.0j, 3, jnp.ones(2, jnp.complex64), jnp.ones(2, jnp.int32)], ids=str)
def test_numbers_that_are_not_real_floats_are_refused(emitted, text, value):
    optimizer = emitted(UpdateRule.parse(text), "optax").emitted(0.1)
    with pytest.raises(TypeError, match=r"real floating-point numbers, not (complex|int)"):
        optimizer.update(value, optimizer.init(value), value)


@pytest.mark.parametrize("name", ["muon", "sol-general", "sol-elementwise"])
@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (6, 3, 2, 5), (5, 2, 3), (3, 1), (4,), ()], ids=str)
def test_kernels_have_their_outputs_last_as_in_flax(emitted, name, shape):
    """In Flax, x @ kernel; its kernel is PyTorch's weight with the output axis moved to the end."""
    kind, horizon = emitted(ZOO[name], "optax").emitted, {"horizon": 8} if ZOO[name].needs_horizon else {}
    random = np.random.default_rng(0)
    values = [jnp.asarray(random.normal(size=shape)) for _ in range(6)]
    moved = [jnp.moveaxis(x, 0, -1) if shape else x for x in values]
    results = []
    for (params, *grads), last in ((values, False), (moved, True)):
        optimizer = kind(0.1, output_last=last, **horizon)
        state = optimizer.init(params)
        for g in grads:
            updates, state = optimizer.update(g, state, params)
            params = optax.apply_updates(params, updates)
        results.append(params)
    np.testing.assert_allclose(jnp.moveaxis(results[0], 0, -1) if shape else results[0], results[1], rtol=1e-9)
    assert inspect.signature(kind).parameters["output_last"].default is True
    injected = optax.inject_hyperparams(kind)(learning_rate=0.1, **horizon)  # keeps it out of the traced numbers
    injected.update(moved[1], injected.init(moved[0]), moved[0])


def test_rules_that_do_not_see_shapes_have_no_output_axis(emitted):
    assert "output_last" not in inspect.signature(emitted(ZOO["lamb"], "optax").emitted).parameters


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"horizon": 0}, "horizon must be a finite number >= 1, got 0"),
        ({"horizon": None}, "horizon must be a finite number >= 1, got None"),
        ({"horizon": "10"}, "horizon must be a finite number >= 1, got '10'"),
        ({"beta1": 1.0}, r"beta1 must be a number in \[0, 1\), got 1.0"),
        ({"eps": float("nan")}, "eps must be a finite number >= 0, got nan"),
        ({"learning_rate": -0.1}, "learning_rate must be a finite number >= 0, got -0.1"),
        ({"learning_rate": None}, "learning_rate must be a finite number >= 0, got None"),
        ({"weight_decay": -1}, "weight_decay must be a finite number >= 0, got -1"),
    ],
)
def test_wrong_hyperparameters_are_refused(emitted, given, message):
    with pytest.raises(ValueError, match=message):
        emitted(ZOO["sol-general"], "optax").emitted(**({"horizon": 10} | given))


REDUCING = UpdateRule.parse(
    "(0.3*la*inv0(rms_v) + 0.05*w*inv0(all_rms(w)))*tensor_rate*exp(0.4*log_spread)*exp(-0.7*is_vector) where lr = 0.01"
)


def test_rules_of_tensors_take_part_in_optax(emitted):
    """jit, scan, masks and schedules; one state per tensor."""
    module = emitted(REDUCING, "optax")
    optimizer = module.emitted()
    final, state = descend(optimizer, tree(), 5)
    compiled = optax.GradientTransformation(jax.jit(optimizer.init), jax.jit(optimizer.update))
    assert_same(descend(compiled, tree(), 5)[0], final)
    assert {x.shape for x in jax.tree.leaves(state[0].log_rate)} == {()}

    def step(carry, grads):
        params, state = carry
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(tree(seed=seed) for seed in range(1, 6)))
    (scanned, _), _ = jax.lax.scan(step, (tree(), optimizer.init(tree())), stacked)
    assert_same(scanned, final)
    masked = optax.masked(optimizer, {"a": True, "b": False})
    alone = {"a": tree()["a"]}
    state, own = masked.init(tree()), optimizer.init(alone)
    found, _ = masked.update(tree(seed=1), state, tree())
    assert_same(found["a"], optimizer.update({"a": tree(seed=1)["a"]}, own, alone)[0]["a"])
