"""Terms, recorded samples, polishing, pruning: from a read-out to a short rule."""

import math

import numpy
import pytest
import torch

from sol_learner import Clock, LearnConfig, Learner
from sol_learner.inner import RuleOptimizer, TaskSet
from sol_learner.inner.episodes import run_rule
from sol_learner.inner.full_gradient import GRADIENT_COST
from sol_learner.runtime import NullProgress, Workers
from sol_learner.runtime.progress import Phase
from sol_learner.search import CandidateEvaluator, Samples, Trajectories, polish, prune, record
from sol_learner.search.descent import descend
from sol_learner.search.front import FrontPoint, best_points, held
from sol_learner.search.polishing import Polished
from sol_learner.search.space import SearchSpace
from sol_learner.search.terms import Fit, fit_library, leading_terms, together
from sol_learner.search.validity import failures, losses_elsewhere, variants
from sol_learner.task import Stream, build_optimizee
from sol_symbols import STANDARD, ZOO, SolError, UpdateRule


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
    with pytest.raises(SolError, match="directions contain no scale-free term"):
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


POLISH = {"phase": Phase.POLISH, "seed": 0, "generations": 12, "population": 8, "episodes": 2, "sigma": 0.3}


@pytest.fixture
def recorded(task):
    return recorded_from(task, per_episode=20)


def candidates_of(task, **options):
    return CandidateEvaluator(family_of(task), 0, 50, 6, **options)


def test_polishing_improves_a_rule_far_from_its_optimum(task, recorded):
    start = UpdateRule.parse("0.05*ad + 0.01*rs where lr = 0.03")
    polished = polish(start, recorded, candidates_of(task), progress=NullProgress(), **POLISH)
    measured = candidates_of(task)
    assert polished.loss == pytest.approx(measured.validated([polished.rule])[0])
    assert polished.loss < 0.9 * measured.validated([start])[0]
    assert len(polished.history) == 12
    again = polish(start, recorded, candidates_of(task), progress=NullProgress(), **POLISH)
    assert again.rule == polished.rule


def test_rules_are_validated_side_by_side_as_each_alone(task):
    rules = [
        UpdateRule.parse(f"{text} where lr = 0.03") for text in ("ad", "0.5*ad + rs", "sign(g)", "exp(1000*abs(g))")
    ]
    losses = candidates_of(task).validated(rules)
    assert losses == pytest.approx([candidates_of(task).validated([rule])[0] for rule in rules])
    assert losses[-1] == math.inf
    counted = candidates_of(task)
    assert counted.validated([*rules, rules[0]]) == [*losses, losses[0]]
    assert counted.trainings == 6 * len(rules)


def test_descent_improves_a_rule_far_from_its_optimum(task, recorded):
    start = UpdateRule.parse("0.2*ad + 0.1*rs where lr = 0.03")
    settings = {**POLISH, "generations": 0, "descent_steps": 12}
    evaluator = candidates_of(task)
    polished = polish(start, recorded, evaluator, progress=NullProgress(), **settings)
    before, after = candidates_of(task).validated([start, polished.rule])
    assert after < 0.97 * before
    assert evaluator.trainings == 12 * 2 * GRADIENT_COST + 6 * len(polished.others)
    assert polish(start, recorded, candidates_of(task), progress=NullProgress(), **settings).rule == polished.rule
    searched = polish(start, recorded, candidates_of(task), progress=NullProgress(), **{**settings, "generations": 2})
    assert len(searched.others) == len(polished.others) + 5
    assert searched.loss <= polished.loss


class Notes(NullProgress):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


def test_the_search_compares_rules_without_safeguards_and_finds_rules_with_them(samples):
    rule = UpdateRule.parse("calm*(ad + 0.2*rs*ld) where lr = 0.03, T = 10")
    space = SearchSpace(rule, samples, constants=True)
    assert {"calm", "g_peak"}.isdisjoint(space.open_rule.live)
    assert {"calm", "g_peak"} <= set(space.rule_at(numpy.full(space.size, 0.1)).live)
    assert space.rule_at(numpy.zeros(space.size)) == rule


def test_descent_comes_back_from_a_step_too_far(task, recorded, monkeypatch):
    evaluator, notes = candidates_of(task), Notes()
    space = SearchSpace(UpdateRule.parse("ad where lr = 0.03"), recorded, constants=True)
    losses = iter([1.0, 1.1, 1.2, math.inf, 1.0])
    asked = []

    def gradient(space, point, episodes):
        asked.append(point)
        return next(losses), numpy.ones(space.size)

    monkeypatch.setattr(evaluator, "gradient", gradient)
    path = descend(space, evaluator, steps=5, episodes=1, phase=Phase.POLISH, progress=notes)
    assert len(path) == 4
    assert numpy.array_equal(asked[4], numpy.mean(path[1:3], 0))
    losses, asked[:] = iter([math.inf] * 3), []
    assert descend(space, evaluator, steps=3, episodes=1, phase=Phase.POLISH, progress=notes) == []
    assert not numpy.any(asked)


@pytest.mark.parametrize("fault", [SolError("it projects"), RuntimeError("no derivative of it")], ids=str)
def test_polishing_does_without_gradients_where_there_are_none(task, recorded, monkeypatch, fault):
    evaluator, notes = candidates_of(task), Notes()

    def gradient(space, point, episodes):
        raise fault

    monkeypatch.setattr(evaluator, "gradient", gradient)
    start = UpdateRule.parse("0.05*ad + 0.01*rs where lr = 0.03")
    polished = polish(start, recorded, evaluator, progress=notes, **POLISH, descent_steps=4)
    assert notes.lines == [f"no gradient descent: {fault}"]
    assert polished.loss < candidates_of(task).validated([start])[0]


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


def test_pruning_without_time_keeps_the_terms(task, recorded):
    clock = Clock()
    clock.cancel()
    rule = UpdateRule.parse("ad + 0.01*ld*sign(m) + 1e-3*g where lr = 0.05, T = 12")
    assert prune(rule, 1, recorded, candidates_of(task, clock=clock), 4, NullProgress()) == []


def test_candidates_never_see_an_episode_twice(task):
    candidates = candidates_of(task)
    assert [list(candidates.fresh(2)), list(candidates.fresh(1))] == [[50, 51], [52]]


def test_rules_together_train_as_each_alone(task):
    texts = (
        "0.5*ad + 0.1*ld*sign(g) where lr = 0.03, beta1 = 0.8",
        "rs - 0.2*sign(g)*ld where lr = 0.1",
        "g where lr = 1",
    )
    rules = [UpdateRule.parse(text) for text in texts]
    rule, values = together(rules)
    rates = values.pop("lr")
    found = run_rule(task, rule, 0, Stream.VALID, range(2), rates, values).objective()
    for row, own in zip(found, rules):
        assert torch.allclose(row, run_rule(task, own, 0, Stream.VALID, range(2)).objective()[0], rtol=1e-4)


def test_a_rule_at_the_edge_of_stability_fails_with_twice_its_rate(task):
    task.horizon = 60
    rules = [UpdateRule.parse(f"g where lr = {lr}") for lr in (0.5, 1.0)]
    losses = [float(run_rule(task, rule, 0, Stream.VALID, range(2)).objective().mean()) for rule in rules]
    assert losses[1] < losses[0]
    workers = Workers()
    table = losses_elsewhere(rules, workers.constant(task), 0, 2, 0.4, workers)
    assert [*table] == [*variants(task)]
    assert "twice the learning rate" not in failures(table, 0)
    assert "twice the learning rate" in failures(table, 1)


def test_where_trainings_are_few_the_check_is_a_larger_rate(task):
    task.horizon = 60
    start, edge = (UpdateRule.parse(f"g where lr = {lr}") for lr in (0.5, 1.2))
    losses = [float(run_rule(task, rule, 0, Stream.VALID, [0]).objective()) for rule in (start, edge)]
    assert losses[1] < losses[0]
    learner = Learner([task], LearnConfig(start="sol-general", check="rate", check_episodes=1))
    learner._constants = {task.name: learner.workers.constant(task)}
    found, shown = learner.valid_choice(Polished(edge, 0.1, [], ((edge, 0.1), (start, 0.2)), start))
    assert (found.rule, found.loss) == (start, 0.2)
    assert [*shown] == [f"{task.name}: 1.4 times the learning rate"]
    assert learner.checked == 2


def test_inputs_are_standardised_where_they_are_one_tensor(task):
    x, y = task.data["train"]
    task.data["train"] = 5 * x + 20, y
    (variant,) = (variant.of(task) for name, variant in variants(task).items() if name == "standardised inputs")
    seen = []
    model = variant.build(torch.Generator().manual_seed(0))
    model.model.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    variant.loss(model, task.data["train"])
    assert float(seen[0].mean()) == pytest.approx(0, abs=0.4)
    assert float(seen[0].std()) == pytest.approx(1, abs=0.2)


def test_the_front_offers_the_rules_that_hold():
    points = [FrontPoint(UpdateRule.parse(text), loss) for text, loss in (("ad", 3.0), ("rs", 4.0), ("ad + rs", 1.0))]
    best = best_points(points)
    assert [point.loss for point in best] == [3.0, 1.0]
    assert [p.holds for p in held(points, best, {"half": [5.0, 2.0]})] == [True, False, True]
    assert [p.holds for p in held(points, best, {"half": [5.0, 11.0]})] == [True, False, False]
    assert [p.holds for p in held(points, best, {"half": [float("inf"), 11.0]})] == [False, False, True]
