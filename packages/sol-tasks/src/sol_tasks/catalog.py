"""What ``sol tasks`` lists: a function of ``data`` and ``device`` for each task, light to import.

The first line of its docstring is what is listed, ``requires`` what it needs beside this package (see
``sol_tasks.extras.needs``). The families are loaded when one of their tasks is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sol_symbols.errors import SolError
from sol_tasks.extras import needs

if TYPE_CHECKING:  # sol tasks does not load PyTorch
    import torch

    from sol_learner.task import Task

__all__ = ["NAMES"]

Make = Callable[[Path | None, "torch.device | str"], "Task"]

NAMES: dict[str, str] = {}
"""Name of each task in ``sol tasks``, and the attribute of this module that makes it."""


def _offer(name: str, summary: str, make: Make) -> Make:
    def entry(data: Path | None = None, device: torch.device | str = "cpu") -> Task:
        return make(data, device)

    entry.__doc__, entry.__name__, entry.__qualname__ = summary, name, name
    NAMES[name] = name.replace("-", "_")
    return entry


def _task(name: str, summary: str, module: str, function: str, *arguments: str, **options: Any) -> Make:
    """Offers ``sol_tasks.module.function(*arguments, data=data, device=device, **options)``."""

    def make(data: Path | None, device: torch.device | str) -> Task:
        loaded = importlib.import_module(f"sol_tasks.{module}")
        return getattr(loaded, function)(*arguments, data=data, device=device, **options)

    return _offer(name, summary, make)


def _mnistnet(variant: str, summary: str) -> Make:
    return _task(variant, summary, "classification", "mnistnet", variant=variant)


def _images(network: str, dataset: str, summary: str) -> Make:
    make = _task(f"{network}-{dataset}", summary, "classification", "image_classification", network, dataset)
    return needs("vision", "PIL")(make) if dataset == "cifar10" else make


def _needed(data: Path | None, what: str) -> Path:
    if data is None:
        raise SolError(f"{what} needs a folder with data: --data DIR, or the variable SOL_DATA")
    return data


def _attack(name: str, summary: str, **options: Any) -> Make:
    def make(data: Path | None, device: torch.device | str) -> Task:
        from sol_tasks.attack import attack_cifar10

        return attack_cifar10(_needed(data, name), device, name=name, **options)

    return needs("attack", "PIL")(_offer(name, summary, make))


def _robustbench(data: Path | None, device: torch.device | str) -> Task:
    from sol_tasks.attack import attack_cifar10
    from sol_tasks.victims import load_robustbench

    folder = _needed(data, "attack-carmon2019")
    victim = load_robustbench("Carmon2019Unlabeled", folder / "robustbench", device=device)
    return attack_cifar10(folder, device, victim, "attack-carmon2019")


def _graph(family: str, graph: str, summary: str) -> Make:
    return needs("graph", "torch_geometric")(_task(f"{family}-{graph.lower()}", summary, "graph", family, graph))


def _bert(dataset: str, summary: str) -> Make:
    return needs("text", "transformers")(_task(f"bert-{dataset.lower()}", summary, "text", "bert_glue", dataset))


def _bert_head(dataset: str, summary: str) -> Make:
    return needs("text", "transformers")(_task(f"bert-head-{dataset.lower()}", summary, "text", "bert_head", dataset))


def _alpaca(data: Path | None, device: torch.device | str) -> Task:
    from sol_tasks.text import instruction_tuning

    return instruction_tuning(_needed(data, "llm-alpaca"), device)


mnistnet = _mnistnet("mnistnet", "MNISTNET, 784-20-10 with sigmoid units, on MNIST digits; T = 100.")
mnistnet_2layer = _mnistnet("mnistnet-2layer", "MNISTNET with two hidden layers, 784-20-20-10; T = 100.")
mnistnet_big = _mnistnet("mnistnet-big", "MNISTNET with 40 hidden units, 784-40-10; T = 100.")
mnistnet_relu = _mnistnet("mnistnet-relu", "MNISTNET with ReLU units, 784-20-10; T = 100.")
convnet_mnist = _images("convnet", "mnist", "The NOS-RL ConvNet on MNIST digits; T = 200.")
convnet_cifar10 = _images("convnet", "cifar10", "The NOS-RL ConvNet (4.2M parameters) on CIFAR-10; T = 200.")
resnet18_mnist = _images("resnet18", "mnist", "ResNet-18 (11.2M parameters) on MNIST digits; T = 200.")
resnet18_cifar10 = _images("resnet18", "cifar10", "ResNet-18 (11.2M parameters) on CIFAR-10; T = 200.")
resnet34_mnist = _images("resnet34", "mnist", "ResNet-34 (21.3M parameters) on MNIST digits; T = 200.")
resnet34_cifar10 = _images("resnet34", "cifar10", "ResNet-34 (21.3M parameters) on CIFAR-10; T = 200.")
resnet50_mnist = _images("resnet50", "mnist", "ResNet-50 (23.5M parameters) on MNIST digits; T = 200.")
resnet50_cifar10 = _images("resnet50", "cifar10", "ResNet-50 (23.5M parameters) on CIFAR-10; T = 200.")
attack_linf = _attack("attack-linf", "Attack a robust CIFAR-10 model, l_inf ball 8/255, cross-entropy; T = 100.")
attack_dlr = _attack("attack-dlr", "Attack a robust CIFAR-10 model, l_inf ball 8/255, DLR loss; T = 100.", loss="dlr")
attack_l2 = _attack("attack-l2", "Attack a robust CIFAR-10 model, l_2 ball 0.5; T = 100.", norm="l2", radius=0.5)
attack_carmon2019 = needs("robustbench", "PIL", "robustbench", "torchvision", "timm")(
    _offer("attack-carmon2019", "Attack RobustBench's Carmon2019Unlabeled, l_inf ball 8/255; T = 100.", _robustbench)
)
gat_cora = _graph("gat", "Cora", "GAT, 8 x 8 heads, on Cora, full batch; T = 250.")
gat_citeseer = _graph("gat", "Citeseer", "GAT, 8 x 8 heads, on Citeseer, full batch; T = 250.")
gat_pubmed = _graph("gat", "PubMed", "GAT, 8 x 8 heads, on PubMed, full batch; T = 250.")
jknet_cora = _graph("jknet", "Cora", "JK-Net, 6 GCN layers, on Cora, full batch; T = 250.")
jknet_citeseer = _graph("jknet", "Citeseer", "JK-Net, 6 GCN layers, on Citeseer, full batch; T = 250.")
jknet_pubmed = _graph("jknet", "PubMed", "JK-Net, 6 GCN layers, on PubMed, full batch; T = 250.")
bert_cola = _bert("CoLA", "Fine-tune BERT on CoLA (MCC), batches of 32, 3 epochs.")
bert_sst_2 = _bert("SST-2", "Fine-tune BERT on SST-2, batches of 32, 3 epochs.")
bert_rte = _bert("RTE", "Fine-tune BERT on RTE, batches of 32, 3 epochs.")
bert_mrpc = _bert("MRPC", "Fine-tune BERT on MRPC, batches of 32, 5 epochs.")
bert_wnli = _bert("WNLI", "Fine-tune BERT on WNLI, batches of 32, 5 epochs.")
bert_head_cola = _bert_head("CoLA", "A linear head over frozen BERT features on CoLA (MCC); T = 100.")
bert_head_sst_2 = _bert_head("SST-2", "A linear head over frozen BERT features on SST-2; T = 100.")
bert_head_rte = _bert_head("RTE", "A linear head over frozen BERT features on RTE; T = 100.")
bert_head_mrpc = _bert_head("MRPC", "A linear head over frozen BERT features on MRPC; T = 100.")
bert_head_wnli = _bert_head("WNLI", "A linear head over frozen BERT features on WNLI; T = 100.")
llm_alpaca = needs("text", "transformers")(
    _offer("llm-alpaca", "Fine-tune SmolLM2-135M on Alpaca instructions; T = 100.", _alpaca)
)
quadratic = _task(
    "quadratic", "A quadratic bowl, 20 coordinates, condition 100, known optimum; T = 60.", "toys", "quadratic"
)
rosenbrock = _task("rosenbrock", "Rosenbrock's valley, 10 coordinates, known optimum; T = 200.", "toys", "rosenbrock")
