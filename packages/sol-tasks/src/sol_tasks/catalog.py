"""The catalog: one row for each task that ``sol tasks`` lists.

A row's entry point, ``sol_tasks.catalog:NAME``, is a function ``make(data, device)``. Its docstring is the summary, and
its attribute ``requires`` maps the modules that the task needs to what pip installs. Listing tasks is fast: importing
the catalog loads neither PyTorch nor sol-learner nor a family. Making a task loads its family.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from sol_learner.task import Task

__all__ = ["TASKS"]

Make = Callable[..., "Task"]

_EXTRAS = {
    "attack": ("PIL",),
    "graph": ("torch_geometric",),
    "robustbench": ("PIL", "robustbench", "torchvision", "timm"),
    "text": ("transformers",),
    "vision": ("PIL",),
}
"""Modules that tasks import, by the extra of sol-tasks that installs them."""


def _task(
    name: str, summary: str, factory: str, /, *arguments: str, extra: str | None = None, **options: Any
) -> tuple[str, Make]:
    """A row of :data:`TASKS`.

    Args:
        name: Name of the task.
        summary: One line, with a full stop.
        factory: ``MODULE:FUNCTION`` in this package. The function is called with ``arguments``, the keywords ``data``
            and ``device``, and ``options``.
        arguments: See ``factory``.
        extra: Key of ``_EXTRAS``.
        options: See ``factory``.
    """
    module, function = factory.split(":")

    def make(data: str | Path | None = None, device: torch.device | str = "cpu") -> Task:
        loaded = importlib.import_module(f"sol_tasks.{module}")
        return getattr(loaded, function)(*arguments, data=data, device=device, **options)

    make.__doc__, make.__name__, make.__qualname__ = summary, name, name
    vars(make)["requires"] = dict.fromkeys(_EXTRAS[extra], f"sol-tasks[{extra}]") if extra is not None else {}
    return name, make


def _mnistnet(name: str, summary: str) -> tuple[str, Make]:
    return _task(name, summary, "classification:mnistnet", variant=name)


def _images(network: str, dataset: str, summary: str) -> tuple[str, Make]:
    extra = "vision" if dataset == "cifar10" else None
    factory = "classification:image_classification"
    return _task(f"{network}-{dataset}", summary, factory, network, dataset, extra=extra)


def _attack(name: str, summary: str, **options: Any) -> tuple[str, Make]:
    return _task(name, summary, "attack:attack_cifar10", extra="attack", name=name, **options)


def _graph(network: str, graph: str, summary: str) -> tuple[str, Make]:
    return _task(f"{network}-{graph.lower()}", summary, f"node_classification:{network}", graph, extra="graph")


def _bert(dataset: str, summary: str) -> tuple[str, Make]:
    return _task(f"bert-{dataset.lower()}", summary, "fine_tuning:bert_glue", dataset, extra="text")


def _bert_head(dataset: str, summary: str) -> tuple[str, Make]:
    return _task(f"bert-head-{dataset.lower()}", summary, "fine_tuning:bert_head", dataset, extra="text")


TASKS: dict[str, Make] = dict(
    [
        _mnistnet("mnistnet", "MNISTNET, 784-20-10 with sigmoid units, on MNIST digits; T = 100."),
        _mnistnet("mnistnet-2layer", "MNISTNET with two hidden layers, 784-20-20-10; T = 100."),
        _mnistnet("mnistnet-big", "MNISTNET with 40 hidden units, 784-40-10; T = 100."),
        _mnistnet("mnistnet-relu", "MNISTNET with ReLU units, 784-20-10; T = 100."),
        _images("convnet", "mnist", "The NOS-RL ConvNet on MNIST digits; T = 200."),
        _images("convnet", "cifar10", "The NOS-RL ConvNet (4.2M parameters) on CIFAR-10; T = 200."),
        _images("resnet18", "mnist", "ResNet-18 (11.2M parameters) on MNIST digits; T = 200."),
        _images("resnet18", "cifar10", "ResNet-18 (11.2M parameters) on CIFAR-10; T = 200."),
        _images("resnet34", "mnist", "ResNet-34 (21.3M parameters) on MNIST digits; T = 200."),
        _images("resnet34", "cifar10", "ResNet-34 (21.3M parameters) on CIFAR-10; T = 200."),
        _images("resnet50", "mnist", "ResNet-50 (23.5M parameters) on MNIST digits; T = 200."),
        _images("resnet50", "cifar10", "ResNet-50 (23.5M parameters) on CIFAR-10; T = 200."),
        _attack("attack-linf", "Attack a robust CIFAR-10 model, l_inf ball 8/255, cross-entropy; T = 100."),
        _attack("attack-dlr", "Attack a robust CIFAR-10 model, l_inf ball 8/255, DLR loss; T = 100.", loss="dlr"),
        _attack("attack-l2", "Attack a robust CIFAR-10 model, l_2 ball 0.5; T = 100.", norm="l2", radius=0.5),
        _task(
            "attack-carmon2019",
            "Attack RobustBench's Carmon2019Unlabeled, l_inf ball 8/255; T = 100.",
            "attack:attack_robustbench",
            "Carmon2019Unlabeled",
            extra="robustbench",
            name="attack-carmon2019",
        ),
        _graph("gat", "Cora", "GAT, 8 x 8 heads, on Cora, full batch; T = 250."),
        _graph("gat", "Citeseer", "GAT, 8 x 8 heads, on Citeseer, full batch; T = 250."),
        _graph("gat", "PubMed", "GAT, 8 x 8 heads, on PubMed, full batch; T = 250."),
        _graph("jknet", "Cora", "JK-Net, 6 GCN layers, on Cora, full batch; T = 250."),
        _graph("jknet", "Citeseer", "JK-Net, 6 GCN layers, on Citeseer, full batch; T = 250."),
        _graph("jknet", "PubMed", "JK-Net, 6 GCN layers, on PubMed, full batch; T = 250."),
        _bert("CoLA", "Fine-tune BERT on CoLA (MCC), batches of 32, 3 epochs."),
        _bert("SST-2", "Fine-tune BERT on SST-2, batches of 32, 3 epochs."),
        _bert("RTE", "Fine-tune BERT on RTE, batches of 32, 3 epochs."),
        _bert("MRPC", "Fine-tune BERT on MRPC, batches of 32, 5 epochs."),
        _bert("WNLI", "Fine-tune BERT on WNLI, batches of 32, 5 epochs."),
        _bert_head("CoLA", "A linear head over frozen BERT features on CoLA (MCC); T = 100."),
        _bert_head("SST-2", "A linear head over frozen BERT features on SST-2; T = 100."),
        _bert_head("RTE", "A linear head over frozen BERT features on RTE; T = 100."),
        _bert_head("MRPC", "A linear head over frozen BERT features on MRPC; T = 100."),
        _bert_head("WNLI", "A linear head over frozen BERT features on WNLI; T = 100."),
        _task(
            "llm-alpaca",
            "Fine-tune SmolLM2-135M on Alpaca instructions; T = 100.",
            "fine_tuning:instruction_tuning",
            extra="text",
        ),
        _task("siren", "A SIREN, 2 x 32 units, for a picture of 32 x 32 pixels an episode; T = 200.", "fits:siren"),
        _task("burgers", "A tanh network, 3 x 20, that solves Burgers' equation (PINN); T = 200.", "fits:burgers"),
        _task("quadratic", "A quadratic bowl, 20 coordinates, condition 100, known optimum; T = 60.", "toys:quadratic"),
        _task("rosenbrock", "Rosenbrock's valley, 10 coordinates, known optimum; T = 200.", "toys:rosenbrock"),
    ]
)
"""The function that makes each task, by the task's name."""


def __getattr__(attribute: str) -> Make:
    """An entry point: the name of a task with ``_`` for ``-``."""
    name = attribute.replace("_", "-")
    if name not in TASKS:
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    return TASKS[name]
