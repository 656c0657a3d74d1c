"""The networks of the paper."""

import pytest
import torch

from sol_tasks.image_networks import convnet, mnistnet_module, resnet


@pytest.mark.parametrize(
    ("model", "shape", "parameters"),
    [
        (lambda: mnistnet_module("mnistnet"), (784,), 784 * 20 + 20 + 210),
        (lambda: mnistnet_module("mnistnet-2layer"), (784,), 784 * 20 + 20 + 420 + 210),
        (lambda: mnistnet_module("mnistnet-big"), (784,), 784 * 40 + 40 + 410),
        (lambda: mnistnet_module("mnistnet-relu"), (784,), 784 * 20 + 20 + 210),
        (convnet, (3, 32, 32), 4_225_162),
        (lambda: convnet(1, 28), (1, 28, 28), None),
        (lambda: resnet("resnet18"), (3, 32, 32), 11_173_962),
        (lambda: resnet("resnet34"), (3, 32, 32), 21_282_122),
        (lambda: resnet("resnet50"), (3, 32, 32), 23_520_842),
        (lambda: resnet("resnet18", 1), (1, 28, 28), None),
        (lambda: resnet("resnet18", width=4), (3, 32, 32), 44_622),
    ],
)
def test_the_networks_are_the_papers(model, shape, parameters):
    built = model()
    assert built.eval()(torch.rand(2, *shape)).shape == (2, 10)
    if parameters is not None:
        assert sum(p.numel() for p in built.parameters()) == parameters
