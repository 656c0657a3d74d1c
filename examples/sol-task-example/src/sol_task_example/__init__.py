"""Fit a sine wave: the task of docs/write-a-task.md, installed as a package."""

import torch


class Sines:
    name, horizon = "sines", 60

    def __init__(self, device="cpu"):
        self.device = device

    def build(self, generator):
        model = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5, generator=generator)
        return model.to(self.device)

    def batches(self, split, generator):
        start = {"train": 0.0, "valid": 3.0, "test": 6.0}[split]
        while True:
            x = (start + 3 * torch.rand(64, 1, generator=generator)).to(self.device)
            yield torch.cat([torch.sin(x), torch.cos(x)], 1), torch.sin(2 * x)

    def loss(self, model, batch):
        inputs, targets = batch
        return (model(inputs) - targets).square().mean()

    def evaluate(self, model, split):
        batch = next(self.batches(split, torch.Generator().manual_seed(0)))
        return {"loss": float(self.loss(model, batch))}


def make(data=None, device="cpu"):
    """Fit sin(2x) from sin(x) and cos(x) with a small network; T = 60."""
    return Sines(device)
