"""Tasks for the symbolic optimizer learner.

Each family is a module: :mod:`sol_tasks.toys`, :mod:`sol_tasks.fits`, :mod:`sol_tasks.classification`,
:mod:`sol_tasks.attack`, :mod:`sol_tasks.node_classification` and :mod:`sol_tasks.fine_tuning`. ``sol tasks`` lists
the rows of :mod:`sol_tasks.catalog`. :mod:`sol_tasks.rule_attack` turns a rule into an attack of torchattacks.

Importing ``sol_tasks`` loads nothing else. Each name below loads its module on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sol_symbols.lazy import lazy_names

if TYPE_CHECKING:
    from sol_tasks.attack import Attack, attack_cifar10
    from sol_tasks.cifar10 import load_cifar10
    from sol_tasks.classification import Classification, image_classification, mnistnet
    from sol_tasks.fine_tuning import FineTuning, bert_glue, bert_head, instruction_tuning
    from sol_tasks.fits import Burgers, PictureFit, burgers, siren
    from sol_tasks.glue import load_glue
    from sol_tasks.mnist import load_mnist
    from sol_tasks.node_classification import NodeClassification, gat, jknet
    from sol_tasks.planetoid import load_planetoid
    from sol_tasks.sparse_graph import Graph
    from sol_tasks.toys import Toy, quadratic, rosenbrock
    from sol_tasks.victims import list_victims, load_robustbench, load_victim

__version__ = "0.1.0"

__all__ = [
    "Attack",
    "Burgers",
    "Classification",
    "FineTuning",
    "Graph",
    "NodeClassification",
    "PictureFit",
    "Toy",
    "attack_cifar10",
    "bert_glue",
    "bert_head",
    "burgers",
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
    "siren",
]

_HOME = {
    "Attack": "attack",
    "Burgers": "fits",
    "Classification": "classification",
    "FineTuning": "fine_tuning",
    "Graph": "sparse_graph",
    "NodeClassification": "node_classification",
    "PictureFit": "fits",
    "Toy": "toys",
    "attack_cifar10": "attack",
    "bert_glue": "fine_tuning",
    "bert_head": "fine_tuning",
    "burgers": "fits",
    "gat": "node_classification",
    "image_classification": "classification",
    "instruction_tuning": "fine_tuning",
    "jknet": "node_classification",
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
    "siren": "fits",
}

if not TYPE_CHECKING:  # otherwise every name would exist for type checkers
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
