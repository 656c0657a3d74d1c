"""Task adapters for the symbolic optimizer learner.

A name is loaded when it is first used; importing this package loads neither PyTorch nor a library of tasks.
:mod:`sol_tasks.catalog` has what ``sol tasks`` lists.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sol_tasks.attack import Attack, attack_cifar10
    from sol_tasks.cifar10 import load_cifar10
    from sol_tasks.classification import Classification, image_classification, mnistnet
    from sol_tasks.glue import load_glue
    from sol_tasks.graph import NodeClassification, gat, jknet
    from sol_tasks.mnist import load_mnist
    from sol_tasks.planetoid import load_planetoid
    from sol_tasks.sparse_graph import Graph
    from sol_tasks.text import FineTuning, bert_glue, bert_head, instruction_tuning
    from sol_tasks.toys import Toy, quadratic, rosenbrock
    from sol_tasks.victims import list_victims, load_robustbench, load_victim

__version__ = "0.1.0"

__all__ = [
    "Attack",
    "Classification",
    "FineTuning",
    "Graph",
    "NodeClassification",
    "Toy",
    "attack_cifar10",
    "bert_glue",
    "bert_head",
    "gat",
    "image_classification",
    "instruction_tuning",
    "jknet",
    "list_victims",
    "load_cifar10",
    "load_glue",
    "load_mnist",
    "load_planetoid",
    "load_robustbench",
    "load_victim",
    "mnistnet",
    "quadratic",
    "rosenbrock",
]

_HOME = {
    "Attack": "attack",
    "Classification": "classification",
    "FineTuning": "text",
    "Graph": "sparse_graph",
    "NodeClassification": "graph",
    "Toy": "toys",
    "attack_cifar10": "attack",
    "bert_glue": "text",
    "bert_head": "text",
    "gat": "graph",
    "image_classification": "classification",
    "instruction_tuning": "text",
    "jknet": "graph",
    "list_victims": "victims",
    "load_cifar10": "cifar10",
    "load_glue": "glue",
    "load_mnist": "mnist",
    "load_planetoid": "planetoid",
    "load_robustbench": "victims",
    "load_victim": "victims",
    "mnistnet": "classification",
    "quadratic": "toys",
    "rosenbrock": "toys",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sol_tasks' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sol_tasks.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
