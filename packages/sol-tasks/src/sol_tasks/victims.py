"""Classifiers to attack: robust models from a folder, and any RobustBench model by name.

A victim maps images in [0, 1], [N, C, H, W], to logits; it includes its normalisation.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sol_symbols import SolError
from sol_tasks.data_folder import find_data
from sol_tasks.extras import import_extra

__all__ = ["list_victims", "load_robustbench", "load_victim"]

_HINT = (
    "RobustBench 1.1 also needs torchvision, timm, gdown, setuptools<82, pyautoattack and the weights of the model; "
    "load_robustbench(name, folder) reads them offline from folder/cifar10/Linf/NAME.pt"
)


class _Normalise(nn.Module):
    """(x - mean) / deviation, per channel."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: list[float], deviation: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class _Block(nn.Module):
    """Two 3 x 3 convolutions with biases and without batch norm, and a 1 x 1 shortcut if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.conv2(torch.relu(self.conv1(x))))


class _SmallResNet(nn.Module):
    """A residual network of the verification literature: no batch norm, and every layer halves the image size."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 2, 1)
        inputs = width
        for number in range(1, layers + 1):
            blocks = nn.Sequential(_Block(inputs, 2 * width, 2), _Block(2 * width, 2 * width, 1))
            self.add_module(f"layer{number}", blocks)
            inputs = 2 * width
        self.layers = layers
        self.linear1 = nn.Linear(inputs * (16 // 2**layers) ** 2, 100)
        self.linear2 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        for number in range(1, self.layers + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.linear2(torch.relu(self.linear1(x.flatten(1))))


_RESNETS = {"resnet2b": (8, 1), "resnet4b": (16, 2)}

_PLAIN = {kind.__name__: kind for kind in (nn.ReLU, nn.Sigmoid, nn.Tanh, nn.Flatten)}
"""Layers without numbers, by name."""


def _sequential(text: str) -> nn.Sequential:
    """The network that a text such as ``Conv(3,16,k4,s2,p1) ReLU Flatten Linear(2048,100)`` describes.

    Commas between layers are ignored.

    Raises:
        SolError: The text has an unknown layer.
    """
    layers: list[nn.Module] = []
    for word in filter(None, (word.strip(",") for word in text.split())):
        convolution = re.fullmatch(r"Conv\((\d+),(\d+),k(\d+),s(\d+),p(\d+)\)", word)
        linear = re.fullmatch(r"Linear\((\d+),(\d+)\)", word)
        if convolution:
            inputs, outputs, kernel, stride, padding = map(int, convolution.groups())
            layers.append(nn.Conv2d(inputs, outputs, kernel, stride, padding))
        elif linear:
            layers.append(nn.Linear(int(linear[1]), int(linear[2])))
        elif word in _PLAIN:
            layers.append(_PLAIN[word]())
        else:
            known = ", ".join(["Conv(i,o,kK,sS,pP)", "Linear(i,o)", *_PLAIN])
            raise SolError(f"unknown layer {word!r} in the architecture {text!r}; known: {known}")
    return nn.Sequential(*layers)


def _index(data: str | Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The folder that paths in ``models.json`` are relative to, and its records by file stem."""
    advice = (
        "write this list of checkpoints, for instance of those of github.com/Verified-Intelligence/alpha-beta-CROWN "
        "(the README of sol-tasks shows its form), or use attack-carmon2019, which needs no list"
    )
    file = find_data("models to attack", data, "vision", "weights/models.json", advice=advice)
    records = json.loads(file.read_text(encoding="utf-8"))["models"]
    return file.parents[1], {Path(record["file"]).stem: record for record in records}


def list_victims(data: str | Path) -> list[str]:
    """Names of the robust CIFAR-10 models in ``weights/models.json``, in ``data/vision`` or ``data``."""
    return [name for name, record in _index(data)[1].items() if "cifar10_robust" in record["file"]]


def load_victim(name: str, data: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """A model in ``weights/models.json`` by its file name without the suffix, frozen and in evaluation mode.

    Weights are loaded with ``weights_only=True``.

    Raises:
        SolError: There is no such model, its architecture is unknown, or its file does not match the architecture.
    """
    root, records = _index(data)
    if name not in records:
        raise SolError(f"unknown model {name!r} in {root / 'weights'}; known: {', '.join(records)}")
    record = records[name]
    network = _SmallResNet(*_RESNETS[name]) if name in _RESNETS else _sequential(record["architecture"])
    try:
        state = torch.load(root / record["file"], map_location="cpu", weights_only=True)
        for key, number in re.findall(r"\['(\w+)'\]|\[(\d+)\]", record["state_dict_at"]):
            state = state[key or int(number)]
        network.load_state_dict(state)
    except (OSError, RuntimeError, KeyError) as error:
        raise SolError(f"cannot load {root / record['file']}: {error}") from error
    scale = record["normalisation"]
    victim = nn.Sequential(_Normalise(scale["mean"], scale["std"]), network) if scale else network
    return victim.to(device).eval().requires_grad_(False)


def load_robustbench(
    name: str,
    folder: Path | str = "models",
    threat_model: str = "Linf",
    dataset: str = "cifar10",
    device: torch.device | str = "cpu",
) -> nn.Module:
    """A RobustBench model by name, frozen and in evaluation mode.

    Args:
        name: Name on robustbench.github.io, for instance ``Carmon2019Unlabeled``.
        folder: Folder of the weights, ``DATASET/THREAT_MODEL/NAME.pt``. RobustBench downloads missing weights there.
        threat_model: ``Linf``, ``L2`` or ``corruptions``.
        dataset: ``cifar10``, ``cifar100`` or ``imagenet``.
        device: Device of the model.

    Raises:
        SolError: RobustBench is not installed or cannot be imported, or the model cannot be loaded.
    """
    published = importlib.util.find_spec("pyautoattack") is not None
    if published and "autoattack" not in sys.modules and importlib.util.find_spec("autoattack") is None:
        sys.modules["autoattack"] = importlib.import_module("pyautoattack")  # RobustBench imports it under its old name
    utils = import_extra("robustbench.utils", "robustbench", _HINT)
    try:
        victim = utils.load_model(name, model_dir=str(folder), dataset=dataset, threat_model=threat_model)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise SolError(f"RobustBench cannot load {name!r} from {folder}: {error!r}; {_HINT}") from error
    return victim.to(device).eval().requires_grad_(False)
