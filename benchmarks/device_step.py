"""What steps cost on a device: emitted optimizers against PyTorch's, and meta-training against plain Adam.

    python benchmarks/device_step.py --device cuda --json benchmarks/device_step.json

Times are medians over rounds, in ms, after a warm-up, with the device synchronised before and after; memory is the
largest that PyTorch has allocated during it, in MB (on GPUs). Optimizers step ``--millions`` million parameters in the
shapes of a ResNet's layers. Meta-training moves ``--batch`` networks with 4 layers of ``--width`` units a step.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sol_export import load_optimizer
from sol_learner.estimators import FirstOrder
from sol_learner.inner import Optimizees, RuleOptimizer, run_episodes
from sol_learner.networks import SymbolicNetwork
from sol_learner.task import Stream, build_seeded
from sol_symbols import ZOO, UpdateRule, write_atomically

LEARNED = UpdateRule.parse(
    "0.391*ad + 0.115*sign(g) + 0.0287*sign(m) + 0.362*cd*sign(g) + 10*pull where lr = 0.01, T = 1000"
)
RULES = {"adam": ZOO["adam"], "learned": LEARNED, "sol-general": ZOO["sol-general"].with_horizon(1000)}
UNITS = [("identity", "mul", "exp", "sign"), ("identity", "square")]


class Layers:
    """Networks with 4 layers on random data."""

    name, horizon, vectorizable = "layers", 10_000, True

    def __init__(self, width: int, device: str) -> None:
        self.width, self.device = width, device
        self.x, self.y = (torch.randn(128, width, device=device) for _ in range(2))

    def build(self, generator: torch.Generator) -> nn.Module:
        layers = [module for _ in range(4) for module in (nn.Linear(self.width, self.width), nn.ReLU())]
        return build_seeded(lambda: nn.Sequential(*layers[:-1]), generator).to(self.device)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Any]:
        while True:
            yield self.x, self.y

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return (model(batch[0]) - batch[1]).square().mean()

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        return {"loss": float(self.loss(model, (self.x, self.y)))}


def timed(step, device, rounds):
    """Median time of ``step`` in ms, and the most memory in MB."""
    cuda = torch.device(device).type == "cuda"
    wait = torch.cuda.synchronize if cuda else (lambda: None)
    for _ in range(3):
        step()
    times = []
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(rounds):
        wait()
        begun = time.perf_counter()
        step()
        wait()
        times.append(1e3 * (time.perf_counter() - begun))
    return {"ms": statistics.median(times)} | ({"MB": torch.cuda.max_memory_allocated() / 1e6} if cuda else {})


def parameters(millions: float, device: str) -> list[nn.Parameter]:
    """Parameters with gradients: convolutions of 512 filters, each with two vectors, as in a ResNet."""
    shapes = [shape for _ in range(max(1, round(millions / 2.36))) for shape in ((512, 512, 3, 3), (512,), (512,))]
    found = [nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
    for parameter in found:
        parameter.grad = torch.randn_like(parameter)
    return found


def optimizers(millions, device, rounds):
    """A row for each optimizer and implementation."""
    rows = {}
    for how in ("foreach", "fused"):
        flags: dict[str, Any] = {how: True}
        rows[f"torch Adam, {how}"] = timed(
            torch.optim.Adam(parameters(millions, device), lr=1e-3, **flags).step, device, rounds
        )
        for name, rule in RULES.items():
            try:
                kind: Any = load_optimizer(rule, verify=False)
                optimizer = kind(parameters(millions, device), lr=1e-3, **flags)
                rows[f"{name}, {how}"] = timed(optimizer.step, device, rounds)
            except (ValueError, RuntimeError, TypeError) as error:  # no such kernel on this device
                rows[f"{name}, {how}"] = {"left out": str(error).partition("\n")[0]}
    return rows


def meta_training(width, batch, device, rounds):
    """A step of plain Adam and one of meta-training, of as many networks."""
    task, rows = Layers(width, device), {}
    steps = run_episodes(task, RuleOptimizer(ZOO["adam"]), 1e-3, 0, Stream.TRAIN, range(batch))
    rows["plain Adam"] = timed(lambda: next(steps), device, rounds)
    network = SymbolicNetwork(ZOO["adam"], units=UNITS, generator=torch.Generator().manual_seed(0)).to(device)
    estimator = FirstOrder(network, torch.Generator().manual_seed(0))
    estimator.begin(Optimizees(task, 0, Stream.TRAIN, range(batch)), 1e-3, task.horizon)
    window = timed(lambda: estimator.window(20), device, max(1, rounds // 10))
    rows["meta-training, first-order, a step of a window of 20"] = {**window, "ms": window["ms"] / 20}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--millions", type=float, default=25.0)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=50)
    given = parser.parse_args()
    record = {
        "device": torch.cuda.get_device_name() if given.device.startswith("cuda") else given.device,
        "torch": torch.__version__,
        **{name: getattr(given, name) for name in ("millions", "width", "batch", "rounds")},
        "optimizers": optimizers(given.millions, given.device, given.rounds),
        "meta-training": meta_training(given.width, given.batch, given.device, given.rounds),
    }
    print(json.dumps(record, indent=1))
    if given.json:
        write_atomically(given.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
