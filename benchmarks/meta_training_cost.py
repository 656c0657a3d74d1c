"""What first-order meta-training costs, as ratios within one run: time per inner step and memory.

    python benchmarks/meta_training_cost.py --json benchmarks/meta_training_cost.json

One thread. Each case runs in a process of its own (for its peak memory), cases of one comparison take turns, and
medians are compared. "plain" is a loop of zero_grad, backward and ``torch.optim.Adam`` on the same optimizee. The last
table runs one outer step on a digits MLP with the same 3-8-1 network per coordinate in PyTorch's ordinary autograd, in
``higher`` and in ``torchopt``; those that are not installed are left out.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from sol_learner import Optimizees, Purpose, SymbolicNetwork, generator_for, load_task
from sol_learner.estimators import ESTIMATORS
from sol_symbols import ZOO, write_atomically

UNROLL = 20


class Wide:
    """Regression with an MLP of about ``size`` parameters, cheap for its size: batches of 2."""

    horizon = 100

    def __init__(self, size):
        self.name, self.size = f"mlp-{size}", size
        self.width = max(4, int((size / 2) ** 0.5))

    def build(self, generator):
        model = nn.Sequential(nn.Linear(self.width, self.width), nn.Tanh(), nn.Linear(self.width, self.width))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=self.width**-0.5, generator=generator)
        return model

    def batches(self, split, generator):
        while True:
            yield torch.randn(2, self.width, generator=generator)

    def loss(self, model, batch):
        return ((model(batch) - batch) ** 2).mean()

    def evaluate(self, model, split):
        return {"loss": 0.0}


def make_task(name, data):
    if name.startswith("mlp-"):
        return Wide(int(name.removeprefix("mlp-")))
    task = load_task(name, data)
    if name == "convnet-cifar10":
        task.batch_size = 64
    return task


def plain(task, fused):
    """A function that does some steps of plain Adam training."""
    model = task.build(generator_for(0, Purpose.TRAIN, 0, 0)).train()
    stream = task.batches("train", generator_for(0, Purpose.TRAIN, 0, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=fused)

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            task.loss(model, next(stream)).backward()
            optimizer.step()

    return steps


def meta(task, estimator, kernel="eager", coordinates=2048):
    """A function that does windows of meta-training, an outer step after each."""
    network = SymbolicNetwork(ZOO["adam"], generator=torch.Generator().manual_seed(0))
    outer = torch.optim.Adam(network.parameters(), 1e-3)
    estimator = ESTIMATORS[estimator](network, torch.Generator().manual_seed(0), kernel=kernel, coordinates=coordinates)
    estimator.begin(Optimizees(task, 0, Purpose.TRAIN, [0]), 1e-3, task.horizon)

    def steps(count):
        for _ in range(count // UNROLL):
            for parameter, part in zip(network.parameters(), estimator.window(UNROLL).meta_gradient):
                parameter.grad = part
            outer.step()

    return steps


def ordinary(task):
    """Windows differentiated by ordinary autograd through all steps, gradients held constant."""
    network = SymbolicNetwork(ZOO["adam"], generator=torch.Generator().manual_seed(0))
    outer = torch.optim.Adam(network.parameters(), 1e-3)
    base = ESTIMATORS["first-order"](network, torch.Generator().manual_seed(0))
    optimizees = Optimizees(task, 0, Purpose.TRAIN, [0])
    state, t = base.optimizer.begin(optimizees.theta, task.horizon), 1

    def steps(count):
        nonlocal state, t
        for _ in range(count // UNROLL):
            theta, total = optimizees.theta.detach(), 0.0
            state = {name: value.detach() for name, value in state.items()}
            for _ in range(UNROLL):
                optimizees.theta = theta.detach()
                _, gradient = optimizees.losses_and_gradients()
                outputs, state = base.optimizer.features.step(gradient, state, theta.detach(), t, base.optimizer.values)
                theta = theta - 1e-3 * network(torch.stack(outputs))
                t += 1
                total = total + optimizees.losses(theta, optimizees.draw())
            outer.zero_grad()
            (total.sum() / UNROLL).backward()
            outer.step()
            optimizees.theta = theta.detach()

    return steps


CASES = {
    "plain Adam": lambda task: plain(task, False),
    "plain Adam, fused": lambda task: plain(task, True),
    "first-order, compiled": lambda task: meta(task, "first-order", "compiled"),
    "first-order, eager": lambda task: meta(task, "first-order"),
    "exact": lambda task: meta(task, "exact"),
    "ordinary autograd": ordinary,
}


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def worker(connection, name, data, case):
    """Answers each message, a number of steps, with seconds and the peak memory in MB."""
    torch.set_num_threads(1)
    task = make_task(name, data)
    steps = CASES[case](task)
    while (count := connection.recv()) is not None:
        start = time.perf_counter()
        steps(count)
        connection.send((time.perf_counter() - start, peak()))


def compare_cases(name, data, cases, count, rounds):
    """Seconds per step (median of rounds in turns) and peak memory of each case."""
    context = multiprocessing.get_context("spawn")
    rows = {}
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


def meta_batch(rounds=3):
    """Inner steps of an optimizee per second at several meta-batches, vmap against a loop."""
    task, table = load_task("mnistnet"), {}
    for size in (1, 4, 16, 64):
        row = {}
        for vectorizable in (True, False):
            task.vectorizable = vectorizable
            optimizees = Optimizees(task, 0, Purpose.TRAIN, range(size))
            times = []
            for _ in range(rounds + 1):
                start = time.perf_counter()
                for _ in range(10):
                    optimizees.losses_and_gradients()
                times.append(time.perf_counter() - start)
            row["vmap" if vectorizable else "loop"] = 10 * size / statistics.median(times[1:])
        table[size] = row | {"ratio": row["vmap"] / row["loop"]}
        print(f"  B = {size:<3} vmap {row['vmap']:8.0f}  loop {row['loop']:8.0f} steps/s  x{table[size]['ratio']:.2f}")
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of cases: mnistnet, convnet-cifar10, resnet18-cifar10, ...")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record = {"threads": 1, "unroll": UNROLL, "coordinates": 2048, "torch": torch.__version__, "cases": {}}
    plans = {
        "mnistnet": (list(CASES), 100, arguments.rounds),
        "convnet-cifar10": (list(CASES)[:4], UNROLL, arguments.rounds),
        "resnet18-cifar10": (["plain Adam", "first-order, compiled", "first-order, eager"], UNROLL, 1),
        **{
            f"mlp-{size}": (["plain Adam", "first-order, compiled", "first-order, eager"], UNROLL, 3)
            for size in (16_000, 1_000_000, 11_000_000, 25_000_000)
        },
    }
    for name, (cases, count, rounds) in plans.items():
        if arguments.only is None or name in arguments.only:
            record["cases"][name] = tell(name, compare_cases(name, arguments.data, cases, count, rounds))
    if arguments.only is None or "meta-batch" in arguments.only:
        print("\nmnistnet, meta-batch")
        record["meta-batch, inner steps per second"] = meta_batch()
    if arguments.json:
        write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
