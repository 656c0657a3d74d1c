"""Task adapters for the symbolic optimizer learner."""

from sol_tasks.classification import Classification, mnistnet
from sol_tasks.mnist import load_mnist

__version__ = "0.1.0"

__all__ = ["Classification", "load_mnist", "mnistnet"]
