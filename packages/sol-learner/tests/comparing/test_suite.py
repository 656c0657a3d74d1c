"""Several tasks and horizons: ratios, their mean and its interval, wins and losses, the performance profile."""

import csv
import io
import json
import math

import numpy as np
import pytest
import torch

from sol_learner import Comparison, Suite, compare_tasks
from sol_learner.comparing import OptimizerResult
from sol_learner.comparing.suite import _overall, performance_profile
from sol_learner.inner import Outcome
from sol_symbols import SolError
from sol_symbols.cli import main


def problem(task, horizon=10, **losses):
    """A comparison whose optimizers have these losses after the last step."""
    optimizers = []
    for name, values in losses.items():
        train = torch.as_tensor(values, dtype=torch.float64)
        metrics = {split: {"loss": train[None]} for split in ("train", "valid", "test")}
        curve = train.expand(horizon, -1)[:, None]
        numbers = torch.full_like(train, 0.5)
        outcome = Outcome(curve, metrics)
        optimizers.append(OptimizerResult(name, None, {"lr": 0.1}, [], outcome, seconds=numbers, peak_bytes=numbers))
    return Comparison(task, 0, len(train), horizon, optimizers)


def drawn(rng, ratio, seeds=10, noise=0.03):
    shared = np.exp(0.2 * rng.standard_normal(seeds))
    return {
        "mine": ratio * shared * np.exp(noise * rng.standard_normal(seeds)),
        "best": shared * np.exp(noise * rng.standard_normal(seeds)),
        "other": 2 * shared,
    }


def test_the_geometric_mean_is_of_the_ratios_to_the_best_of_each():
    first = problem("a", mine=[1.0, 3.0], x=[4.0, 4.0], y=[9.0, 9.0])  # 2/4
    second = problem("b", mine=[4.0, 4.0], x=[9.0, 9.0], y=[2.0, 2.0])  # 4/2
    third = problem("b", 20, mine=[8.0, 8.0], x=[1.0, 3.0], y=[5.0, 5.0])  # 8/2
    suite = Suite([first, second, third])
    assert [p.verdict.baseline for p in suite.problems] == ["x", "y", "x"]
    assert suite.train.value == pytest.approx(math.sqrt(1 / 2 * math.sqrt(2 * 4)))  # horizons first, then tasks
    assert Suite([first]).train.value == pytest.approx(0.5)


def test_wins_ties_and_losses_are_counted_after_holm():
    rng = np.random.default_rng(0)
    ratios = [0.8, 0.8, 1.0, 1.3]
    suite = Suite([problem(str(n), **drawn(rng, ratio)) for n, ratio in enumerate(ratios)])
    assert suite.counts == {"win": 2, "tie": 1, "loss": 1}
    assert "2 wins, 1 tie, 1 loss" in suite.line
    lost = drawn(rng, 0.5)
    lost["mine"][0] = math.nan
    suite = Suite([problem("a", **drawn(rng, 0.5)), problem("b", **lost)])
    assert suite.counts == {"win": 1, "tie": 0, "loss": 1}
    assert (suite.outcome, suite.left_out) == ("worse", 1)  # lost runs are no detail
    assert suite.line.startswith("not better than the best baseline of each of 2 problems: use those; 0.")
    other = drawn(rng, 1.0)
    both = {name: np.where(np.arange(10) < 9, math.nan, values) for name, values in other.items()}
    suite = Suite([*(problem(str(n), **drawn(rng, 0.5)) for n in range(4)), problem("lost", **both)])
    assert suite.counts == {"win": 4, "tie": 1, "loss": 0}
    assert suite.outcome == "even"  # not better where it loses runs, even if the others lose as many
    # A p-value that is enough for one problem is not enough for one of twenty.
    weak = drawn(np.random.default_rng(1), 0.96, noise=0.03)
    alone = Suite([problem("a", **weak)])
    assert 0.0025 < alone.problems[0].p < 0.05
    among = Suite([problem("a", **weak), *(problem(str(n), **drawn(rng, 1.0)) for n in range(19))])
    assert alone.counts["win"] == 1
    assert among.problems[0].outcome == "even"


def test_a_clear_difference_on_five_tasks_is_found_and_none_is_not():
    rng = np.random.default_rng(2)
    better = sum(
        Suite([problem(str(n), **drawn(rng, 0.9 * np.exp(0.03 * rng.standard_normal()))) for n in range(5)]).outcome
        == "better"
        for _ in range(20)
    )
    assert better >= 18
    found = [Suite([problem(str(n), **drawn(rng, 1.0)) for n in range(5)]).outcome for _ in range(40)]
    assert found.count("better") <= 4


@pytest.mark.parametrize(("tasks", "seeds"), [(1, 10), (5, 10), (8, 5)])
def test_the_interval_over_seeds_and_tasks_covers(tasks, seeds):
    rng, covered, wrong = np.random.default_rng(3), 0, 0
    for _ in range(200):
        pairs = []
        for _ in range(tasks):
            shared = np.exp(0.2 * rng.standard_normal((seeds, 1)))
            own = np.exp([0.05 * rng.standard_normal() if tasks > 1 else 0.0, 0.0])
            pairs.append([shared * own * (1 + 0.05 * rng.standard_normal((seeds, 2))) for _ in range(2)])
        found = _overall(pairs)
        low, high = found.interval
        covered += low <= 1 <= high
        wrong += found.sign != 0
    assert covered >= 182
    assert wrong <= 18


def test_the_profile_by_hand():
    losses = np.array([[1.0, 2.0, math.inf], [3.0, 1.5, 1.5], [-1.0, 1.0, 1.0]])  # the third has no factors
    mine, second, third = performance_profile(losses)
    assert mine == [(1.0, 0.5), (2.0, 1.0)]
    assert second == [(1.0, 0.5), (2.0, 1.0)]
    assert third == [(1.0, 0.5)]  # lost runs never come near
    assert performance_profile(np.array([[-1.0, 1.0]])) == [[], []]


def test_a_wrong_task_ends_a_suite_before_it_begins(task, tmp_path):
    with pytest.raises(SolError, match="no task 'quadratc'"):
        compare_tasks([task, "quadratc"], ["sgd where lr = 0.1"], store=tmp_path / "runs.sqlite")
    assert not (tmp_path / "runs.sqlite").exists()


def test_tasks_and_horizons_from_python(make_task, tmp_path):
    tasks = [make_task(), type("Other", (type(make_task()),), {"name": "other"})()]
    names = {"mine": "ad where lr = 0.03", "a": "sign(g) where lr = 0.01", "b": "g where lr = 0.1"}
    suite = compare_tasks(tasks, names, episodes=4, steps=[4, 8], store=tmp_path / "runs.sqlite")
    assert [(p.task, p.steps) for p in suite.problems] == [
        (task, steps) for task in ("regression", "other") for steps in (4, 8)
    ]
    record = json.loads(json.dumps(suite.record(statistics=True), allow_nan=False))
    assert record["suite"]["line"] == suite.line
    assert len(record["comparisons"]) == len(record["suite"]["problems"]) == 4
    rows = list(csv.DictReader(io.StringIO(suite.csv())))
    assert len(rows) == 4 * 3 * 4
    assert {(row["task"], row["steps"]) for row in rows} == {(p.task, str(p.steps)) for p in suite.problems}
    lines = suite.report().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("mine: ")
    assert Suite([problem("a", mine=[1.0, 2.0])]).report()  # nothing to compare with


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": []}, "at least one task is required"),
        ({"tasks": ["quadratic", "quadratic"]}, "tasks must differ, got quadratic, quadratic"),
        ({"steps": [4, 4]}, "steps must differ, got 4, 4"),
        ({"steps": [4, 8], "target": 0.1}, "one target cannot fit several problems"),
    ],
)
def test_wrong_suites_are_named(task, arguments, message):
    with pytest.raises(SolError, match=message):
        compare_tasks(**{"tasks": [task], "optimizers": ["ad where lr = 0.03"], **arguments})


def test_a_suite_on_the_command_line(make_task, tmp_path, capsys, monkeypatch):
    task = make_task()
    monkeypatch.setattr("sol_learner.comparing.protocol.load_task", lambda name, data, device: task)
    path = tmp_path / "suite.json"
    words = ["compare", "regression", "ad where lr = 0.03", "g where lr = 0.1", "--seeds", "3", "--json", str(path)]
    assert main([*words, "--steps", "4,8"]) == 0
    assert "of each of 2 problems" in " ".join(capsys.readouterr().out.split())
    assert [c["horizon"] for c in json.loads(path.read_text())["comparisons"]] == [4, 8]
    assert main([*words, "--steps", "4"]) == 0  # one problem is a comparison as before
    assert json.loads(path.read_text())["horizon"] == 4
    assert main([*words, "--steps", "4,x"]) == 2
    assert "must be an integer from 1 to 1,000,000, got 'x'" in capsys.readouterr().err
