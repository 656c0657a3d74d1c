"""From the network to a written run: pruning, polishing, learning, interrupting, comparing."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from sol_learner import (
    Clock,
    Interrupted,
    LearnConfig,
    Purpose,
    Samples,
    Silent,
    SymbolicNetwork,
    backward_elimination,
    compare,
    generator_for,
    learn,
    polish,
    record,
    write_run,
)
from sol_learner.commands import parse_duration
from sol_learner.progress import open_progress
from sol_learner.pruning import Point, choose, mean_objective
from sol_learner.run_folder import prepare_folder
from sol_symbols import STANDARD, ZOO, SolError, UpdateRule, resolve_rule

SMALL = LearnConfig(
    tuning_episodes=2,
    episodes=3,
    meta_batch=3,
    unroll=4,
    coordinates=40,
    validation=3,
    record_episodes=2,
    record_coordinates=40,
    generations=4,
    population=6,
    evaluation=3,
)


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(10, 300, generator=generator, dtype=torch.float64)
    values = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "T": 10.0}
    return Samples(gradients, torch.zeros_like(gradients), values, STANDARD)


def test_elimination_finds_the_terms_that_matter(samples):
    rule = UpdateRule.parse("0.7*ad - 0.2*ld*sign(g) + 1e-4*rs + 1e-5*cd*ad + 0.05*rs*ld where T = 10")
    rules = backward_elimination(rule, samples)
    assert [len(short.terms) for short in rules] == [5, 4, 3, 2, 1]
    names = {unit.as_coeff_Mul()[1] for unit in rules[2].terms}
    assert names == {STANDARD.parse(text) for text in ("ad", "ld*sign(g)", "ld*rs")}
    assert rules[0].values["T"] == 10


def test_elimination_refits_what_is_left(samples):
    # sign(g) is nearly rs here; without a refit, leaving it out would lose its share.
    rule = UpdateRule.parse("rs + 1e-3*sign(g)")
    (kept,) = [r for r in backward_elimination(rule, samples) if len(r.terms) == 1]
    (unit,) = kept.terms
    coefficient, unit = unit.as_coeff_Mul()
    columns = samples.evaluate([unit, rule.expression])
    weight = samples.weights
    best = (weight * columns[0] * columns[1]).sum() / (weight * columns[0] ** 2).sum()
    assert float(coefficient) == pytest.approx(float(best), rel=1e-3)


def test_elimination_leaves_out_terms_that_no_optimizer_should_have(samples):
    rule = UpdateRule.parse("ad + ld + g**3 + exp(ad + ld) + sign(g)*rs + sqrt(v_hat) + g where T = 10")
    longest = backward_elimination(rule, samples)[0]
    assert {str(term.as_coeff_Mul()[1]) for term in longest.terms} == {"ad", "g"}


def test_the_longest_rule_near_the_best_is_chosen():
    points = [
        Point(UpdateRule.parse(text), loss) for text, loss in (("ad + rs + g", 1.2), ("ad + rs", 1.04), ("ad", 1.0))
    ]
    assert str(choose(points).rule) == "ad + rs"


def test_recorded_samples_are_those_of_the_episodes(task):
    network = SymbolicNetwork(ZOO["adam"], generator=torch.Generator().manual_seed(0))
    taken = record(task, network, 0.03, 0, range(2), per_episode=10**9)
    assert taken.gradients.shape == (task.horizon, 2 * 34)
    assert taken.gradients.dtype == torch.float64
    assert taken.weights.mean() == pytest.approx(1.0)
    fresh = task.build(generator_for(0, Purpose.TRAIN, 0)).parameters()
    assert taken.parameters[0][:34].sum() == pytest.approx(sum(float(p.detach().sum()) for p in fresh), rel=1e-5)


POLISH = {
    "seed": 0,
    "first_episode": 50,
    "generations": 12,
    "population": 8,
    "episodes": 2,
    "sigma": 0.3,
    "validation": 6,
}


@pytest.fixture
def recorded(task):
    network = SymbolicNetwork(ZOO["adam"], generator=torch.Generator().manual_seed(0))
    return record(task, network, 0.03, 0, range(2), per_episode=20)


def test_polishing_improves_a_rule_far_from_its_optimum(task, recorded):
    start = UpdateRule.parse("0.05*ad + 0.01*rs where lr = 0.03")
    polished = polish(task, start, recorded, progress=Silent(), clock=Clock(), **POLISH)
    assert polished.loss == mean_objective(task, polished.rule, 0, 6)
    assert polished.loss < 0.9 * mean_objective(task, start, 0, 6)
    assert polished.generations == 12
    again = polish(task, start, recorded, progress=Silent(), clock=Clock(), **POLISH)
    assert again.rule == polished.rule


def test_polishing_keeps_the_start_where_nothing_better_is_found(task, recorded):
    start = UpdateRule.parse("ad where lr = 0.1")
    settings = {**POLISH, "generations": 1, "sigma": 30.0}
    polished = polish(task, start, recorded, progress=Silent(), clock=Clock(), **settings)
    assert polished.rule == start


def cancelled_in(phase):
    """A reporter that cancels its clock when the phase has made a step."""
    clock = Clock()

    class Cancelling(Silent):
        name = ""

        def phase(self, name, steps):
            self.name = name

        def step(self, done, **numbers):
            clock.cancelled = clock.cancelled or self.name == phase

    return {"clock": clock, "progress": Cancelling()}


@pytest.fixture(scope="module")
def result(make_task):
    return learn(make_task(), SMALL)


def test_learning_beats_the_tuned_start(result):
    learned, adam = (c.outcome.objective.mean() for c in result.comparison.contenders[:2])
    assert learned < adam
    assert 1 <= result.rule.complexity.terms <= SMALL.terms
    assert result.readout_error < 1e-6
    assert [point.terms for point in result.front] == sorted((p.terms for p in result.front), reverse=True)


def test_the_same_seed_gives_the_same_rule_and_numbers(result, task):
    again = learn(task, SMALL)
    assert again.rule == result.rule
    assert str(again.rule) == str(result.rule)
    assert again.comparison.record() == result.comparison.record()
    other = learn(task, replace(SMALL, seed=1))
    assert other.rule != result.rule


def test_the_summary_is_json_and_says_how_to_repeat_the_run(result):
    summary = json.loads(json.dumps(result.summary))
    assert summary["config"]["seed"] == 0
    assert UpdateRule.parse(summary["rule"]) == result.rule
    assert summary["digest"] == result.rule.digest
    assert set(summary["seconds"]) == {"tune", "meta_train", "prune", "polish", "compare"}
    assert summary["meta_training"]["dropped"] == 0


@pytest.mark.parametrize("phase", ["meta-training", "pruning", "polishing", "comparing"])
def test_an_interrupted_run_keeps_what_it_reached(task, phase, tmp_path):
    reached = learn(task, SMALL, **cancelled_in(phase))
    assert reached.comparison is None
    assert reached.summary["interrupted"] is True
    files = write_run(reached, tmp_path)
    assert "curves.png" not in files
    assert resolve_rule(str(tmp_path)) == reached.rule


def test_interrupted_before_anything_was_reached(task):
    clock = Clock()
    clock.cancelled = True
    with pytest.raises(Interrupted):
        learn(task, SMALL, clock=clock)


def test_a_budget_shortens_the_run(task):
    slow = replace(SMALL, episodes=100_000, generations=100_000)
    clock = Clock(2.0)
    short = learn(task, slow, clock=clock)
    assert short.comparison is not None
    assert clock.elapsed < 20
    assert short.summary["polish"]["generations"] < 100_000


def test_control_c_cancels_once_and_interrupts_twice(capsys):
    clock = Clock()
    with clock.catching_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        assert clock.cancelled
        assert clock.over
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert "Ctrl-C again" in capsys.readouterr().err


def test_progress_without_a_terminal_is_lines(capsys):
    with open_progress() as progress:
        progress.phase("meta-training", 2)
        progress.step(1, loss=0.5)
        progress.step(2, loss=0.25)
        progress.note("something")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("] ")[2] for line in lines] == [
        "meta-training",
        "meta-training 2/2  loss 0.25",
        "something",
    ]


def test_comparing_tunes_only_rules_without_a_rate(task):
    rules = {"mine": UpdateRule.parse("ad where lr = 0.0123"), "sgd": ZOO["sgd"]}
    comparison = compare(task, rules, seed=0, episodes=2, progress=Silent())
    mine, sgd = comparison.contenders
    assert (mine.lr, mine.tuning) == (0.0123, [])
    assert len(sgd.tuning) >= 13
    assert "0.0123" in comparison.table()
    assert json.dumps(comparison.record())


def test_a_run_folder_is_never_overwritten_by_accident(result, tmp_path):
    prepare_folder(tmp_path / "run")
    write_run(result, tmp_path / "run")
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SolError, match="holds a run already"):
        prepare_folder(tmp_path / "run")
    prepare_folder(tmp_path / "run", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(SolError, match="cannot make the folder"):
        prepare_folder(tmp_path / "file" / "run")


def test_an_exporter_that_fails_loses_nothing(result, tmp_path, monkeypatch):
    class Point:
        dist, value, name = None, "broken:Exporter", "broken"

        def load(self):
            raise ImportError("no such thing")

    monkeypatch.setattr("sol_learner.run_folder.find_plugins", lambda group: {"broken": Point()})
    with pytest.raises(SolError, match=r"rule.json, .* are in .*broken.*no such thing"):
        write_run(result, tmp_path)
    assert resolve_rule(str(tmp_path)) == result.rule


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5min", 300), ("2m", 120), ("1.5h", 5400)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "abc", "5 years", "-3s", "0", "1e3"])
def test_wrong_durations(text):
    with pytest.raises(SolError, match="not a time"):
        parse_duration(text)
