"""A small task that needs no data: regression on a fixed random teacher."""

import sys

import cloudpickle
import pytest
import torch
from torch import nn

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # other processes cannot import this file


class Regression:
    """Fit y = tanh(x A) with a small network; splits are disjoint draws."""

    name = "regression"
    horizon = 12

    def __init__(self, vectorizable=True, horizon=12, dtype=torch.float32):
        self.vectorizable, self.horizon, self.dtype = vectorizable, horizon, dtype
        generator = torch.Generator().manual_seed(7)
        teacher = torch.randn(5, 2, generator=generator)
        self.data = {}
        for split in ("train", "valid", "test"):
            x = torch.randn(48, 5, generator=generator)
            self.data[split] = (x.to(dtype), torch.tanh(x @ teacher).to(dtype))

    def build(self, generator):
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4, generator=generator)
        return model.to(self.dtype)

    def batches(self, split, generator):
        x, y = self.data[split]
        while True:
            rows = torch.randint(len(x), (16,), generator=generator)
            yield x[rows], y[rows]

    def loss(self, model, batch):
        x, y = batch
        return ((model(x) - y) ** 2).mean()

    def evaluate(self, model, split):
        return {"loss": self.loss(model, self.data[split]).item()}


@pytest.fixture
def task():
    return Regression()


@pytest.fixture(scope="session")
def make_task():
    return Regression
