"""Train a small network on 8 x 8 digits with an emitted optimizer, in plain PyTorch.

    pip install torch scikit-learn
    python examples/digits_pytorch.py

``sol_mnistnet.py``, next to this file, is what ``sol export sol-mnistnet --to torch`` writes; nothing of sol is needed.
"""

import torch
from sklearn.datasets import load_digits
from sol_mnistnet import SolMnistnet

STEPS = 100


def train(make_optimizer):
    """Train for 100 batches of 128 with the optimizer of ``make_optimizer(parameters)``; returns the test accuracy."""
    torch.manual_seed(0)
    digits = load_digits()
    inputs, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    model = torch.nn.Sequential(torch.nn.Linear(64, 20), torch.nn.Sigmoid(), torch.nn.Linear(20, 10))
    optimizer = make_optimizer(model.parameters())
    for _ in range(STEPS):
        batch = torch.randint(1500, (128,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
        optimizer.step()
    return (model(inputs[1500:]).argmax(1) == labels[1500:]).float().mean().item()


if __name__ == "__main__":
    print(f"SolMnistnet  test accuracy {train(lambda params: SolMnistnet(params, horizon=STEPS)):.3f}")
    print(f"Adam         test accuracy {train(lambda params: torch.optim.Adam(params, lr=0.0316)):.3f}")
