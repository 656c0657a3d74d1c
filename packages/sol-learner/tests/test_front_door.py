"""A task from loaders trains as the script would, whatever the data is; learning on it gives an optimizer."""

import json
import os
import signal
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from sol_learner import compare, from_loaders, learn_optimizer
from sol_learner.inner import obstacle, run_rule
from sol_learner.inner.side_by_side import vectorizes
from sol_learner.loaders import _Tensors
from sol_learner.runtime import NullProgress
from sol_learner.task import SPLITS, Stream
from sol_learner.testing import check_task
from sol_symbols import ZOO, SolError, resolve_rule

X = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()


def network():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


class Rows(Dataset):
    """A data set of examples; of random ones with ``noise``, of unequal lengths with ``ragged``."""

    def __init__(self, noise=0.0, ragged=False, mapping=False):
        self.noise, self.ragged, self.mapping = noise, ragged, mapping

    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        if row >= len(X):
            raise IndexError
        x = X[row] + self.noise * torch.randn(5)
        x = x[: 2 + row % 3] if self.ragged else x
        return {"x": x, "y": Y[row]} if self.mapping else (x, int(Y[row]))


def padded(items):
    return nn.utils.rnn.pad_sequence([x for x, _ in items], batch_first=True), torch.tensor([y for _, y in items])


class Means(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, x):
        return self.head(x.mean(1, keepdim=True))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x, y):
        logits = self.net(x)
        return type("Output", (), {"loss": nn.functional.cross_entropy(logits, y), "logits": logits})


CROSS = nn.CrossEntropyLoss()
CASES = {
    "tensors": (network, (X, Y), CROSS, True),
    "arrays": (network, (X.numpy(), Y.numpy()), CROSS, True),
    "tensor data set": (network, TensorDataset(X, Y), CROSS, True),
    "loader": (network, DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True), CROSS, True),
    "examples": (network, [(x, int(y)) for x, y in zip(X, Y)], CROSS, True),
    "data set": (network, Rows(), CROSS, True),
    "random transforms": (network, DataLoader(Rows(noise=0.1), batch_size=16), CROSS, True),
    "collated": (Means, DataLoader(Rows(ragged=True), batch_size=16, collate_fn=padded), CROSS, True),
    "dictionaries": (Named, Rows(mapping=True), None, True),
    "dictionary": (Named, {"x": X, "y": Y}, None, True),
    "loss of the batch": (Named, {"x": X, "y": Y}, lambda outputs, batch: CROSS(outputs.logits, batch["y"]), True),
    "loss of the model": (network, (X, Y), lambda model, batch: CROSS(model(batch[0]), batch[1]), True),
    "autoencoder": (lambda: nn.Linear(5, 5), X, nn.MSELoss(), True),
    "batch norm": (lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), (X, Y), CROSS, False),
    "dropout": (lambda: nn.Sequential(*network(), nn.Dropout(0.1)), (X, Y), CROSS, True),
}


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_data_is_a_task(name):
    model_fn, data, loss_fn, side_by_side = CASES[name]
    task = from_loaders("mine", model_fn, data, steps=12, loss_fn=loss_fn, device="cpu", batch_size=16)
    check_task(task)
    assert (obstacle(task) is None) == side_by_side
    outcome = run_rule(task, ZOO["adam"], 0, Stream.TRAIN, range(2), lr=0.05)
    start = run_rule(task, ZOO["adam"], 0, Stream.TRAIN, range(2), lr=0.0)
    assert (outcome.metrics["train"]["loss"] < start.metrics["train"]["loss"]).all()


def task_of(data, constructor=network, **options):
    return from_loaders("mine", constructor, data, **{"steps": 5, "loss_fn": CROSS, "device": "cpu", **options})


def rows_of(task, split):
    return {int(row) for row in task._rows[split][1]}


def test_missing_splits_are_taken_from_training_data():
    task = from_loaders("mine", network, (X, Y), steps=5, loss_fn=CROSS, device="cpu")
    parts = [rows_of(task, split) for split in SPLITS]
    assert [len(part) for part in parts] == [80, 10, 10]
    assert set.union(*parts) == set(range(100))
    again = from_loaders("mine", network, (X, Y), steps=5, loss_fn=CROSS, device="cpu")
    assert [rows_of(again, split) for split in SPLITS] == parts


def test_test_data_is_half_of_validation_data():
    task = from_loaders("mine", network, (X, Y), (X[:20], Y[:20]), steps=5, loss_fn=CROSS, device="cpu")
    assert [len(rows_of(task, split)) for split in SPLITS] == [100, 10, 10]
    assert not rows_of(task, "valid") & rows_of(task, "test")
    given = from_loaders("mine", network, (X, Y), test=(X[:20], Y[:20]), steps=5, loss_fn=CROSS, device="cpu")
    assert [len(rows_of(given, split)) for split in SPLITS] == [90, 10, 20]


def test_an_epoch_has_every_row_once_in_full_batches():
    task = from_loaders("mine", network, (X, Y), (X, Y), (X, Y), steps=5, loss_fn=CROSS, batch_size=16, device="cpu")
    stream = task.batches("train", torch.Generator().manual_seed(0))
    epoch = [next(stream) for _ in range(6)]
    assert all(x.shape == (16, 5) for x, _ in epoch)
    rows = torch.cat([x for x, _ in epoch])
    assert len(rows.unique(dim=0)) == 96
    following = torch.cat([next(stream)[0] for _ in range(6)])
    assert not torch.equal(rows, following)


def test_what_is_random_is_drawn_again_from_the_generator():
    loader = DataLoader(Rows(noise=0.1), batch_size=16)
    task = from_loaders("mine", network, loader, steps=5, loss_fn=CROSS, device="cpu")
    assert task.batch_size == 16
    assert not isinstance(task._rows["train"][0], _Tensors)
    streams = [task.batches("train", torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    one, same, other = (next(stream)[0] for stream in streams)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    model = task.build(torch.Generator().manual_seed(0))
    assert task.evaluate(model, "valid") == task.evaluate(model, "valid")


class Scaled(TensorDataset):
    """Transforms what it holds."""

    def __getitem__(self, row):
        x, y = super().__getitem__(row)
        return 100 * x, y


class Flipped(Rows):
    """Flips odd rows, one in ten times."""

    def __getitem__(self, row):
        x, y = super().__getitem__(row)
        return (x.flip(0) if row % 2 and torch.rand(()) < 0.1 else x), y


def test_a_data_set_that_inherits_from_tensors_keeps_its_transform():
    task = task_of(DataLoader(Scaled(X, Y), batch_size=32))
    assert next(task.batches("train", torch.Generator().manual_seed(0)))[0].std() > 20


def test_rare_random_transforms_are_drawn_again():
    for seed in range(5):
        torch.manual_seed(seed)
        assert not task_of(Flipped())._rows["train"][0].fixed
    assert task_of(Rows())._rows["train"][0].fixed


@pytest.mark.parametrize("weight", [None, torch.tensor([0.2, 3.0])])
def test_the_loss_of_a_split_is_that_of_its_labels(weight):
    """Batches have different numbers of labels that the loss does not ignore."""
    xs, count = torch.randn(90, 6, 5), torch.randint(1, 7, (90, 1))
    ys = torch.where(torch.arange(6) < count, (xs.sum(2) > 0).long(), -100)

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 2)

        def forward(self, x):
            return self.linear(x).movedim(-1, 1)

    rows = TensorDataset(xs, ys)
    loader = DataLoader(rows, batch_size=8, collate_fn=lambda some: [torch.stack(column) for column in zip(*some)])
    loss = nn.CrossEntropyLoss(weight=weight)
    task = from_loaders("tokens", Tokens, loader, loader, loader, steps=2, loss_fn=loss, device="cpu")
    model = task.build(torch.Generator().manual_seed(0))
    assert task.evaluate(model, "test")["loss"] == pytest.approx(float(loss(model(xs), ys).detach()), rel=1e-5)


def test_a_sum_is_that_of_a_batch():
    task = task_of((X, Y), loss_fn=nn.CrossEntropyLoss(reduction="sum"), batch_size=20)
    model = task.build(torch.Generator().manual_seed(0))
    source, rows = task._rows["train"]
    x, y = source[rows]
    mean = nn.functional.cross_entropy(model(x), y)
    assert task.evaluate(model, "train")["loss"] == pytest.approx(20 * float(mean.detach()), rel=1e-5)


def test_a_split_without_labels_has_no_loss():
    task = task_of((X, Y), test=(X, torch.full_like(Y, -100)))
    assert numpy.isnan(task.evaluate(task.build(torch.Generator().manual_seed(0)), "test")["loss"])


def test_a_collation_of_equal_shapes_is_trained_side_by_side():
    task = task_of(DataLoader(Rows(), batch_size=10, collate_fn=lambda rows: default_collate(rows)))
    assert vectorizes(task)


def test_batches_of_several_shapes_are_learned_on():
    task = task_of(DataLoader(Rows(ragged=True), batch_size=10, collate_fn=padded), constructor=Means)
    assert obstacle(task) is not None or not task.vectorizable
    assert run_rule(task, ZOO["sgd"], 0, Stream.TRAIN, [0, 1], lr=0.1).losses.isfinite().all()


def test_a_metric_that_is_no_number_is_named():
    task = task_of((X, Y), metrics={"right": lambda outputs, targets: (outputs.argmax(1) == targets).float()})
    with pytest.raises(SolError, match=r"the metric 'right' must give a number, got a tensor of shape \(\d+,\)"):
        task.evaluate(task.build(torch.Generator().manual_seed(0)), "test")


def test_a_loss_with_parameters_of_its_own_is_refused():
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.ones(()))

        def forward(self, outputs, targets):
            return CROSS(outputs / self.temperature, targets)

    with pytest.raises(SolError, match=r"loss_fn has trainable parameters \(temperature\), which would not be trained"):
        task_of((X, Y), loss_fn=Tempered())


def test_steps_may_be_a_number_of_numpy():
    assert task_of((X, Y), steps=numpy.int64(3)).horizon == 3


def test_metrics_are_means_over_rows():
    def accuracy(outputs, targets):
        return (outputs.argmax(1) == targets).float().mean()

    options = {"steps": 5, "loss_fn": CROSS, "batch_size": 16, "device": "cpu"}
    options["metrics"] = {"accuracy": accuracy, "rows": lambda outputs, targets: numpy.float32(len(targets))}
    task = from_loaders("mine", network, Rows(noise=1e-9), (X[:37], Y[:37]), (X, Y), **options)
    model = task.build(torch.Generator().manual_seed(0))
    found = task.evaluate(model, "valid")
    assert found["accuracy"] == pytest.approx(accuracy(model(X[:37]), Y[:37]).item())
    assert found["loss"] == pytest.approx(CROSS(model(X[:37]), Y[:37]).item(), rel=1e-5)
    by_items = task.evaluate(model, "train")  # batches of 16 and one of 4
    assert by_items["loss"] == pytest.approx(CROSS(model(X), Y).item(), rel=1e-4)


def values_of(task, *splits):
    """The inputs that a task has in its splits, in order."""
    rows = [source[numbers][0] for source, numbers in (task._rows[split] for split in splits)]
    return torch.cat(rows)[:, 0].sort().values.tolist()


ALL = TensorDataset(X, Y)
SAMPLERS = {
    "subset": (SubsetRandomSampler(range(80)), 80),
    "subset of indices": (SubsetRandomSampler(numpy.arange(80)), 80),
    "subset from the end": (SubsetRandomSampler(list(range(-100, -20))), 80),
    "all, shuffled": (RandomSampler(ALL), 100),
    "the first in order": (SequentialSampler(range(80)), 80),
}


@pytest.mark.parametrize("data", [ALL, Rows()], ids=["tensors", "data set"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_rows_are_those_that_the_sampler_draws(name, data):
    sampler, count = SAMPLERS[name]
    loaders = [DataLoader(data, 16, sampler=sampler), DataLoader(data, batch_sampler=BatchSampler(sampler, 16, True))]
    for loader in loaders:
        task = from_loaders("mine", network, loader, steps=5, loss_fn=CROSS, device="cpu")
        assert task.batch_size == 16
        assert values_of(task, *SPLITS) == X[:count, 0].sort().values.tolist()


def test_one_data_set_is_divided_by_two_samplers():
    train, valid = (DataLoader(ALL, 16, sampler=SubsetRandomSampler(part)) for part in (range(80), range(80, 100)))
    task = from_loaders("mine", network, train, valid, steps=5, loss_fn=CROSS, device="cpu")
    assert values_of(task, "train") == X[:80, 0].sort().values.tolist()
    assert values_of(task, "valid", "test") == X[80:, 0].sort().values.tolist()


class OwnBatches(BatchSampler):
    pass


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"sampler": WeightedRandomSampler([1.0] * 100, 100)}, "the sampler WeightedRandomSampler"),
        ({"sampler": RandomSampler(ALL, True)}, "the sampler RandomSampler with replacement or num_samples"),
        ({"sampler": RandomSampler(ALL, num_samples=50)}, "the sampler RandomSampler with replacement or num_samples"),
        ({"sampler": [1, 2, 3]}, "the sampler list"),
        ({"batch_sampler": OwnBatches(SequentialSampler(ALL), 16, False)}, "the batch_sampler OwnBatches"),
        ({"batch_sampler": [[0, 1], [2, 3]]}, "the batch_sampler list"),
        ({"batch_sampler": BatchSampler(WeightedRandomSampler([1.0] * 100, 9), 4, False)}, "the sampler Weighted"),
        ({"batch_size": None}, "batch_size=None"),
    ],
)
@pytest.mark.parametrize("split", ["train", "valid"])
def test_other_samplers_are_refused(options, what, split):
    given = {"train": ALL, split: DataLoader(ALL, **options)}
    with pytest.raises(SolError, match=f"^the {split} loader has {what}.*; pass its data set, a Subset of it, or"):
        from_loaders("mine", network, **given, steps=5, loss_fn=CROSS, device="cpu")


@pytest.mark.parametrize("rows", [[0, 0, 1], [0, -100], [0, 100]])
def test_a_sampler_draws_different_rows_that_exist(rows):
    loader = DataLoader(ALL, sampler=SubsetRandomSampler(rows))
    with pytest.raises(SolError, match="the sampler of the train loader must draw different rows of the 100 of its"):
        from_loaders("mine", network, loader, steps=5, loss_fn=CROSS, device="cpu")


@pytest.mark.parametrize("data", [[X, Y], [X.numpy(), Y.numpy()]])
def test_a_list_of_inputs_and_targets_is_taken_as_such(data):
    task = from_loaders("mine", network, data, steps=5, loss_fn=CROSS, device="cpu")
    assert values_of(task, *SPLITS) == X[:, 0].sort().values.tolist()
    check_task(task)
    two = from_loaders("mine", network, [X, X[:, :2], Y], steps=5, loss_fn=CROSS, device="cpu")  # of two inputs
    assert len(two._rows["train"][1]) == 80
    examples = from_loaders("mine", lambda: nn.Linear(5, 5), [*X], steps=5, loss_fn=nn.MSELoss(), device="cpu")
    assert next(examples.batches("train", torch.Generator())).shape == (64, 5)


def test_inputs_may_be_their_own_targets_in_every_split():
    model, loss = (lambda: nn.Linear(5, 5)), nn.MSELoss()
    for train, valid in ((X, X[:20]), ((X,), (X,))):
        check_task(from_loaders("mine", model, train, valid, steps=5, loss_fn=loss, device="cpu"))


class Endless(IterableDataset):
    def __iter__(self):
        yield X[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_fn": network()},
            r"model_fn must make a fresh model in every call, got a Sequential; pass lambda: S",
        ),
        ({"model_fn": 3}, "model_fn must make a fresh model in every call, got a int"),
        ({"model_fn": lambda: 3}, "model_fn of mine must return a module, got int"),
        ({"train": None}, "pass training data"),
        ({"train": Endless()}, r"the train data has no length or no order \(Endless\)"),
        ({"train": iter([1])}, r"the train data has no length or no order"),
        ({"valid": []}, "the valid data is empty"),
        ({"train": (X, Y[:3])}, r"the tensors of the train data must have as many rows, at least one, got \[3, 100\]"),
        ({"train": (X[:1], Y[:1])}, "1 rows are too few to set some aside for valid; pass valid data"),
        ({"train": DataLoader(Endless())}, r"the train data has no length or no order \(Endless\)"),
        ({"train": [X, Y[:3]]}, r"the tensors of the train data must have as many rows, at least one, got \[3, 100\]"),
        ({"train": (X, Y.tolist())}, "the train data must be tensors or arrays with a row for each .*got Tensor, list"),
        ({"train": [X, Y.tolist()]}, "the train data must be tensors or arrays with a row for each .*got Tensor, list"),
        ({"train": {"x": "x.csv"}}, "the train data must be tensors or arrays with a row for each example, got str"),
        ({"train": numpy.array(3.0)}, "the train data must be tensors or arrays with a row .*, got a number"),
        ({"train": numpy.array(["a", "b"])}, "the arrays of the train data must hold numbers"),
        (
            {"train": [None, None, None]},
            r"cannot make a batch of the train data \(TypeError: .*; pass a data set whose",
        ),
        ({"train": "data.csv"}, "the train data must be tensors, a data set or a DataLoader, got 'data.csv'; load it"),
        ({"valid": Path("data.csv")}, "the valid data must be tensors, a data set or a .*data.csv'.*; load it first"),
        ({"train": TensorDataset}, "the train data must be tensors, a data set or a DataLoader, got <class"),
        (
            {"train": X, "valid": Y},
            r"without targets; pass \(inputs, targets\) as one argument, or \(inputs,\) as each",
        ),
        ({"train": X[:, :1], "valid": X[:, :1]}, r"without targets; pass \(inputs, targets\) as one argument"),
        ({"train": X}, r"the train data of mine has no targets, .* the loss raised .*; pass \(inputs, targets\)$"),
        ({"train": TensorDataset(X)}, r"the train data of mine has no targets"),
        ({"valid": X[:20]}, "the same inputs and targets in each split, got 2 tensors in train, 1 tensor in valid"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"steps": "5"}, "steps must be a whole number of at least 1, got '5'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": -3}, "batch_size must be a whole number of at least 1, got -3"),
        ({"batch_size": "8"}, "batch_size must be a whole number of at least 1, got '8'"),
        ({"batch_size": True}, "batch_size must be a whole number of at least 1, got True"),
        ({"metrics": ["acc"]}, r"metrics must be a dictionary from names to functions, got \['acc'\]"),
        ({"metrics": {"acc": "acc"}}, r"metrics must be names and functions of .*, got 'acc': 'acc'"),
        ({"metrics": {"acc": nn.L1Loss}}, r"metrics must be names and functions of .*, got 'acc': <class"),
        ({"metrics": {"loss": CROSS}}, "metrics must not have the name 'loss'"),
        ({"loss_fn": nn.CrossEntropyLoss}, r"got the class CrossEntropyLoss; pass CrossEntropyLoss\(\)"),
        ({"loss_fn": "cross_entropy"}, "loss_fn must be a function, such as .*, got 'cross_entropy'"),
        ({"device": "gpu"}, r"device must be one that this machine has \(cpu.*\), got 'gpu'$"),
        ({"device": "cuda:99"}, r"device must be one that this machine has \(cpu.*\), got 'cuda:99'$"),
        ({"device": ""}, r"device must be one that this machine has \(cpu.*\), got ''$"),
        ({"model_fn": "resnet"}, r"got a str; pass lambda: Net\(...\)"),
        ({"horizon": 3}, "no setting 'horizon'; did you mean 'steps'"),
        ({"loss": CROSS}, "no setting 'loss'; did you mean 'loss_fn'"),
        ({"efort": "quick"}, "no setting 'efort'; did you mean 'effort'"),
        ({"generation": 3}, "no setting 'generation'; did you mean 'generations'"),
        ({"loss_fn": None}, "mine has no loss, got None: pass loss_fn"),
        ({"loss_fn": lambda outputs, targets: 1.0}, "mine has no loss, got 1.0: pass loss_fn"),
    ],
)
def test_what_is_wrong_is_said(change, message):
    given = {"model_fn": network, "train": (X, Y), "steps": 5, "loss_fn": CROSS, "device": "cpu"} | change
    with pytest.raises(SolError, match=message):
        learn_optimizer("mine", out="never", **given)


@pytest.mark.parametrize("sample", [0, "all", None])
def test_the_sample_is_a_number_of_rows(sample):
    with pytest.raises(SolError, match="sample must be a whole number of at least 1"):
        from_loaders("mine", network, (X, Y), steps=5, loss_fn=CROSS, device="cpu", sample=sample)


def test_the_name_comes_first():
    with pytest.raises(SolError, match="name, the first argument, must be text, got a function"):
        from_loaders(network, (X, Y), CROSS, steps=5)


def test_learning_gives_an_optimizer_and_a_verdict(tmp_path):
    few = {"episodes": 1, "meta_batch": 2, "generations": 1, "library_generations": 1, "population": 4, "front": False}
    few |= {"tuning_episodes": 1, "validation_episodes": 2, "baselines": ("adam",), "baseline_trainings": 4}
    few |= {"evaluation_episodes": 2, "decays": ("1", "ld")}
    pytest.importorskip("sol_export")
    few |= {"steps": 12, "loss_fn": CROSS, "device": "cpu", "out": tmp_path / "run"}
    learned = learn_optimizer("mine", network, (X, Y), **few)
    assert {"optimizer.py", "report.html", "rule.json"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert "adam" in learned.verdict
    model = network()
    optimizer = learned.optimizer(model.parameters())
    before = CROSS(model(X), Y).item()
    for _ in range(12):
        optimizer.zero_grad()
        CROSS(model(X), Y).backward()
        optimizer.step()
    assert CROSS(model(X), Y).item() < before
    with pytest.raises(SolError, match=r"already contains a run; .* --overwrite \(overwrite=True in Python\)"):
        learn_optimizer("mine", network, (X, Y), **few)
    with pytest.raises(SolError, match="already contains a run; it is finished"):
        learn_optimizer("mine", network, (X, Y), **few, resume=True)
    with pytest.raises(SolError, match="resume and overwrite in Python"):
        learn_optimizer("mine", network, (X, Y), **few, resume=True, overwrite=True)


class Interrupting(NullProgress):
    """Presses Ctrl-C once the search has begun."""

    title = ""

    def phase(self, phase, title, steps):
        self.title = title

    def step(self, done, **numbers):
        if self.title.startswith("polishing"):
            os.kill(os.getpid(), signal.SIGINT)
            self.title = ""


def test_control_c_ends_with_what_was_found(tmp_path):
    pytest.importorskip("sol_export")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    few = {"tuning_episodes": 1, "validation_episodes": 2, "population": 4, "generations": 50, "start": "sol-general"}
    given = {"steps": 12, "loss_fn": CROSS, "device": "cpu", "out": tmp_path / "run", "progress": Interrupting()}
    try:
        learned = learn_optimizer("mine", network, (X, Y), **given, **few)
    finally:
        signal.signal(signal.SIGINT, before)
    assert learned.verdict == "no verdict: the run ended before the comparison"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["interrupted"] is True
    assert summary["command"].startswith("learn_optimizer('mine', model_fn, train, valid, test, steps=12, ")
    assert "generations=50" in summary["command"]
    assert resolve_rule(str(tmp_path / "run"), 13) == learned.rule  # 12 terms, or with weight decay one more


SMALL = {"tuning_episodes": 1, "validation_episodes": 2, "population": 4, "generations": 2, "start": "sol-general"}
SMALL |= {
    "front": False,
    "guard": False,
    "check_episodes": 0,
    "evaluation_episodes": 1,
    "steps": 12,
    "loss_fn": CROSS,
    "device": "cpu",
}


class Broken(NullProgress):
    """Fails when the search has made a generation."""

    title = ""

    def phase(self, phase, title, steps):
        self.title = title

    def step(self, done, **numbers):
        if self.title.startswith("polishing"):
            raise ArithmeticError


def test_an_unfinished_run_is_continued_or_replaced(tmp_path):
    pytest.importorskip("sol_export")
    given = {**SMALL, "baselines": (), "out": tmp_path / "run"}
    whole = learn_optimizer("mine", network, (X, Y), **given | {"out": tmp_path / "whole"})
    with pytest.raises(ArithmeticError):
        learn_optimizer("mine", network, (X, Y), **given, progress=Broken())
    assert (tmp_path / "run" / "checkpoints").is_dir()
    with pytest.raises(SolError, match=r"unfinished run; .*\(resume=True or overwrite=True in Python\)"):
        learn_optimizer("mine", network, (X, Y), **given)
    for change, what in (
        ({"seed": 1}, "seed was 0"),
        ({"batch_size": 16}, "batch_size was 64"),
        ({"steps": 9}, "is 9"),
    ):
        with pytest.raises(SolError, match=f"cannot resume .*its settings differ .*{what}"):
            learn_optimizer("mine", network, (X, Y), **given | change, resume=True)
    with pytest.raises(SolError, match="parameters was 34, is 12"):
        learn_optimizer("mine", lambda: nn.Linear(5, 2), (X, Y), **given, resume=True)
    resumed = learn_optimizer("mine", network, (X, Y), **given, resume=True)
    assert resumed.rule == whole.rule
    assert not (tmp_path / "run" / "checkpoints").exists()
    replaced = learn_optimizer("mine", network, (X, Y), **given | {"seed": 1}, overwrite=True)
    assert resolve_rule(str(tmp_path / "run"), 13) == replaced.rule != whole.rule
    assert replaced.verdict == "no verdict: the run had no baselines to compare with"


def test_a_budget_without_time_to_compare_says_how_to(tmp_path):
    pytest.importorskip("sol_export")
    folder = tmp_path / "run"
    learned = learn_optimizer("mine", network, (X, Y), **SMALL, baselines=("adam", "sgd"), budget=0.01, out=folder)
    call = f"sol_learner.compare(learned.task, ['{folder}', 'adam', 'sgd'])"
    assert learned.verdict == f"no verdict: the budget of 0.01 s left no time to compare; raise it, or call {call}"
    found = compare(learned.task, [str(folder), "adam", "sgd"], episodes=2, trainings=4)  # as it says, in short
    assert found.verdict() is not None
