"""One rule, three array libraries: NumPy is the reference; PyTorch and JAX give its values, at the edges too.

Promised: where NumPy's value is finite, the others have it to rounding, denormal numbers being 0 in JAX on a CPU;
where it is an infinity, they have the same infinity; where it is nan, they have nan, unless the nan went through
sign, which is 0 of nan in PyTorch.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sol_symbols import STANDARD, ZOO, Kind, Layout, Recurrence, UpdateRule, evaluator, lower

jax.config.update("jax_enable_x64", True)

TEXTS = [
    "exp(g) - 1", "log(abs(g))", "sqrt(abs(g)) + tanh(g)", "1/g", "g/m", "min(g, m)", "cos(g) + ag", "sigmoid(100*g)",
    "g**3 - g**2", "exp(ld*sign(g)*sign(m))*g + cd", "abs(m)**0.5*sign(g)", "rs*ad + lt", "exp(-exp(g))",
    "min(ld, 0.5)",
]  # fmt: skip
EDGES = [0.0, -0.0, 5e-324, 1e-310, 1e-300, -1e-160, 1e-30, 1.0, -2.5, 1e30, 1e154, -1e200, 1.7e308, np.inf, -np.inf]
ORDINARY = np.random.default_rng(0).normal(size=40)


def path(rule, xp, g, w, convert):
    phi = evaluator(rule, xp, None if not rule.needs_horizon or rule.horizon else 3)
    state, out = phi.init(convert(w)), []
    with np.errstate(all="ignore"):
        for t in range(1, 5):
            update, state = phi(convert(g / t), state, convert(w), t)
            out.append(np.asarray(update))
    return np.stack(out)


def close(found, expected):
    tiny = np.abs(expected) < np.finfo(expected.dtype).tiny
    found, expected = (
        np.where(tiny & (np.abs(found) < np.finfo(found.dtype).tiny), 0, found),
        np.where(tiny, 0, expected),
    )
    tolerance = 1e-12 if expected.dtype == np.float64 else 2e-5
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * 1e-30)


def rules():
    yield from ZOO.items()
    yield from ((text, UpdateRule.parse(text)) for text in TEXTS)


LIBRARIES = [pytest.param(torch, torch.tensor, id="torch"), pytest.param(jnp, jnp.asarray, id="jax")]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("xp", "convert"), LIBRARIES)
@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in rules()])
def test_ordinary_values_agree(rule, xp, convert, dtype):
    g, w = ORDINARY.astype(dtype), ORDINARY[::-1].astype(dtype)
    expected = path(rule, np, g, w, lambda x: x)
    found = path(rule, xp, g, w, convert)
    assert found.dtype == expected.dtype == dtype
    tolerance, rounding = (1e-12, 1e-15) if dtype == np.float64 else (2e-5, 1e-5)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=rounding * np.abs(expected).max())


@pytest.mark.parametrize(("xp", "convert"), LIBRARIES)
@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in rules()])
def test_edges_agree(rule, xp, convert):
    """Zeros of both signs, denormal, tiny and huge numbers, infinities."""
    g = np.array(EDGES)
    normal = (np.abs(g) == 0) | (np.abs(g) > 1e-150)  # squares of others are denormal or 0
    if lower(rule).reduces:  # one of those changes the value of all
        g, normal = g[normal], normal[normal]
    w = np.ones(len(g))
    expected, found = path(rule, np, g, w, lambda x: x), path(rule, xp, g, w, convert)
    usable = np.isfinite(expected) & normal
    close(found[usable], expected[usable])
    infinite = np.isinf(expected) & normal
    np.testing.assert_array_equal(found[infinite], expected[infinite])
    lost = np.isnan(expected)
    signs = any(name in str(rule.expression) for name in ("sign(", "Step(")) or "ag" in rule.live
    assert np.isnan(found[lost]).all() or (signs and xp is torch)


@pytest.mark.parametrize(("xp", "convert"), LIBRARIES)
def test_nan_comes_out_except_of_pytorchs_sign(xp, convert):
    g = np.array([np.nan, 1.0])
    for text in (
        "g",
        "ad",
        "exp(g)",
        "min(g, 1)",
        "min(1, g)",
        "abs(g)",
        "tanh(g)",
        "g**2",
        "log(g)",
        "cos(g)",
        "sqrt(g)",
    ):
        found = path(UpdateRule.parse(text), xp, g, g, convert)
        assert np.isnan(found[:, 0]).all(), text
        assert np.isfinite(found[:, 1]).all(), text
    found = path(UpdateRule.parse("sign(g)"), xp, g, g, convert)[:, 0]
    assert np.isnan(UpdateRule.parse("sign(g)").evaluate(g)[0])
    assert (found == 0).all() if xp is torch else np.isnan(found).all()


COUNTED = STANDARD.extended(Recurrence("a1", "t", kind=Kind.TENSOR), Recurrence("a2", "all_rms(g)", kind=Kind.TENSOR))
OF_TENSORS = {
    text: UpdateRule.parse(text, vocabulary=COUNTED)
    for text in (
        "(la*inv0(rms_v) + mean(g) + 0.1*w*inv0(all_rms(w)))*exp(0.4*log_spread)",
        "g*dot(g, m_prev)*inv0(norm(g)) + fan_in*m*is_vector",
        "m*min(1, loss*inv0(all_dot(g, g)))",
        "g*norm(orth(m))",
        "mean(matrices(g))*g + rms(vectors(m))*m",
        "g*all_dot(orth(g), m)",
        "g*a1 + m*norm(g)*a2_prev*a2",
    )
}


@pytest.mark.parametrize("lead", [(), (2, 3)], ids=str)
@pytest.mark.parametrize("name", [*OF_TENSORS, *ZOO])
def test_large_arrays_are_computed_in_pieces(name, lead, monkeypatch):
    """As in the learner: [candidates, seeds, coordinates] of several tensors, with learning rates of candidates."""
    steps, layout = 4, Layout(((2, 3), (0, 4), (9,), (), (3, 2, 2), (0,)))
    rule = OF_TENSORS.get(name) or ZOO[name]
    rule = rule.with_horizon(steps) if rule.needs_horizon else rule
    generator = torch.Generator().manual_seed(0)
    shape = (steps, *lead, sum(layout.sizes))
    g, w = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    loss = torch.rand((steps, *lead), generator=generator, dtype=torch.float64)
    values = {"lr": torch.rand((lead[0], 1, 1), generator=generator, dtype=torch.float64)} if lead else {}

    def last(xp, convert):
        phi = evaluator(rule, xp, hoist=True, layout=layout)
        phi.values.update({key: convert(value) for key, value in values.items()})
        state = phi.init(convert(w[0]))
        for t in range(steps):
            value, state = phi(convert(g[t]), state, convert(w[t]), t + 1, convert(loss[t]))
        return value, state

    reference, states = last(np, lambda x: x.numpy())
    monkeypatch.setattr("sol_symbols.evaluation.LARGE", 1)
    monkeypatch.setattr("sol_symbols.evaluation.PIECE", 4 * math.prod(lead))
    monkeypatch.delattr("sol_symbols.evaluation.Evaluator._whole")
    value, ours = last(torch, lambda x: x)
    np.testing.assert_allclose(value, np.broadcast_to(reference, value.shape), rtol=1e-10, atol=1e-12)
    for key, state in states.items():
        np.testing.assert_allclose(ours[key], np.broadcast_to(state, ours[key].shape), rtol=1e-10, atol=1e-12)
