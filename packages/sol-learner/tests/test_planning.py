"""Plans: what a run costs, and what it leaves out for a budget."""

import json
from dataclasses import replace

import pytest

from sol_learner import Clock, LearnConfig, Learner
from sol_learner.inner.full_gradient import GRADIENT_COST
from sol_learner.planning import LESS, Cost, Plan, measured_cost, planned
from sol_learner.runtime import NullProgress
from sol_learner.runtime.progress import Phase

COST = Cost(fixed=0.25, each=0.05, most=64, jobs=2)
SLOW = Cost(fixed=0.0, each=3.0, most=1, jobs=1)


def test_a_plan_without_a_budget_is_the_settings():
    plan = planned(LearnConfig(), 1, COST)
    assert plan.config == LearnConfig()
    assert plan.less == ()
    assert [stage.phase for stage in plan.stages] == [
        *(Phase.TUNE, Phase.PRUNE, Phase.POLISH, Phase.CHECK, Phase.FRONT, Phase.COMPARE)
    ]
    assert plan.of(Phase.TUNE).trainings == 30 * 4
    search = sum(stage.trainings for stage in plan.stages if stage.phase not in (Phase.FRONT, Phase.COMPARE))
    assert plan.of(Phase.COMPARE).trainings == pytest.approx(search + 10 * 6, abs=8)  # equal effort, and held-out runs


@pytest.mark.parametrize("cost", [COST, SLOW], ids=["small", "slow"])
@pytest.mark.parametrize("minutes", [1, 5, 15])
def test_plans_fit_their_budget(cost, minutes):
    budget = 60.0 * minutes
    plan = planned(LearnConfig(), 1, cost, budget, budget)
    assert plan.seconds <= budget
    assert bool(plan.less) == (planned(LearnConfig(), 1, cost).seconds > budget)
    if plan.less and minutes > 1:
        assert plan.seconds > 0.8 * budget


@pytest.mark.parametrize(("budget", "enough"), [(5.0, False), (600.0, True)])
def test_a_plan_that_cannot_fit_says_so(budget, enough):
    plan = planned(LearnConfig(), 1, SLOW, budget, budget)
    said = [line for line in plan.lines() if "too small" in line]
    assert said == ([] if enough else ["  the budget of 5.0 s is too small for even the smallest plan; raise it"])
    assert (plan.seconds <= budget) == enough


def test_the_least_useful_is_left_out_first():
    order = [what for what, _ in LESS]
    before = -1
    for budget in (400.0, 300.0, 150.0, 60.0, 30.0):
        plan = planned(LearnConfig(), 1, replace(COST, fixed=1.0, each=0.2), budget, budget)
        parts = [what for what in plan.less if what in order]
        assert parts == [what for what in order[1:] if what in parts]
        assert len(parts) >= before
        before = len(parts)
    assert not plan.config.front


@pytest.mark.parametrize("spent", [None, 12])
def test_the_search_is_shortened_before_the_comparison_is_left_out(spent):
    config = LearnConfig(generations=8, population=8, start="prior", guard=False)
    plan = planned(config, 1, replace(SLOW, jobs=2), 300.0, 230.0, spent)
    assert plan.config.baselines
    assert 0 < plan.config.generations < 8
    assert 0.8 * 230 < plan.seconds <= 230


@pytest.mark.parametrize(("given", "kept"), [({}, ("rate", 3)), ({"check_episodes": 0}, ("variants", 0))])
def test_a_short_plan_keeps_the_check_at_a_larger_rate(given, kept):
    plan = planned(LearnConfig(**given), 1, SLOW, 300.0, 300.0)
    assert (plan.config.check, plan.config.check_episodes) == kept
    checked = 6 * 3 if kept[1] else 0
    assert plan.of(Phase.CHECK).trainings == checked
    own = LearnConfig(check="rate", check_episodes=1)
    assert planned(own, 1, SLOW, 300.0, 300.0).config.check_episodes == 1


def test_meta_training_is_shortened_with_the_search():
    config = LearnConfig(episodes=100, start="adam")
    plan = planned(config, 1, COST, 300.0, 300.0)
    assert 1 <= plan.config.episodes < 100
    assert plan.config.start == "adam"
    assert plan.of(Phase.META_TRAIN).seconds > 0


def test_a_step_of_descent_counts_as_what_its_gradients_take():
    without, descent = (planned(LearnConfig(descent_steps=steps), 1, COST) for steps in (0, 10))
    validations = 5 * LearnConfig().validation_episodes
    more = descent.of(Phase.POLISH).trainings - without.of(Phase.POLISH).trainings
    assert more == 10 * 2 * GRADIENT_COST + validations
    assert planned(LearnConfig(descent_steps=50), 1, SLOW, 600.0, 600.0).config.descent_steps < 50


def test_a_plan_survives_its_record():
    plan = planned(LearnConfig(), 1, COST, 60.0, 60.0)
    assert Plan.from_record(json.loads(json.dumps(plan.record())), 60.0).config == plan.config
    lines = "\n".join(plan.lines())
    assert "one training takes 0.3 s" in lines
    assert f"left out for the budget of 1 min 00 s: {plan.less[0]}" in lines
    assert plan.after(Phase.FRONT) >= plan.of(Phase.COMPARE).seconds


def test_costs_are_measured(make_task):
    cost = measured_cost(make_task(), 0, 2)
    assert cost.alone > 0
    assert cost.seconds(8, 8, 1) < 8 * cost.alone
    alone = measured_cost(make_task(vectorizable=False), 0, 2)
    assert (alone.fixed, alone.most) == (0.0, 1)


class Notes(NullProgress):
    def __init__(self):
        self.lines, self.numbers = [], []

    def note(self, text):
        self.lines.append(text)

    def step(self, done, **numbers):
        self.numbers.append(numbers)


def test_a_run_reports_its_plan_and_the_time_left(task):
    notes = Notes()
    small = {"tuning_episodes": 1, "validation_episodes": 2, "population": 4, "generations": 2, "check_episodes": 1}
    config = LearnConfig(start="sol-general", front=False, baselines=(), evaluation_episodes=2, **small)
    result = Learner([task], config, progress=notes, clock=Clock("10min")).run()
    assert notes.lines[0].startswith("plan: one training takes")
    assert any(line.startswith("  polish") for line in notes.lines)
    assert all(numbers["left_s"] >= 0 for numbers in notes.numbers)
    assert result.summary["plan"]["less"] == []
    assert result.summary["plan"]["config"] == result.summary["config"]


def test_the_rule_is_never_worse_than_the_start(task):
    notes = Notes()
    wild = LearnConfig(
        start="adam", directions=("w",), decays=("1",), own_terms=0, library_generations=0, generations=0
    )
    small = {"tuning_episodes": 1, "validation_episodes": 2, "front": False, "baselines": (), "evaluation_episodes": 1}
    result = Learner([task], replace(wild, episodes=0, **small), progress=notes).run()
    assert result.summary["gave_start"] is True
    assert str(result.rule.expression) == "ad"
    assert any(line.startswith("the rule is worse than its start") for line in notes.lines)


def test_a_rule_is_validated_however_late_it_is(task):
    class Late(NullProgress):
        def step(self, done, **numbers):
            clock.credit(1000)  # the phase is over in the middle of the search

        def phase(self, phase, title, steps):
            pass

    clock = Clock(600)
    small = {"tuning_episodes": 1, "validation_episodes": 2, "evaluation_episodes": 1, "baselines": (), "front": False}
    result = Learner([task], LearnConfig(start="sol-general", **small), progress=Late(), clock=clock).run()
    assert result.summary["polish"]["loss"] is not None
