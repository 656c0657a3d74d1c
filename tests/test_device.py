"""The inner loop never waits for its device: no step reads a number back, and no tensor stays on another device.

Two stand-ins for a GPU. A dispatch mode counts, on the CPU, the operators that copy a device's number to the host. And
on the device "meta", whose tensors have no values, such an operator and a tensor of another device are errors. (Fake
tensors of the device "cuda" cannot be used: a PyTorch without CUDA refuses to copy them.) With ``SOL_DEVICE=cuda`` the
same runs are made there, and PyTorch refuses operators that wait.
"""

import os
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from sol_export import load_optimizer
from sol_learner.estimators import ESTIMATORS
from sol_learner.inner import Optimizees, RuleOptimizer, episodes, optimizees, run_episodes, run_rule
from sol_learner.networks import LSTMNetwork, SymbolicNetwork
from sol_learner.task import Stream
from sol_symbols import ZOO, UpdateRule

DEVICE = os.environ.get("SOL_DEVICE", "cpu")
READS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "masked_select", "_unique2"}
READS |= {"unique_dim", "unique_consecutive", "bincount", "repeat_interleave"}
CLASSIC = ("adam", "lion", "nesterov", "yogi", "adan", "adopt")
REDUCING = ("lamb", "novograd", "adam-mini", "cautious-adamw", "stable-adamw", "mars", "sol-general")
RULES = {name: ZOO[name] for name in (*CLASSIC, *REDUCING)}
RULES["muon"] = UpdateRule.parse("la_o*cd where T = 9")
RULES["polyak"] = UpdateRule.parse("g*min(1, loss*inv0(all_dot(g, g)))*ld where T = 9")
RULES["pull"] = UpdateRule.parse("ad*wu + 0.1*clip(g, 0.1)*pd + 50*pull where T = 9")
UNITS = [("identity", "mul", "exp", "sign"), ("identity", "square")]


class Reads(TorchDispatchMode):
    """Collects the operators that make the host wait for the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in READS or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class Toy:
    """A small network with dropout, or with batch normalisation, which is not trained side by side."""

    name, horizon = "toy", 9

    def __init__(self, device, norm=False):
        self.device, self.vectorizable = device, not norm
        self.middle = nn.BatchNorm1d(8) if norm else nn.Dropout(0.5)
        self.data = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)).to(device)

    def build(self, generator):
        middle = type(self.middle)(8) if isinstance(self.middle, nn.BatchNorm1d) else nn.Dropout(0.5)
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), middle, nn.Linear(8, 3)).to(self.device)

    def batches(self, split, generator):
        while True:
            yield self.data[torch.randint(64, (16,), generator=generator).to(self.device)]

    def loss(self, model, batch):
        return model(batch).square().mean()

    def evaluate(self, model, split):
        return {"loss": float(self.loss(model, self.data))}


@pytest.fixture(autouse=True)
def _known_to_vectorize(monkeypatch):
    """What is found out before the first step, with values."""
    for module in (episodes, optimizees):
        monkeypatch.setattr(module, "vectorizes", lambda task: task.vectorizable)


@pytest.fixture
def meta(monkeypatch):
    """The device without values, for which PyTorch has no autocast."""
    monkeypatch.setattr(Optimizees, "_casting", lambda self: torch.autocast("cpu", enabled=False))
    return torch.device("meta")


@contextmanager
def reads(monkeypatch):
    """Collects where the host waits. Batches are drawn on the host, from generators of the CPU: they do not count."""
    draw = Optimizees.draw

    def drawn(self, split="train"):
        with _disable_current_modes():
            return draw(self, split)

    with monkeypatch.context() as patch, Reads() as mode:
        patch.setattr(Optimizees, "draw", drawn)
        yield mode.found


@contextmanager
def no_reads(monkeypatch):
    """Fails where the host waits."""
    if DEVICE == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        with reads(monkeypatch) as found:
            yield
    finally:
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert found == []


def begun(optimizer):
    """An episode after its first step."""
    steps = run_episodes(Toy(DEVICE), optimizer, 0.01, 0, Stream.TRAIN, range(2))
    for _ in range(2):
        next(steps)
    return steps


@pytest.mark.parametrize("name", RULES)
def test_no_step_of_a_rule_waits_for_the_device(name, monkeypatch):
    steps = begun(RuleOptimizer(RULES[name]))
    with no_reads(monkeypatch):
        for _ in range(5):
            next(steps)


@pytest.mark.parametrize("norm", [False, True])
def test_no_step_of_candidates_waits_for_the_device(norm, monkeypatch):
    rates = torch.tensor([0.01, 0.02])
    values = {"beta1": torch.tensor([0.8, 0.9]), "rise_power": torch.tensor([3.0, 4.0])}

    def count(horizon):
        own = {"splits": (), "horizon": horizon}
        with reads(monkeypatch) as found:
            run_rule(Toy(DEVICE, norm), RULES["pull"], 0, Stream.TRAIN, [0, 1], rates, values, **own)
        return len(found)

    assert count(3) == count(8)


def network(kind):
    generator = torch.Generator().manual_seed(1)
    if kind == "lstm":
        return LSTMNetwork(generator=generator).to(DEVICE)
    return SymbolicNetwork(ZOO["adam"], units=UNITS, generator=generator).to(DEVICE)


@pytest.mark.parametrize("kind", ["eql", "lstm"])
def test_no_step_of_a_network_waits_for_the_device(kind, monkeypatch):
    steps = begun(network(kind).runner())
    with no_reads(monkeypatch):
        for _ in range(5):
            next(steps)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_step_of_meta_training_waits_for_the_device(name, monkeypatch):
    estimator = ESTIMATORS[name](network("eql"), torch.Generator().manual_seed(0))
    estimator.begin(Optimizees(Toy(DEVICE), 0, Stream.TRAIN, range(2), estimator.num_replicas), 0.01, 9)
    estimator.window(1)
    with no_reads(monkeypatch):
        estimator.window(4)


def test_the_count_sees_what_waits():
    with Reads() as mode:
        x = torch.arange(4.0)
        float(x.sum())
        bool((x > 1).any())
        x[x > 1]
        x.nonzero()
        torch.equal(x, x)
    assert mode.found == ["_local_scalar_dense", "_local_scalar_dense", "index", "nonzero", "equal"]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_a_rule_leaves_no_tensor_on_another_device(name, norm, meta):
    *_, (_, trained, _) = run_episodes(
        Toy(meta, norm), RuleOptimizer(RULES[name]), 0.01, 0, Stream.TRAIN, range(1 if norm else 2)
    )
    assert trained.theta.is_meta


@pytest.mark.parametrize("name", ESTIMATORS)
def test_meta_training_leaves_no_tensor_on_another_device(name, meta):
    estimator = ESTIMATORS[name](network("eql").to(meta), torch.Generator().manual_seed(0))
    estimator.begin(Optimizees(Toy(meta), 0, Stream.TRAIN, range(2), estimator.num_replicas), 0.01, 9)
    window = estimator.window(4)
    assert all(part.is_meta for part in window.meta_gradient)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_an_emitted_optimizer_leaves_no_tensor_on_another_device(name, foreach, meta):
    parameters = [nn.Parameter(torch.empty(shape, device=meta)) for shape in ((4, 3), (5,), ())]
    horizon = {"horizon": 9} if RULES[name].needs_horizon else {}
    optimizer = load_optimizer(RULES[name], verify=False)(parameters, lr=0.01, foreach=foreach, **horizon)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        optimizer.step(*((lambda: torch.empty((), device=meta)) for _ in range(name == "polyak")))
    assert all(parameter.is_meta for parameter in parameters)
