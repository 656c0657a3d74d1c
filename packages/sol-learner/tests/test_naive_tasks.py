"""Tasks as people write them first, each with the message that it gets, or what comes of it."""

import collections
import threading

import numpy
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from sol_learner import Learner, build_seeded
from sol_learner.inner import obstacle, run_rule
from sol_learner.task import SPLITS, Stream
from sol_learner.testing import check_task
from sol_symbols import ZOO, SolError

RANDOM = torch.Generator().manual_seed(0)
DATA = {split: (torch.randn(64, 8, generator=RANDOM), torch.randint(3, (64,), generator=RANDOM)) for split in SPLITS}


def network():
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


class Mine:
    """As it should be."""

    name, horizon = "mine", 6

    def build(self, generator):
        return build_seeded(network, generator)

    def batches(self, split, generator):
        x, y = DATA[split]
        while True:
            rows = torch.randint(64, (16,), generator=generator)
            yield x[rows], y[rows]

    def loss(self, model, batch):
        x, y = batch
        return cross_entropy(model(x), y)

    def evaluate(self, model, split):
        return {"loss": float(self.loss(model, DATA[split]))}


FAULTS, WORKS = {}, {}


def refused(message):
    """Register a task that ``check_task`` refuses with this message, and the learner with the same unless it is told
    otherwise."""

    def register(task):
        FAULTS[task.__name__] = (task, message, getattr(task, "learns", False))
        return task

    return register


def works(task):
    """Register a task that is fine, or that the learner can live with."""
    WORKS[task.__name__] = task
    return task


# -- the loss --------------------------------------------------------------------------------------------------


@refused(r"loss of mine must return a scalar tensor, got 1\.\d+; return the tensor, without .item\(\) or float\(\)")
class LossAsNumber(Mine):
    def loss(self, model, batch):
        return super().loss(model, batch).item()


@refused("must return a scalar tensor, got tuple; return the loss alone$")
class LossWithLogits(Mine):
    def loss(self, model, batch):
        logits = model(batch[0])
        return cross_entropy(logits, batch[1]), logits


@refused(r"got a tensor of shape \(16,\); take its mean$")
class LossOfEachRow(Mine):
    def loss(self, model, batch):
        return cross_entropy(model(batch[0]), batch[1], reduction="none")


@refused(r"got Output; return its \.loss$")
class LossInOutput(Mine):
    def loss(self, model, batch):
        return collections.namedtuple("Output", "loss logits")(super().loss(model, batch), None)


@refused(r"got None; does it lack a return\?")
class LossWithoutReturn(Mine):
    def loss(self, model, batch):
        super().loss(model, batch)


@refused("loss of mine calls backward or changes the parameters; return the loss alone: the learner takes gradients")
class LossThatTrains(Mine):
    def loss(self, model, batch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = super().loss(model, batch)
        loss.backward()
        optimizer.step()
        return loss


@refused("has no gradient: it was detached; compute it without torch.no_grad, detach, item and argmax")
class LossIsAnError(Mine):
    def loss(self, model, batch):
        return 1 - (model(batch[0]).argmax(1) == batch[1]).float().mean()


@refused(r"loss of mine is def loss\(model, x, y\) without self; write def loss\(self, model, batch\)")
class LossOfThree(Mine):
    def loss(self, model, x, y):
        return cross_entropy(model(x), y)


@refused("loss of mine changes its batch in place; work on a copy")
class LossThatPops(Mine):
    def batches(self, split, generator):
        for x, y in super().batches(split, generator):
            yield {"x": x, "labels": y}

    def loss(self, model, batch):
        labels = batch.pop("labels")
        return cross_entropy(model(batch["x"]), labels)


# -- the model -------------------------------------------------------------------------------------------------


@refused(r"build of mine is def build\(\) without self; write def build\(self, generator\)")
class BuildWithoutGenerator(Mine):
    def build(self):
        return network()


@refused("build: the same generator state gives different models; draw the initial weights from it, or use sol_learner")
class BuildIgnoresGenerator(Mine):
    learns = True

    def build(self, generator):
        return network()


@refused("build of mine must make a new model in every call; models share some")
class BuildOnce(Mine):
    def __init__(self):
        self.model = network()

    def build(self, generator):
        return self.model


@refused("build of mine must return a module, got a tuple$")
class BuildWithOptimizer(Mine):
    def build(self, generator):
        model = super().build(generator)
        return model, torch.optim.Adam(model.parameters())


@refused("the model of mine has no trainable parameters")
class BuildFrozen(Mine):
    def build(self, generator):
        return super().build(generator).requires_grad_(False)


@refused(
    r"loss of mine raised RuntimeError: .* \(test_naive_tasks.py, line \d+\); the model is float32 on meta, the batch "
    r"holds float32 \[16, 8\] on cpu, int64 \[16\] on cpu"
)
class BuildElsewhere(Mine):
    def build(self, generator):
        return super().build(generator).to("meta")


@refused(r"raised RuntimeError: .*; the model is float16 on cpu, the batch holds float32 \[16, 8\] on cpu")
class BuildInHalves(Mine):
    def build(self, generator):
        return super().build(generator).half()


@refused("build of mine must call the model once: 0.weight has no shape yet")
class BuildLazily(Mine):
    def build(self, generator):
        return nn.Sequential(nn.LazyLinear(3))


# -- batches ---------------------------------------------------------------------------------------------------


@refused(r"batches\('train'\) ended after 4; it must be endless: while True")
class BatchesOfOneEpoch(Mine):
    learns = True

    def batches(self, split, generator):
        yield from DataLoader(TensorDataset(*DATA[split]), 16, shuffle=True, generator=generator)


@refused("batches of mine must return an iterator, got DataLoader; write yield from it in a loop, while True")
class BatchesAsLoader(Mine):
    def batches(self, split, generator):
        return DataLoader(TensorDataset(*DATA[split]), 16, shuffle=True, generator=generator)


@refused(r"batches\('valid'\) of mine raised UnboundLocalError: .* line \d+\); the splits are 'train', 'valid', 'test'")
class BatchesOfVal(Mine):
    learns = True

    def batches(self, split, generator):
        if split == "train":
            x, y = DATA["train"]
        elif split == "val":
            x, y = DATA["valid"]
        while True:
            rows = torch.randint(64, (16,), generator=generator)
            yield x[rows], y[rows]


@refused(r"batches\('train'\): the same generator gives different streams; draw from it alone")
class BatchesFromAnywhere(Mine):
    learns = True

    def batches(self, split, generator):
        return super().batches(split, None)


@refused(r"raised TypeError: .*; the model is float32 on cpu, the batch holds ndarray, ndarray")
class BatchesOfArrays(Mine):
    def batches(self, split, generator):
        for x, y in super().batches(split, generator):
            yield x.numpy(), y.numpy()


@refused(r"batches\('train'\): shapes differ between batches; pad them, or set vectorizable = False")
class BatchesWithARest(Mine):
    learns = True

    def batches(self, split, generator):
        while True:
            yield from DataLoader(TensorDataset(*DATA[split]), 24, shuffle=True, generator=generator)


@refused(r"raised RuntimeError: .* line \d+\); the model is float32 on cpu, the batch holds int64 \[16, 8\] on cpu")
class BatchesOfIntegers(Mine):
    def batches(self, split, generator):
        for x, y in super().batches(split, generator):
            yield (10 * x).long(), y


@refused(r"raised IndexError: Target 9 is out of bounds")
class LabelsBeyondClasses(Mine):
    def batches(self, split, generator):
        for x, _ in super().batches(split, generator):
            yield x, torch.full((16,), 9)


@refused("the splits 'train' and 'valid' are equal; divide the data, or set single_domain = True")
class OneSplit(Mine):
    learns = True

    def batches(self, split, generator):
        return super().batches("train", generator)


# -- evaluation ------------------------------------------------------------------------------------------------


@refused(r"evaluate of mine must return a dict of metrics with a loss, got tensor\(0\.5000\)")
class EvaluateAsTensor(Mine):
    def evaluate(self, model, split):
        return torch.tensor(0.5)


@refused("evaluate of mine must return numbers, got accuracy = '93%'")
class EvaluateAsText(Mine):
    def evaluate(self, model, split):
        return {**super().evaluate(model, split), "accuracy": "93%"}


@refused(
    r"evaluate(\('test'\))? of mine raised KeyError: 'test' \(.* line \d+\); the splits are 'train', 'valid', 'test'"
)
class EvaluateWithoutTest(Mine):
    def evaluate(self, model, split):
        return {"loss": float(self.loss(model, {"train": DATA["train"], "valid": DATA["valid"]}[split]))}


@refused(r"evaluate\('test'\): loss = .*, then .* at a second call; measure the whole split")
class EvaluateASample(Mine):
    learns = True

    def evaluate(self, model, split):
        return {"loss": float(self.loss(model, next(self.batches(split, None))))}


# -- what works ------------------------------------------------------------------------------------------------


@works
class ScalarParameter(Mine):
    def build(self, generator):
        class Warm(nn.Module):
            def __init__(self):
                super().__init__()
                self.net, self.temperature = network(), nn.Parameter(torch.tensor(1.0))

            def forward(self, x):
                return self.net(x) / self.temperature

        return build_seeded(Warm, generator)


@works
class ArraysAsMetrics(Mine):
    def evaluate(self, model, split):
        return {
            "loss": numpy.float32(super().evaluate(model, split)["loss"]),
            "tensor": torch.tensor([1.0]),
            "count": numpy.int64(3),
        }


@works
class LockedWithADevice(Mine):
    def __init__(self):
        self.lock, self.device, self.hook = threading.Lock(), torch.device("cpu"), lambda x: x


@works
class IntegersForAnEmbedding(Mine):
    def build(self, generator):
        return build_seeded(lambda: nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(32, 3)), generator)

    def batches(self, split, generator):
        for x, y in super().batches(split, generator):
            yield (10 * x).long().clamp(-20, 20) + 20, y

    def evaluate(self, model, split):
        return {"loss": float(self.loss(model, next(self.batches(split, torch.Generator().manual_seed(0)))))}


@works
class DictionariesThatPyTorchDoesNotKnow(Mine):
    """As a tokenizer's BatchEncoding."""

    def batches(self, split, generator):
        for x, y in super().batches(split, generator):
            yield collections.UserDict(x=x, y=y)

    def loss(self, model, batch):
        x, y = batch if isinstance(batch, tuple) else (batch["x"], batch["y"])
        return cross_entropy(model(x), y)


@works
class AModuleThatIsItsOwnTask(nn.Module, Mine):
    def __init__(self):
        super().__init__()
        self.teacher = network()


@works
class EvaluationInTrainingMode(Mine):
    def evaluate(self, model, split):
        model.train()
        return super().evaluate(model, split)


@works
class SeveralDevicesPlease(Mine):
    def build(self, generator):
        return nn.DataParallel(super().build(generator))


def test_the_right_task_is_right():
    check_task(Mine())
    assert obstacle(Mine()) is None


@pytest.mark.parametrize("name", FAULTS)
def test_a_naive_task_is_told_what_to_change(name):
    task, message, learns = FAULTS[name]
    with pytest.raises(AssertionError, match=message) as raised:
        check_task(task())
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
    if learns:  # a longer test finds it, not the learner's short one before the work
        Learner([task()])
    else:
        with pytest.raises(SolError, match=message):
            Learner([task()])


@pytest.mark.parametrize("name", WORKS)
def test_what_newcomers_rely_on_works(name):
    task = WORKS[name]()
    check_task(task)
    start, end = (run_rule(task, ZOO["adam"], 0, Stream.TRAIN, range(2), lr=lr) for lr in (0.0, 0.03))
    assert (end.metrics["train"]["loss"] < start.metrics["train"]["loss"]).all()


def test_there_are_more_than_twenty():
    assert len(FAULTS) + len(WORKS) > 20
