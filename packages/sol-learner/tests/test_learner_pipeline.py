"""From the network to a written run: pruning, polishing, learning, interrupting, comparing."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from sol_learner import Clock, LearnConfig, Learner, compare, write_run
from sol_learner.inner import RuleOptimizer, TaskSet
from sol_learner.run_folder import prepare_folder
from sol_learner.runtime import Interrupted, NullProgress
from sol_learner.runtime.clock import parse_duration
from sol_learner.runtime.progress import open_progress
from sol_learner.search import CandidateEvaluator, Samples, Trajectories, polish, prune, record
from sol_learner.search.terms import Fit, fit_library, leading_terms
from sol_learner.task import Stream, build_optimizee
from sol_symbols import STANDARD, ZOO, SolError, UpdateRule, resolve_rule

SMALL = LearnConfig(
    tuning_episodes=2,
    episodes=3,
    meta_batch=3,
    unroll=(4,),
    coordinates=40,
    validation_episodes=3,
    record_episodes=2,
    record_coordinates=40,
    library_generations=3,
    max_terms=6,
    prune_episodes=1,
    generations=3,
    population=6,
    evaluation_episodes=3,
)


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(10, 300, generator=generator, dtype=torch.float64)
    values = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "T": 10.0}
    return Samples((Trajectories(gradients, torch.zeros_like(gradients), values),), STANDARD)


def test_the_leading_terms_are_those_that_matter(samples):
    rule = UpdateRule.parse("0.7*ad - 0.2*ld*sign(g) + 1e-4*rs + 1e-5*cd*ad + 0.05*rs*ld where T = 10")
    assert set(leading_terms(rule, samples, 3)) == {STANDARD.parse(text) for text in ("ad", "ld*sign(g)", "ld*rs")}
    assert leading_terms(rule, samples, 0) == []


def test_leading_terms_leave_out_what_no_optimizer_should_have(samples):
    rule = UpdateRule.parse("ad + ld + g**3 + exp(ad + ld) + sign(g)*rs + sqrt(v_hat) + g where T = 10")
    assert {str(term) for term in leading_terms(rule, samples, 9)} == {"ad", "g"}


def test_a_fit_makes_up_for_what_is_left_out(samples):
    # sign(g) is nearly rs here; without a refit, leaving it out would lose its share.
    units = [STANDARD.parse(text) for text in ("rs", "sign(g)")]
    (fitted,) = Fit(samples, units, (units, [1.0, 0.5])).coefficients([0])
    columns = samples.evaluate(units)
    weight, target = samples.weights, columns[0] + 0.5 * columns[1]
    best = (weight * columns[0] * target).sum() / (weight * columns[0] ** 2).sum()
    assert fitted == pytest.approx(float(best), rel=2e-3)
    assert fitted > 1.2


def test_a_fit_uses_no_term_that_is_not_finite_or_zero(samples):
    units = [STANDARD.parse(text) for text in ("ad", "1/w", "w", "rs")]
    assert Fit(samples, units, (units[:1], [1.0])).usable == [0, 3]


def test_terms_that_repeat_each_other_do_not_cancel_at_large_coefficients(samples):
    units = [STANDARD.parse(text) for text in ("ad", "ad*(1 + 1e-6*ld)", "rs")]
    fit = Fit(samples, units, (units[:1], [1.0]))
    assert max(abs(c) for c in fit.coefficients(fit.usable)) < 2


def test_a_step_in_whitened_coordinates_changes_phi_by_its_own_size(samples):
    units = [STANDARD.parse(text) for text in ("ad", "ld*sign(g)", "m_hat")]
    fit = Fit(samples, units, (units, [1.0, 0.1, 0.1]))
    table = samples.evaluate(units) * samples.weights.sqrt()
    size = (torch.tensor([1.0, 0.1, 0.1], dtype=torch.float64) @ table).norm()
    for column in fit.whitening(fit.usable).T:
        assert float((column @ table).norm() / size) == pytest.approx(1, rel=0.05)


def test_widening_keeps_what_the_readout_does(samples):
    readout = UpdateRule.parse("0.7*ad + 0.2*cd*sign(g) + 0.1*tanh(m_hat) where lr = 0.1, T = 10")
    wide = fit_library(readout, samples, ("ad", "sign(g)"), ("1", "cd"), own=1)
    assert {str(term.as_coeff_Mul()[1]) for term in wide.terms} == {"ad", "ad*cd", "sign(g)", "cd*sign(g)"}
    assert (wide.lr, wide.values["T"]) == (0.1, 10)
    target, found = samples.evaluate([readout.expression, wide.expression])
    assert (target - found).norm() < 0.1 * target.norm()


def test_a_scale_free_library_has_no_term_that_answers_to_the_size_of_gradients(samples):
    readout = UpdateRule.parse("0.7*ad + 0.3*m_hat + 0.2*sign(m)*abs(ad) + 0.1*tanh(m_hat) where lr = 0.1, T = 10")
    wide = fit_library(readout, samples, ("m_hat", "ad", "w"), ("1", "cd"), own=3, scale_free=True)
    units = {str(term.as_coeff_Mul()[1]) for term in wide.terms}
    assert {"ad", "ad*cd"} <= units <= {"ad", "ad*cd", "w", "cd*w", "Abs(ad)*sign(m)"}
    with pytest.raises(SolError, match="no scale-free term among the directions"):
        fit_library(readout, samples, ("g", "m_hat"), ("1",), own=0, scale_free=True)


def family_of(*tasks):
    return TaskSet(tasks, (1.0,) * len(tasks), 0.5)


def recorded_from(task, per_episode):
    values = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    return record(
        family_of(task), RuleOptimizer(ZOO["adam"]), 0.03, values, STANDARD, 0, range(2), per_episode=per_episode
    )


def test_recorded_samples_are_those_of_the_episodes(task):
    taken = recorded_from(task, per_episode=10**9)
    (part,) = taken.parts
    assert part.gradients.shape == (task.horizon, 2 * 34)
    assert part.gradients.dtype == torch.float64
    assert taken.weights.mean() == pytest.approx(1.0)
    fresh = build_optimizee(task, 0, Stream.TRAIN, 0).parameters()
    assert part.parameters[0][:34].sum() == pytest.approx(sum(float(p.detach().sum()) for p in fresh), rel=1e-5)
    assert part.values["T"] == task.horizon


POLISH = {"seed": 0, "generations": 12, "population": 8, "episodes": 2, "sigma": 0.3}


@pytest.fixture
def recorded(task):
    return recorded_from(task, per_episode=20)


def candidates_of(task, **options):
    return CandidateEvaluator(family_of(task), 0, 50, 6, **options)


def test_polishing_improves_a_rule_far_from_its_optimum(task, recorded):
    start = UpdateRule.parse("0.05*ad + 0.01*rs where lr = 0.03")
    polished = polish(start, recorded, candidates_of(task), progress=NullProgress(), **POLISH)
    measured = candidates_of(task)
    assert polished.loss == measured.validated([polished.rule])[0]
    assert polished.loss < 0.9 * measured.validated([start])[0]
    assert len(polished.history) == 12
    again = polish(start, recorded, candidates_of(task), progress=NullProgress(), **POLISH)
    assert again.rule == polished.rule


@pytest.mark.parametrize("settings", [{"generations": 1, "sigma": 30.0}, {"generations": 0}], ids=str)
def test_polishing_keeps_the_start_where_nothing_better_is_found(task, recorded, settings):
    start = UpdateRule.parse("ad where lr = 0.1")
    polished = polish(start, recorded, candidates_of(task), progress=NullProgress(), **{**POLISH, **settings})
    assert polished.rule == start


def test_polishing_needs_a_term_that_does_something(task, recorded):
    with pytest.raises(SolError, match="nothing to polish"):
        polish(
            UpdateRule.parse("exp(1000 + ag) where lr = 0.1"),
            recorded,
            candidates_of(task),
            progress=NullProgress(),
            **POLISH,
        )


def test_pruning_by_loss_keeps_the_terms_that_train(task, recorded):
    rule = UpdateRule.parse("ad + 0.01*sign(m) + 1e-3*ld*rs + 1e-3*cd*sign(g) where lr = 0.05, T = 12")
    path = prune(rule, 1, recorded, candidates_of(task), 4, NullProgress())
    assert [len(short.terms) for short in path] == [3, 2, 1]
    losses = candidates_of(task).validated([rule, path[-1]])
    assert losses[1] < 1.1 * losses[0]
    assert prune(path[-1], 1, recorded, candidates_of(task), 4, NullProgress()) == []


def test_pruning_without_time_goes_by_the_fit(task, recorded):
    clock = Clock()
    clock.cancel()
    rule = UpdateRule.parse("ad + 0.01*ld*sign(m) + 1e-3*g where lr = 0.05, T = 12")
    path = prune(rule, 1, recorded, candidates_of(task, clock=clock), 4, NullProgress())
    assert [len(short.terms) for short in path] == [2, 1]
    assert path[-1].expression.has(STANDARD.parse("ad"))


def test_candidates_never_see_an_episode_twice(task):
    candidates = candidates_of(task)
    assert [list(candidates.fresh(2)), list(candidates.fresh(1))] == [[50, 51], [52]]


def cancelled_in(phase):
    """A reporter that cancels its clock when the phase has made a step."""
    clock = Clock()

    class Cancelling(NullProgress):
        name = ""

        def phase(self, name, steps):
            self.name = name

        def step(self, done, **numbers):
            if self.name.startswith(phase):
                clock.cancel()

    return {"clock": clock, "progress": Cancelling()}


@pytest.fixture(scope="module")
def result(make_task):
    return Learner([make_task()], SMALL).run()


def test_learning_beats_the_tuned_start(result):
    learned, adam = (c.outcome.objective().mean() for c in result.comparisons[0].optimizers[:2])
    assert learned < adam
    assert 1 <= result.rule.complexity.terms <= SMALL.max_terms
    assert result.readout_error < 1e-6
    lengths = [point.terms for point in result.front]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > SMALL.max_terms
    assert lengths[-1] == 1
    assert result.rule in [point.rule for point in result.front]


def test_the_same_seed_gives_the_same_rule_and_numbers(result, task):
    again = Learner([task], SMALL).run()
    assert again.rule == result.rule
    assert str(again.rule) == str(result.rule)
    assert again.comparisons[0].record() == result.comparisons[0].record()
    other = Learner([task], replace(SMALL, seed=1)).run()
    assert other.rule != result.rule


def test_the_number_of_steps_can_be_set(make_task):
    task = make_task()
    few = replace(SMALL, steps=5, episodes=1, library_generations=1, generations=0, front=False)
    result = Learner([task], few).run()
    assert result.rule.horizon == 5
    assert result.comparisons[0].horizon == 5
    assert task.horizon == 12


def test_the_summary_is_json_and_says_how_to_repeat_the_run(result):
    summary = json.loads(json.dumps(result.summary))
    assert summary["config"]["seed"] == 0
    assert UpdateRule.parse(summary["rule"]) == result.rule
    assert summary["digest"] == result.rule.digest
    assert set(summary["seconds"]) == {"tune", "meta-train", "widen", "prune", "polish", "front", "compare"}
    assert summary["meta_training"]["dropped"] == 0
    assert summary["kernel"] == "eager"
    searches = {search["of"]: search for search in summary["searches"]}
    assert list(searches) == ["library", "rule", "front"]
    assert [search["seed"] for search in searches.values()] == [0, 1, 2]
    assert searches["front"]["terms"] == (SMALL.max_terms * 3 + 3) // 4
    assert searches["rule"]["evaluations"] == SMALL.generations * SMALL.population


@pytest.mark.parametrize(
    "phase", ["meta-training", "polishing 18", "pruning to 6", "polishing 6", "measuring", "comparing"]
)
def test_an_interrupted_run_keeps_what_it_reached(task, phase, tmp_path):
    reached = Learner([task], SMALL, **cancelled_in(phase)).run()
    assert reached.comparisons == []
    assert reached.summary["interrupted"] is True
    files = write_run(reached, tmp_path)
    assert "curves.png" not in files
    assert resolve_rule(str(tmp_path)) == reached.rule


def test_interrupted_before_anything_was_reached(task):
    clock = Clock()
    clock.cancel()
    with pytest.raises(Interrupted):
        Learner([task], SMALL, clock=clock).run()


def test_a_budget_shortens_the_run(task):
    slow = replace(SMALL, episodes=100_000, generations=100_000, library_generations=100_000)
    clock = Clock(2.0)
    short = Learner([task], slow, clock=clock).run()
    assert len(short.comparisons) == 1
    assert clock.elapsed < 20
    assert short.summary["polish"]["generations"] < 100_000


@pytest.fixture
def usual_interrupts():
    """Ctrl-C raises KeyboardInterrupt, also in a process of tests that was told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_interrupts")
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
    comparison = compare(task, rules, seed=0, episodes=2, progress=NullProgress())
    mine, sgd = comparison.optimizers
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
    with pytest.raises(SolError, match="take one of them"):
        prepare_folder(tmp_path / "run", overwrite=True, resume=True)


def test_a_run_that_replaces_another_leaves_nothing_of_it(result, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    write_run(result, tmp_path)
    assert (tmp_path / "front.json").exists()
    written = write_run(replace(result, front=[], comparisons=[]), str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {*written, "mine.txt"}
    with pytest.raises(SolError, match="not the folder of a finished run"):
        resolve_rule(str(tmp_path), 3)


def test_a_run_killed_while_it_wrote_its_files_goes_on(tmp_path):
    (tmp_path / "rule.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints" / "00000001.safetensors"
    checkpoint.write_bytes(b"")
    prepare_folder(tmp_path, resume=True)
    with pytest.raises(SolError, match="holds a run already; choose another folder"):
        prepare_folder(tmp_path)
    checkpoint.unlink()
    with pytest.raises(SolError, match="it is finished; sol show tells its rule"):
        prepare_folder(tmp_path, resume=True)


def test_an_exporter_that_fails_loses_nothing(result, tmp_path, monkeypatch):
    class FrontPoint:
        dist, value, name = None, "broken:Exporter", "broken"

        def load(self):
            raise ImportError("no such thing")

    monkeypatch.setattr("sol_learner.run_folder.find_plugins", lambda group: {"broken": FrontPoint()})
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
