"""The trainings of ``generalise.py``: MNISTNET's family, far trainings, ordinary ones, and others of further kinds."""

import csv
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sol_learner.task import Task, build_seeded
from sol_tasks.classification import Classification
from sol_tasks.fits import burgers, siren
from sol_tasks.image_networks import convnet, mnistnet_module
from sol_tasks.mnist import load_mnist
from sol_tasks.toys import rosenbrock

DATA = Path(os.environ["SOL_DATA"]) if "SOL_DATA" in os.environ else None

FAMILY = (
    *("unseen-digits", "standardised", "relu", "two-layers", "big", "relu-standardised"),
    *("fifty-steps", "two-hundred-steps", "batch-32"),
)
FAR = ("four-hundred-steps", "batch-512", "gelu-128-64", "small-cnn", "digits-tanh", "breast-cancer", "friedman")
ORDINARY = ("cifar10-cnn", "text-transformer", "siren", "burgers", "embeddings")
OTHERS = (
    *("rosenbrock", "spirals", "autoencoder", "factorisation", "graph", "mixture-density", "bag-of-words"),
    "contrastive",
)
GROUPS = {"family": FAMILY, "far": FAR, "ordinary": ORDINARY, "others": OTHERS}
TARGETS = (*FAMILY, *FAR, *ORDINARY, *OTHERS)


class Training:
    """Train a model on tensors of a split, rows by rows."""

    vectorizable = True

    def __init__(self, name, model, splits, horizon, batch, loss):
        self.name, self.horizon, self._model, self._splits, self._batch = name, horizon, model, splits, batch
        self._loss = loss

    def build(self, generator: torch.Generator) -> nn.Module:
        return build_seeded(self._model, generator)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Any]:
        tensors = self._splits[split]
        rows = len(tensors[0])
        size = min(self._batch, rows)
        while True:
            for chosen in torch.randperm(rows, generator=generator).split(size)[: rows // size]:
                yield tuple(tensor[chosen] for tensor in tensors)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return self._loss(model, *batch)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        return {"loss": float(self.loss(model, self._splits[split]))}


def cross_entropy(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    logits = model(inputs)
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def squares(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (model(inputs) - targets).square().mean()


def split_rows(tensors: tuple[Tensor, ...], train: int, valid: int) -> dict[str, tuple[Tensor, ...]]:
    """The first rows for training, the next for validation, the rest for the test."""
    parts = {"train": slice(0, train), "valid": slice(train, train + valid), "test": slice(train + valid, None)}
    return {name: tuple(tensor[part] for tensor in tensors) for name, part in parts.items()}


def layers(*sizes: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    pairs = [*itertools.pairwise(sizes)]
    modules = [module for pair in pairs for module in (nn.Linear(*pair), activation())]
    return nn.Sequential(*modules[:-1])


def digits(name, model=lambda: mnistnet_module("mnistnet"), horizon=100, batch=128, standard=False, splits=None):
    prepare = (lambda x: (x - 0.1307) / 0.3081) if standard else None
    return Classification(name, model, splits or load_mnist(None), horizon, batch, prepare=prepare)


def unseen():
    """Digits of the full MNIST, which the bundled ones are a part of, from beyond its first 40,000."""
    splits = load_mnist(DATA)
    return {**splits, "train": tuple(tensor[40_000:44_000] for tensor in splits["train"])} if DATA else splits


def small_cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


def from_sklearn(name, load, train, valid, model, horizon, batch):
    data = load()
    x, y = torch.tensor(data.data).float(), torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    x = (x - x[:train].mean(0)) / x[:train].std(0).clamp_min(1e-3)
    return Training(name, model, split_rows((x, y), train, valid), horizon, batch, cross_entropy)


def friedman(name: str) -> Training:
    """Friedman's regression with ten inputs and noise, y standardised."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3000, 10, generator=generator)
    y = 10 * torch.sin(math.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y = (y + torch.randn(3000, generator=generator) - 14.4) / 5

    def model() -> nn.Module:
        return layers(10, 64, 32, 1, activation=nn.ReLU)

    return Training(name, model, split_rows((2 * x - 1, y[:, None]), 2000, 500), 200, 64, squares)


def cifar10_cnn(name: str) -> Classification:
    """Batch norm, dropout, 32 x 32 pictures, a narrow network of two convolutions."""
    from sol_tasks.augmentation import crop_and_flip
    from sol_tasks.cifar10 import load_cifar10
    from sol_tasks.classification import _normalise

    data = load_cifar10(DATA)
    splits = {
        split: (x[: 10_000 if split == "train" else 2_000], y[: len(x)][: 10_000 if split == "train" else 2_000])
        for split, (x, y) in data.items()
    }

    def model() -> nn.Module:
        network = convnet(width=6)
        assert isinstance(network, nn.Sequential)
        network.insert(len(network) - 1, nn.Dropout(0.2))
        return network

    return Classification(name, model, splits, 150, 64, augment=crop_and_flip, prepare=_normalise, sample=2_000)


class Attention(nn.Module):
    """A causal transformer on characters: LayerNorm, two heads, weights of embedding and read-out tied."""

    def __init__(self, characters: int, length: int, width: int = 32, blocks: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                (
                    *(nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)),
                    *(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)),
                )
            )
            for _ in range(blocks)
        )
        self.last = nn.LayerNorm(width)
        self.mask = [[-1e9 if column > row else 0.0 for column in range(length)] for row in range(length)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x) + self.places
        mask = torch.tensor(self.mask)
        for norm, qkv, out, second, up, down in cast("Iterable[nn.ModuleList]", self.blocks):
            q, k, v = (part.unflatten(-1, (2, -1)).transpose(-2, -3) for part in qkv(norm(x)).chunk(3, -1))
            weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask).softmax(-1)
            x = x + out((weights @ v).transpose(-2, -3).flatten(-2))
            x = x + down(nn.functional.gelu(up(second(x))))
        return self.last(x) @ self.embedding.weight.T


def sentences(name: str, limit: int) -> list[tuple[str, int]]:
    """Rows of a GLUE data set: sentence and label."""
    assert DATA is not None, "SOL_DATA is not set"
    with open(DATA / "glue" / name / "train.tsv", encoding="utf-8") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if name == "CoLA":
            return [(row[3], int(row[1])) for row in itertools.islice(rows, limit)]
        next(rows)
        return [(row[0], int(row[1])) for row in itertools.islice(rows, limit)]


def text_transformer(name: str, length: int = 24) -> Training:
    text = " ".join(sentence for sentence, _ in sentences("CoLA", 4000)).lower()
    known = {c: i for i, c in enumerate(sorted({*text}))}
    codes = torch.tensor([known[c] for c in text])
    rows = codes[: len(codes) // (length + 1) * (length + 1)].view(-1, length + 1)[:5000]
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    splits = split_rows((rows[:, :-1], rows[:, 1:]), len(rows) - 800, 400)
    splits["train"] = tuple(tensor[:2000] for tensor in splits["train"])
    return Training(name, lambda: Attention(len(known), length), splits, 150, 24, cross_entropy)


class Embeddings(nn.Module):
    """Five columns of categories and six of numbers to a logit."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 6) for size in (4, 9, 20, 50, 100))
        self.body = layers(36, 64, 32, 2, activation=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        columns = [table(x[..., i].long()) for i, table in enumerate(self.tables)]
        return self.body(torch.cat([*columns, x[..., 5:]], -1))


def embeddings(name: str) -> Training:
    generator = torch.Generator().manual_seed(0)
    sizes = (4, 9, 20, 50, 100)
    categories = torch.stack([torch.randint(size, (5000,), generator=generator) for size in sizes], 1)
    numbers = torch.randn(5000, 6, generator=generator)
    effects = [torch.randn(size, generator=generator) for size in sizes]
    score = sum(effect[categories[:, i]] for i, effect in enumerate(effects)) + numbers @ torch.tensor(
        [1.0, -1, 0.5, 0, 0, 0]
    )
    score = score + numbers[:, 3] * effects[2][categories[:, 2]] + torch.randn(5000, generator=generator)
    x = torch.cat([categories.float(), numbers], 1)
    return Training(name, Embeddings, split_rows((x, (score > 0).long()), 4000, 500), 150, 128, cross_entropy)


def spirals(name: str) -> Training:
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(2400, generator=generator).sqrt() * 9
    label = torch.randint(2, (2400,), generator=generator)
    angle = t + math.pi * label
    x = torch.stack([t * angle.cos(), t * angle.sin()], 1) / 5 + 0.04 * torch.randn(2400, 2, generator=generator)

    def model() -> nn.Module:
        return layers(2, 32, 32, 2, activation=nn.Tanh)

    return Training(name, model, split_rows((x, label), 1600, 400), 400, 64, cross_entropy)


def autoencoder(name: str) -> Training:
    splits = {split: (x[:4000].float(), x[:4000].float()) for split, (x, _) in load_mnist(None).items()}

    def model() -> nn.Module:
        return layers(784, 48, 12, 48, 784, activation=nn.GELU)

    return Training(name, model, splits, 200, 64, squares)


class Factors(nn.Module):
    """Ratings u_i . v_j of users and items."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(200, 8), nn.Embedding(150, 8)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, pairs: Tensor) -> Tensor:
        return (self.users(pairs[..., 0]) * self.items(pairs[..., 1])).sum(-1)


def factorisation(name: str) -> Training:
    generator = torch.Generator().manual_seed(0)
    pairs = torch.stack(
        [torch.randint(200, (9000,), generator=generator), torch.randint(150, (9000,), generator=generator)], 1
    )
    users, items = torch.randn(200, 4, generator=generator), torch.randn(150, 4, generator=generator)
    ratings = (users[pairs[:, 0]] * items[pairs[:, 1]]).sum(1) / 2 + 0.3 * torch.randn(9000, generator=generator)
    return Training(name, Factors, split_rows((pairs, ratings), 6000, 1500), 300, 128, squares)


class GCN(nn.Module):
    """Two layers over a graph's normalised adjacency, the whole graph in a step."""

    def __init__(self, inputs: int, classes: int, adjacency: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 16), nn.Linear(16, classes)
        self.adjacency = [adjacency]

    def forward(self, x: Tensor) -> Tensor:
        mix = self.adjacency[0]
        return mix @ self.second(torch.relu(mix @ self.first(x)))


def graph(name: str) -> Training:
    """A random graph of communities with noisy features, 600 nodes, 6 classes, 20 labels a class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 6
    same = labels[:, None] == labels[None]
    edges = torch.rand(600, 600, generator=generator) < torch.where(same, 0.025, 0.003)
    edges = (edges | edges.T | torch.eye(600).bool()).float()
    degree = edges.sum(1).rsqrt()
    adjacency = degree[:, None] * edges * degree[None]
    x = nn.functional.one_hot(labels, 6).float() @ torch.randn(6, 50, generator=generator) + 3 * torch.randn(
        600, 50, generator=generator
    )
    nodes = {"train": torch.arange(120), "valid": torch.arange(120, 300), "test": torch.arange(300, 600)}

    def loss(model: nn.Module, chosen: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x)[chosen], labels[chosen])

    splits = {split: (chosen,) for split, chosen in nodes.items()}
    return Training(name, lambda: GCN(50, 6, adjacency), splits, 100, 120, loss)


def mixture_density(name: str) -> Training:
    """p(y | x) as a mixture of five normal distributions; y has several branches."""
    generator = torch.Generator().manual_seed(0)
    y = 2 * torch.rand(3000, 1, generator=generator) - 1
    x = y + 0.6 * torch.sin(2 * math.pi * y) + 0.1 * torch.randn(3000, 1, generator=generator)

    def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        weights, means, deviations = model(inputs).chunk(3, -1)
        logs = torch.log_softmax(weights, -1) - deviations - 0.5 * ((targets - means) * (-deviations).exp()).square()
        return 2 - torch.logsumexp(logs, -1).mean()  # plus 2: positive, so that ratios have a meaning

    def model() -> nn.Module:
        return layers(1, 32, 32, 15, activation=nn.Tanh)

    return Training(name, model, split_rows((x, y), 2000, 500), 300, 64, loss)


def bag_of_words(name: str) -> Training:
    """Sentiment from counts of words: a linear model with rare inputs."""
    rows = sentences("SST-2", 8000)
    counts: dict[str, int] = {}
    for sentence, _ in rows[:6000]:
        for word in sentence.split():
            counts[word] = counts.get(word, 0) + 1
    known = {word: i for i, word in enumerate(sorted(counts, key=counts.__getitem__, reverse=True)[:1500])}
    x = torch.zeros(len(rows), len(known))
    for row, (sentence, _) in enumerate(rows):
        for word in sentence.split():
            if word in known:
                x[row, known[word]] = 1.0
    y = torch.tensor([label for _, label in rows])
    return Training(name, lambda: nn.Linear(len(known), 2), split_rows((x, y), 6000, 1000), 150, 64, cross_entropy)


def contrastive(name: str) -> Training:
    """Two noisy views of a digit are to be nearer to each other than to the other digits of the batch."""
    splits = {
        split: (nn.functional.avg_pool2d(x[:3000].view(-1, 1, 28, 28), 2).flatten(1),)
        for split, (x, _) in load_mnist(None, shuffled=True).items()
    }
    noise = torch.Generator().manual_seed(0)
    masks = (torch.rand(2, 3000, 196, generator=noise) < 0.8).float()

    def loss(model: nn.Module, digits: Tensor) -> Tensor:
        rows = digits[:256]
        views = [nn.functional.normalize(model(rows * mask[: len(rows)]), dim=-1) for mask in masks]
        return nn.functional.cross_entropy(views[0] @ views[1].T / 0.1, torch.arange(len(rows)))

    return Training(name, lambda: layers(196, 64, 16, activation=nn.ReLU), splits, 150, 64, loss)


def make(name: str) -> Task:
    """A target by its name."""
    from sklearn.datasets import load_breast_cancer, load_digits

    def relu() -> nn.Module:
        return mnistnet_module("mnistnet-relu")

    table = {
        "unseen-digits": lambda: digits(name, splits=unseen()),
        "standardised": lambda: digits(name, standard=True),
        "relu": lambda: digits(name, relu),
        "two-layers": lambda: digits(name, lambda: mnistnet_module("mnistnet-2layer")),
        "big": lambda: digits(name, lambda: mnistnet_module("mnistnet-big")),
        "relu-standardised": lambda: digits(name, relu, standard=True),
        "fifty-steps": lambda: digits(name, horizon=50),
        "two-hundred-steps": lambda: digits(name, horizon=200),
        "batch-32": lambda: digits(name, batch=32),
        "four-hundred-steps": lambda: digits(name, horizon=400),
        "batch-512": lambda: digits(name, batch=512),
        "gelu-128-64": lambda: digits(name, lambda: layers(784, 128, 64, 10, activation=nn.GELU)),
        "small-cnn": lambda: digits(name, small_cnn),
        "digits-tanh": lambda: from_sklearn(
            name, load_digits, 1200, 250, lambda: layers(64, 32, 10, activation=nn.Tanh), 100, 64
        ),
        "breast-cancer": lambda: from_sklearn(
            name, load_breast_cancer, 400, 80, lambda: layers(30, 16, 2, activation=nn.ReLU), 100, 32
        ),
        "friedman": lambda: friedman(name),
        "cifar10-cnn": lambda: cifar10_cnn(name),
        "text-transformer": lambda: text_transformer(name),
        "siren": lambda: siren(DATA),
        "burgers": burgers,
        "embeddings": lambda: embeddings(name),
        "rosenbrock": rosenbrock,
        "spirals": lambda: spirals(name),
        "autoencoder": lambda: autoencoder(name),
        "factorisation": lambda: factorisation(name),
        "graph": lambda: graph(name),
        "mixture-density": lambda: mixture_density(name),
        "bag-of-words": lambda: bag_of_words(name),
        "contrastive": lambda: contrastive(name),
    }
    return table[name]()
