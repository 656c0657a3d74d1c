"""The verdict: what it says, how often it is wrong on data with known differences, and the code that it hands out."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sol_learner import Comparison
from sol_learner.comparing import OptimizerResult
from sol_learner.comparing.significance import bootstrap_interval, paired_test
from sol_learner.comparing.torch_code import described, torch_code
from sol_learner.comparing.verdict import Side, judge
from sol_learner.inner import Outcome
from sol_symbols import ZOO, UpdateRule, evaluator

SEEDS = 10


def losses(rng, mean=1.0, noise=0.05, shared=None):
    """Losses of one optimizer: the seed's own difficulty times the optimizer's noise."""
    shared = np.ones(SEEDS) if shared is None else shared
    return mean * shared * np.exp(noise * rng.standard_normal(SEEDS))


def plain(first, *others, **more):
    return judge(Side("mine", np.array(first)), [Side(f"b{n}", np.array(o)) for n, o in enumerate(others)], 100, **more)


# -- what is known about the data -----------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["normal", "heavy", "skewed"])
@pytest.mark.parametrize("others", ["equal", "far"])
def test_equal_optimizers_are_rarely_told_apart(noise, others):
    """1,000 null comparisons with four baselines: at most 5 % are called better, and at most 5 % worse.

    The hardest null is one baseline as good as the first and three that are much worse: the choice of the best
    baseline then helps nobody. With four equal baselines the first has to beat the luckiest.
    """
    rng = np.random.default_rng(3)
    draw = {
        "normal": lambda: 0.1 * rng.standard_normal(SEEDS),
        "heavy": lambda: 0.1 * np.clip(rng.standard_t(2, SEEDS), -20, 20),
        "skewed": lambda: 0.5 * rng.exponential(size=SEEDS),
    }[noise]
    found = {"better": 0, "worse": 0, "even": 0}
    for _ in range(1000):
        shared = np.exp(0.2 * rng.standard_normal(SEEDS))
        scales = [1, 1, *([1] * 3 if others == "equal" else [3] * 3)]
        sides = [Side(str(n), s * shared * np.exp(draw()), s * shared * np.exp(draw())) for n, s in enumerate(scales)]
        found[judge(sides[0], sides[1:], 100).outcome] += 1
    assert found["better"] <= 50
    if others == "far":
        assert found["worse"] <= 100  # two quantities, each of them enough
        assert found["better"] >= 2  # the bound is not one that holds for a judge who never decides


def test_a_known_difference_is_found():
    rng, found = np.random.default_rng(4), 0
    for _ in range(300):
        shared = np.exp(0.2 * rng.standard_normal(SEEDS))
        first = losses(rng, 0.9, shared=shared)
        found += plain(first, *(losses(rng, mean, shared=shared) for mean in (1.0, 1.05, 1.2, 3.0))).better
    assert found > 240  # 10 % lower; the differences have a standard deviation of 7 %


@pytest.mark.parametrize("count", [5, 10, 20])
def test_intervals_cover_what_they_promise(count):
    rng, ratios, means = np.random.default_rng(5), 0, 0
    for _ in range(1000):
        shared = np.exp(0.2 * rng.standard_normal(count))
        pair = np.stack([0.9 * shared * (1 + 0.05 * rng.standard_normal(count)) for _ in range(2)], 1) / [0.9, 1.0]
        low, high = bootstrap_interval(pair, lambda m: m[:, 0] / m[:, 1])
        ratios += low <= 1 / 0.9 <= high
        low, high = bootstrap_interval(3 + rng.standard_normal(count))
        means += low <= 3 <= high
    least = 0.93 if count >= 10 else 0.88
    assert least * 1000 <= ratios <= 975
    assert least * 1000 <= means <= 975


def test_a_better_training_loss_bought_with_the_held_out_loss_is_no_win():
    rng = np.random.default_rng(6)
    first = Side("mine", losses(rng, 0.8), losses(rng, 1.3))
    verdict = judge(first, [Side("theirs", losses(rng), losses(rng))], 100)
    assert verdict.train.sign == -1
    assert verdict.outcome == "worse"
    assert verdict.line.startswith("not better than theirs: use that; 0.8")
    assert verdict.line.endswith("significantly worse")
    same = judge(replace(first, test=first.train), [Side("theirs", losses(rng), losses(rng))], 100)
    assert same.better


def test_lost_runs_lose():
    rng = np.random.default_rng(7)
    good, bad = losses(rng), losses(rng, 0.1)
    bad[3] = math.nan
    verdict = plain(bad, good, 2 * good)
    assert (verdict.outcome, verdict.baseline, verdict.train) == ("worse", "b0", None)
    assert verdict.line.startswith("not better than b0: use that; mine diverged or failed in 1 of 10 runs")
    verdict = plain(good, bad, losses(rng, 2.0))  # a baseline that lost runs is not the best, however low its mean
    assert (verdict.baseline, verdict.better) == ("b1", True)
    verdict = plain(good, bad)
    assert verdict.outcome == "even"
    assert verdict.line == (
        "nothing decided against b0: all runs of mine ended well; b0 diverged or failed in 1 of 10 runs"
    )
    everything = np.full(SEEDS, math.nan)
    assert plain(everything, everything).outcome == "even"
    assert plain(everything, good).outcome == "worse"


def test_losses_that_are_not_positive_have_differences():
    rng = np.random.default_rng(8)
    first, second = rng.standard_normal(SEEDS) - 1, rng.standard_normal(SEEDS) + 3
    verdict = plain(first, second)
    assert not verdict.train.ratio
    assert verdict.train.value == pytest.approx((first - second).mean())
    assert verdict.better
    assert verdict.line.startswith("−")
    assert "in training loss against the best baseline" in verdict.line


def test_one_seed_decides_nothing():
    verdict = plain([0.1], [1.0])
    assert verdict.outcome == "even"
    assert verdict.line == "one seed decides nothing: 0.10 of the training loss of b0"
    assert judge(Side("mine", np.array([1.0])), [], 100) is None
    few = plain([0.5, 0.7], [1.0, 1.1])
    assert few.outcome == "even"
    assert few.line.startswith("undecided, evaluate on more seeds: 0.57 of the training loss of b0 (95 %")
    equal = plain([0.5, 0.5], [1.0, 1.0])  # no variance: as good as one seed
    assert equal.outcome == "even"


def test_the_best_baseline_is_the_one_to_beat():
    rng = np.random.default_rng(9)
    shared = np.exp(0.2 * rng.standard_normal(SEEDS))
    first = losses(rng, 0.9, shared=shared)
    verdict = plain(first, *(losses(rng, mean, shared=shared) for mean in (3.0, 0.8, 2.0)))
    assert (verdict.baseline, verdict.outcome) == ("b1", "worse")


# -- words ------------------------------------------------------------------------------------------------------


def test_the_line_of_a_win_and_of_a_loss():
    rng = np.random.default_rng(10)
    settings = {"lr": 0.02, "warmup": 0.05, "schedule": "linear", "floor": 0.0}
    shared = np.exp(0.2 * rng.standard_normal(SEEDS))
    mine, theirs = losses(rng, 0.86, shared=shared), losses(rng, shared=shared)
    first = Side("learned", mine, mine, trainings=960)
    rival = Side("nesterov", theirs, theirs, settings, ZOO["nesterov"], 960)
    verdict = judge(first, [rival, Side("adam", 2 * theirs, None, settings, ZOO["adam"], 960)], 100)
    ratio, (low, high) = mine.mean() / theirs.mean(), verdict.train.interval
    assert verdict.train.value == pytest.approx(ratio)
    assert low < ratio < high < 1
    p = paired_test(mine, theirs)
    told = "p < 0.0001" if p < 1e-4 else f"p = {p:.1g}"
    assert verdict.line == (
        f"{ratio:.2f} of the training loss of the best hand-made optimizer (nesterov, warm-up 5 %, linear decay;"
        f" 95 % {low:.2f} to {high:.2f}, {told}, 960 trainings each); held-out loss {ratio:.2f}"
    )
    lost = judge(rival, [first], 100)
    assert lost.line.startswith(f"not better than learned: use that; {1 / ratio:.2f} of its training loss (95 %")
    assert lost.code == ""  # no library has it


@pytest.mark.parametrize(
    ("first", "others", "words"),
    [
        (960, [960, 960], "960 trainings each"),
        (960, [240] * 4, "960 trainings against 4 × 240"),
        (1960, [240], "1,960 trainings against 240"),
        (960, [240, 120], "960 trainings against 360 in all"),
        (0, [240, 240], "0 trainings against 2 × 240"),
    ],
)
def test_the_line_counts_the_trainings_of_both_sides(first, others, words):
    rng = np.random.default_rng(11)
    sides = [Side(str(n), losses(rng), trainings=count) for n, count in enumerate([first, *others])]
    assert f", {words})" in judge(sides[0], sides[1:], 100).line


def result(name, train, curve=None, references=(), **more):
    train = torch.as_tensor(train, dtype=torch.float64)
    curve = torch.linspace(3, 1, 20).double()[:, None] * train if curve is None else curve
    metrics = {split: {"loss": train[None]} for split in ("train", "valid", "test")}
    seconds = torch.full_like(train, 0.5)
    more = {"seconds": seconds, "peak_bytes": seconds, **more}
    return OptimizerResult(name, more.pop("rule", None), {"lr": 0.1}, [], Outcome(curve[:, None], metrics), **more)


def test_references_are_shown_and_never_the_headline():
    mine, adam, lion = result("mine", [1.0, 1.1, 1.2]), result("adam", [0.1, 0.2, 0.3]), result("lion", [2.0, 2.1, 2.3])
    comparison = Comparison("t", 0, 3, 20, [mine, adam, lion], references=("adam",))
    assert comparison.verdict().baseline == "lion"
    assert "adam" in comparison.table()
    assert comparison.verdict().better
    assert {row["baseline"] for row in comparison.differences()} == {"lion"}
    record = json.loads(json.dumps(comparison.record(), allow_nan=False))
    assert record["references"] == ["adam"]
    assert record["verdict"]["better"] is True
    assert record["verdict"]["line"] in " ".join(comparison.report(statistics=True).split())


def test_tables_are_in_the_order_of_the_training_loss():
    names = {"mine": [2.0, 2.1], "lost": [0.1, math.nan], "best": [1.0, 1.1]}
    comparison = Comparison("t", 0, 2, 20, [result(*item) for item in names.items()])
    for text in (comparison.table(), comparison.report(statistics=True)):
        rows = [line.split()[0] for line in text.splitlines() if line.split("  ")[0] in names]
        assert rows[:3] == ["best", "mine", "lost"]


def test_the_best_baseline_sets_the_target_and_misses_count():
    slow = torch.linspace(3, 1, 20).double()[:, None].expand(20, 3)
    curves = {"mine": slow.clone(), "worse": slow + 1, "best": slow * torch.tensor([1.0, 1.0, 1.0])}
    curves["mine"][10:, 2] = 9.0  # one seed goes astray
    results = [result(n, v, curves[n]) for n, v in (("mine", [1, 1, 9]), ("worse", [2, 2, 2]), ("best", [1, 1, 1.5]))]
    comparison = Comparison("t", 0, 3, 20, results)
    target = comparison.baseline_target
    assert target == pytest.approx(1.0)
    changed = [replace(results[0], outcome=results[1].outcome), *results[1:]]
    assert replace(comparison, optimizers=changed).baseline_target == target
    comparison = replace(comparison, target=1.5)
    steps = comparison.optimizers[0].quantities(1.5)["steps to target"].tolist()
    assert steps[:2] == [16, 16]
    assert steps[2] == math.inf
    assert comparison.verdict().steps_ratio == 1.0  # medians
    never = replace(comparison, target=0.5)
    assert never.verdict().steps_ratio is None
    curves["mine"][10:, 1] = 9.0
    assert comparison.verdict().steps_ratio == math.inf
    assert comparison.verdict().record()["steps_ratio"] == "infinity"
    text = comparison.report(statistics=True)
    assert "never (1/3)" in text
    assert ",inf," in comparison.csv()
    assert comparison.record()["optimizers"][0]["steps_to_target"][2] is None


def test_smoothed_losses_stand_a_huge_one():
    spike = torch.cat([torch.ones(5), torch.tensor([1e18]), torch.full((54,), 0.1)]).double()[:, None].expand(60, 2)
    tiny = torch.cat([torch.full((30,), 1e6), torch.full((30,), 1e-12)]).double()[:, None].expand(60, 2)
    for losses, best, target in ((spike, 0.1, 0.05), (tiny, 1e-12, 1e-13)):
        found = result("mine", [1, 1], losses).quantities(target)
        assert found["best loss"].tolist() == pytest.approx([best, best], rel=1e-6)
        assert found["steps to target"].tolist() == [math.inf, math.inf]
    reached = result("mine", [1, 1], spike).quantities(0.5)["steps to target"]
    assert reached.tolist() == [9, 9]  # the last three steps are below


# -- code -------------------------------------------------------------------------------------------------------


def factor(settings, t, steps):
    """Warm-up, then a decay to the floor."""
    warm = round(settings.get("warmup", 0) * steps)
    if t <= warm:
        return t / warm
    u, floor = (t - 1 - warm) / (steps - warm), settings.get("floor", 0)
    shapes = {"constant": 1, "linear": 1 - u, "cosine": (1 + math.cos(math.pi * u)) / 2, "sqrt": 1 - math.sqrt(u)}
    return floor + (1 - floor) * shapes[settings.get("schedule", "constant")]


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        ("g", {}),
        ("b", {"mu": 0.8}),
        ("g + mu*b", {"mu": 0.95, "warmup": 0.1, "schedule": "linear"}),
        ("g + mu*b + wd*w", {"mu": 0.95, "wd": 0.1, "schedule": "sqrt", "floor": 0.1}),
        ("g/(sqrt(s) + eps)", {"eps": 1e-6}),
        ("g/(sqrt(v) + eps)", {"beta2": 0.9}),
        ("ad", {"beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "schedule": "cosine"}),
        ("ad + wd*w where wd = 0.3", {}),
        ("ad + wd*w", {"wd": 0.5, "warmup": 0.2, "schedule": "constant"}),
        ("n_hat/(sqrt(v_hat) + eps)", {"beta1": 0.7}),
        ("n_hat/(sqrt(v_hat) + eps) + wd*w", {"wd": 0.2, "warmup": 0.1, "schedule": "cosine", "floor": 0.1}),
        ("sign(li) + wd*w where beta2 = 0.99", {"wd": 0.1, "beta1": 0.8, "schedule": "linear"}),
    ],
)
def test_the_code_of_a_baseline_is_that_baseline(rule, settings):
    steps, settings = 20, {"lr": 0.05, **settings}
    rule = UpdateRule.parse(rule)
    code = torch_code("any", rule, settings, steps)
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False).double()
    names = {"model": model}
    exec(code, names)
    phi = evaluator(rule, torch, steps)
    values = {**phi.values, **{key: value for key, value in settings.items() if key in phi.values}}
    theta = model.weight.detach().clone()
    state = phi.init(theta)
    for t in range(1, steps + 1):
        gradient = torch.randn(2, 3).double()
        (update,), state = phi.step(gradient, state, theta, t, values)
        theta = theta - settings["lr"] * factor(settings, t, steps) * update
        model.weight.grad = gradient
        names["optimizer"].step()
        if "scheduler" in names:
            names["scheduler"].step()
        torch.testing.assert_close(model.weight.detach(), theta, rtol=1e-5, atol=1e-6)  # NAdam has a factor in float32


def test_the_code_of_classes():
    settings = {"lr": 0.05, "beta1": 0.8, "beta2": 0.9, "weight_decay": 0.1}
    for name in ("torch:adamw", "torch:RAdam", "pytorch_optimizer:Adan"):
        names = {"model": nn.Linear(3, 2)}
        exec(torch_code(name, None, settings, 10), names)
        assert names["optimizer"].param_groups[0]["betas"][:2] == (0.8, 0.9)
    assert torch_code("mine", None, settings, 10) == ""
    assert torch_code("learned", UpdateRule.parse("sign(g) + 0.1*m"), settings, 10) == ""
    assert torch_code("adam", ZOO["adam"], {}, 10) == ""


def test_settings_in_words():
    assert described({"lr": 0.0213, "warmup": 0.02, "schedule": "sqrt", "beta1": 0.9}) == (
        "lr 0.0213, warm-up 2 %, 1 - sqrt decay"
    )
    assert described({"lr": 0.1}) == "lr 0.1"
