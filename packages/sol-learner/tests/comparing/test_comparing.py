"""Comparing: names of optimizers, tuning, the store, processes that die, tests and tables."""

import collections
import itertools
import json
import math
import os
import random
import signal
import sqlite3
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend import context
from torch.nn import functional

from sol_learner import Comparison, Recipe, Store, Workers, compare, resolve_optimizer
from sol_learner.comparing import PANEL, OptimizerResult, RuleSpec, TorchSpec, against_panel
from sol_learner.comparing import protocol as comparing_module
from sol_learner.comparing.optimizer_specs import Started
from sol_learner.comparing.schedules import schedule_factor
from sol_learner.comparing.significance import bootstrap_interval, holm, paired_test
from sol_learner.comparing.trials import Trial, TrialBatch, fingerprint, run_batch, run_trial
from sol_learner.comparing.tuning import FINALS, FIRST_RATES, _Budget, tune_side_by_side
from sol_learner.inner import Optimizees, Outcome, run_rule
from sol_learner.networks import LSTMNetwork, LSTMOptimizer, TrainedLSTM
from sol_learner.runtime import NullProgress
from sol_learner.task import Stream, build_optimizee, draw_batches
from sol_symbols import ZOO, SolError, UpdateRule

QUICK = {"episodes": 3, "trainings": 16, "tuning_episodes": 1}
MINE = "ad where lr = 0.03"


def timeless(comparison):
    """Everything but the time and memory that it took."""
    record = comparison.record(statistics=True)
    if record["verdict"]:
        del record["verdict"]["seconds_ratio"]
    for optimizer in record["optimizers"]:
        del optimizer["seconds_per_step"], optimizer["peak_bytes"]
        optimizer.pop("seconds_to_target", None)
    return json.dumps(record)


@pytest.fixture
def counted(monkeypatch):
    """Trials that are really run, in order."""
    trials = []

    def run(trial, clock=None):
        trials.append(trial)
        return run_trial(trial, clock)

    def run_together(batch, clock=None):
        trials.append(batch)
        return run_batch(batch, clock)

    monkeypatch.setattr(comparing_module, "run_trial", run)
    monkeypatch.setattr(comparing_module, "run_batch", run_together)
    return trials


# -- names -----------------------------------------------------------------------------------------------------


def test_names_of_all_kinds(tmp_path):
    assert resolve_optimizer("adam").rule == ZOO["adam"]
    assert resolve_optimizer("AdamW").rule == ZOO["adamw"]  # the zoo's equals the library's
    assert resolve_optimizer("radam").rule == ZOO["radam"]
    assert resolve_optimizer("asgd") == resolve_optimizer("torch:ASGD")
    assert resolve_optimizer("torch:adamw").optimizer_class is torch.optim.AdamW
    assert resolve_optimizer("pytorch_optimizer:lion").optimizer_class.__name__ == "Lion"
    rule = UpdateRule.parse("g + 0.1*m where lr = 0.2")
    rule.save(tmp_path / "rule.json")
    for text in (str(rule), str(tmp_path / "rule.json"), str(tmp_path)):
        assert resolve_optimizer(text).rule == rule
        assert resolve_optimizer(text).fixed == {"lr": 0.2}


@pytest.mark.parametrize(
    "name",
    [
        *("sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw", "lion"),
        *("powersign-ld", "powersign-cd", "addsign-ld", "addsign-cd"),
        *("torch:SGD", "torch:Adam", "torch:RMSprop", "torch:NAdam", "pytorch_optimizer:AdaBelief"),
    ],
)
def test_baselines_train(task, name):
    comparison = compare(task, {name: name}, episodes=1, tuned={name: (0.01, [])})
    losses = comparison.optimizers[0].outcome.losses[:, 0, 0]
    assert losses.isfinite().all()
    start = compare(task, ["g where lr = 1e-12"], episodes=1).optimizers[0]
    assert comparison.optimizers[0].metric("train", "loss") < start.metric("train", "loss")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch:Adma", "no optimizer 'Adma' in torch.optim; available: ASGD, Adadelta"),
        ("pytorch_optimizer:nothing", "no optimizer 'nothing' in pytorch_optimizer"),
        ("adma", r"did you mean(.|\n)*FILE.py:CLASS"),
        ("nowhere.py:Mine", "cannot read nowhere.py"),
        ("torch:LBFGS", "LBFGS cannot be compared: .* TypeError: .*closure.*; if it is a formula, compare that"),
    ],
)
def test_wrong_names_say_what_there_is(task, name, message):
    with pytest.raises(SolError, match=message):
        compare(task, [name], **QUICK)


def test_constants_are_not_tuned_whatever_their_names():
    for text in ("alpha*sign(g) where alpha = 5", "alpha*ad + momentum*g where alpha = 0.3, momentum = 1"):
        names = {dimension.name for dimension in resolve_optimizer(text).space(full=True)}
        assert not names & {"alpha", "momentum"}
        assert "lr" in names


OTHERS = """
import torch


class Base(torch.optim.Optimizer):
    def __init__(self, params, lr=None, betas=(0.9, 1.0), alpha=5.0, eps=-1.0):
        super().__init__(params, {"lr": lr})

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= group["lr"] * p.grad


class OfTheRun(Base):  # as pytorch_optimizer's SPAM and MADGRAD do
    def step(self):
        self.state["count"] = self.state.get("count", 0) + 1
        self.state["total"] = torch.ones(3)
        super().step()


class WithoutRate(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"mine": 1.0})

    def step(self):
        pass


class NeedsGroups(Base):
    def step(self):
        assert all("use_mine" in group for group in self.param_groups), "give groups with use_mine"
"""


def test_classes_with_ways_of_their_own(task, tmp_path):
    path = tmp_path / "others.py"
    path.write_text(OTHERS)
    spec = resolve_optimizer(f"{path}:OfTheRun")
    assert {dimension.name for dimension in spec.space(full=True)} == {"lr", "beta1", "warmup", "schedule", "floor"}
    found = compare(task, {"mine": spec}, episodes=1, tuned={"mine": (0.01, [])}).optimizers[0]
    assert found.metric("train", "loss").isfinite().all()
    for name, message in (
        ("WithoutRate", "its parameter groups have no learning rate 'lr'$"),
        (
            "NeedsGroups",
            "AssertionError: give groups with use_mine. If it needs more, such as named groups, write a sub",
        ),
    ):
        with pytest.raises(SolError, match=f"^{name} cannot be compared: .*{message}"):
            compare(task, [f"{path}:{name}"], **QUICK)


FILE = """
import torch


class Mine(torch.optim.Optimizer):
    def __init__(self, params, lr=0.05, horizon=None):
        super().__init__(params, {"lr": lr})
        self.horizon = horizon

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad


class Open(Mine):
    def __init__(self, params, lr):
        super().__init__(params, lr)
"""


def test_classes_of_files(task, tmp_path):
    path = tmp_path / "optimizer.py"
    path.write_text(FILE)
    comparison = compare(task, {"file": f"{path}:Mine", "rule": "g where lr = 0.05"}, episodes=2)
    assert comparison.optimizers[0].settings == {"lr": 0.05}
    assert comparison.optimizers[0].trials == []
    mine, rule = (c.outcome.losses for c in comparison.optimizers)
    torch.testing.assert_close(mine, rule)
    assert resolve_optimizer(f"{path}:Open").fixed is None  # no learning rate of its own: to be tuned
    before = resolve_optimizer(f"{path}:Mine").identity()
    (tmp_path / "copy.py").write_text(FILE)
    assert resolve_optimizer(f"{tmp_path / 'copy.py'}:Mine").identity() == before
    path.write_text(FILE.replace("0.05", "0.06"))
    assert resolve_optimizer(f"{path}:Mine").identity() != before
    with pytest.raises(SolError, match=r"has no class 'Yours'; available: Mine, Open"):
        resolve_optimizer(f"{path}:Yours")
    path.write_text("import nothing_of_this_name")
    with pytest.raises(SolError, match=r"cannot import .*: ModuleNotFoundError"):
        resolve_optimizer(f"{path}:Mine")
    path.write_text("Mine = 3")
    with pytest.raises(SolError, match=r"must be a subclass of torch\.optim\.Optimizer"):
        compare(task, [f"{path}:Mine"], **QUICK)


# -- runs ------------------------------------------------------------------------------------------------------


AVERAGING = """
import torch


class Averaging(torch.optim.SGD):
    def train(self):
        self.training = True
        self.mean, self.count = None, 0

    def step(self):
        assert self.training
        super().step()
        self.count += 1
        new = [p.detach().clone() for g in self.param_groups for p in g["params"]]
        mean = self.mean or new
        self.mean = [m + (n - m) / self.count for m, n in zip(mean, new)]

    @torch.no_grad()
    def eval(self):
        self.training = False
        for p, m in zip((p for g in self.param_groups for p in g["params"]), self.mean):
            p.copy_(m)


class Halves(torch.optim.SGD):
    def __init__(self, params, lr):
        params = list(params)
        super().__init__([{"params": params[:1]}, {"params": params[1:], "lr": lr / 4}], lr)
"""


def test_classes_that_evaluate_at_other_weights_are_switched(task, tmp_path):
    path = tmp_path / "averaging.py"
    path.write_text(AVERAGING)
    trial = Trial(task, resolve_optimizer(f"{path}:Averaging"), {"lr": 0.1}, 0, Stream.TUNE, 0, 12, ("train",))
    optimizees, weights = Optimizees(task, 0, Stream.TUNE, [0]), []
    for _ in range(12):
        _, gradient = optimizees.losses_and_gradients()
        optimizees.descend(gradient, 0.1)
        weights.append(optimizees.theta)
    optimizees.place(torch.stack(weights).mean(0))
    assert run_trial(trial)["metrics"]["train"]["loss"] == pytest.approx(float(optimizees.evaluate("train")["loss"]))


def test_the_schedule_scales_the_rate_of_each_group(task, tmp_path):
    path = tmp_path / "groups.py"
    path.write_text(AVERAGING)
    settings = {"lr": 0.2, "schedule": "linear"}
    trial = Trial(task, resolve_optimizer(f"{path}:Halves"), settings, 0, Stream.TUNE, 0, 12, ("train",))
    optimizees = Optimizees(task, 0, Stream.TUNE, [0])
    first = optimizees.views(optimizees.theta[0, 0])[0].numel()
    for t in range(1, 13):
        _, gradient = optimizees.losses_and_gradients()
        gradient[..., first:] /= 4
        optimizees.descend(gradient, 0.2 * (13 - t) / 12)
    assert run_trial(trial)["metrics"]["train"]["loss"] == pytest.approx(
        float(optimizees.evaluate("train")["loss"]), rel=1e-5
    )


@pytest.mark.parametrize("name", ["torch:Muon", "pytorch_optimizer:ScheduleFreeAdamW"])
def test_modern_classes_train(task, name):
    tuned, start = compare(task, [name, "g where lr = 1e-12"], **QUICK).optimizers
    assert (tuned.metric("train", "loss") < start.metric("train", "loss")).all()


def test_a_rule_and_its_library_give_one_curve(make_task):
    task = make_task(dtype=torch.float64)
    for rule, library, settings in (
        ("adam", "torch:Adam", {}),
        ("momentum", "torch:SGD", {"momentum": 0.9}),
        ("rmsprop", "torch:RMSprop", {"alpha": 0.99}),
    ):
        runs = [
            run_trial(Trial(task, resolve_optimizer(n), {"lr": 0.01, **s}, 0, Stream.TUNE, 0, 12, ("train",)))
            for n, s in ((rule, {}), (library, settings))
        ]
        assert runs[0]["batch_loss"] == pytest.approx(runs[1]["batch_loss"], rel=1e-9)
        assert runs[0]["state_bytes"] == runs[1]["state_bytes"]


def test_rules_that_reduce_see_the_tensors_of_each_model(task):
    rule = UpdateRule.parse("g*inv0(norm(g)) where lr = 0.1")
    optimizees = Optimizees(task, 0, Stream.EVALUATE, range(2))
    for _ in range(12):
        _, gradient = optimizees.losses_and_gradients()
        parts = [g / g.flatten(2).norm(dim=2).view(1, 2, *[1] * (g.ndim - 2)) for g in optimizees.views(gradient)]
        optimizees.descend(torch.cat([part.flatten(2) for part in parts], 2), 0.1)
    expected = optimizees.evaluate("train")["loss"][0]
    together = run_rule(task, rule, 0, Stream.EVALUATE, range(2)).metrics["train"]["loss"][0]
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=0)
    alone = compare(task, {"mine": rule}, episodes=2).optimizers[0].metric("train", "loss")
    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=0)


def test_a_run_alone_is_the_run_among_others(task):
    rule = UpdateRule.parse("cd*ad where lr = 0.03")
    outcome = run_rule(task, rule, 0, Stream.EVALUATE, range(3))
    comparison = compare(task, {"mine": rule}, episodes=3)
    torch.testing.assert_close(comparison.optimizers[0].outcome.losses.float(), outcome.losses)


def test_tuned_settings_reach_the_optimizer(task):
    def loss(name, **settings):
        trial = Trial(task, resolve_optimizer(name), {"lr": 0.03, **settings}, 0, Stream.TUNE, 0, 12, ("train",))
        return run_trial(trial)["metrics"]["train"]["loss"]

    adam = loss("adam")
    assert adam == loss("adam", beta1=0.9, beta2=0.999, schedule="constant")
    changed = [loss("adam", beta1=0.5), loss("adam", beta2=0.9), loss("adam", schedule="linear")]
    assert len({adam, *changed}) == 4
    pairs = {"beta1": 0.5, "beta2": 0.9, "schedule": "cosine"}
    assert loss("adam", **pairs) == pytest.approx(loss("torch:Adam", **pairs), rel=1e-4)
    assert loss("nesterov", wd=0.1) != loss("nesterov") == loss("nesterov", wd=0.0)
    decayed = {"lr": 0.03, "wd": 0.2, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "warmup": 0.1, "schedule": "linear"}
    assert loss("adamw", **decayed) == pytest.approx(loss("torch:AdamW", **{**decayed, "weight_decay": 0.2}), rel=1e-4)


def test_schedules_by_hand():
    def factors(steps=4, **settings):
        return [schedule_factor(settings, t, steps) for t in range(1, steps + 1)]

    assert factors() == [1, 1, 1, 1]
    assert factors(2, schedule="cosine") == pytest.approx([1.0, 0.5])
    assert factors(schedule="sqrt") == pytest.approx([1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5])
    assert factors(schedule="linear", floor=0.2) == pytest.approx([1, 0.8, 0.6, 0.4])
    assert factors(10, warmup=0.2, schedule="linear")[:4] == pytest.approx([0.5, 1.0, 1.0, 7 / 8])


def test_settings_side_by_side_are_the_settings_alone(task):
    spec = resolve_optimizer("nadamw")
    shared = {"beta2": 0.99, "eps": 1e-7, "floor": 0.1}
    settings = (
        {"lr": 0.03, "beta1": 0.9, "wd": 0.1, "warmup": 0.1, "schedule": "cosine", **shared},
        {"lr": 0.1, "beta1": 0.5, "wd": 0.0, "warmup": 0.0, "schedule": "sqrt", **shared},
    )
    batch = TrialBatch(task, spec, settings, 0, Stream.TUNE, (0, 3), 12, ("train", "valid"))
    together = run_batch(batch)["losses"]
    for row, chosen in enumerate(settings):
        for column, episode in enumerate((0, 3)):
            trial = Trial(task, spec, chosen, 0, Stream.TUNE, episode, 12, ("train", "valid"))
            alone = run_trial(trial)["metrics"]
            for split in ("train", "valid"):
                assert together[split][row][column] == pytest.approx(alone[split]["loss"], rel=1e-3)


def test_projection_holds_for_classes_too(make_task):
    class Bounded(type(make_task())):
        def project(self, model):
            for p in model.parameters():
                p.data.clamp_(-0.05, 0.05)

    both = [
        run_trial(Trial(Bounded(), resolve_optimizer(n), {"lr": 0.1}, 0, Stream.TUNE, 0, 12, ("train",)))
        for n in ("sgd", "torch:SGD")
    ]
    assert both[0]["batch_loss"] == pytest.approx(both[1]["batch_loss"], rel=1e-5)


def test_diverged_runs_are_counted_and_not_averaged(task):
    comparison = compare(task, {"wild": "exp(9*abs(g))*g where lr = 99", "calm": MINE}, episodes=3)
    wild, calm = comparison.optimizers
    assert set(wild.diverged) == {0, 1, 2}
    assert calm.diverged == {}
    assert wild.metric("train", "loss").isnan().all()
    assert "wild: 3 of 3 runs diverged (seed 0 after step" in comparison.report(statistics=True)
    record = comparison.record(statistics=True)
    assert json.loads(json.dumps(record, allow_nan=False))["optimizers"][0]["metrics"]["train"]["loss"] == [None] * 3
    assert {row["p"] for row in comparison.differences()} == {None}
    assert comparison.failures == []


def test_a_curve_is_of_the_runs_that_stayed_finite():
    losses = torch.tensor([[1.0, 3.0, 5.0], [1.0, 2.0, 7e9], [1.0, 1.0, math.nan]])

    def curve(runs):
        return OptimizerResult("a", None, {"lr": 1.0}, [], Outcome(losses[:, runs].unsqueeze(1), {})).curve

    mean, spread, runs = curve([0, 1, 2])
    assert (mean.tolist(), runs) == ([2, 1.5, 1], 2)
    assert spread.tolist() == pytest.approx([2**0.5, 0.5**0.5, 0])
    mean, spread, runs = curve([2, 2])  # all diverged: until the first did
    assert mean[:2].tolist() == pytest.approx([5, 7e9])
    assert mean[2].isnan()
    assert runs == 2
    assert curve([0])[1].tolist() == [0, 0, 0]


def test_memory_and_time_are_measured(task):
    optimizer = compare(task, ["ad where lr = 0.1", "g where lr = 0.1"], episodes=2).optimizers[0]
    assert (optimizer.seconds > 0).all()
    parameters = sum(p.numel() for p in task.build(torch.Generator()).parameters())
    assert optimizer.state_bytes == 2 * 4 * parameters
    if sys.platform == "linux":
        assert (optimizer.peak_bytes > 5e7).all()


# -- tuning ----------------------------------------------------------------------------------------------------


def test_tuning_is_deterministic_and_its_seeds_are_others(task, counted):
    names = ["adam", "torch:SGD", MINE]
    once = compare(task, names, **QUICK)
    first = list(counted)
    counted.clear()
    assert timeless(compare(task, names, **QUICK)) == timeless(once)
    assert [t.identity("") for t in counted] == [t.identity("") for t in first]
    tuning = [t for t in first if t.stream is Stream.TUNE]
    assert sum(t.count for t in tuning) == 2 * 16  # the learned rule is used as it is
    assert any(isinstance(t, TrialBatch) for t in tuning)
    assert {t.splits for t in tuning} == {("train", "valid")}
    assert {t.stream for t in first} == {Stream.TUNE, Stream.EVALUATE}
    starts = [
        build_optimizee(task, 0, stream, episode)[0].weight.flatten()[0].item()
        for stream in (Stream.TUNE, Stream.EVALUATE)
        for episode in range(3)
    ]
    assert len(set(starts)) == 6
    protocol = once.record()["protocol"]
    assert (protocol["trainings"], protocol["tune_for"], protocol["tuning_episodes"]) == (16, "objective", [0])
    other = compare(task, names, seed=1, **QUICK)
    assert timeless(other) != timeless(once)


def test_every_baseline_gets_the_same_budget_and_the_best_is_taken(task):
    names = ["adam", "adamw", "powersign-cd", "torch:RMSprop"]
    comparison = compare(task, names, episodes=1, trainings=60)
    for optimizer in comparison.optimizers:
        assert {*FIRST_RATES[:4]} <= {lr for lr, _ in optimizer.tuning}
        losses = [trial["losses"] for trial in optimizer.trials]
        assert optimizer.trainings == sum(map(len, losses)) == 60
        final = [trial for trial in optimizer.trials if len(trial["losses"]) == max(map(len, losses))]
        assert len(final) == int(60 * FINALS[0][0])
        assert optimizer.settings == min(final, key=lambda trial: trial["objective"])["settings"]
    spaces = {name: [d["name"] for d in space] for name, space in comparison.protocol["space"].items()}
    schedule = ["warmup", "schedule", "floor"]
    assert {name: sorted(space) for name, space in spaces.items()} == {
        "adam": sorted(["lr", "beta1", "beta2", "eps", "wd", *schedule]),
        "adamw": sorted(["lr", "beta1", "beta2", "eps", "wd", *schedule]),
        "powersign-cd": ["beta1", "lr", "wd"],  # it has a schedule
        "torch:RMSprop": sorted(["lr", "momentum", "alpha", "eps", "weight_decay", *schedule]),
    }


@pytest.mark.parametrize(
    "name", ["schedule-free-adamw", "ad evaluate ema_weights", "pytorch_optimizer:ScheduleFreeAdamW"]
)
def test_what_averages_its_weights_is_tuned_without_a_schedule(name):
    names = {dimension.name for dimension in resolve_optimizer(name).space(full=True)}
    assert "lr" in names
    assert not names & {"warmup", "schedule", "floor"}


def bowl(settings, rate=0.05):
    """A loss with its minimum 0 at the rate, beta1 0.8, linear."""
    distance = math.log10(settings["lr"] / rate) ** 2 + (10 * (settings["beta1"] - 0.8)) ** 2 / 9
    return distance + (settings["schedule"] != "linear") + 0.1 * math.log10(settings["wd"] + 1e-5) + 0.5


def searched(trainings, episodes=1, halving=frozenset(), noise=0.0, seed=0, rate=0.05):
    asked = []

    def measure(requests):
        asked.extend(requests)
        offset = [0.0, 5.0, -3.0, *[1.0] * 20]  # an episode's own level
        return [
            [bowl(settings, rate) + offset[e] + random.Random(f"{settings} {e}").gauss(0, noise) for e in episodes]
            for _, (settings, episodes) in requests
        ]

    space = {"adam": RuleSpec(ZOO["adam"]).space(full=True)}
    return tune_side_by_side(space, measure, trainings, episodes, seed, NullProgress(), halving)["adam"], asked


def test_the_search_finds_the_bottom_of_a_bowl():
    table, asked = searched(240)
    random = min(bowl(settings) for _, (settings, _) in asked[:60])
    assert bowl(table[0]["settings"]) < 0.1 < random
    assert sum(len(episodes) for _, (_, episodes) in asked) == 240


def test_the_finals_are_not_won_by_a_lucky_episode():
    chosen, lucky = [], []
    for seed in range(5):
        table, _ = searched(240, noise=0.5, seed=seed)
        assert len(table[0]["losses"]) == 1 + sum(episodes for _, episodes in FINALS)
        chosen.append(bowl(table[0]["settings"]))
        lucky.append(bowl(min(table, key=lambda trial: trial["losses"][0])["settings"]))
    assert sum(chosen) < sum(lucky)


@pytest.mark.parametrize("episodes", [2, 3, 4])
def test_halving_trains_the_better_half_on_each_further_episode(episodes):
    _, asked = searched(96, episodes=episodes, halving={"adam"})
    counts = [sum(e in row for _, (_, row) in asked) for e in range(episodes)]
    finals = sum(count * further for count, further in _Budget(96, episodes, True).finals)
    assert 96 - finals - 3 < sum(counts) <= 96 - finals
    assert all(before / 2 <= after < 0.7 * before for before, after in itertools.pairwise(counts))


def test_halving_spends_the_budget_on_the_better_settings():
    table, asked = searched(120, episodes=3, halving={"adam"})
    assert sum(len(episodes) for _, (_, episodes) in asked) <= 120
    count = {n: [bowl(t["settings"]) for t in table if len(t["losses"]) == n] for n in (1, 3)}
    assert sum(count[3]) / len(count[3]) < sum(count[1]) / len(count[1])
    assert bowl(table[0]["settings"]) < 0.5  # levels of episodes do not confuse it


@pytest.mark.parametrize(
    ("rate", "climbed"),
    [
        (5e-5, [1e-2, 1e-3, 1e-1, 1e-4, 1e-5, 3.16e-5, 3.16e-4]),
        (0.05, [1e-2, 1e-3, 1e-1, 1e-4, 1.0, 3.16e-2, 0.316]),
        (2e-3, [1e-2, 1e-3, 1e-1, 1e-4, 3.16e-4, 3.16e-3]),
        (200.0, [1e-2, 1e-3, 1e-1, 1e-4, 1.0, 10.0, 100.0, 31.6, 316.0]),
    ],
)
def test_few_settings_climb_to_the_best_rate_of_a_usual_schedule(rate, climbed):
    table, asked = searched(16, rate=rate)
    settings = [settings for _, (settings, _) in asked]
    assert [s["lr"] for s in settings[: len(climbed)]] == climbed
    assert {(s["warmup"], s["schedule"], s["floor"]) for s in settings[: len(climbed)]} == {(0.05, "linear", 0.0)}
    assert len(settings) == 16
    assert all(1 / 11 < s["lr"] / rate < 11 for s in settings[len(climbed) :])
    assert bowl(table[0]["settings"], rate) < min(bowl(s, rate) for s in settings[:4])


@pytest.mark.parametrize("trainings", [1, 2, 3, 5])
def test_tiny_budgets_are_kept(trainings):
    table, asked = searched(trainings)
    assert len(table) == len(asked) == trainings
    assert asked[0][1][0]["lr"] == FIRST_RATES[0]


@pytest.mark.parametrize(("criterion", "splits"), [("valid", ("valid",)), ("train", ("train",))])
def test_what_is_not_tuned_for_is_not_looked_at(task, counted, criterion, splits):
    compare(task, ["sgd"], tune_for=criterion, **QUICK)
    assert {t.splits for t in counted if t.stream is Stream.TUNE} == {splits}


def test_a_rule_with_a_rate_is_tuned_on_request(task):
    rule = "0.5*ad + 0.5*sign(g) where lr = 0.003"
    as_it_is, tuned = compare(task, [rule, f"tune:{rule}"], **QUICK).optimizers
    assert as_it_is.settings == {"lr": 0.003}
    assert {trial["settings"].keys() == {"lr"} for trial in tuned.trials} == {True}
    assert tuned.tuning[0][0] > 0.003
    assert tuned.metric("train", "loss").mean() < as_it_is.metric("train", "loss").mean()


def test_a_rate_for_an_optimizer_that_has_one_is_refused(task):
    with pytest.raises(SolError, match=r"mine has the learning rate 0\.003, and 'tuned' gives it 0\.01: leave one out"):
        compare(task, {"mine": "sign(g) where lr = 0.003"}, episodes=1, tuned={"mine": (0.01, [])})


def test_the_panel_is_tuned_with_schedule_and_weight_decay(task):
    optimizers, references = against_panel(MINE)
    comparison = compare(task, optimizers, references=references, spent={MINE: 77}, **QUICK)
    assert [c.name for c in comparison.optimizers] == [MINE, *PANEL, "adam-constant"]
    for name in PANEL:
        assert {"lr", "wd", "warmup", "schedule", "floor"} <= {d["name"] for d in comparison.protocol["space"][name]}
    assert [d["name"] for d in comparison.protocol["space"]["adam-constant"]] == ["lr"]
    assert [c.trainings for c in comparison.optimizers] == [77, 16, 16, 16, 16, 16]


def test_an_optimizer_that_never_trains_is_named(task):
    with pytest.raises(SolError, match=r"hopeless cannot train regression: .*not finite for any of 16 settings"):
        compare(task, {"hopeless": "exp(exp(exp(exp(9 + abs(g)))))"}, **QUICK)


def test_an_exception_in_tuning_is_told(task, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE.replace('p -= group["lr"] * p.grad', 'assert p.ndim == 2, "matrices only"'))
    with pytest.raises(SolError, match=r"every run failed or diverged, for example .*AssertionError: matrices only"):
        compare(task, [f"tune:{path}:Mine"], **QUICK)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizers": []}, "at least one optimizer is required"),
        ({"optimizers": "adam"}, "a list of names"),
        ({"optimizers": ["adam", "adam"]}, "duplicate optimizer: adam"),
        ({"optimizers": [None]}, "an optimizer must be text, a path, an UpdateRule or a specification, got None"),
        ({"optimizers": {"mine": 3}}, "an optimizer must be text, a path, an UpdateRule or a specification, got 3"),
        ({"optimizers": Path("adam")}, r"must be a list of names, not one name; use \['adam'\]"),
        ({"optimizers": [Path("no/run")]}, "no such run folder or rule file: no/run"),
        ({"tune": "most"}, "tune must be one of full, lr, none, got 'most'"),
        ({"tune": "none"}, "no learning rate for adam; enable tuning or set one"),
        ({"tune_for": "test"}, "tune_for must be one of objective, train, valid, got 'test'"),
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"trainings": 0}, "trainings must be at least 1, got 0"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"episode": 3}, "no setting 'episode'; did you mean 'episodes'"),
    ],
)
def test_wrong_plans_are_named(task, arguments, message):
    with pytest.raises(SolError, match=message):
        compare(task, **{"optimizers": ["adam"], **arguments})


def test_what_is_missing_is_said_with_the_line_that_installs_it(task, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(SolError, match=r"pip install 'sol-learner\[compare\]'"):
        compare(task, ["pytorch_optimizer:Lion"], **QUICK)


def test_tests_and_intervals_need_no_extra(task, monkeypatch):
    comparison = compare(task, [MINE, "g where lr = 0.1"], episodes=2)
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert "p (Holm)" in comparison.report(statistics=True)


# -- the store -------------------------------------------------------------------------------------------------


def test_a_study_goes_on_and_nothing_is_computed_twice(task, counted, tmp_path):
    names = ["adam", "torch:SGD", MINE]
    reference = timeless(compare(task, names, **QUICK))
    total = len(counted)
    counted.clear()

    def stopping(trial, clock=None, run=comparing_module.run_trial):
        if len(counted) == total // 2:
            raise KeyboardInterrupt
        return run(trial, clock)

    before, comparing_module.run_trial = comparing_module.run_trial, stopping
    with pytest.raises(KeyboardInterrupt):
        compare(task, names, store=tmp_path / "runs.sqlite", **QUICK)
    comparing_module.run_trial = before
    assert len(Store(tmp_path / "runs.sqlite")) == total // 2
    assert timeless(compare(task, names, store=tmp_path / "runs.sqlite", **QUICK)) == reference
    assert len(counted) == total == len(Store(tmp_path / "runs.sqlite"))
    again = compare(task, names, store=tmp_path / "runs.sqlite", **QUICK)
    assert timeless(again) == reference
    assert len(counted) == total
    more = compare(task, [*names, "lion"], store=tmp_path / "runs.sqlite", **{**QUICK, "episodes": 4})
    new = counted[total:]
    assert sum(t.count for t in new) == 3 + 16 + 4  # a fourth seed of each, and all of lion's
    assert json.dumps(more.record()["optimizers"][0]["tuning"]) == json.dumps(again.record()["optimizers"][0]["tuning"])


def test_the_identity_changes_with_everything_that_changes_numbers(make_task):
    class Steeper(type(make_task())):
        def loss(self, model, batch):
            return 2 * super().loss(model, batch)

    class Dropping(type(make_task())):
        def __init__(self, p):
            super().__init__()
            self.dropout = p

        def loss(self, model, batch):
            inputs, targets = batch
            return super().loss(model, (functional.dropout(inputs, self.dropout, model.training), targets))

    class Bounded(type(make_task())):
        def __init__(self, radius):
            super().__init__()
            self.radius = radius

        def project(self, model):
            for p in model.parameters():
                p.data.clamp_(-self.radius, self.radius)

    task = make_task()
    assert fingerprint(task) == fingerprint(make_task())
    other = make_task()
    other.data["test"] = (other.data["test"][0] + 1, other.data["test"][1])
    tasks = [make_task(dtype=torch.float64), Steeper(), other, *(Dropping(p) for p in (0.1, 0.9))]
    tasks += [Bounded(radius) for radius in (0.1, 0.2)]
    base = Trial(task, RuleSpec(ZOO["adam"]), {"lr": 0.1}, 0, Stream.TUNE, 0, 12, ("train",))
    trials = [
        base,
        replace(base, optimizer=RuleSpec(ZOO["lion"])),
        replace(base, optimizer=resolve_optimizer("torch:Adam")),
        replace(base, settings={"lr": 0.2}),
        replace(base, settings={"lr": 0.1, "schedule": "linear"}),
        replace(base, seed=1),
        replace(base, episode=1),
        replace(base, stream=Stream.EVALUATE),
        replace(base, steps=13),
        replace(base, splits=("valid",)),
        replace(base, threads=2),
    ]
    identities = [trial.identity(fingerprint(task)) for trial in trials]
    identities += [base.identity(fingerprint(another)) for another in tasks]
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == len(trials) + len(tasks)
    assert "torch" in identities[0]["versions"]


def test_the_store_keeps_the_first_result_and_is_plain_sqlite(tmp_path):
    store, other = Store(tmp_path / "runs.sqlite"), Store(tmp_path / "runs.sqlite")
    identity = {"settings": {"lr": 0.1}, "stream": "tune", "seed": 0, "episode": 1, "steps": 5}
    assert store.get(identity) is None
    assert store.put(identity, "t", "adam", {"loss": 1.0}) == {"loss": 1.0}
    assert other.put(identity, "t", "adam", {"loss": 2.0}) == {"loss": 1.0} == other.get(identity)
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        row = connection.execute("SELECT task, optimizer, settings, stream, episode, steps FROM runs").fetchone()
    connection.close()
    assert row == ("t", "adam", '{"lr": 0.1}', "tune", 1, 5)


IDENTITY = {"settings": {"lr": 0.1}, "stream": "tune", "seed": 0, "episode": 1, "steps": 9}


def test_a_flipped_bit_in_a_store_changes_no_result(tmp_path):
    """Every result is the one that was put there, or absent; or the file is refused."""
    path, random = tmp_path / "runs.sqlite", numpy.random.default_rng(0)
    places = [{**IDENTITY, "episode": episode} for episode in range(8)]
    for place in places:
        Store(path).put(place, "t", "adam", {"loss": place["episode"] + 0.5})
    whole, outcomes = path.read_bytes(), collections.Counter()
    for _ in range(150):
        content = bytearray(whole)
        content[random.integers(len(content))] ^= 1 << random.integers(8)
        path.write_bytes(content)
        try:
            store = Store(path)
            found = [store.get(place) for place in places]
            assert store.put(places[3], "t", "adam", {"loss": 3.5}) == {"loss": 3.5}
        except SolError:
            outcomes["refused"] += 1
            continue
        outcomes["whole" if all(found) else "absent"] += 1
        assert all(result in (None, {"loss": i + 0.5}) for i, result in enumerate(found))
    assert min(outcomes["refused"], outcomes["absent"]) > 0


def test_a_damaged_row_is_computed_again_and_replaced(tmp_path):
    path = tmp_path / "runs.sqlite"
    store = Store(path)
    store.put(IDENTITY, "t", "adam", {"loss": 1.0})
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET result = replace(result, '1.0', '1.5')")
    assert store.get(IDENTITY) is None
    assert store.put(IDENTITY, "t", "adam", {"loss": 1.0}) == {"loss": 1.0} == store.get(IDENTITY)
    assert len(store) == 1


def test_a_store_of_the_first_version_is_brought_to_this_one(tmp_path):
    path = tmp_path / "runs.sqlite"
    Store(path).put(IDENTITY, "t", "adam", {"loss": 1.0})
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE runs DROP COLUMN digest")
        connection.execute("PRAGMA user_version = 1")
    assert Store(path).get(IDENTITY) == Store(path).get(IDENTITY) == {"loss": 1.0}


def test_what_is_no_store_is_refused_and_left_alone(tmp_path):
    (tmp_path / "text").write_text("not a database, and long enough to be told from an empty one" * 20)
    with pytest.raises(SolError, match=r"cannot use the store .*text: file is not a database"):
        Store(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(SolError, match="not a run store"):
        Store(tmp_path / "other")
    with pytest.raises(SolError, match=r"cannot use the store .*: unable to open"):
        Store(tmp_path / "missing" / "runs.sqlite")


# -- processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def forked(monkeypatch):
    """Processes that start at once: forked, where loky's own start anew and import everything."""
    monkeypatch.setattr(context, "_DEFAULT_START_METHOD", "fork")
    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


pytestmark = pytest.mark.filterwarnings("ignore:`fork` start method")


class Deadly:
    """Kills the process that it runs in at one item, so many times."""

    def __init__(self, folder, times):
        self.folder, self.times, self.home = folder, times, os.getpid()

    def __call__(self, item):
        died = len(list(self.folder.iterdir()))
        if item == 3 and died < self.times and os.getpid() != self.home:
            (self.folder / str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 4:
            raise ValueError("four")
        return 10 * item


@pytest.mark.parametrize("times", [1, 2])
def test_a_killed_process_costs_its_item_and_no_more(tmp_path, forked, times):
    results = dict(Workers(2).completed(Deadly(tmp_path, times), range(6)))
    assert [results[i] for i in (0, 1, 2, 5)] == [0, 10, 20, 50]
    assert str(results[4]) == "ValueError: four"
    assert (results[3] == 30) if times == 1 else (str(results[3]) == "the worker process died twice")
    assert len(list(tmp_path.iterdir())) == times


def own_process(item):
    return os.getpid()


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_processes_are_kept_from_call_to_call(forked, backend):
    workers = Workers(2, backend)
    calls = [dict(workers.completed(own_process, range(4))) for _ in range(3)]
    workers.close()
    assert all(set(call) == {0, 1, 2, 3} for call in calls)
    assert len({pid for call in calls for pid in call.values()}) <= 2
    assert os.getpid() not in calls[0].values()


def test_processes_give_the_same_numbers(task, make_task, forked):
    names = ["adam", MINE]
    alone = timeless(compare(task, names, **QUICK))
    assert timeless(compare(task, names, workers=Workers(2), **QUICK)) == alone
    recipe = Recipe(make_task, options=(("horizon", 12),))
    assert timeless(compare(recipe, names, workers=Workers(2), **QUICK)) == alone
    assert recipe.load() is recipe.load()


@pytest.fixture
def deadly(tmp_path):
    home = os.getpid()

    def call(item):  # pickled by value: the workers cannot import this file
        if item == 1 and os.getpid() != home and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 10 * item

    return call


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_of_ray_loses_the_killed_item_alone(deadly, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    try:
        ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("Ray gives its own processes 30 s to start, which this machine is too busy for")
    try:
        workers = Workers(2, "ray")
        assert dict(workers.completed(deadly, range(3))) == {0: 0, 1: 10, 2: 20}
        assert (tmp_path / "died").exists()
        workers.close()
    finally:
        ray.shutdown()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("connect", ["client", "setting"])
def test_a_cluster_of_dask_loses_the_killed_item_alone(deadly, tmp_path, connect):
    distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    setting = {} if connect == "client" else {"scheduler-address": cluster.scheduler_address}
    with cluster, dask.config.set(setting), nullcontext() if setting else distributed.Client(cluster):
        workers = Workers(2, "dask")
        assert dict(workers.completed(deadly, range(3))) == {0: 0, 1: 10, 2: 20}
        assert (tmp_path / "died").exists()
        assert workers.map(abs, [-1, 2]) == [1, 2]
        workers.close()
        distributed.get_client().close()


def test_failed_runs_are_reported_and_the_rest_is_kept(task, monkeypatch):
    def failing(trial, clock=None):
        if trial.episode == 1 and trial.optimizer.rule == ZOO["adam"]:
            raise MemoryError("no room")
        return run_trial(trial, clock)

    monkeypatch.setattr(comparing_module, "run_trial", failing)
    comparison = compare(task, {"mine": MINE, "adam": "adam"}, episodes=3, tuned={"adam": (0.01, [(0.01, 0.5)])})
    assert comparison.failures == ["adam, seed 1: MemoryError: no room"]
    assert comparison.optimizers[1].metric("test", "loss").isfinite().tolist() == [True, False, True]
    assert "FAILED: adam, seed 1: MemoryError: no room" in comparison.report(statistics=True)
    assert comparison.csv().count("no room") == 1


# -- tests and tables ------------------------------------------------------------------------------------------


def test_holm_by_hand():
    # Ascending 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, which may not fall again.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([None, 0.02]) == [None, 0.02]
    assert holm([]) == []


def test_the_paired_test_by_hand():
    # Differences 1, 2, 3: mean 2, standard error 1/sqrt 3, t = 2 sqrt 3 with 2 degrees of freedom.
    t = 2 * math.sqrt(3)
    p = 1 - t / math.sqrt(2 + t**2)
    assert paired_test([0.0, 1.0, 2.0], [-1.0, -1.0, -1.0]) == pytest.approx(p)
    assert paired_test([math.exp(1), math.exp(3), math.exp(3)], [1.0, math.e, 1.0]) == pytest.approx(p)  # logarithms
    assert paired_test([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) is None  # twice as much each time
    assert paired_test([1.0], [2.0]) is None
    mine, theirs = numpy.array([1.0, 1.1, 0.9]), numpy.array([2.0, 2.1, 2.3])
    for scale in (1e-30, 1e12, 1e30):
        assert paired_test(scale * mine, scale * theirs) == pytest.approx(paired_test(mine, theirs))
    assert paired_test([-1.0, 0.0], [0.0, 1.0]) is None
    assert paired_test([1.0, math.nan], [2.0, 4.0]) is None


def test_bootstrap_intervals():
    values = [0.1, 0.3, 0.2, 0.5, 0.4, 0.3]
    low, high = bootstrap_interval(values)
    assert 0.1 < low < 0.3 < high < 0.5
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval([0.2, 0.2]) == (0.2, 0.2)
    assert bootstrap_interval([0.2]) is None
    assert bootstrap_interval([0.2, math.inf]) is None


def optimizer(losses, name="x", final=0.0):
    losses = torch.tensor(losses, dtype=torch.float64)
    table = {"loss": torch.full((1, losses.shape[1]), final, dtype=torch.float64)}
    metrics = dict.fromkeys(("train", "valid", "test"), table)
    empty = torch.full((losses.shape[1],), math.nan)
    seconds = torch.full_like(empty, 0.5)
    return OptimizerResult(
        name, None, {"lr": 0.1}, [], Outcome(losses[:, None], metrics), seconds=seconds, peak_bytes=empty
    )


def test_quantities_by_hand():
    curve = [[4.0 - 0.1 * t] for t in range(40)]  # T/20 = 2
    found = {name: float(value[0]) for name, value in optimizer(curve).quantities(target=3.0).items()}
    assert found["best loss"] == pytest.approx(0.15)
    assert found["area"] == pytest.approx(2.05)
    assert found["seconds to target"] == 6.0
    assert found["steps to target"] == 12  # the means of two steps: 2.95 at the twelfth, 3.05 before
    never = optimizer(curve).quantities(target=-1.0)
    assert never["steps to target"].tolist() == never["seconds to target"].tolist() == [math.inf]


def test_tables_fit_a_terminal_and_differ_by_name():
    names = ["runs/a-rather-long-folder-name", "runs/another-rather-long-folder-name", "sgd"]
    curves = [[1.0, 2.0], [0.5, 0.25], [0.1234567, 0.2]]
    comparison = Comparison("task", 0, 2, 3, [optimizer(curves, name, 123456.789) for name in names], 0.3)
    lines = comparison.report(statistics=True).splitlines()
    assert max(map(len, lines)) <= 80
    start = next(number for number, line in enumerate(lines) if line.startswith("optimizer"))
    assert len({line.split("  ")[0] for line in lines[start + 2 : start + 5]}) == 3
    assert len(comparison.csv().splitlines()) == 1 + 3 * 2


def test_custom_specs_take_part(task):
    class Frozen:
        fixed, rule = {"lr": 1.0}, None

        def identity(self):
            return {"frozen": 1}

        def space(self, full):
            return ()

        def check(self):
            pass

        def begin(self, optimizees, settings, steps):
            return Started(lambda t, gradient, lr: None, lambda: 0)

    comparison = compare(task, {"frozen": Frozen(), "mine": MINE}, episodes=2, progress=NullProgress())
    assert (
        comparison.optimizers[0].metric("train", "loss").mean()
        > comparison.optimizers[1].metric("train", "loss").mean()
    )
    assert comparison.optimizers[0].state_bytes == 0
    assert isinstance(resolve_optimizer("torch:Adam"), TorchSpec)


def test_the_folder_of_an_lstm_is_an_optimizer(make_task, tmp_path):
    network = LSTMNetwork(units=3, layers=1, generator=torch.Generator().manual_seed(0))
    TrainedLSTM(network, 0.05).save(tmp_path)
    task = make_task()
    lstm, _ = compare(task, [str(tmp_path), MINE], episodes=2).optimizers
    assert lstm.lr == 0.05
    for episode in range(2):
        model = build_optimizee(task, 0, Stream.EVALUATE, episode)
        stream, optimizer = (
            draw_batches(task, "train", 0, Stream.EVALUATE, episode),
            LSTMOptimizer(model.parameters(), tmp_path),
        )
        for _ in range(task.horizon):
            optimizer.zero_grad()
            task.loss(model, next(stream)).backward()
            optimizer.step()
        assert float(lstm.metric("train", "loss")[episode]) == pytest.approx(
            task.evaluate(model, "train")["loss"], 1e-4
        )
    (tmp_path / "lstm.safetensors").unlink()
    with pytest.raises(SolError, match=r"cannot read .*lstm\.safetensors"):
        resolve_optimizer(str(tmp_path))


def test_threads_take_turns_at_random_numbers(make_task):
    class Dropping(type(make_task())):
        vectorizable = False

        def loss(self, model, batch):
            inputs, targets = batch
            return super().loss(model, (functional.dropout(inputs, 0.5, model.training), targets))

    task, names = Dropping(), ["ad where lr = 0.05", "sign(g) where lr = 0.01"]
    alone = timeless(compare(task, names, episodes=4))
    for _ in range(3):
        workers = Workers(4, "threading")
        assert timeless(compare(task, names, episodes=4, workers=workers)) == alone
        workers.close()


@pytest.mark.parametrize("halving", [frozenset(), {"adam"}])
def test_a_setting_that_explodes_does_not_hide_the_best(halving):
    """Losses of 1e18 and more are finite; less their mean, all others would be equal."""

    def measure(requests):
        rates = [settings["lr"] for _, (settings, _) in requests]
        return [[10.0 ** (18 * math.log10(lr) + 5) if lr > 0.5 else 2 + math.log10(lr / 1e-4) ** 2] for lr in rates]

    space = {"adam": RuleSpec(ZOO["adam"]).space(full=False)}
    best, *_ = tune_side_by_side(space, measure, 16, 1, 0, NullProgress(), halving)["adam"]
    assert best["settings"]["lr"] == pytest.approx(1e-4, rel=0.5)
    assert best["objective"] < 2.1
