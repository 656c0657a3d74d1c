"""Models and batches that people have: trained side by side as one after another, or one after another, or refused."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from sol_learner import Learner, build_seeded, compare
from sol_learner.inner import Optimizees, obstacle, run_rule
from sol_learner.task import Stream, batch_leaves, prepared, same_values
from sol_learner.testing import check_task
from sol_symbols import ZOO, SolError


class Plain:
    """Four inputs, three classes."""

    name, horizon = "plain", 4

    def __init__(self, constructor=lambda: nn.Linear(4, 3)):
        self.constructor = constructor

    def build(self, generator):
        return build_seeded(self.constructor, generator)

    def rows(self, split, generator):
        x = torch.randn(8, 4, generator=generator) + ("train", "valid", "test").index(split)
        return x, torch.randint(3, (8,), generator=generator)

    def batches(self, split, generator):
        while True:
            yield self.rows(split, generator)

    def loss(self, model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model, split):
        return {"loss": float(self.loss(model, next(self.batches(split, torch.Generator().manual_seed(1)))).detach())}


class Cached(nn.Module):
    """Keeps a mask that the first call made."""

    def __init__(self):
        super().__init__()
        self.linear, self.mask = nn.Linear(4, 3), None

    def forward(self, x):
        if self.mask is None:
            self.mask = torch.tril(torch.ones_like(x[:4, :4]))
        return self.linear(x @ self.mask)


class Teacher(nn.Module):
    """Has a copy that follows by momentum, in frozen parameters."""

    def __init__(self):
        super().__init__()
        self.own = nn.Linear(4, 3)
        self.copy = copy.deepcopy(self.own).requires_grad_(False)

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                for theirs, ours in zip(self.copy.parameters(), self.own.parameters()):
                    theirs.mul_(0.9).add_(ours, alpha=0.1)
        return self.own(x) + 0.1 * self.copy(x)


class Spectral(nn.Module):
    """Reads pairs of reals as complex numbers, behind a parameter of odd size."""

    def __init__(self):
        super().__init__()
        self.shift, self.pairs = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.randn(3, 2))
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        filtered = torch.fft.rfft(x) * torch.view_as_complex(self.pairs)
        return self.linear(torch.fft.irfft(filtered, n=4)) + self.shift


class SparseBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("table", torch.eye(4).to_sparse())

    def forward(self, x):
        return self.linear((self.table @ x.T).T)


class Embedded(nn.Module):
    """Calls the function with padding, not the layer."""

    def __init__(self):
        super().__init__()
        self.table, self.linear = nn.Parameter(torch.randn(5, 4)), nn.Linear(8, 3)

    def forward(self, x):
        return self.linear(functional.embedding(x, self.table, padding_idx=0).flatten(1))


class Tokens(Plain):
    """Padding comes with the second batch."""

    single_domain = True

    def batches(self, split, generator):
        least = 1
        while True:
            yield torch.randint(least, 5, (8, 2), generator=generator), torch.randint(3, (8,), generator=generator)
            least = 0


class Renormed(Tokens):
    def __init__(self):
        super().__init__(lambda: nn.Sequential(nn.Embedding(5, 4, max_norm=0.5), nn.Flatten(), nn.Linear(8, 3)))


class InAnyOrder(Plain):
    """Dictionaries whose keys are in another order in some batches."""

    def batches(self, split, generator):
        count = int(torch.randint(2, (), generator=generator))
        for x, y in super().batches(split, generator):
            count += 1
            yield {"a": x, "b": x + 5, "y": y} if count % 2 else {"b": x + 5, "y": y, "a": x}

    def loss(self, model, batch):
        return functional.cross_entropy(model(batch["a"]), batch["y"]) + 0.01 * model(batch["b"]).square().mean()


class Points(Plain):
    """Inputs that require gradients, for a penalty on the slope."""

    def rows(self, split, generator):
        x, y = super().rows(split, generator)
        return x.requires_grad_(), y

    def loss(self, model, batch):
        x, y = batch
        with torch.enable_grad():
            outputs = model(x)
            (slope,) = torch.autograd.grad(outputs.square().sum(), x, create_graph=True)
            return functional.cross_entropy(outputs, y) + 0.01 * slope.square().mean()


class Objects(Plain):
    """Batches that are objects with attributes."""

    def rows(self, split, generator):
        x, y = super().rows(split, generator)
        return SimpleNamespace(x=x, y=y)

    def loss(self, model, batch):
        return functional.cross_entropy(model(batch.x), batch.y)


class Sparse(Plain):
    def rows(self, split, generator):
        x, y = super().rows(split, generator)
        return x.relu().to_sparse(), y

    def loss(self, model, batch):
        return functional.cross_entropy(torch.sparse.mm(batch[0], model.weight.T) + model.bias, batch[1])


class PartlyFrozen(nn.Module):
    """A network that is in evaluation mode, but for its head."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), nn.Linear(8, 3)
        self.eval()
        self.head.train()

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


class OneTarget(Plain):
    """Its targets are of the task: PyTorch maps the function mse_loss over such ones once, but not twice."""

    target = torch.randn(8, 3, generator=torch.Generator().manual_seed(5))

    def loss(self, model, batch):
        return functional.mse_loss(model(batch[0]), self.target)


TOGETHER = {
    "one target": OneTarget,
    "pairs": lambda: Plain(Spectral),
    "keys in any order": InAnyOrder,
}
ALONE = {
    "mask": lambda: Plain(Cached),
    "teacher": lambda: Plain(Teacher),
    "padding": lambda: Tokens(Embedded),
    "max_norm": Renormed,
    "objects": Objects,
    "sparse batches": Sparse,
    "sparse buffer": lambda: Plain(SparseBuffer),
    "batches with gradients": Points,
}


@pytest.mark.parametrize("name", [*TOGETHER, *ALONE])
def test_models_in_any_number_are_trained_as_each_alone(name):
    task = {**TOGETHER, **ALONE}[name]()
    assert (obstacle(task) is None) == (name in TOGETHER)
    rates = torch.tensor([0.3, 0.1], dtype=torch.float64)
    together = run_rule(task, ZOO["momentum"], 0, Stream.TRAIN, range(3), rates)
    for c, rate in enumerate(rates.tolist()):
        for episode in range(3):
            alone = run_rule(task, ZOO["momentum"], 0, Stream.TRAIN, [episode], rate)
            torch.testing.assert_close(together.losses[:, c, episode], alone.losses[:, 0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["teacher", "padding", "max_norm", "objects", *TOGETHER])
def test_the_conformance_test_takes_them(name):
    check_task({**TOGETHER, **ALONE}[name]())


def test_objects_are_looked_into_once():
    one, other = (SimpleNamespace(x=torch.full((2,), value), name="a") for value in (1.0, 2.0))
    one.me = other.me = one
    assert len(batch_leaves(one)) == 2
    assert not same_values(one, other)
    assert not same_values({"b": one, "a": 1}, {"a": 1, "b": other})
    assert batch_leaves(nn.Linear(2, 2).forward) != []


def test_a_target_of_one_number_may_be_broadcast():
    for target in (torch.tensor(0.0), torch.zeros(1)):
        task = Plain(lambda: nn.Linear(4, 1))
        task.loss = lambda model, batch, target=target: functional.mse_loss(model(batch[0]), target)
        with pytest.warns(UserWarning, match="Using a target size"):
            Learner([task])


@pytest.mark.parametrize("vectorizable", [True, False])
def test_pairs_are_differentiated_through(vectorizable):
    task = Plain(Spectral)
    task.vectorizable = vectorizable
    optimizees = Optimizees(task, 0, Stream.TRAIN, [0, 1])
    drawn = optimizees.draw()
    theta = optimizees.theta.clone().requires_grad_()
    (through,) = torch.autograd.grad(optimizees.losses(theta, drawn).sum(), theta)
    torch.testing.assert_close(through, optimizees.losses_and_gradients(drawn)[1])


def test_parts_that_are_in_evaluation_mode_stay_there():
    model = prepared(PartlyFrozen())
    assert not model.body[1].training
    assert model.head.training
    check_task(Plain(PartlyFrozen))


class Late(nn.Module):
    """Does in its fourth call what cannot be mapped."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(4, 3), 0

    def forward(self, x):
        self.calls += self.training
        return self.linear(x) * (float(self.linear.weight.sum().item()) if self.calls == 4 else 1.0)


def test_what_fails_under_vmap_later_is_said():
    with pytest.raises(SolError, match=r"the loss of plain fails under torch.vmap: .*vectorizable = False"):
        run_rule(Plain(Late), ZOO["sgd"], 0, Stream.TRAIN, range(2), lr=0.1)


class Thawing(Plain):
    vectorizable = False

    def loss(self, model, batch):
        model[0].requires_grad_(not getattr(self, "over", False))
        self.over = True
        return super().loss(model, batch)


class Penalised(Plain):
    """Its penalty is that of the model that was built last."""

    vectorizable = False

    def build(self, generator):
        self.last = super().build(generator)
        return self.last

    def loss(self, model, batch):
        return super().loss(model, batch) + 0.1 * sum(p.square().sum() for p in self.last.parameters())


class RandomlyFrozen(Plain):
    def build(self, generator):
        number = 2 * int(torch.randint(2, (), generator=generator))
        model = build_seeded(lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)), generator)
        model[number].requires_grad_(False)
        return model


def hooked():
    model = nn.Linear(4, 3)
    model.weight.register_post_accumulate_grad_hook(lambda p: p.grad.zero_())
    return model


def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    model[1].weight.data = model[0].weight.data
    return model


class Filled(Plain):
    def __init__(self, value, labels=False):
        super().__init__()
        self.value, self.labels = value, labels

    def rows(self, split, generator):
        x, y = super().rows(split, generator)
        return (x, y.fill_(self.value)) if self.labels else (x.index_fill(0, torch.tensor([2]), self.value), y)


class Broadcasts(Plain):
    """Outputs [N, 1], targets [N]."""

    def loss(self, model, batch):
        return functional.mse_loss(model(batch[0]), batch[1].float())


TWO = nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Plain(lambda: TWO), "build of plain must make a new model in every call; models share some"),
        (Plain(hooked), "the parameter weight of plain has hooks after the accumulation of gradients"),
        (Plain(tied), r"0.weight and 1.weight of plain are two parameters in the same memory; tie them as one"),
        (Filled(float("nan")), "loss of plain is nan at the start; the batch holds NaN; clean the data"),
        (Filled(float("inf")), "loss of plain is (nan|inf) at the start; the batch holds infinity; clean the data"),
        (
            Broadcasts(lambda: nn.Linear(4, 1)),
            r"loss of plain broadcasts outputs \[8, 1\] and targets \[8\]; give them",
        ),
        (Filled(-100, labels=True), "loss of plain is nan at the start; all labels of the batch are -100"),
    ],
    ids=["one model", "hook", "tied by data", "nan", "inf", "broadcast", "no labels"],
)
def test_what_no_learner_can_mend_is_refused_at_once(task, message):
    for check in (check_task, lambda task: Learner([task])):
        with pytest.raises((SolError, AssertionError), match=message):
            check(task)


def test_what_other_calls_leave_is_found():
    with pytest.raises(AssertionError, match="after another one was built; take parameters from the model"):
        check_task(Penalised())
    task = RandomlyFrozen()
    with pytest.raises(SolError, match="models of plain differ in the names or shapes of their trainable parameters"):
        Optimizees(task, 0, Stream.TRAIN, range(8))
    task = Thawing(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)))
    with pytest.raises(SolError, match="the loss of plain switches requires_grad of parameters while it trains"):
        run_rule(task, ZOO["sgd"], 0, Stream.TRAIN, [0], lr=0.1)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_the_mode_of_the_caller_does_not_matter(context):
    with context():
        check_task(Plain())
        found = compare(Plain(), ["g where lr = 0.1"], episodes=2)
    assert found.optimizers[0].metric("train", "loss").isfinite().all()


def test_a_loss_that_needs_gradients_is_compared_with_a_store(tmp_path):
    found = compare(Points(), ["g where lr = 0.1"], episodes=1, store=tmp_path / "runs.sqlite")
    assert found.optimizers[0].metric("train", "loss").isfinite().all()


def test_a_projection_may_change_parameters_in_place():
    class Clipped(Plain):
        def project(self, model):
            for parameter in model.parameters():
                parameter.clamp_(-0.2, 0.2)

    task = Clipped()
    check_task(task)
    optimizees = Optimizees(task, 0, Stream.TRAIN, [0])
    optimizees.place(optimizees.theta + 1)
    assert (optimizees.theta == 0.2).all()
