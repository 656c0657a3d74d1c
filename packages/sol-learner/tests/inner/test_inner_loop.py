"""Optimizees side by side, random streams, running and tuning rules."""

import itertools
from dataclasses import replace

import pytest
import torch

from sol_learner import Clock, Learner, compare, learn
from sol_learner.inner import (
    Optimizees,
    choose_rule,
    nearby,
    obstacle,
    run_rule,
    shipped_rules,
    tune_learning_rate,
)
from sol_learner.inner.episodes import LOST, Outcome, log_objective, objective
from sol_learner.inner.rates import learning_rates
from sol_learner.runtime import Interrupted
from sol_learner.search.terms import combine
from sol_learner.search.terms import split as split_rule
from sol_learner.task import Stream, Substream, build_optimizee, draw_batches, generator_for
from sol_learner.testing import check_task
from sol_symbols import ZOO, RuleError, SolError, UpdateRule


def test_the_toy_task_conforms(task):
    check_task(task)


NOISE = torch.Generator().manual_seed(0)
SHARED = torch.nn.Linear(5, 2)


def broken(make_task, **members):
    return type("Broken", (make_task,), members)()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"build": lambda self, generator: SHARED}, "models share some"),
        ({"build": lambda self, generator: torch.nn.Linear(5, 2)}, "the same generator state gives different models"),
        ({"loss": lambda self, model, batch: (model(batch[0]) ** 2).mean(0)}, "must return a scalar tensor"),
        ({"loss": lambda self, model, batch: (model(batch[0]) / 0).mean()}, "at the start"),
        ({"evaluate": lambda self, model, split: {"accuracy": 1.0}}, "with a loss, got {'accuracy': 1.0}"),
        ({"horizon": 0}, "horizon of regression must be a number of steps, got 0"),
        ({"unroll": 0}, "unroll of regression must be a number of steps, got 0"),
        ({"build": lambda self, generator: None}, "must return a module, got None"),
        ({"build": lambda self, generator: torch.nn.Tanh()}, "no trainable parameters"),
        (
            {"loss": lambda self, model, batch: model[0](batch[0]).mean()},
            r"not depend on the parameters 2.weight, 2.bias",
        ),
        ({"loss": lambda self, model, batch: model(batch[0]).mean().detach()}, "has no gradient"),
        ({"loss": lambda self, model, batch: 1.0}, r"must return a scalar tensor, got 1\.0"),
        ({"batches": lambda self, split, generator: [self.data[split]] * 99}, "must return an iterator, got list"),
        ({"batches": lambda self, split, generator: iter([self.data[split]] * 2)}, "ended after 2; it must be endless"),
        (
            {"batches": lambda self, split, generator: iter([self.data[split]] * 12)},
            "ended after 12; it must be endless",
        ),
        ({"batches": lambda self, split, generator: iter([])}, "is empty"),
        ({"loss": lambda self, model, batch: model(batch[0]).mean() * batch[0].sum().item()}, "vectorizable = False"),
        ({"evaluate": lambda self, model, split: None}, "with a loss, got None"),
        ({"loss": lambda self, model, batch: model(batch[0].mul_(2)).mean()}, "loss of .* changes its batch in place"),
        (
            {"loss": lambda self, model, batch: model(batch[0]).mean() + torch.randn((), generator=NOISE)},
            "the same weights, batch and random numbers of PyTorch give",
        ),
        (
            {"evaluate": lambda self, model, split: {"loss": torch.rand(())}},
            r"evaluate\('test'\): loss = .* second call",
        ),
        ({"project": lambda self, model: [p.data.mul_(0.5) for p in model.parameters()]}, "second call"),
    ],
)
def test_check_task_names_the_broken_promise(make_task, member, message):
    task = broken(make_task, **member)
    if "horizon" in member:
        task.horizon = 0
    with pytest.raises(AssertionError, match=message):
        check_task(task)


def disabling(self, split, generator):
    with torch.no_grad():
        while True:
            yield self.data[split]


def reusing(self, split, generator):
    while True:
        self.buffer.normal_(generator=generator)
        yield self.buffer, self.data[split][1]


def seeding(self, split, generator):
    torch.manual_seed(int(torch.randint(99, (), generator=generator)))
    while True:
        yield self.data[split][0][torch.randperm(48)], self.data[split][1]


def in_doubles(self, generator):
    torch.set_default_dtype(torch.float64)
    return torch.nn.Linear(5, 2)


def elsewhere(self, generator):
    torch.set_default_device("meta")
    return torch.nn.Linear(5, 2)


def under_autocast(self, model, batch):
    torch.autocast("cpu", torch.bfloat16).__enter__()
    return model(batch[0]).float().mean()


@pytest.mark.parametrize(
    ("member", "message", "learns"),
    [
        (
            {"batches": disabling},
            "batches of .* leaves PyTorch's gradient mode at False, which was True; set it",
            False,
        ),
        ({"batches": seeding}, "batches.* of .* leaves PyTorch's seed at .*draw from the generator that it gets", True),
        ({"batches": reusing, "buffer": torch.empty(48, 5)}, "overwrites a batch when another is drawn", False),
        ({"build": in_doubles}, "build of .* leaves PyTorch's default dtype at torch.float64, which was", False),
        ({"build": elsewhere}, "build of .* leaves PyTorch's default device at meta, which was cpu", False),
        ({"loss": under_autocast}, "loss of .* leaves PyTorch's autocast on cpu at True", False),
    ],
    ids=lambda x: None,
)
def test_a_task_leaves_pytorch_and_its_batches_as_they_are(make_task, member, message, learns):
    task, seed = broken(make_task, **member), torch.initial_seed()
    try:
        with pytest.raises(AssertionError, match=message):
            check_task(task)
        if not learns:
            with pytest.raises(SolError, match=message):
                Learner([task])
        assert torch.get_default_dtype() == torch.float32
        assert torch.get_default_device() == torch.device("cpu")
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
    finally:
        torch.manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_loss_may_use_autocast(make_task, dtype):
    class Casting(make_task):
        def loss(self, model, batch):
            with torch.autocast("cpu", dtype):
                return super().loss(model, batch)

    check_task(Casting())
    assert obstacle(Casting()) is None
    with torch.no_grad():
        check_task(Casting())


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", None])
def test_a_task_has_a_name_that_files_can_be_called_by(task, name):
    task.name = name
    with pytest.raises(SolError, match="not a task: name must be text without slashes"):
        Learner([task])


@pytest.mark.parametrize("thing", [[1], "quadratic", None])
def test_what_is_no_task_is_refused(thing):
    with pytest.raises(SolError, match=r"not a task: .* has no name, horizon, build"):
        learn(thing)


def test_a_stream_that_ends_and_an_evaluation_without_a_loss_are_named(make_task):
    ending = broken(make_task, batches=lambda self, split, generator: iter([self.data[split]] * 3))
    with pytest.raises(SolError, match=r"batches\('train'\) of regression ended; the stream must be endless"):
        learn(ending)
    with pytest.raises(SolError, match="evaluate of regression must return a dict of metrics with a loss, got None"):
        learn(broken(make_task, evaluate=lambda self, model, split: None))


class _Trained:
    """Evaluates in training mode."""

    def evaluate(self, model, split):
        metrics = super().evaluate(model.train(), split)
        model.eval()
        return metrics


def test_check_task_refuses_an_evaluation_that_trains(make_task):
    class Normed(_Trained, make_task):
        def build(self, generator):
            return torch.nn.Sequential(super().build(generator), torch.nn.BatchNorm1d(2))

    with pytest.raises(AssertionError, match=r"evaluate changes the model: 1\.running_mean"):
        check_task(Normed(vectorizable=False))


@pytest.mark.parametrize(
    ("split", "row", "value", "message"),
    [
        ("train", slice(None), float("inf"), "the batch holds infinity; clean the data"),
        ("train", slice(None), float("nan"), "is nan at the start; the batch holds NaN"),
        ("test", slice(3, 4), float("nan"), r"evaluate\('test'\): loss = nan; a row of the data may hold NaN"),
    ],
)
def test_check_task_looks_for_gaps_in_the_data(make_task, split, row, value, message):
    task = make_task()
    x, y = task.data[split]
    task.data[split] = x.clone(), y
    task.data[split][0][row] = value
    batches = task.batches
    task.batches = lambda name, generator: batches("train" if name == split and row != slice(None) else name, generator)
    task.single_domain = True
    with pytest.raises(AssertionError, match=message):
        check_task(task)


def test_check_task_refuses_equal_splits(make_task):
    task = make_task()
    task.data["valid"] = task.data["train"]
    with pytest.raises(AssertionError, match="'train' and 'valid' are equal"):
        check_task(task)


def pooled(make_task, distinct=True):
    """Every episode is a problem of its own: its model holds the problem."""

    class Pooled(make_task):
        def __init__(self, split="train"):
            super().__init__()
            self.split = split if distinct else "train"

        def pool(self, split):
            return Pooled(split)

        def build(self, generator):
            model = super().build(generator)
            model.register_buffer("problem", self.data[self.split][0])
            return model

    return Pooled()


def test_every_stream_draws_problems_of_a_split_of_its_own(make_task):
    task = pooled(make_task)
    check_task(task)
    for stream, split in zip(Stream, ("train", "train", "valid", "test")):
        (model,) = Optimizees(task, 0, stream, [0])._models[0]
        assert torch.equal(model.problem, task.data[split][0])


def test_check_task_refuses_equal_pools(make_task):
    task = pooled(make_task, distinct=False)
    with pytest.raises(AssertionError, match="'train' and 'valid' are equal"):
        check_task(task)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"evaluate": lambda self, model, split: 1 / 0},
            r"pool\('valid'\): evaluate of regression raised ZeroDivisionError: .* \(test_inner_loop.py, line \d+\)",
        ),
        ({"evaluate": lambda self, model, split: None}, r"pool\('valid'\): evaluate .* must return a dict .* got None"),
        ({"horizon": 9}, r"pool\('valid'\): its horizon is 9, that of regression is 12; make them the same"),
        (
            {"loss": lambda self, model, batch: model(batch)},
            r"pool\('valid'\): loss of regression raised .* \(test_inner_loop.py, line \d+\); the model is float32 on "
            r"cpu, the batch holds float32 \[16, 5\] on cpu, float32 \[16, 2\] on cpu",
        ),
        ({"loss": lambda self, model, batch: {}}, r"pool\('valid'\): .* must return a scalar tensor, got dict; return"),
        (
            {"build": lambda self, generator: None},
            r"pool\('valid'\): .*build of regression must return a module, got N",
        ),
        (
            {"batches": lambda self, split, generator: None},
            r"pool\('valid'\): .* must return an iterator, got NoneType",
        ),
    ],
)
def test_check_task_checks_the_members_of_a_pool(make_task, members, message):
    task = pooled(make_task)
    kind = type(task)

    def pool(split):
        member = type("Broken", (kind,), members)(split) if split == "valid" else kind(split)
        member.horizon = members.get("horizon", 12) if split == "valid" else 12
        return member

    task.pool = pool
    with pytest.raises(AssertionError, match=message) as raised:
        check_task(task)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (lambda self, split: None, "pool of regression must return a task, got NoneType"),
        (lambda self, split: type(self), "pool of regression must return a task, got the class Broken"),
        (lambda self, split: self, "pool: the problems of 'train' and 'valid' are equal"),
        (
            lambda self, split: {"train": self, "val": self}[split],
            r"pool of regression raised KeyError: 'valid' \(test_inner_loop.py, line \d+\); the splits are 'train', 'v",
        ),
    ],
)
def test_what_pool_returns_is_checked(make_task, pool, message):
    kind = type(pooled(make_task))
    with pytest.raises(AssertionError, match=message):
        check_task(type("Broken", (kind,), {"pool": pool})())


def first_time(good, bad):
    """``good`` at the first call of a task, ``bad`` afterwards."""

    def member(self, *arguments):
        self.calls = getattr(self, "calls", 0) + 1
        return good(self, *arguments) if self.calls == 1 else bad

    return member


def failing_later(self, split, generator):
    for _ in range(5):
        yield self.data[split][0][torch.randperm(48, generator=generator)], self.data[split][1]
    raise OSError("no more files")


@pytest.mark.parametrize("bad", [{"loss": 1.0}, torch.ones(3), torch.tensor(1.0), 1.0, None])
def test_check_task_names_a_loss_that_is_none_at_any_call(make_task, bad):
    members = {"loss": first_time(make_task.loss, bad), "evaluate": lambda self, model, split: {"loss": 1.0}}
    task = broken(make_task, **members)
    with pytest.raises(AssertionError, match=r"loss of regression (must return a scalar tensor|has no gradient)"):
        check_task(task)


@pytest.mark.parametrize("bad", [None, torch.nn.Linear, torch.tanh, torch.nn.Tanh()])
def test_check_task_names_a_model_that_is_none_at_any_call(make_task, bad):
    task = broken(make_task, build=first_time(make_task.build, bad))
    with pytest.raises(AssertionError, match=r"build of .* must return a module|no trainable parameters"):
        check_task(task)


@pytest.mark.parametrize("bad", [None, {}, {"loss": torch.ones(3)}, {"loss": float("nan")}, 1.0])
def test_check_task_names_metrics_that_are_none_at_any_call(make_task, bad):
    task = broken(make_task, evaluate=first_time(make_task.evaluate, bad))
    with pytest.raises(AssertionError, match=r"evaluate(\('train'\): loss = nan| of regression must return)"):
        check_task(task)


@pytest.mark.parametrize("bad", [None, [1, 2, 3, 4]])
def test_check_task_names_batches_of_any_split_that_are_no_iterator(make_task, bad):
    def batches(self, split, generator):
        return bad if split == "test" else make_task.batches(self, split, generator)

    with pytest.raises(AssertionError, match="batches of regression must return an iterator, got "):
        check_task(broken(make_task, batches=batches))


def test_check_task_names_the_place_of_a_late_error(make_task):
    message = r"of regression raised OSError: no more files \(test_inner_loop.py, line \d+\)"
    with pytest.raises(AssertionError, match=message):
        check_task(broken(make_task, batches=failing_later))
    with pytest.raises(AssertionError, match="project of regression raised KeyError: 'w'"):
        check_task(broken(make_task, project=lambda self, model: model.state_dict()["w"]))


def test_a_metric_beside_the_loss_may_be_nan(make_task):
    def evaluate(self, model, split):
        return {**make_task.evaluate(self, model, split), "auc": float("nan")}

    check_task(broken(make_task, evaluate=evaluate))


def test_streams_substreams_episodes_and_seeds_differ():
    draws = {
        place: torch.rand((), generator=generator_for(*place)).item()
        for place in itertools.product(range(3), Stream, range(4), Substream)
    }
    assert len(set(draws.values())) == len(draws)


def test_vectorized_and_looped_optimizees_agree(make_task):
    results = []
    for vectorizable in (True, False):
        optimizees = Optimizees(make_task(vectorizable), 0, Stream.TRAIN, range(3), candidates=2)
        for _ in range(3):
            losses, gradients = optimizees.losses_and_gradients()
            optimizees.descend(gradients, torch.tensor([0.1, 0.2]).view(-1, 1, 1))
        results.append((losses, gradients, optimizees.theta, optimizees.evaluate("valid")["loss"]))
    for fast, slow in zip(*results):
        torch.testing.assert_close(fast, slow)
    assert not torch.allclose(results[0][0][0], results[0][0][1])


def test_runs_one_after_another_are_those_side_by_side(make_task):
    rates = torch.tensor([0.01, 0.1], dtype=torch.float64)
    fast, slow = (run_rule(make_task(v), ZOO["adam"], 0, Stream.VALID, range(3), rates) for v in (True, False))
    torch.testing.assert_close(fast.losses, slow.losses)
    torch.testing.assert_close(fast.metrics, slow.metrics)


@pytest.mark.parametrize("vectorizable", [True, False])
def test_a_model_with_dropout_conforms_and_its_runs_repeat(make_task, vectorizable):
    class Dropping(make_task):
        def build(self, generator):
            return torch.nn.Sequential(*super().build(generator), torch.nn.Dropout(0.5))

    task = Dropping(vectorizable)
    check_task(task)
    once, again = (run_rule(task, ZOO["adam"], 0, Stream.VALID, range(2), 0.01) for _ in range(2))
    assert torch.equal(once.losses, again.losses)
    same = run_rule(task, ZOO["adam"], 0, Stream.VALID, [0], torch.tensor([0.01, 0.01], dtype=torch.float64))
    torch.testing.assert_close(same.losses[:, 0], same.losses[:, 1])


def test_gradients_are_those_of_the_model_alone(task):
    optimizees = Optimizees(task, 3, Stream.TRAIN, [5])
    losses, gradients = optimizees.losses_and_gradients()
    model = build_optimizee(task, 3, Stream.TRAIN, 5)
    loss = task.loss(model, next(draw_batches(task, "train", 3, Stream.TRAIN, 5)))
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, model.parameters())])
    torch.testing.assert_close(losses[0, 0], loss.detach())
    torch.testing.assert_close(gradients[0, 0], expected)


def test_projection_is_applied_after_each_move(make_task):
    task = make_task()
    task.project = lambda model: [parameter.data.clamp_(-0.1, 0.1) for parameter in model.parameters()]
    optimizees = Optimizees(task, 0, Stream.TRAIN, range(2))
    optimizees.descend(torch.zeros_like(optimizees.theta), 1.0)
    assert optimizees.theta.abs().max() == pytest.approx(0.1)


def test_modules_with_buffers_keep_them_apart(make_task):
    task = make_task()
    build = task.build
    task.build = lambda generator: torch.nn.Sequential(build(generator), torch.nn.BatchNorm1d(2))
    optimizees = Optimizees(task, 0, Stream.TRAIN, range(2), candidates=2)
    optimizees.losses_and_gradients()
    means = [optimizees._models[c][s][1].running_mean for c in range(2) for s in range(2)]
    assert not torch.equal(means[0], means[1])
    assert torch.equal(means[0], means[2])


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "lion"])
def test_candidates_side_by_side_equal_single_runs(task, name):
    rates = torch.tensor([0.01, 0.03], dtype=torch.float64)
    together = run_rule(task, ZOO[name], 0, Stream.VALID, range(2), rates)
    for index, rate in enumerate(rates.tolist()):
        alone = run_rule(task, ZOO[name], 0, Stream.VALID, range(2), rate)
        torch.testing.assert_close(together.losses[:, index], alone.losses[:, 0])
        torch.testing.assert_close(together.objective()[index], alone.objective()[0], rtol=1e-4, atol=1e-6)


def test_run_rule_equals_torch_optim(task):
    outcome = run_rule(task, ZOO["adam"], 0, Stream.VALID, [4], 0.02)
    model = build_optimizee(task, 0, Stream.VALID, 4)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    stream = draw_batches(task, "train", 0, Stream.VALID, 4)
    for step in range(task.horizon):
        optimizer.zero_grad()
        loss = task.loss(model, next(stream))
        loss.backward()
        optimizer.step()
        assert outcome.losses[step, 0, 0] == pytest.approx(loss.item(), rel=1e-5)
    assert outcome.metrics["train"]["loss"][0, 0] == pytest.approx(task.evaluate(model, "train")["loss"], rel=1e-5)


def test_run_rule_needs_a_learning_rate(task):
    with pytest.raises(SolError, match="no learning rate"):
        run_rule(task, ZOO["adam"], 0, Stream.VALID, [0])


def test_schedules_are_laid_over_the_horizon_of_the_run(task):
    rule = UpdateRule.parse("ld*g where lr = 0.1, T = 999")
    outcome = run_rule(task, rule, 0, Stream.VALID, [0])
    same = run_rule(task, UpdateRule.parse("ld*g where lr = 0.1"), 0, Stream.VALID, [0])
    assert torch.equal(outcome.losses, same.losses)
    with pytest.raises(RuleError, match="horizon"):
        run_rule(task, rule, 0, Stream.VALID, [0], horizon=0)


def test_a_diverging_rule_has_an_infinite_objective(task):
    outcome = run_rule(task, UpdateRule.parse("g**3 where lr = 1e30"), 0, Stream.VALID, [0])
    assert outcome.objective().item() == float("inf")


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_the_worst_objective(loss):
    losses = torch.tensor([[loss]], dtype=torch.float64)
    metrics = {split: {"loss": losses} for split in ("train", "valid")}
    assert objective(metrics).item() == float("inf")
    assert log_objective(Outcome(losses[None], metrics)).item() == LOST


def test_a_rule_is_measured_by_its_evaluation_weights(task):
    averaged = UpdateRule.parse("g evaluate w_avg where lr = 0.1, beta_avg = 0.99")
    plain = UpdateRule.parse("g where lr = 0.1")
    rates = torch.tensor([0.05, 0.1])
    with_them, without = (run_rule(task, rule, 0, Stream.VALID, [0, 1], rates) for rule in (averaged, plain))
    assert torch.equal(with_them.losses, without.losses)
    assert (with_them.metrics["train"]["loss"] > without.metrics["train"]["loss"]).all()  # an average lags behind
    assert combine(averaged, *split_rule(averaged)).evaluation == averaged.evaluation


def test_a_cancelled_clock_stops_a_run(task):
    clock = Clock()
    clock.cancel()
    with pytest.raises(Interrupted):
        run_rule(task, ZOO["sgd"], 0, Stream.VALID, [0], 0.1, clock=clock)


def test_learning_rates_are_log_spaced_around_the_center():
    assert learning_rates(1e-2, 10.0, 3).tolist() == [1e-3, 1e-2, 1e-1]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_tuning_brackets_the_optimum_wherever_it_lies(task, scale):
    rule = UpdateRule.parse(f"{scale!r}*g")
    best, measured = tune_learning_rate(task, rule, 0, episodes=2)
    rates, losses = zip(*measured)
    assert best == rates[losses.index(min(losses))]
    assert rates[0] < best < rates[-1]
    assert len(rates) >= 13
    assert 0.05 < best * scale < 5


@pytest.mark.parametrize(
    ("own", "lowest", "highest"),
    [(1.0, 0.25, 4.0), (0.02, 0.005, 1.28), (100.0, 25.0 / 4**4, 400.0)],
    ids=["near", "too small", "too large"],
)
def test_further_rates_are_tried_beyond_the_best_at_an_end(make_task, own, lowest, highest):
    """Where the loss after training is (log(rate/0.6))^2, and 1 (as at the start) from a rate of 4 on."""

    def measure(task, rule, seed, stream, episodes, rates, **_):
        losses = torch.where(rates < 4, (rates / 0.6).log().square() / 50, torch.ones_like(rates))[:, None]
        return Outcome(torch.ones(1, len(rates), 1), {split: {"loss": losses} for split in ("train", "valid")})

    rules = nearby(UpdateRule.parse(f"g where lr = {own}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sol_learner.inner.rates.run_rule", measure)
        five = choose_rule(make_task(), rules)
        measured = choose_rule(make_task(), rules, further=6)
        assert len(choose_rule(make_task(), rules, further=1)) <= 6
    assert sorted(rule.lr for rule, _ in five) == pytest.approx([own / 4, own / 2, own, 2 * own, 4 * own])
    rates = sorted(rule.lr for rule, _ in measured)
    assert (rates[0], rates[-1]) == pytest.approx((lowest, highest))
    assert 0.3 <= measured[0][0].lr <= 1.2
    assert measured[0][0].lr not in (rates[0], rates[-1])


def test_further_rates_go_up_where_all_are_far_too_small(make_task, monkeypatch):
    def measure(task, rule, seed, stream, episodes, rates, **_):
        losses = (-rates).exp()[:, None]
        return Outcome(torch.ones(1, len(rates), 1), {split: {"loss": losses} for split in ("train", "valid")})

    monkeypatch.setattr("sol_learner.inner.rates.run_rule", measure)
    measured = choose_rule(make_task(), nearby(UpdateRule.parse("g where lr = 0.0001")), further=6)
    assert measured[0][0].lr == pytest.approx(0.0004 * 2**6)


def test_a_loss_below_zero_says_nothing_about_idling(make_task, monkeypatch):
    """The loss of an attack is minus a cross-entropy, and its objective a distance; no lower rates are tried."""

    def measure(task, rule, seed, stream, episodes, rates, **_):
        losses = (rates / 0.0001).log().square()[:, None] / 50 + 0.1
        return Outcome(-torch.ones(1, len(rates), 1), {split: {"loss": losses} for split in ("train", "valid")})

    monkeypatch.setattr("sol_learner.inner.rates.run_rule", measure)
    assert len(choose_rule(make_task(), nearby(UpdateRule.parse("g where lr = 0.0001")), further=6)) == 5


def test_a_shipped_rule_is_chosen_with_its_rate(make_task, monkeypatch):
    """Where sol-fits is best, at a rate below those that are tried first; then only that rule goes on."""

    def measure(task, rule, seed, stream, episodes, rates, **_):
        losses = (rates / 0.0007).log().square()[:, None] / 50
        losses = losses + (0.0 if rule.name == "sol-fits" else 0.5)
        return Outcome(torch.ones(1, len(rates), 1), {split: {"loss": losses} for split in ("train", "valid")})

    monkeypatch.setattr("sol_learner.inner.rates.run_rule", measure)
    first = {(rule.name, rule.lr) for rule in shipped_rules(make_task())}
    assert len(first) == 10
    said = []
    found = choose_rule(make_task(), report=lambda *pair: said.append(pair))
    assert sorted(said, key=lambda pair: pair[1]) == found
    assert {(rule.name, rule.lr) for rule, _ in found} == first
    assert (found[0][0].name, found[0][0].lr) == ("sol-fits", 0.00119)
    further = choose_rule(make_task(), further=6)
    assert {(rule.name, rule.lr) for rule, _ in further} - first == {("sol-fits", 0.0002975)}
    assert found[0] == further[0]


def test_weight_decay_grows_while_it_helps(make_task, monkeypatch):
    """The best at wd lr T = 1.6; of the others, only the next is measured."""

    def measure(task, rule, seed, stream, episodes, rates, **_):
        shrinking = rule.values.get("wd", 0.0) * rates * task.horizon
        losses = (1 + (rates / 0.008).log().square() + (shrinking - 1.6).square())[:, None]
        return Outcome(torch.full((1, len(rates), 1), 9.0), {split: {"loss": losses} for split in ("train", "valid")})

    monkeypatch.setattr("sol_learner.inner.rates.run_rule", measure)
    task = make_task()
    plain = choose_rule(task, nearby(ZOO["sol-general"]))
    said = []
    found = choose_rule(task, nearby(ZOO["sol-general"]), decays=True, report=lambda *pair: said.append(pair))
    assert [pair for pair in found if "wd" not in pair[0].values] == plain
    assert sorted(said, key=lambda pair: pair[1]) == found
    wds = [rule.values["wd"] * rule.lr * task.horizon for rule, _ in said[5:]]
    assert wds == pytest.approx([0.4, 0.8, 1.6, 3.2], rel=0.01)
    best = found[0][0]
    assert (best.lr, best.values["wd"]) == (0.008, pytest.approx(1.6 / 0.008 / task.horizon, rel=0.01))
    assert best.complexity.terms == ZOO["sol-general"].complexity.terms + 1
    (only,) = [rule for rule, _ in choose_rule(task, nearby(replace(ZOO["adamw"], lr=0.008)), decays=True)[:1]]
    assert only.expression == ZOO["adamw"].expression  # it has a weight decay already, which gets the value


def test_a_choice_needs_rules_with_rates(make_task):
    with pytest.raises(SolError, match="has no learning rate"):
        choose_rule(make_task(), [ZOO["adam"]])


def test_tuning_says_when_nothing_trains(make_task):
    task = make_task()
    task.loss = lambda model, batch: (model(batch[0]) * float("nan")).mean()
    with pytest.raises(SolError, match="not finite at any learning rate"):
        tune_learning_rate(task, ZOO["sgd"], 0, episodes=1)


def test_a_rule_may_use_the_loss(make_task):
    """Every optimizee has a loss of its own, side by side or alone, and a rule that is compared gets it, too."""
    task = make_task()
    rule = UpdateRule.parse("g*min(1, loss*inv0(all_dot(g, g)))*(1 + ld) where lr = 0.3")
    together = run_rule(task, rule, 0, Stream.VALID, range(3), torch.tensor([0.3, 0.1]))
    for episode in range(3):
        alone = run_rule(task, rule, 0, Stream.VALID, [episode])
        torch.testing.assert_close(together.losses[:, 0, episode], alone.losses[:, 0, 0], rtol=1e-4, atol=1e-6)
    assert (together.losses[-1] < together.losses[0]).all()
    (result,) = compare(task, {"polyak": rule}, episodes=1).optimizers
    expected = run_rule(task, rule, 0, Stream.EVALUATE, [0]).metrics["train"]["loss"]
    torch.testing.assert_close(result.metric("train", "loss"), expected[0], rtol=1e-4, atol=0.0, check_dtype=False)
