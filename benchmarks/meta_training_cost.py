"""What first-order meta-training costs, as ratios within one run: time per inner step and memory.

    python benchmarks/meta_training_cost.py --json benchmarks/meta_training_cost.json

One thread. Each case runs in a separate process (for its peak memory), cases of one comparison take turns, and
medians are compared. "plain" is a loop of zero_grad, backward and ``torch.optim.Adam`` on the same optimizee. The last
table takes outer steps with a network of 3 features, 8 units and 1 output per coordinate on a digits MLP (64-32-10,
batches of 128, U = 20), by this project's estimators, by PyTorch's ordinary autograd, by ``higher`` and by ``torchopt``
(both second-order by nature; ``pip install higher torchopt`` first, those that are not there are left out).
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sol_learner import load_task
from sol_learner.estimators import ESTIMATORS
from sol_learner.inner import Optimizees
from sol_learner.networks import SymbolicNetwork
from sol_learner.task import Stream, build_optimizee, draw_batches
from sol_symbols import ZOO, write_atomically

UNROLL = 20


class Wide:
    """Regression with an MLP of about ``size`` parameters, cheap for its size: batches of 2."""

    horizon = 100

    def __init__(self, size: int) -> None:
        self.name, self.size = f"mlp-{size}", size
        self.width = max(4, int((size / 2) ** 0.5))

    def build(self, generator: torch.Generator) -> nn.Module:
        model = nn.Sequential(nn.Linear(self.width, self.width), nn.Tanh(), nn.Linear(self.width, self.width))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=self.width**-0.5, generator=generator)
        return model

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Any]:
        while True:
            yield torch.randn(2, self.width, generator=generator)

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return ((model(batch) - batch) ** 2).mean()

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        return {"loss": 0.0}


def make_task(name, data):
    if name == "digits":
        return Digits()
    if name.startswith("mlp-"):
        return Wide(int(name.removeprefix("mlp-")))
    task: Any = load_task(name, data)
    if name == "convnet-cifar10":
        task.batch_size = 64
    return task


def plain(task, fused):
    """A function that does some steps of plain Adam training."""
    model = build_optimizee(task, 0, Stream.TRAIN, 0).train()
    stream = draw_batches(task, "train", 0, Stream.TRAIN, 0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=fused)

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            task.loss(model, next(stream)).backward()
            optimizer.step()

    return steps


def large_network() -> SymbolicNetwork:
    """The default one: 14 features, 8 units."""
    return SymbolicNetwork(ZOO["adam"], generator=torch.Generator().manual_seed(0))


@dataclass
class Windows:
    """A function that does windows of meta-training, and the network that it trains."""

    steps: Callable[[int], None]
    network: SymbolicNetwork

    def __call__(self, count: int) -> None:
        self.steps(count)


def meta(task, estimator, kernel="eager", coordinates=2048, network=None):
    """A function that does windows of meta-training, an outer step after each."""
    network = network or large_network()
    outer = torch.optim.Adam(network.parameters(), 1e-3)
    own = {"coordinates": coordinates} if estimator == "first-order" else {}
    estimator = ESTIMATORS[estimator](network, torch.Generator().manual_seed(0), kernel=kernel, **own)
    estimator.begin(Optimizees(task, 0, Stream.TRAIN, [0]), 1e-3, task.horizon)

    def steps(count: int) -> None:
        for _ in range(count // UNROLL):
            for parameter, part in zip(network.parameters(), estimator.window(UNROLL).meta_gradient):
                parameter.grad = part
            outer.step()

    return Windows(steps, network)


def small_network() -> SymbolicNetwork:
    """Features, 8 units, output; 3-8-1 with the features below."""
    units = ("identity", "tanh*7")
    return SymbolicNetwork(ZOO["adam"], ("g", "m_hat", "ad"), (units,), generator=torch.Generator().manual_seed(0))


class Digits:
    """The 8 x 8 digits of scikit-learn with an MLP 64-32-10."""

    name, horizon = "digits", 100

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        self.images, self.labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)

    def build(self, generator: torch.Generator) -> nn.Module:
        model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)
        return model

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Any]:
        while True:
            chosen = torch.randint(len(self.labels), (128,), generator=generator)
            yield self.images.index_select(0, chosen), self.labels.index_select(0, chosen)

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        return {"loss": 0.0}


def differentiated(task, second_order, network):
    """Windows differentiated by ordinary autograd through all steps; gradients held constant unless second-order."""
    outer = torch.optim.Adam(network.parameters(), 1e-3)
    runner = network.runner()
    optimizees = Optimizees(task, 0, Stream.TRAIN, [0])
    theta, t = optimizees.theta, 1
    state = runner.begin(theta, task.horizon)

    def steps(count: int) -> None:
        nonlocal theta, state, t
        for _ in range(count // UNROLL):
            theta, state = theta.detach(), {name: value.detach() for name, value in state.items()}
            theta.requires_grad_()
            total: Any = 0.0
            loss = optimizees.losses(theta, optimizees.draw())
            for _ in range(UNROLL):
                (gradient,) = torch.autograd.grad(loss.sum(), theta, create_graph=second_order, retain_graph=True)
                phi, state = runner.differentiable_step(gradient, state, theta, t)
                theta = theta - 1e-3 * phi
                t += 1
                loss = optimizees.losses(theta, optimizees.draw())
                total = total + loss
            outer.zero_grad()
            (total.sum() / UNROLL).backward()
            outer.step()

    return Windows(steps, network)


def with_higher(task):
    """The same rule as a differentiable optimizer of ``higher``."""
    import higher

    network = small_network()
    outer = torch.optim.Adam(network.parameters(), 1e-3)
    runner = network.runner()
    runner.begin(torch.zeros(1), task.horizon)

    class Rule(torch.optim.SGD):
        pass

    class DifferentiableRule(higher.optim.DifferentiableOptimizer):
        def _update(self, grouped_grads, **kwargs):
            for index, (group, gradients) in enumerate(zip(self.param_groups, grouped_grads)):
                for place, (p, g) in enumerate(zip(group["params"], gradients)):
                    slot = self.state[index][place]
                    state = slot.get("state") or runner.begin(p, task.horizon)
                    slot["t"] = slot.get("t", 0) + 1
                    phi, slot["state"] = runner.differentiable_step(g, state, p, slot["t"])
                    group["params"][place] = p - group["lr"] * phi

    higher.register_optim(Rule, DifferentiableRule)
    model = build_optimizee(task, 0, Stream.TRAIN, 0).train()
    stream = draw_batches(task, "train", 0, Stream.TRAIN, 0)

    def steps(count: int) -> None:
        for _ in range(count // UNROLL):
            outer.zero_grad()
            with higher.innerloop_ctx(model, Rule(model.parameters(), 1e-3)) as (functional, inner):
                total: Any = 0.0
                loss = task.loss(functional, next(stream))
                for _ in range(UNROLL):
                    inner.step(loss)
                    loss = task.loss(functional, next(stream))
                    total = total + loss
                (total / UNROLL).backward()
                outer.step()

    return Windows(steps, network)


def with_torchopt(task):
    """The same rule as a gradient transformation of ``torchopt``."""
    import torchopt

    network = small_network()
    outer = torch.optim.Adam(network.parameters(), 1e-3)
    runner = network.runner()
    runner.begin(torch.zeros(1), task.horizon)

    def init(params):
        return 0, torchopt.pytree.tree_map(lambda p: tuple(runner.begin(p, task.horizon).items()), params)

    def update(updates, state, *, params=None, inplace=True):
        t, rows = state[0] + 1, []
        leaves, structure = torchopt.pytree.tree_flatten(updates)
        kept = structure.flatten_up_to(state[1])
        for gradient, old in zip(leaves, kept):
            phi, new = runner.differentiable_step(gradient, dict(old), gradient, t)
            rows.append((-1e-3 * phi, tuple(new.items())))
        moves, states = (structure.unflatten(column) for column in zip(*rows))
        return moves, (t, states)

    model = build_optimizee(task, 0, Stream.TRAIN, 0).train()
    stream = draw_batches(task, "train", 0, Stream.TRAIN, 0)
    inner = torchopt.MetaOptimizer(model, torchopt.base.GradientTransformation(init, update))

    def steps(count: int) -> None:
        for _ in range(count // UNROLL):
            outer.zero_grad()
            total: Any = 0.0
            loss = task.loss(model, next(stream))
            for _ in range(UNROLL):
                inner.step(loss)
                loss = task.loss(model, next(stream))
                total = total + loss
            (total / UNROLL).backward()
            outer.step()
            torchopt.stop_gradient(model)
            torchopt.stop_gradient(inner)

    return Windows(steps, network)


CASES = {
    "plain Adam": lambda task: plain(task, False),
    "plain Adam, fused": lambda task: plain(task, True),
    "first-order, compiled": lambda task: meta(task, "first-order", "compiled"),
    "first-order, eager": lambda task: meta(task, "first-order"),
    "exact": lambda task: meta(task, "exact"),
    "ordinary autograd": lambda task: differentiated(task, False, large_network()),
}
FIRST = ["plain Adam", "first-order, compiled", "first-order, eager"]  # all that fits into memory when it is large
SMALL = {
    "first-order": lambda task: meta(task, "first-order", coordinates=10**9, network=small_network()),
    "first-order, compiled": lambda task: meta(task, "first-order", "compiled", 10**9, small_network()),
    "ordinary autograd": lambda task: differentiated(task, False, small_network()),
    "exact": lambda task: meta(task, "exact", network=small_network()),
    "ordinary autograd, second-order": lambda task: differentiated(task, True, small_network()),
    "higher": with_higher,
    "torchopt": with_torchopt,
}


def disagreement(task, cases):
    """How far the first meta-gradients of cases that estimate one quantity are apart, relative to its norm."""
    gradients = {}
    for case in cases:
        steps = SMALL[case](task)
        steps(UNROLL)
        gradients[case] = torch.cat([p.grad.flatten() for p in steps.network.parameters()])
    kinds = [cases[: cases.index("exact")], cases[cases.index("exact") :]]
    return {
        case: float((gradients[case] - gradients[kind[0]]).norm() / gradients[kind[0]].norm())
        for kind in kinds
        for case in kind
    }


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def worker(connection, name, data, case):
    """Answers each message, a number of steps, with seconds and the peak memory in MB."""
    torch.set_num_threads(1)
    task = make_task(name, data)
    steps = (SMALL if name == "digits" else CASES)[case](task)
    while (count := connection.recv()) is not None:
        start = time.perf_counter()
        steps(count)
        connection.send((time.perf_counter() - start, peak()))


def compare_cases(name, data, cases, count, rounds):
    """Seconds per step (median of rounds in turns) and peak memory of each case."""
    context = multiprocessing.get_context("spawn")
    rows: dict[str, list[tuple[float, float]]] = {}
    workers = {}
    for case in cases:
        ours, theirs = context.Pipe()
        process = context.Process(target=worker, args=(theirs, name, data, case), daemon=True)
        process.start()
        ours.send(count)
        ours.recv()  # warm-up: compilation, caches
        workers[case] = (process, ours)
        rows[case] = []
    for _ in range(rounds):
        for case, (_, pipe) in workers.items():
            pipe.send(count)
            rows[case].append(pipe.recv())
    for process, pipe in workers.values():
        pipe.send(None)
        process.join()
    return {
        case: {"ms per step": 1e3 * statistics.median(s for s, _ in measured) / count, "peak MB": measured[-1][1]}
        for case, measured in rows.items()
    }


def tell(title, rows):
    base = next(iter(rows.values()))
    print(f"\n{title}")
    for case, row in rows.items():
        row["ratio"] = row["ms per step"] / base["ms per step"]
        row["extra MB"] = row["peak MB"] - base["peak MB"]
        print(f"  {case:<24} {row['ms per step']:9.2f} ms a step  x{row['ratio']:5.2f}  {row['extra MB']:+8.0f} MB")
    return rows


def meta_batch(rounds=5):
    """Inner steps of one optimizee per second at several meta-batches.

    "meta-training" is whole windows of first-order meta-training: a meta-batch by vmap, against as many optimizees one
    after another. "gradients" is only the optimizees' losses and gradients, by vmap and in a loop. The two take turns.
    """
    table: dict[int, Any] = {}
    for size in (1, 4, 16, 64):
        table[size] = {}
        for what, cases in (("meta-training", windows_at(size)), ("gradients", gradients_at(size))):
            seconds: dict[str, list[float]] = {name: [] for name in cases}
            for _ in range(rounds + 1):
                for name, steps in cases.items():
                    start = time.perf_counter()
                    steps()
                    seconds[name].append(time.perf_counter() - start)
            row = {name: UNROLL * size / statistics.median(times[1:]) for name, times in seconds.items()}
            row["ratio"] = statistics.median(a / b for a, b in zip(seconds["loop"][1:], seconds["vmap"][1:]))
            table[size][what] = row
            rates = f"vmap {row['vmap']:7.0f}  loop {row['loop']:7.0f} steps/s  x{row['ratio']:.2f}"
            print(f"  B = {size:<3} {what:<14} {rates}")
    return table


def windows_at(size):
    task, network = load_task("mnistnet"), large_network()

    def estimator(episodes):
        made = ESTIMATORS["first-order"](network, torch.Generator().manual_seed(0), kernel="compiled")
        made.begin(Optimizees(task, 0, Stream.TRAIN, episodes), 1e-3, task.horizon)
        return made

    together, alone = estimator(range(size)), [estimator([episode]) for episode in range(size)]
    return {
        "vmap": lambda: together.window(UNROLL),
        "loop": lambda: [each.window(UNROLL) for each in alone],
    }


def gradients_at(size):
    made = {}
    for name, vectorizable in (("vmap", True), ("loop", False)):
        task: Any = load_task("mnistnet")
        task.vectorizable = vectorizable
        made[name] = Optimizees(task, 0, Stream.TRAIN, range(size))
    return {name: lambda o=o: [o.losses_and_gradients() for _ in range(UNROLL)] for name, o in made.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of cases: mnistnet, convnet-cifar10, resnet18-cifar10, ...")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {"threads": 1, "unroll": UNROLL, "coordinates": 2048}
    record |= {"torch": torch.__version__, "cases": {}}
    if arguments.json and arguments.json.exists():  # parts can be measured one by one
        record |= json.loads(arguments.json.read_text())
    plans = {
        "mnistnet": (list(CASES), 100, arguments.rounds),
        "convnet-cifar10": (list(CASES)[:4], UNROLL, arguments.rounds),
        "resnet18-cifar10": (FIRST, UNROLL, 1),
        **{f"mlp-{size}": ([*FIRST, "ordinary autograd"], UNROLL, 3) for size in (16_000, 1_000_000)},
        **{f"mlp-{size}": (FIRST, UNROLL, 3) for size in (11_000_000, 25_000_000)},
        "digits": ([c for c in SMALL if importlib.util.find_spec(c) or c not in ("higher", "torchopt")], 100, 5),
    }

    def write() -> None:
        if arguments.json:
            write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")

    for name, (cases, count, rounds) in plans.items():
        if arguments.only is None or name in arguments.only:
            record["cases"][name] = tell(name, compare_cases(name, arguments.data, cases, count, rounds))
            write()
    if arguments.only is None or "digits" in arguments.only:
        apart = disagreement(Digits(), list(record["cases"]["digits"]))
        print("  first meta-gradients, relative difference:", {case: float(f"{d:.1g}") for case, d in apart.items()})
        record["first meta-gradients on digits, relative difference"] = apart
    if arguments.only is None or "meta-batch" in arguments.only:
        print("\nmnistnet, meta-batch")
        record["meta-batch, inner steps per second"] = meta_batch()
    write()


if __name__ == "__main__":
    main()
