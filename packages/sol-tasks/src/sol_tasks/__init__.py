"""Task adapters for the symbolic optimizer learner.

Importing this loads PyTorch and NumPy only. The families: :mod:`sol_tasks.toys`, :mod:`sol_tasks.classification`,
:mod:`sol_tasks.attack` (and :mod:`sol_tasks.rule_attack`, which needs torchattacks), :mod:`sol_tasks.graph`,
:mod:`sol_tasks.text`; :mod:`sol_tasks.catalog` holds what ``sol tasks`` lists.
"""

from sol_tasks.attack import Attack, attack_cifar10
from sol_tasks.cifar10 import load_cifar10
from sol_tasks.classification import Classification, image_classification, mnistnet
from sol_tasks.glue import load_glue
from sol_tasks.graph import Graph, NodeClassification, gat, jknet, load_planetoid
from sol_tasks.mnist import load_mnist
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
