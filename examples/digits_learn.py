"""From a training script to an optimizer for it and a verdict: the network and the digits of digits_pytorch.py.

pip install sol-learner sol-export scikit-learn
python examples/digits_learn.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from sol_learner import learn_optimizer


def network():
    return nn.Sequential(nn.Linear(64, 20), nn.Sigmoid(), nn.Linear(20, 10))


if __name__ == "__main__":
    digits = load_digits()
    data = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    options = {"steps": 100, "batch_size": 128, "loss_fn": nn.CrossEntropyLoss(), "out": "runs/digits"}
    quick = {"budget": "90s", "baseline_trainings": 40, "evaluation_episodes": 6}
    learned = learn_optimizer("digits", network, data, **options, **quick)
    print(learned.rule, learned.verdict, learned.optimizer(network().parameters()), sep="\n")
