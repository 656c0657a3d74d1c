r"""Adversarial attacks: the optimizee is the perturbation of a set of images.

Of images x in [0, 1] with labels y and a victim f, the perturbation eps delta minimises

    loss(delta) = - sum_n L(f(x_n + eps delta_n), y_n)     within |delta_n| <= 1 and 0 <= x_n + eps delta_n <= 1,

where L is the cross-entropy or the DLR loss. With a sum, an image's gradient does not depend on the number of images
attacked with it. delta is in units of the radius eps, so a rule and its learning rate do not depend on the radius. A
rule is the step inside the projection: PGD with its usual step of 2/255 in a ball of 8/255 *is*
``sign(g) where lr = 0.25``.

Every episode is a separate problem: its images. :meth:`sol_tasks.Attack.pool` returns the same task over another
split, so learning, model selection and the comparison use disjoint images.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sol_symbols import SolError
from sol_tasks.cifar10 import load_cifar10
from sol_tasks.data_folder import Splits, require_data
from sol_tasks.victims import list_victims, load_robustbench, load_victim

__all__ = [
    "BALLS",
    "LOSSES",
    "Attack",
    "attack_cifar10",
    "attack_robustbench",
    "check_images",
    "check_radius",
    "dlr",
    "in_precision_of",
    "project_l2",
    "project_linf",
    "random_start",
]


def project_linf(delta: Tensor, images: Tensor, radius: float) -> Tensor:
    """The nearest delta, [N, ...], with absolute values at most 1 and images + ``radius`` delta in [0, 1]."""
    return _boxed(delta.clamp(-1, 1), images, radius)


def project_l2(delta: Tensor, images: Tensor, radius: float) -> Tensor:
    """A delta, [N, ...], with Euclidean norm at most 1 per image and images + ``radius`` delta in [0, 1].

    It is scaled into the ball, then clipped to the box. Clipping shortens it, so both constraints hold.
    """
    norms = delta.flatten(1).norm(dim=1).view(-1, *[1] * (delta.ndim - 1))
    return _boxed(delta / norms.clamp_min(1), images, radius)


def _boxed(delta: Tensor, images: Tensor, radius: float) -> Tensor:
    return torch.minimum(torch.maximum(delta, -images / radius), (1 - images) / radius)


_ROUNDING = 1e-6  # images that were normalised and are themselves again are this near to [0, 1]

_DLR_CLASSES = 3  # the loss uses the third largest logit

BALLS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"linf": project_linf, "l2": project_l2}
"""Projections by norm."""


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{i != y} z_i - z_y, [N]. Above 0 the image is misclassified."""
    true = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    return logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1) - true


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, [N]: -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)), z_(k) the k-th largest.

    It is invariant to shifts and positive scaling of the logits, so gradients do not vanish for a confident victim.
    Above 0 the image is misclassified. Source: Croce and Hein, ICML 2020, eq. 6.

    Raises:
        SolError: There are fewer than three classes.
    """
    if logits.shape[1] < _DLR_CLASSES:
        count = logits.shape[1]
        raise SolError(f"the DLR loss needs at least {_DLR_CLASSES} classes, got {count}; use the cross-entropy")
    top = logits.topk(3, dim=1).values
    return _margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels, reduction="none")


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": _cross_entropy, "dlr": dlr}
"""What an attack maximises, by name: maps logits [N, classes] and labels [N] to losses [N]."""


def check_images(images: Tensor, labels: Tensor, where: str = "") -> None:
    """Check what an attack needs of its images and labels.

    Raises:
        SolError: There are no images, they are not floats in [0, 1], or the labels are not integers from 0, [N].
    """
    if not (isinstance(images, Tensor) and isinstance(labels, Tensor)):
        kinds = f"{type(images).__name__} and {type(labels).__name__}"
        raise SolError(f"{where}images and labels must be tensors, got {kinds}; use torch.as_tensor")
    if labels.ndim != 1 or len(labels) != len(images) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise SolError(
            f"{where}labels must be integers, one for each of {len(images)} images, [N]; got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )
    if not len(images):
        raise SolError(f"{where}no images to attack: the batch or split is empty")
    if int(labels.min()) < 0:
        raise SolError(f"{where}labels must be at least 0, got {int(labels.min())}")
    if not images.is_floating_point():
        raise SolError(f"{where}images must be floats in [0, 1], got {images.dtype}; divide bytes by 255")
    if not images.isfinite().all():
        raise SolError(f"{where}images hold NaN or infinity; clean the data")
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        advice = "give images before their normalisation, and put the normalisation into the victim"
        advice = "divide them by 255" if low >= 0 and 2 < high <= 255 else advice
        raise SolError(f"{where}images must be in [0, 1], got values from {low:.3g} to {high:.3g}; {advice}")


def check_radius(norm: str, radius: float) -> None:
    """Check that a ball is no larger than the box of images.

    Raises:
        SolError: It is.
    """
    if norm == "linf" and radius > 1:
        raise SolError(f"the radius {radius:g} is larger than the range of images, [0, 1]; write {radius:g}/255")


def in_precision_of(victim: nn.Module, images: Tensor) -> Tensor:
    """Images in [0, 1] in float64 if the victim's parameters are, else in float32: lower ones round out of the ball."""
    double = any(parameter.dtype == torch.float64 for parameter in victim.parameters())
    return images.clamp(0, 1).to(torch.float64 if double else torch.float32)


def random_start(images: Tensor, norm: str, radius: float, generator: torch.Generator) -> Tensor:
    """A random delta in the ball that keeps the images in [0, 1]; ``generator`` is a CPU generator.

    ``linf``: uniform in the cube. ``l2``: uniform direction and uniform length.
    """
    if norm == "linf":
        delta = 2 * torch.rand(images.shape, generator=generator) - 1
    else:
        delta = torch.randn(images.shape, generator=generator)
        length = torch.rand(len(images), *[1] * (images.ndim - 1), generator=generator)
        delta *= length / delta.flatten(1).norm(dim=1).view_as(length)
    return BALLS[norm](delta.to(images), images, radius)


class Adversarial(nn.Module):
    """Images and their perturbation in units of the radius, the only parameter. A call returns perturbed images."""

    images: Tensor
    labels: Tensor

    def __init__(self, images: Tensor, labels: Tensor, delta: Tensor, radius: float) -> None:
        super().__init__()
        self.radius = radius
        self.register_buffer("images", images)
        self.register_buffer("labels", labels)
        self.delta = nn.Parameter(delta)

    def forward(self) -> Tensor:
        """x + eps delta, [N, C, H, W]."""
        return self.images + self.radius * self.delta


class Attack:
    """Fool a classifier.

    Args:
        name: Name of the task.
        victim: Maps images in [0, 1] to logits. It is frozen and set to evaluation mode.
        data: Images, [N, C, H, W] in [0, 1] or uint8, and labels for ``train``, ``valid`` and ``test``.
        norm: ``linf`` or ``l2``.
        radius: eps.
        loss: ``ce`` or ``dlr``.
        horizon: Steps, T.
        images: Number of images in an episode.
        device: Device of the victim and the images.
        split: Which images to attack; see :meth:`pool`.

    Raises:
        SolError: The norm or the loss is unknown, the radius is not positive, or a split has no images, images outside
            of [0, 1], integers other than bytes, or labels that are not classes.
    """

    vectorizable = False

    def __init__(
        self,
        name: str,
        victim: nn.Module,
        data: Splits,
        norm: str = "linf",
        radius: float = 8 / 255,
        loss: str = "ce",
        horizon: int = 100,
        images: int = 64,
        device: torch.device | str = "cpu",
        split: str = "train",
    ) -> None:
        if norm not in BALLS or loss not in LOSSES:
            allowed = f"norms: {', '.join(BALLS)}; losses: {', '.join(LOSSES)}"
            raise SolError(f"unknown norm {norm!r} or loss {loss!r}; {allowed}")
        if not (radius > 0 and horizon >= 1 and images >= 1):
            raise SolError(f"radius, horizon and images must be positive, got {radius}, {horizon} and {images}")
        check_radius(norm, radius)
        for part, (given, labels) in data.items():
            whole = torch.zeros(len(given)) if given.dtype == torch.uint8 else given  # all bytes are in range
            check_images(whole, labels, f"{part}: ")
        self.name, self.norm, self.radius, self.objective, self.horizon = name, norm, radius, loss, horizon
        self.victim = victim.to(device).eval().requires_grad_(False)
        self._data, self._images, self._device, self._split = data, images, device, split

    @property
    def priors(self) -> tuple[str, ...]:
        """The zoo's rule for attacks, where it was learned for the norm."""
        return ("sol-attack",) if self.norm == "linf" else ()

    def pool(self, split: str) -> Attack:
        """The same task over the images of another split."""
        part = copy.copy(self)
        part._split = split
        return part

    def build(self, generator: torch.Generator) -> nn.Module:
        """Random images of the split with a random start in the ball."""
        images, labels = self._data[self._split]
        chosen = torch.randperm(len(labels), generator=generator)[: self._images]
        picked = images[chosen].to(self._device)
        picked = in_precision_of(self.victim, picked.float() / 255 if picked.dtype == torch.uint8 else picked)
        start = random_start(picked, self.norm, self.radius, generator)
        return Adversarial(picked, labels[chosen].to(self._device).long(), start, self.radius)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[tuple[()]]:
        """Empty batches: the images belong to the optimizee, and every step uses all of them."""
        return itertools.repeat(())

    def loss(self, model: nn.Module, batch: tuple[()]) -> Tensor:
        """Minus the sum of the attack's loss over the images."""
        labels = cast(Adversarial, model).labels
        return -LOSSES[self.objective](self.victim(model()), labels).sum()

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """How far the attack is from its goal; lower is better.

        ``loss`` is the mean over the images of max(-DLR, 0), the distance of an image from being misclassified. The
        mean of the attack's own loss would be dominated by images that are misclassified already. With two classes,
        where DLR is undefined, its numerator, the difference of the logits, takes its place. ``accuracy`` is the
        fraction of images still classified correctly, and ``objective`` the mean of :meth:`loss`. All splits have the
        same metrics, because a perturbation fits its own images only.
        """
        logits, labels = self.victim(model()), cast(Adversarial, model).labels
        above = dlr if logits.shape[1] >= _DLR_CLASSES else _margin
        return {
            "loss": float((-above(logits, labels)).clamp_min(0).mean()),
            "accuracy": float((logits.argmax(1) == labels).float().mean()),
            "objective": float(-LOSSES[self.objective](logits, labels).mean()),
        }

    @torch.no_grad()
    def project(self, model: nn.Module) -> None:
        """Move the perturbation back into the ball, and the images into [0, 1]."""
        perturbed = cast(Adversarial, model)
        perturbed.delta.copy_(BALLS[self.norm](perturbed.delta, perturbed.images, self.radius))


def attack_cifar10(
    data: str | Path | None,
    device: torch.device | str = "cpu",
    victim: str | nn.Module | None = None,
    name: str = "attack",
    **options: Any,
) -> Attack:
    """An attack on a CIFAR-10 classifier.

    Args:
        data: Folder with CIFAR-10 and, unless the victim is a module, ``weights/models.json``.
        device: Device of the victim and the images.
        victim: A module, or the name of a model in the folder; by default the first robust one there.
        name: Name of the task.
        options: ``norm``, ``radius``, ``loss``, ``horizon``, ``images`` of :class:`Attack`.

    Raises:
        SolError: There is no data folder, or its files are missing or damaged.
    """
    data = require_data(data, name)
    if not isinstance(victim, nn.Module):
        victim = load_victim(victim or list_victims(data)[0], data, device)
    return Attack(name, victim, load_cifar10(data), device=device, **options)


def attack_robustbench(
    model: str, data: str | Path | None, device: torch.device | str = "cpu", name: str = "attack", **options: Any
) -> Attack:
    """:func:`attack_cifar10` on a RobustBench model, whose weights are in ``data/robustbench`` or are downloaded there.

    Args:
        model: Name of an l_inf model for CIFAR-10 on robustbench.github.io.
        data, device, name, options: As in :func:`attack_cifar10`.

    Raises:
        SolError: There is no data folder, or CIFAR-10 or the model cannot be loaded.
    """
    data = require_data(data, name)
    return attack_cifar10(data, device, load_robustbench(model, data / "robustbench", device=device), name, **options)
