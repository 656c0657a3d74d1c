"""Models side by side end where plain loops end, whatever is in them; else they are trained one after another."""

import copy
import gc
import re

import numpy
import pytest
import torch
from torch import nn

from sol_learner import Learner, learn
from sol_learner.inner import Optimizees, obstacle, run_rule, side_by_side, vectorizes
from sol_learner.runtime import Progress
from sol_learner.task import Stream, build_optimizee, draw_batches, measured
from sol_learner.testing import check_task
from sol_symbols import ZOO, SolError

STEPS, LR = 6, 0.2
QUICK = {"episodes": 1, "meta_batch": 2, "decays": "1", "generations": 0, "library_generations": 0, "front": False}


def built(make_task, constructor, **members):
    """A task whose models ``constructor`` makes from PyTorch's global generator, here seeded by the task's."""

    class Given(make_task):
        horizon = STEPS

        def build(self, generator):
            with torch.random.fork_rng():
                torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
                return constructor()

    task = type("Given", (Given,), members)()
    task.horizon = STEPS
    return task


def plain(task, episode):
    """The final training loss of a loop as anyone writes it."""
    model = build_optimizee(task, 0, Stream.TRAIN, episode)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LR)
    stream = draw_batches(task, "train", 0, Stream.TRAIN, episode)
    for _ in range(STEPS):
        optimizer.zero_grad()
        task.loss(model, next(stream)).backward()
        optimizer.step()
    return measured(task, model, "train")["loss"]


def mlp():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


def frozen():
    model = mlp()
    model[0].requires_grad_(False)
    return model


class Renamed(nn.Module):
    """A layer has two names, and a parameter a third."""

    def __init__(self):
        super().__init__()
        self.net = mlp()
        self.head, self.bias = self.net[2], self.net[0].bias

    def forward(self, x):
        return self.head(self.net[:2](x)) + self.bias[:2]


def tied():
    model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Linear(5, 2))
    model[2].weight = model[0].weight
    return model


class Scaled(nn.Module):
    """A temperature without dimensions, and a buffer that each model draws."""

    def __init__(self):
        super().__init__()
        self.net, self.scale = mlp(), nn.Parameter(torch.tensor(0.7))
        self.register_buffer("shift", torch.randn(2))
        self.register_buffer("table", torch.arange(2), persistent=False)

    def forward(self, x):
        return self.scale * self.net(x) + self.shift[self.table]


class Skipping(nn.Module):
    """Skips a block in every third step, as LayerDrop does."""

    def __init__(self):
        super().__init__()
        self.block, self.head, self.steps = nn.Linear(5, 5), nn.Linear(5, 2), 0

    def forward(self, x):
        self.steps += self.training
        return self.head(x if self.training and self.steps % 3 == 1 else x + torch.tanh(self.block(x)))


class Listed(nn.Module):
    """Keeps a parameter in a list, which the loss uses."""

    def __init__(self):
        super().__init__()
        self.net = mlp()
        self.decayed = [self.net[0].weight]

    def forward(self, x):
        return self.net(x) + self.decayed[0].square().sum()


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(3, 5, padding_idx=0), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(x + self.words((x[:, 0] > 0).long() + (x[:, 1] > 0).long()))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(5, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.cell(x[None])[0][0])


def frozen_norm():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[1].running_mean.normal_()
    model[1].eval().requires_grad_(False)
    return model


def norm():
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


SIDE_BY_SIDE = (mlp, frozen, Renamed, tied, Scaled, Skipping, frozen_norm)
ONE_BY_ONE = {
    Listed: "differ from those of a model alone",
    Padded: "ignores the padding_idx",
    Recurrent: "the loss of regression fails under torch.vmap",
    norm: r"training changes tensors of a model that are not trained \(1.running_mean",
}


@pytest.mark.parametrize("constructor", [*SIDE_BY_SIDE, *ONE_BY_ONE], ids=lambda c: c.__name__)
def test_models_end_where_plain_loops_end(make_task, constructor):
    task = built(make_task, constructor)
    got = run_rule(task, ZOO["sgd"], 0, Stream.TRAIN, range(3), lr=LR).metrics["train"]["loss"][0]
    assert got.tolist() == pytest.approx([plain(task, episode) for episode in range(3)], rel=1e-4)
    both = run_rule(task, ZOO["sgd"], 0, Stream.TRAIN, range(3), lr=torch.tensor([LR / 2, LR]))
    torch.testing.assert_close(both.metrics["train"]["loss"][1], got, rtol=1e-4, atol=1e-6)
    assert vectorizes(task) == (constructor in SIDE_BY_SIDE)


@pytest.mark.parametrize("constructor", ONE_BY_ONE, ids=lambda c: c.__name__)
def test_the_learner_says_why_models_are_trained_one_after_another(make_task, constructor):
    class Notes(Progress):
        def __init__(self):
            self.notes = []

        def note(self, text):
            self.notes.append(text)

        def phase(self, phase, text, total):
            pass

        def step(self, done, **numbers):
            pass

    task, progress = built(make_task, constructor), Notes()
    learn(task, progress=progress, **QUICK)
    (note,) = [note for note in progress.notes if "one after another" in note]
    assert note.startswith("training models of regression one after another: ")
    assert re.search(ONE_BY_ONE[constructor], note)


def test_what_is_declared_needs_no_note(make_task):
    task = built(make_task, Recurrent, vectorizable=False)
    task.vectorizable = False
    check_task(task)
    assert not vectorizes(task)


@pytest.mark.parametrize("constructor", [Listed, Recurrent], ids=lambda c: c.__name__)
def test_check_task_asks_for_the_declaration(make_task, constructor):
    with pytest.raises(AssertionError, match=f"{ONE_BY_ONE[constructor]}.*; set vectorizable = False$"):
        check_task(built(make_task, constructor))


def test_a_loss_that_passes_by_its_parameters_has_no_second_derivatives(make_task):
    with pytest.raises(SolError, match=r"cannot differentiate through the training of regression: .* in a list"):
        learn(built(make_task, Listed), estimator="exact", **QUICK)


def test_a_task_is_tested_once_and_forgotten_with_it(make_task):
    drawn = []

    class Counted(make_task):
        def batches(self, split, generator):
            drawn.append(split)
            return super().batches(split, generator)

    task = Counted()
    assert obstacle(task) is obstacle(task) is None
    assert len(drawn) == 2
    key, known = id(task), side_by_side._known
    assert key in known
    del task
    gc.collect()
    assert key not in known


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.AlphaDropout(0.3), nn.RReLU()], ids=lambda c: type(c).__name__)
def test_random_layers_are_compared_with_the_same_masks(make_task, layer):
    task = built(make_task, lambda: nn.Sequential(*mlp(), copy.deepcopy(layer)))
    found = obstacle(task)
    assert found is None or found.broken
    learn(task, **QUICK)


def test_attention_with_dropout_is_trained(make_task):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.first(x[..., None] * torch.arange(1.0, 7.0))[:, 0])

    task = built(make_task, Attention)
    check_task(task)
    assert obstacle(task) is None  # its masks are drawn in the order of memory, which vmap changes
    outcome = run_rule(task, ZOO["adam"], 0, Stream.TRAIN, range(2), lr=0.02)
    assert (outcome.metrics["train"]["loss"][0] < outcome.losses[0, 0]).all()


@pytest.mark.parametrize(("body", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.005), (torch.float64, 1e-4)])
@pytest.mark.parametrize("head", [torch.float32, None])
def test_precisions(make_task, body, head, tolerance):
    """States and steps are in float32 or better; models compute in the types they have."""

    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(5, 4).to(body), nn.Linear(4, 2).to(head or body)

        def forward(self, x):
            return self.head(torch.tanh(self.body(x.to(body))).to(self.head.weight.dtype)).float()

    task = built(make_task, Cast)
    theta = Optimizees(task, 0, Stream.TRAIN, range(2)).theta
    assert theta.dtype == torch.promote_types(torch.float32, body)
    got = run_rule(task, ZOO["sgd"], 0, Stream.TRAIN, range(2), lr=LR).metrics["train"]["loss"][0]
    assert got.tolist() == pytest.approx([plain(task, episode) for episode in range(2)], rel=tolerance)
    assert obstacle(task) is None


@pytest.mark.parametrize(
    "extra", [{"epoch": 3}, {"ids": ["a", "b"]}, {"none": None}, {"array": numpy.ones(2)}], ids=str
)
def test_batches_carry_other_values_along(make_task, extra):
    class Collated(make_task):
        def batches(self, split, generator):
            for x, y in super().batches(split, generator):
                yield {"x": x, "y": y, **extra}

        def loss(self, model, batch):
            assert {*batch} == {"x", "y", *extra}
            return super().loss(model, (batch["x"], batch["y"]))

        def evaluate(self, model, split):
            return {"loss": make_task.loss(self, model, self.data[split]).item()}

    task = Collated()
    task.horizon = 5
    check_task(task)
    assert vectorizes(task) == ("none" in extra)
    learn(task, **QUICK)
    found = run_rule(task, ZOO["adam"], 0, Stream.TRAIN, range(2), lr=0.01)
    torch.testing.assert_close(
        found.losses, run_rule(make_task(horizon=5), ZOO["adam"], 0, Stream.TRAIN, range(2), lr=0.01).losses
    )


def test_batches_of_a_tokenizer(make_task):
    transformers = pytest.importorskip("transformers")

    class Encoded(make_task):
        def batches(self, split, generator):
            for x, y in super().batches(split, generator):
                yield transformers.BatchEncoding({"x": x, "y": y})

        def loss(self, model, batch):
            return super().loss(model, (batch.x, batch["y"]))

        def evaluate(self, model, split):
            return {"loss": make_task.loss(self, model, self.data[split]).item()}

    task = Encoded()
    check_task(task)
    assert "BatchEncoding" in obstacle(task).reason
    learn(task, **QUICK)


def test_shapes_may_differ_where_models_are_trained_one_after_another(make_task):
    class Ragged(make_task):
        def batches(self, split, generator):
            for number, (x, y) in enumerate(super().batches(split, generator)):
                yield x[: 16 - number % 3], y[: 16 - number % 3]

    with pytest.raises(AssertionError, match="shapes differ between batches; pad them, or set vectorizable = False"):
        check_task(Ragged())
    check_task(Ragged(vectorizable=False))
    learn(Ragged(vectorizable=False), **QUICK)


def test_nan_in_the_data_is_named(make_task):
    task = make_task()
    task.data["train"][0][:] = torch.nan
    with pytest.raises(AssertionError, match="is nan at the start; the batch holds NaN; clean the data"):
        check_task(task)


@pytest.mark.parametrize(
    "value",
    [1, True, numpy.float32(0.5), numpy.int64(2), numpy.array([0.5]), torch.tensor(0.5), float("inf")],
    ids=repr,
)
def test_metrics_may_be_any_number(make_task, value):
    task = make_task()
    task.evaluate = lambda model, split: {**make_task.evaluate(task, model, split), "m": value}
    check_task(task)
    found = run_rule(task, ZOO["adam"], 0, Stream.TRAIN, range(2), lr=0.01).metrics["valid"]["m"]
    assert found.tolist() == [[float(numpy.asarray(value).item())] * 2]


@pytest.mark.parametrize("value", ["0.5", None, [0.5, 0.6], 1j, torch.ones(2)], ids=repr)
def test_other_metrics_are_refused_by_name(make_task, value):
    task = make_task()
    task.evaluate = lambda model, split: {**make_task.evaluate(task, model, split), "f1": value}
    with pytest.raises(SolError, match="evaluate of regression must return numbers, got f1 = "):
        run_rule(task, ZOO["adam"], 0, Stream.TRAIN, range(2), lr=0.01)
    with pytest.raises(AssertionError, match="must return numbers, got f1 = "):
        check_task(task)


@pytest.mark.parametrize("vectorizable", [True, False])
def test_an_evaluation_may_need_gradients_and_change_modes(make_task, vectorizable):
    class Physical(make_task):
        def evaluate(self, model, split):
            model.train()
            x = self.data[split][0].clone().requires_grad_()
            (slope,) = torch.autograd.grad(model(x).sum(), x)
            return {"loss": self.loss(model.eval(), self.data[split]).item(), "slope": slope.square().mean().item()}

    task = Physical(vectorizable)
    check_task(task)
    assert (run_rule(task, ZOO["adam"], 0, Stream.TRAIN, range(2), lr=0.01).metrics["valid"]["slope"] > 0).all()
    learn(task, **QUICK)


def test_a_task_may_be_a_module_with_parameters_of_its_own(make_task):
    class Distilled(nn.Module, make_task):
        def __init__(self):
            nn.Module.__init__(self)
            make_task.__init__(self)
            self.teacher = mlp()

        def loss(self, model, batch):
            return (model(batch[0]) - self.teacher(batch[0])).square().mean()

    task = Distilled()
    before = copy.deepcopy(task.teacher.state_dict())
    check_task(task)
    task.horizon = STEPS
    got = run_rule(task, ZOO["sgd"], 0, Stream.TRAIN, range(2), lr=LR).metrics["train"]["loss"][0]
    assert got.tolist() == pytest.approx([plain(task, episode) for episode in range(2)], rel=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in task.teacher.state_dict().items())


@pytest.mark.parametrize(
    ("constructor", "message"),
    [
        (
            lambda: nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2)),
            r"must call the model once: 0\.weight has no shape yet",
        ),
        (lambda: nn.Linear(5, 2, dtype=torch.complex64), "the parameter weight of regression is complex"),
        (lambda: Sparse(), r"the gradient of words\.weight of regression is sparse; build it with sparse=False"),
    ],
    ids=["lazy", "complex", "sparse"],
)
def test_models_that_cannot_be_learned_on_are_refused_by_name(make_task, constructor, message):
    task = built(make_task, constructor)
    with pytest.raises(SolError, match=message):
        Learner([task])
    with pytest.raises(AssertionError, match=message):
        check_task(task)


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(3, 5, sparse=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.words((x[:, 0] > 0).long()))


def test_a_model_in_evaluation_mode_as_a_whole_is_trained(make_task):
    """As pretrained models are loaded; a part in evaluation mode stays so."""
    whole = Optimizees(built(make_task, lambda: norm().eval()), 0, Stream.TRAIN, [0])._models[0][0]
    part = Optimizees(built(make_task, frozen_norm), 0, Stream.TRAIN, [0])
    assert whole[1].training
    assert not part._models[0][0][1].training
    part.evaluate("train")
    assert (part._models[0][0].training, part._models[0][0][1].training) == (True, False)
