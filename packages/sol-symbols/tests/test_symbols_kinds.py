"""Values per tensor and per run: what reductions mean, and that every part of the package knows the kinds."""

import contextlib
import json

import numpy as np
import pytest

from sol_symbols import (
    REDUCTIONS,
    STANDARD,
    ZOO,
    Feature,
    Hyperparameter,
    Kind,
    Layout,
    Recurrence,
    RuleError,
    UpdateRule,
    evaluator,
    latex,
    lower,
    parity,
    plot,
    probed_parity,
    probed_scaling_degree,
    resolve_rule,
    scaling_degree,
    simplify,
    value_ranges,
)

LAYOUT = Layout(((2, 3), (3,), (), (0,), (4, 2, 1), (3,)))
STEPS, COUNT = 7, sum(LAYOUT.sizes)
ADAPTIVE = (
    "(0.3*la*inv0(rms_v) + 0.1*sign(g))*tensor_rate*exp(0.4*log_spread)*(fan_in/100)**(-0.3)*exp(-0.7*is_vector)"
    " where rate_gain = 0.15"
)
TEXTS = [
    "g*inv0(rms(g))",
    "(ad + 0.01*w)*norm(w)*inv0(norm(ad + 0.01*w))",
    "m*step(m*g)*inv0(mean(step(m*g)))",
    "g*dot(g, m_prev)*inv0(all_rms(g))",
    "clip(g, all_rms(m))*max(rms(w), 0.001) + fan_in**(-0.5)*g_prev*(1 - is_vector)",
    "sign(g)*gmean(rms(g)) + all_dot(g, w) + norm(w) + 0.1*cos_all*g",
    "wu*tensor_scale*tensor_rate*(ad*(ld - 0.3*pd) + 0.2*la_n*pd + 0.1*g_n) where T = 10, warmup = 2",
    "orth(g + mu*b)*norm(w) + 0.1*la_o*rms(orth(g)) - orth(w)*is_vector",
    "matrices(orth(g + mu*b) + 0.1*rms(w)*g) + vectors(ad + 0.01*w) + matrices(w)*norm(vectors(g))",
    ADAPTIVE,
]
RULES = [UpdateRule.parse(text) for text in TEXTS]


def data(seed=0):
    """Gradients and parameters; the last tensor's gradient is 0."""
    rng = np.random.default_rng(seed)
    g, w = rng.normal(size=(2, STEPS, COUNT))
    g[:, -3:] = 0
    return g, w


def run(rule, **options):
    g, w = data()
    return rule.evaluate(g, w, layout=LAYOUT, **options)


@pytest.mark.parametrize("name", sorted({*REDUCTIONS} - {"orth", "matrices", "vectors"}))
def test_reductions_are_their_meaning(name):
    x, y = data()[0][0], data()[1][0]
    pieces = [(a.ravel(), b.ravel()) for a, b in zip(LAYOUT.split(x), LAYOUT.split(y))]
    each = {
        "rms": lambda a, b: np.sqrt(np.mean(a**2)) if a.size else 0,
        "mean": lambda a, b: np.mean(a) if a.size else 0,
        "norm": lambda a, b: np.linalg.norm(a),
        "dot": lambda a, b: a @ b,
        "all_rms": lambda a, b: np.sqrt(np.mean(x**2)),
        "all_dot": lambda a, b: x @ y,
        "gmean": lambda a, b: np.exp(np.mean(np.log([r for r in (np.linalg.norm(p) for p, _ in pieces) if r > 0]))),
    }[name]
    call = {"dot": "dot(g, w)", "all_dot": "all_dot(g, w)", "gmean": "gmean(norm(g))"}.get(name, f"{name}(g)")
    expected = np.concatenate([np.full(a.shape, each(a, b)) for a, b in pieces])
    found = UpdateRule.parse(f"{call}*w").evaluate(x[None], y[None], layout=LAYOUT)[0]
    np.testing.assert_allclose(found, expected * y, rtol=1e-13)


def polar(x):
    """``orth`` by its singular values."""
    if x.ndim < 2:
        return x / np.sqrt(np.mean(x**2)) if x.any() else x
    u, s, v = np.linalg.svd(x.reshape(len(x), -1), full_matrices=False)
    s = s / max(np.linalg.norm(s), 1e-30)
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    return ((u * s) @ v).reshape(x.shape) * max(1, len(x) / (x.size / len(x))) ** 0.5


ORTH = UpdateRule.parse("orth(g)")


def by_shape(text, g, w):
    """Updates of ``matrices: FORMULA; vectors: FORMULA``, each part on its tensors alone."""
    parts = {part.partition(":")[0].strip(): part.partition(":")[2] for part in text.split(";")}
    columns = []
    for a, b, shape in zip(LAYOUT.split(g), LAYOUT.split(w), LAYOUT.shapes):
        rule = UpdateRule.parse(parts["vectors" if len(shape) < 2 else "matrices"])
        columns.append((rule.lr or 1) * rule.evaluate(a, b).reshape(len(g), -1))
    return np.concatenate(columns, 1)


@pytest.mark.parametrize(
    "text",
    [
        "matrices: orth(g + mu*b) + wd*w where mu = 0.95, wd = 0.1, lr = 0.02; vectors: ad + wd*w where lr = 0.5",
        "vectors: g_prev + c*g where c = 2; matrices: m + c*sign(g) where c = 3",
        "matrices: g*inv0(rms(g)); vectors: 1/exp(w)",
    ],
)
def test_matrices_and_vectors_can_have_rules_of_their_own(text):
    g, w = data()
    rule = UpdateRule.parse(text)
    np.testing.assert_allclose(
        (rule.lr or 1) * rule.evaluate(g, w, layout=LAYOUT), by_shape(text, g, w), rtol=1e-12, atol=1e-13
    )
    assert UpdateRule.parse(str(rule)) == UpdateRule.from_json(rule.to_json()) == rule
    assert '"schema": 4' in rule.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("matrices: orth(m)", "expected '; vectors: RULE' as well"),
        ("matrices: orth(m); matrices: g", "expected 'matrices: RULE; vectors: RULE'"),
        ("matrices: orth(m); g", "expected 'matrices: RULE; vectors: RULE'"),
        ("matrices: orth(m) where beta1 = 0.95; vectors: ad", "beta1 is 0.95 for matrices and 0.9 for vectors"),
        ("matrices: ld*m where T = 3; vectors: ld*g where T = 4", "T is 3 for matrices and 4 for vectors"),
        ("matrices: g evaluate ema_weights; vectors: g", "cannot have evaluation weights"),
        (
            "matrices: ld; vectors: g",
            r"matrices takes coordinate values .* a run value .*; write x\*\(1 - is_vector\) for matr",
        ),
        (
            "matrices: orth(m); vectors: rms(g)",
            r"vectors takes .* a tensor value .*; write x\*is_vector for vectors\(x\)",
        ),
        ("matrices: foo; vectors: g", "unknown name 'foo'"),
    ],
)
def test_rules_by_shape_that_do_not_fit_together_are_refused(text, message):
    with pytest.raises(RuleError, match=message):
        UpdateRule.parse(text)


WIDER = STANDARD.extended(
    Hyperparameter("kappa", 0.3, 0.0, 1.0, ""),
    Feature("g2", "g**4", inline=True),
    Feature("ad", "g"),
    Recurrence("k", "kappa*k_prev + g2", 0.5),
)


@pytest.mark.parametrize("mine", ["ad + k", "ad", "k"])
def test_each_part_keeps_its_own_definitions(mine, tmp_path):
    """A rule file has definitions of its own, which the other part's vocabulary lacks or has another meaning for."""
    rule = UpdateRule.parse(mine, WIDER)
    (tmp_path / "mine.json").write_text(rule.to_json())
    x = data()[0][:, :6]
    vector, matrix = x, x.reshape(-1, 2, 3)
    for vocabulary in (None, WIDER):
        stored = rule if vocabulary else UpdateRule.from_json(rule.to_json())
        both = UpdateRule.by_shape(matrices=UpdateRule.parse("g + 2*m"), vectors=stored)
        np.testing.assert_array_equal(both.evaluate(vector), rule.evaluate(vector))
        np.testing.assert_array_equal(both.evaluate(matrix), UpdateRule.parse("g + 2*m").evaluate(matrix))
        assert UpdateRule.from_json(both.to_json()) == both
    path = tmp_path / "mine.json"
    for text, x in ((f"matrices: m; vectors: {path}", vector), (f"vectors: m; matrices: {path}", matrix)):
        np.testing.assert_array_equal(resolve_rule(text).evaluate(x), rule.evaluate(x))
    np.testing.assert_array_equal(
        resolve_rule(f"matrices: kappa*g where kappa = 0.3; vectors: {path}").evaluate(vector), rule.evaluate(vector)
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            "ad",
            r"'ad' stands for 'm_hat/\(eps \+ sqrt\(v_hat\)\)' for matrices and 'g' for vectors: rename one of the two",
        ),
        (
            "k*g where k = 2",
            "'k' stands for 'a number' for matrices and 'g\\*\\*4 .*, from 0.5 per coordinate' for vec",
        ),
        ("kappa*g where kappa = 2", "kappa is 2 for matrices and 0.3 for vectors, which share what follows from it"),
    ],
)
def test_a_name_with_two_meanings_in_the_parts_is_refused(other, message):
    with pytest.raises(RuleError, match=message):
        UpdateRule.by_shape(matrices=UpdateRule.parse(other), vectors=UpdateRule.parse("ad + k", WIDER))
    per_tensor = UpdateRule.parse("g*k", STANDARD.extended(Recurrence("k", "k_prev + 1", 1, kind=Kind.TENSOR)))
    with pytest.raises(RuleError, match=r"'k' stands for '.*, from 0.5 per coordinate' for .* '.*, from 1 per tensor'"):
        UpdateRule.by_shape(matrices=UpdateRule.parse("k", WIDER), vectors=per_tensor)


def test_memory_is_counted_by_kind():
    kinds = STANDARD.extended(Recurrence("vr", "all_rms(g)", kind=Kind.RUN))
    texts = ("g", "m", "ad", "g/(sqrt(v_mean) + eps)", "ad*tensor_rate*vr")
    assert [UpdateRule.parse(text, kinds).memory for text in texts] == [
        "0 states per parameter",
        "1 state per parameter",
        "2 states per parameter",
        "0 states per parameter, 1 per tensor",
        "2 states per parameter, 1 per tensor, 1 per run",
    ]


def test_a_part_has_the_horizon_and_the_rate_of_the_other_one():
    rule = UpdateRule.parse("matrices: ld*g; vectors: ld*m where T = 8, lr = 0.1")
    assert (rule.horizon, rule.lr) == (8, 0.1)
    assert UpdateRule.parse("matrices: ld*g where T = 8; vectors: ld*m").horizon == 8


def test_orth_is_its_meaning():
    g = data()[0][0]
    expected = np.concatenate([polar(piece).ravel() if piece.size else piece.ravel() for piece in LAYOUT.split(g)])
    np.testing.assert_allclose(ORTH.evaluate(g[None], g[None], layout=LAYOUT)[0], expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(ORTH.evaluate(g[None, :6].reshape(1, 2, 3)).ravel(), expected[:6], rtol=1e-11)


@pytest.mark.parametrize("shape", [(4, 30), (30, 4), (8, 8), (6, 2, 3, 3)])
def test_orth_is_nearly_orthogonal_and_knows_no_scale_and_no_order(shape):
    x = np.random.default_rng(0).normal(size=(1, *shape))
    y = ORTH.evaluate(x)[0]
    matrix = y.reshape(len(y), -1)
    values = np.linalg.svd(matrix, compute_uv=False) / max(1, np.divide(*matrix.shape)) ** 0.5
    assert values.min() > 0.5
    assert values.max() < 1.25
    np.testing.assert_allclose(ORTH.evaluate(1e-8 * x)[0], y, rtol=1e-9)
    order = np.random.default_rng(1).permutation(len(y))
    np.testing.assert_allclose(ORTH.evaluate(x[:, order])[0], y[order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 6), (6,), ()])
@pytest.mark.parametrize("size", [1e-25, 1e-29, 1e-33, 1e-44, 0])
def test_orth_of_what_nearly_vanishes_is_bounded(shape, size):
    """Squares of numbers below 1e-23 are 0 in float32: a norm of 0 must not blow up what it divides."""
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    found = ORTH.evaluate(np.float32(size) * x)[0]
    assert np.abs(found).max() < 3
    if size > 1e-29:
        np.testing.assert_allclose(found, ORTH.evaluate(x)[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("decay", [0.5, 0.03, 1e-4])
@pytest.mark.parametrize("name", ["sol-general", "sol-elementwise"])
def test_learned_rules_are_finite_while_gradients_vanish(name, decay):
    """In float32, down to numbers whose squares, and whose products with each other, are 0."""
    sizes = np.float32(decay) ** np.arange(60, dtype=np.float32)
    g = (np.random.default_rng(0).normal(size=(60, COUNT)) * sizes[:, None]).astype(np.float32)
    found = ZOO[name].with_horizon(60).evaluate(g, 0 * g + 1, layout=LAYOUT)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("shape", [(16, 200), (200, 16), (32, 32)])
def test_orth_in_float32_is_near_that_in_float64(shape):
    x = np.random.default_rng(0).normal(size=shape)
    x[1] = x[0] + 1e-3 * x[1]  # badly conditioned
    exact, found = ORTH.evaluate(x[None])[0], ORTH.evaluate(x[None].astype(np.float32))[0]
    assert found.dtype == np.float32
    assert np.abs(found - exact).max() < 1e-4


@pytest.mark.parametrize("rule", RULES, ids=TEXTS)
def test_what_is_zero_is_zero_everywhere(rule):
    zeros = np.zeros((STEPS, COUNT))
    assert not rule.evaluate(zeros, zeros, layout=LAYOUT).any()
    assert np.isfinite(run(rule)).all()
    assert rule.evaluate(np.zeros((3, 0)), np.zeros((3, 0)), layout=Layout(((0,),))).shape == (3, 0)


@pytest.mark.parametrize("rule", RULES, ids=TEXTS)
def test_without_a_layout_an_array_is_one_tensor(rule):
    g, w = data()
    whole = rule.evaluate(g.reshape(STEPS, 7, 3), w.reshape(STEPS, 7, 3)).reshape(STEPS, COUNT)
    np.testing.assert_allclose(whole, rule.evaluate(g, w, layout=Layout(((7, 3),))), rtol=1e-12)


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("rule", RULES, ids=TEXTS)
def test_all_libraries_and_hoisted_code_agree(rule, library):
    module = pytest.importorskip(library)
    xp = module.numpy if library == "jax" else module
    with module.enable_x64(True) if library == "jax" else contextlib.nullcontext():
        g, w = (xp.asarray(x) for x in data())
        for hoist in (False, True):
            phi = evaluator(rule, xp, hoist=hoist, layout=LAYOUT)
            state = phi.init(w[0])
            for t in range(STEPS):
                value, state = phi(g[t], state, w[t], t + 1)
            np.testing.assert_allclose(np.asarray(value), run(rule)[-1], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("rule", RULES, ids=TEXTS)
def test_leading_axes_are_runs_of_their_own(rule):
    """As the learner has them: [candidates, seeds, coordinates]; states of tensors are [..., tensors]."""
    g, w = (np.stack([data(seed)[i] for seed in range(3)], 1)[:, None].repeat(2, 1) for i in range(2))
    phi = evaluator(rule, layout=LAYOUT)
    state = phi.init(w[0])
    for t in range(STEPS):
        value, state = phi(g[t], state, w[t], t + 1)
    for seed in range(3):
        alone = rule.evaluate(*data(seed), layout=LAYOUT)[-1]
        np.testing.assert_allclose(value[:, seed], np.stack([alone, alone]), rtol=1e-12)
    sizes = {Kind.TENSOR: len(LAYOUT.sizes), Kind.COORDINATE: COUNT}
    for name in rule.states:
        assert state[name].shape == (2, 3, sizes[rule.vocabulary.recurrences[name].kind])


def test_a_state_of_tensors_may_be_updated_by_one_number():
    """It has one number per tensor all the same."""
    kinds = STANDARD.extended(Recurrence("a1", "t", kind=Kind.TENSOR), Recurrence("a2", "all_rms(g)", kind=Kind.TENSOR))
    rule = UpdateRule.parse("g*a1 + g*a2_prev", vocabulary=kinds)
    g, _ = data()
    rms = np.sqrt((g**2).mean(-1, keepdims=True))
    expected = g * np.arange(1, STEPS + 1)[:, None] + g * np.concatenate([0 * rms[:1], rms[:-1]])
    np.testing.assert_allclose(run(rule), expected, rtol=1e-12)


@pytest.mark.parametrize("rule", [rule for rule in RULES if "orth(" not in str(rule)], ids=str)
def test_permuting_the_coordinates_of_a_tensor_permutes_the_update(rule):
    g, w = data()
    order = np.arange(COUNT)
    order[:6] = np.random.default_rng(3).permutation(6)
    np.testing.assert_allclose(
        rule.evaluate(g[:, order], w[:, order], layout=LAYOUT), run(rule)[:, order], rtol=1e-10, atol=1e-13
    )


def test_the_adaptive_rate_is_what_its_definition_says():
    """h_1 = 0, h_t = clip(h_(t-1) + k (cos(g_t, u_(t-1)) - c0), -7, 7), in plain loops."""
    k, c0, beta = 2.0, -0.05, 0.9
    rule = UpdateRule.parse("tensor_rate*w where rate_gain = 2")
    g, w = data()

    def cosine(a, b):
        sizes = np.linalg.norm(a) * np.linalg.norm(b)
        return a @ b / sizes if sizes > 0 else 0.0

    h, u = np.zeros(len(LAYOUT.sizes)), np.zeros(COUNT)
    for t in range(STEPS):
        if t:
            pairs = zip(LAYOUT.split(g[t]), LAYOUT.split(u))
            agreement = np.array([cosine(a.ravel(), b.ravel()) for a, b in pairs])
            h = np.clip(h + k * (agreement - c0), -7, 7)
        u = beta * u + (1 - beta) * g[t]
        expected = np.exp(h).repeat(LAYOUT.sizes) * w[t]
        np.testing.assert_allclose(run(rule)[t], expected, rtol=1e-12)
    assert np.abs(h).max() > 1


@pytest.mark.parametrize("rule", RULES, ids=TEXTS)
def test_text_and_file_read_back(rule):
    assert UpdateRule.parse(str(rule)) == rule
    assert UpdateRule.from_json(rule.to_json()) == rule
    assert json.loads(rule.to_json())["schema"] == (4 if "matrices(" in str(rule) else 3 if "orth(" in str(rule) else 2)


def test_elementwise_rules_are_stored_as_they_were():
    for rule in ZOO.values():
        later = lower(rule).reduces or rule.evaluation is not None
        if not later and all(operator.schema == 1 for operator in rule.calls):
            record = json.loads(rule.to_json())
            assert record["schema"] == 1
            assert all(state.keys() == {"init", "update"} for state in record["states"].values())
    stored = json.loads(UpdateRule.parse("g*tensor_rate").to_json())
    assert stored["states"]["log_rate"]["kind"] == "tensor"
    stored["states"]["log_rate"]["kind"] = "matrix"
    with pytest.raises(RuleError, match="state 'log_rate' is of kind 'matrix'; kinds: run, tensor, coordinate"):
        UpdateRule.from_json(json.dumps(stored))


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("g + rms(fan_in)", "rms reduces coordinate values .* its argument is a tensor value", 8),
        ("g*mean(ld) where T = 9", "mean reduces coordinate values .* its argument is a run value", 7),
        ("dot(g, rms(g))", "dot reduces coordinate values .* its argument is a tensor value", 7),
        ("gmean(g)", r"gmean reduces tensor values \(one number per tensor\), .* a coordinate value", 6),
        ("norm(loss)", r"norm reduces coordinate values .* is a run value \(one number\)", 5),
        ("norm(2)", "norm reduces coordinate values .* its argument is a number", 5),
        ("all_rms(c*t) where c = 2", "all_rms reduces .* a run value", 8),
        ("rms", "'rms' is an operator", 0),
        ("orth(2)", "orth takes coordinate values .* its argument is a number", 5),
        ("dot(g)", "operator 'dot' takes 2 arguments, got 1", 0),
        ("rms(g, m)", "operator 'rms' takes 1 argument, got 2", 0),
    ],
)
def test_wrong_mixtures_are_refused_with_the_place(text, message, place):
    with pytest.raises(RuleError, match=message) as caught:
        UpdateRule.parse(text)
    assert str(caught.value).splitlines()[-1] == "  " + " " * place + "^"


def test_definitions_of_the_wrong_kind_are_refused():
    with pytest.raises(RuleError, match="state 'r' has one number per tensor, and its update has one number per coord"):
        STANDARD.extended(Recurrence("r", "r_prev + g", kind=Kind.TENSOR))
    with pytest.raises(RuleError, match=r"rms reduces .*\n  rms\(rms\(g\)\)\n      \^"):
        STANDARD.extended(Feature("r", "rms(rms(g))"))
    with pytest.raises(RuleError, match="rms reduces"):
        UpdateRule(REDUCTIONS["rms"](REDUCTIONS["rms"](RULES[0].expression)))


def test_states_per_tensor_and_per_run():
    wider = STANDARD.extended(
        Recurrence("vt", "beta2*vt_prev + (1 - beta2)*norm(g)**2", kind=Kind.TENSOR),
        Recurrence("vr", "max(vr_prev, all_rms(g))", kind=Kind.RUN),
    )
    rule = UpdateRule.parse("g*inv0(sqrt(vt))*vr where beta2 = 0.5", wider)
    g, _ = data()
    norms, most, vt = np.zeros(COUNT), 0.0, 0.0
    for t in range(STEPS):
        norms = np.concatenate([np.full(p.size, np.linalg.norm(p)) for p in LAYOUT.split(g[t])])
        vt, most = 0.5 * vt + 0.5 * norms**2, max(most, np.sqrt(np.mean(g[t] ** 2)))
        expected = np.divide(g[t], np.sqrt(vt), out=np.zeros(COUNT), where=vt > 0) * most
        np.testing.assert_allclose(rule.evaluate(g, layout=LAYOUT)[t], expected, rtol=1e-12)
    assert UpdateRule.from_json(rule.to_json()) == rule
    assert evaluator(rule, layout=LAYOUT).init(g[0])["vr"].shape == (1,)


@pytest.mark.parametrize("rule", RULES, ids=TEXTS)
def test_the_other_tools_know_the_kinds(rule):
    odd, degree = parity(rule.expression, STANDARD), scaling_degree(rule.expression, STANDARD)
    assert odd in (0, probed_parity(rule))
    assert degree is None or float(degree) == probed_scaling_degree(rule)
    short = simplify(rule).rule
    np.testing.assert_allclose(run(short), run(rule), rtol=1e-9, atol=1e-12)
    low, high = value_ranges(rule, 4.0, 4.0, steps=STEPS).bounds["phi"]
    values = run(rule)
    assert low <= values.min()
    assert values.max() <= high
    assert latex(rule.expression).count("{") == latex(rule.expression).count("}")
    assert np.isfinite(plot(rule).axes[0].lines[0].get_ydata()).any()


def test_symmetries_of_reductions():
    texts = ["g*inv0(rms(g))", "la*inv0(rms_v)", "g*tensor_rate", "dot(g, m_prev)*g", "mean(g)", "norm(m)"]
    rules = [UpdateRule.parse(text) for text in texts]
    assert [parity(rule.expression, STANDARD) for rule in rules] == [-1, -1, -1, -1, -1, 1]
    assert [scaling_degree(rule.expression, STANDARD) for rule in rules] == [0, 0, 1, 3, 1, 1]


def test_low_precision_is_reduced_in_float32():
    g = np.full(70_000, 0.01, np.float16)
    phi = evaluator(UpdateRule.parse("norm(g)"))
    assert phi(g, {}, None, 1)[0][0] == pytest.approx(0.01 * 70_000**0.5, rel=1e-3)


def test_a_layout_that_does_not_fit_is_refused():
    with pytest.raises(RuleError, match=r"the layout has 21 coordinates, and gradients are of shape \[2, 5\]"):
        RULES[0].evaluate(np.ones((2, 5)), layout=LAYOUT)


LOSSY = UpdateRule.parse("g*min(1, loss*inv0(all_dot(g, g))) + 0.1*tanh(loss)*rms(w)*ad*ld where lr = 1, T = 9")
LOSSES = np.random.default_rng(5).uniform(0.1, 3, STEPS)


def test_the_loss_is_a_number_of_the_run():
    g, _ = data()
    polyak = UpdateRule.parse("g*min(1, loss*inv0(all_dot(g, g))) where lr = 1")
    found = polyak.evaluate(g, layout=LAYOUT, losses=LOSSES)
    expected = g * np.minimum(1, LOSSES / (g * g).sum(1))[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(UpdateRule.parse("loss").evaluate(g, losses=LOSSES), LOSSES[:, None] + 0 * g)
    assert json.loads(polyak.to_json())["schema"] == 5
    assert UpdateRule.from_json(polyak.to_json()) == UpdateRule.parse(str(polyak)) == polyak
    assert [entry.name for entry in polyak.inputs] == ["g", "loss"]
    assert latex(polyak.expression).count(r"\mathcal{L}_t") == 1
    assert parity(LOSSY.expression, STANDARD) == probed_parity(LOSSY) == -1
    degrees = [scaling_degree(STANDARD.parse(text), STANDARD) for text in ("loss*g", "loss/norm(g)*sign(g)")]
    assert degrees == [2, 0]
    assert [probed_scaling_degree(UpdateRule.parse(text)) for text in ("loss*g", str(polyak))] == [2.0, None]
    plot(LOSSY)
    assert simplify(LOSSY).rule == LOSSY
    value_ranges(LOSSY)


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_every_run_has_a_loss_of_its_own(library):
    module = pytest.importorskip(library)
    xp = module.numpy if library == "jax" else module
    with module.enable_x64(True) if library == "jax" else contextlib.nullcontext():
        g, w = (np.stack([data(seed)[i] for seed in range(3)], 1)[:, None].repeat(2, 1) for i in range(2))
        losses = np.random.default_rng(6).uniform(0.1, 3, (STEPS, 2, 3))
        phi = evaluator(LOSSY, xp, layout=LAYOUT)
        state = phi.init(xp.asarray(w[0]))
        for t in range(STEPS):
            value, state = phi(xp.asarray(g[t]), state, xp.asarray(w[t]), t + 1, xp.asarray(losses[t]))
        for c, seed in np.ndindex(2, 3):
            alone = LOSSY.evaluate(*data(seed), layout=LAYOUT, losses=losses[:, c, seed])[-1]
            np.testing.assert_allclose(np.asarray(value)[c, seed], alone, rtol=1e-11, atol=1e-13)


def test_a_loss_that_is_missing_is_asked_for():
    g, w = data()
    with pytest.raises(RuleError, match="uses the loss: pass losses, one for each step"):
        LOSSY.evaluate(g, w, layout=LAYOUT)
    with pytest.raises(RuleError, match=r"losses must be 7 numbers, one for each step; got the shape \[6\]"):
        LOSSY.evaluate(g, w, layout=LAYOUT, losses=LOSSES[1:])
    phi = evaluator(LOSSY, layout=LAYOUT)
    with pytest.raises(RuleError, match="the formula uses the loss: pass that of the step"):
        phi(g[0], phi.init(w[0]), w[0], 1)
    with pytest.raises(RuleError, match="evaluation weights cannot use loss"):
        UpdateRule.parse("ad evaluate ema_weights*loss")
