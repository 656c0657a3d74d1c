"""Image classification: cross-entropy on mini-batches, data on the device once, batches by index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from sol_learner import build_seeded
from sol_tasks.mnist import Splits, load_mnist

__all__ = ["Classification", "mnistnet"]

_EVALUATION_BATCH = 10_000


class Classification:
    """Train a classifier on data that fits on the device.

    Args:
        name: Name of the task.
        model: Makes a fresh model, initialised from PyTorch's global generator.
        data: Inputs and labels of the splits ``train``, ``valid`` and ``test``.
        horizon: Inner steps of an episode, T.
        batch_size: Examples per batch.
        device: Where models and data live.
    """

    def __init__(
        self,
        name: str,
        model: Callable[[], nn.Module],
        data: Splits,
        horizon: int,
        batch_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name, self.horizon, self.batch_size = name, horizon, batch_size
        self.device, self._model = torch.device(device), model
        self._data = {split: (x.to(self.device), y.to(self.device)) for split, (x, y) in data.items()}

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh model with the initial weights that PyTorch's modules draw."""
        return build_seeded(self._model, generator).to(self.device)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless full batches (inputs [N, ...], labels [N]); every pass through the split in a new order."""
        inputs, labels = self._data[split]
        size = min(self.batch_size, len(labels))
        while True:
            order = torch.randperm(len(labels), generator=generator).to(self.device)
            for chosen in order.split(size)[: len(labels) // size]:
                yield inputs[chosen], labels[chosen]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy in nats."""
        inputs, labels = batch
        return nn.functional.cross_entropy(model(inputs), labels)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Mean cross-entropy ``loss`` and ``accuracy`` in [0, 1] over the whole split."""
        inputs, labels = self._data[split]
        logits = torch.cat([model(part) for part in inputs.split(_EVALUATION_BATCH)])
        loss = nn.functional.cross_entropy(logits, labels)
        return {"loss": float(loss), "accuracy": float((logits.argmax(-1) == labels).float().mean())}


def _mnistnet() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 20), nn.Sigmoid(), nn.Linear(20, 10))


def mnistnet(data: Path | None = None, device: torch.device | str = "cpu") -> Classification:
    """MNISTNET: a 784-20-10 network with sigmoid units on MNIST digits, T = 100, batches of 128.

    Source: Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NeurIPS 2016.
    """
    return Classification("mnistnet", _mnistnet, load_mnist(data), horizon=100, batch_size=128, device=device)
