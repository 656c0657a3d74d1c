"""Reference trainings, and what they make of the objective of rules."""

import math
from dataclasses import replace

import pytest
import torch

from sol_learner import Clock, LearnConfig, Learner, Workers
from sol_learner.inner.references import MOST, REFERENCES, has_matrices, penalty, reference, references_of
from sol_learner.inner.task_set import SharedTaskSet, TaskSet
from sol_learner.search.validity import variants
from sol_learner.task import Stream
from sol_learner.testing import check_task
from sol_symbols import ZOO, UpdateRule

GENERAL = ZOO["sol-general"]
NETWORK = reference(0, Stream.TUNE, 0, 5)


def test_references_are_tasks_that_depend_on_their_number_alone():
    task, same, other = (reference(3, Stream.TRAIN, number, 5) for number in (1, 1, 2))
    check_task(task)
    rows = [next(each.batches("train", torch.Generator().manual_seed(0)))[0] for each in (task, same, other)]
    assert torch.equal(rows[0], rows[1])
    assert rows[0].shape != rows[2].shape or not torch.equal(rows[0], rows[2])
    assert reference(3, Stream.VALID, 1, 5).horizon == 5


def test_a_choice_has_the_same_references_and_a_search_one_for_two_episodes():
    assert references_of(Stream.VALID, range(3)) == references_of(Stream.TUNE, range(8))
    assert references_of(Stream.TRAIN, range(4, 6)) == [2]
    assert len(references_of(Stream.TRAIN, range(100))) == REFERENCES


def test_the_rule_that_sets_the_standard_has_no_penalty_and_one_that_diverges_most_of_it():
    rates = torch.tensor([GENERAL.lr, 1e4 * GENERAL.lr], dtype=torch.float64)
    found = penalty(GENERAL, 0, Stream.TRAIN, [0, 1], 30, 0.4, lr=rates)
    assert found[0] == 1
    assert 10 < found[1] <= MOST
    lost = UpdateRule.parse("g/abs(g)**40 where lr = 1")
    assert penalty(lost, 0, Stream.TRAIN, [0, 1], 5, 0.4).item() == MOST


def test_the_guarded_objective_is_the_own_one_times_the_penalty():
    task = reference(5, Stream.TUNE, 0, 10)
    rule = replace(GENERAL, lr=0.4)
    free, guarded = (TaskSet((task,), (1.0,), 0.4, on).run(rule, 0, Stream.VALID, [0, 1]) for on in (False, True))
    factor = penalty(rule, 0, Stream.VALID, [0, 1], 10, 0.4)
    assert factor > 1
    torch.testing.assert_close(guarded, free * factor)


def test_what_is_lost_on_its_task_stays_lost_though_it_trains_the_references():
    lost = Lost(reference(5, Stream.TUNE, 0, 3))
    assert TaskSet((lost,), (1.0,), 0.4, True).run(GENERAL, 0, Stream.VALID, [0]).item() == float("inf")


@pytest.mark.parametrize("jobs", [1, 2])
def test_workers_share_references_and_models_that_train_one_after_another(jobs, make_task):
    task_set = TaskSet((make_task(vectorizable=False, horizon=4),), (1.0,), 0.4, True)
    values = {"lr": torch.tensor([0.008, 4.0], dtype=torch.float64), "beta1": torch.tensor([0.6, 0.7]).double()}
    whole = task_set.run(GENERAL, 1, Stream.TRAIN, [0, 1], values["lr"], {"beta1": values["beta1"]}).mean(1)
    workers = Workers(jobs)
    shared = SharedTaskSet(workers.constant(task_set.tasks), task_set.scales, task_set.weight, task_set.guarded)
    found = shared.apart(workers, GENERAL, 1, Stream.TRAIN, [0, 1], values, Clock())
    workers.close()
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), whole, rtol=1e-6, atol=0)


class Negative:
    """A task whose objective is negative."""

    def __init__(self, task):
        self.task, self.name, self.horizon = task, "negative", task.horizon

    def __getattr__(self, name):
        return getattr(self.task, name)

    def evaluate(self, model, split):
        return {"loss": self.task.evaluate(model, split)["loss"] - 1e4}


class Lost(Negative):
    """A task whose loss is never finite."""

    vectorizable = False

    def evaluate(self, model, split):
        return {"loss": float("inf")}


def test_a_penalty_is_worse_for_negative_objectives_too():
    task = Negative(reference(5, Stream.TUNE, 0, 10))
    rule = replace(GENERAL, lr=0.4)
    free, guarded = (TaskSet((task,), (1.0,), 0.4, on).run(rule, 0, Stream.VALID, [0, 1]) for on in (False, True))
    assert (free < 0).all()
    assert (guarded > free).all()


def test_a_start_has_a_rate_where_objectives_are_negative():
    settings = {"generations": 0, "front": False, "baselines": (), "check_episodes": 0, "start": "sol-general"}
    small = {"tuning_episodes": 1, "validation_episodes": 1, "evaluation_episodes": 1}
    result = Learner([Negative(reference(5, Stream.TUNE, 0, 10))], LearnConfig(**settings, **small)).run()
    assert result.rule.lr == result.summary["tuning"]["lr"]
    assert result.summary["tuning"]["starts"]["sol-general"] < 0


@pytest.mark.parametrize("least", [-3.0, 0.0])
def test_several_tasks_may_have_objectives_of_any_sign(least):
    class Moved(Line):
        def __init__(self, name):
            self.name = name

        def evaluate(self, model, split):
            return {"loss": max(least, float(self.loss(model, torch.ones(3)).detach()) + least - 1e-3)}

    small = {"tuning_episodes": 1, "validation_episodes": 1, "evaluation_episodes": 1, "generations": 0}
    config = LearnConfig(front=False, baselines=(), check_episodes=0, **small)
    starts = Learner([Moved("a"), Moved("b")], config).run().summary["tuning"]["starts"]
    assert all(map(math.isfinite, starts.values()))
    assert starts["adam-constant"] == pytest.approx(-1.0, abs=0.05) if least else starts["adam-constant"] >= 0


class Line:
    name, horizon = "line", 5

    def build(self, generator):
        return torch.nn.ParameterList([torch.nn.Parameter(torch.randn(3, generator=generator))])

    def batches(self, split, generator):
        while True:
            yield torch.ones(3)

    def loss(self, model, batch):
        return (model[0] * batch).square().sum()

    def evaluate(self, model, split):
        return {"loss": float(self.loss(model, torch.ones(3)).detach())}


def test_networks_have_matrices():
    assert has_matrices(NETWORK)
    assert not has_matrices(Line())


@pytest.mark.parametrize(
    ("task", "settings", "guarded"),
    [
        (NETWORK, {}, True),
        (NETWORK, {"guard": False}, False),
        (NETWORK, {"start": "adam"}, False),
        (NETWORK, {"start": "adam", "episodes": 2}, False),
        (Line(), {}, False),
    ],
)
def test_rules_from_sol_general_for_networks_are_guarded(task, settings, guarded):
    assert Learner([task], LearnConfig(**settings))._guarded is guarded


def test_the_check_has_other_networks():
    extra = {*variants(NETWORK, True)} - {*variants(NETWORK)}
    assert extra == {"another network, 2 hidden layers", "another network, 3 hidden layers"}
