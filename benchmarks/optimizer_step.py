"""What a step of emitted PyTorch optimizers costs, as ratios within one run: time and memory.

    python benchmarks/optimizer_step.py --json benchmarks/optimizer_step.json

Float32 parameters, 10 and 100 million of them, as one tensor and in the shapes of a ResNet-50 and of a transformer's
matrices whose widths are chosen to have as many. All optimizers work on the same parameters and gradients and take
turns step by step, each round in another order; a ratio is the median over the rounds of a step's time divided by that
of another in the same round.
``to copy`` is the ratio to a memory copy that moves as many bytes as the optimizer must: it reads the parameter, the
gradient and the states, and writes the parameter and the states, once each. Peak memory is what a process needs on
top of parameters and gradients, in floats per parameter; AdamW's two states are 2.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from main_job import emitted

from sol_symbols import ZOO, write_atomically

Shape = tuple[int, ...]
REFERENCE = "torch.optim.AdamW(fused=True)"
# name: states, factory
TORCH = {
    REFERENCE: (2, lambda params: torch.optim.AdamW(params, 1e-6, fused=True)),
    "torch.optim.AdamW(foreach=True)": (2, lambda params: torch.optim.AdamW(params, 1e-6, foreach=True)),
    "torch.optim.Muon()": (1, lambda params: torch.optim.Muon(params, 1e-6)),
}
EMITTED = ["adam", "lion", "cautious-adamw", "lamb", "muon", "normalized-sgd", "sol-general", "sol-mnistnet"]
FLAGS = {"": {}, "fused=True": {"fused": True}}


def optimizers(shapes):
    """Name: number of states and a function that makes the optimizer for given parameters."""
    found: dict[str, tuple[int, Callable[..., Any]]] = dict(TORCH)
    if any(len(shape) != 2 for shape in shapes):
        del found["torch.optim.Muon()"]  # it takes matrices only
    for name in EMITTED:
        rule = ZOO[name]
        horizon = {"horizon": 10_000} if rule.needs_horizon else {}
        kind = emitted(rule)
        for label, flags in FLAGS.items():
            settings = {"lr": 1e-6, **horizon, **flags}
            found[f"emitted {name}({label})"] = (
                len(rule.states),
                lambda params, kind=kind, settings=settings: kind(params, **settings),
            )
    return found


def resnet50(width: int) -> Sequence[Shape]:
    """Shapes of the parameters of a ResNet-50 whose first convolution has ``width`` channels instead of 64."""
    shapes = [(width, 3, 7, 7), (width,), (width,)]
    channels = width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = width * 2**stage
        for block in range(blocks):
            for size in ((inner, channels, 1, 1), (inner, inner, 3, 3), (4 * inner, inner, 1, 1)):
                shapes += [size, size[:1], size[:1]]
            if block == 0:
                shapes += [(4 * inner, channels, 1, 1), (4 * inner,), (4 * inner,)]
            channels = 4 * inner
    return [*shapes, (1000, channels), (1000,)]


def transformer(width: int, layers: int = 12) -> Sequence[Shape]:
    """Shapes of the matrices of a transformer's blocks."""
    return layers * [*4 * [(width, width)], (4 * width, width), (width, 4 * width)]


def count(shapes: Sequence[Shape]) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)


LAYOUTS: dict[str, Callable[[int], Sequence[Shape]]] = {
    "one tensor": lambda size: [(size,)],
    "ResNet-50": lambda size: min(map(resnet50, range(8, 256)), key=lambda shapes: abs(count(shapes) - size)),
    "transformer": lambda size: min(map(transformer, range(8, 2048, 8)), key=lambda shapes: abs(count(shapes) - size)),
}


def parameters(shapes: Sequence[Shape]) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(0.1 * torch.randn(shape, generator=generator)) for shape in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)
    return params


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes: of the processor where there is one thread, so that other processes count little."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    function()
    return clock() - start


def copy_of(moved: int) -> Callable[[], torch.Tensor]:
    """A function that copies memory: ``moved`` bytes, half of them read and half written."""
    source = torch.ones(moved // 8)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def measure(shapes, rounds, warm=3):
    """Median times and ratios of all optimizers on parameters of these shapes."""
    params, size = parameters(shapes), count(shapes)
    table = optimizers(shapes)
    moved = {name: 4 * size * (3 + 2 * states) for name, (states, _) in table.items()}
    turns = {name: make(params).step for name, (_, make) in table.items()}
    turns |= {each: copy_of(each) for each in set(moved.values())}
    compiling = {name: timed(step) for name, step in turns.items() if "emitted" in str(name) and "fused" in name}
    for _ in range(warm):
        for step in turns.values():
            step()
    seconds: dict[str | int, list[float]] = {name: [] for name in turns}
    order = list(turns)
    for _ in range(rounds):
        order.append(order.pop(0))
        for name in order:
            seconds[name].append(timed(turns[name]))

    def ratio(ours: str, theirs: str | int) -> float:
        return statistics.median(a / b for a, b in zip(seconds[ours], seconds[theirs]))

    return {
        name: {
            "ms": 1e3 * statistics.median(seconds[name]),
            "to fused AdamW": ratio(name, REFERENCE),
            "to foreach AdamW": ratio(name, "torch.optim.AdamW(foreach=True)"),
            "to copy": ratio(name, moved[name]),
            "bytes to fused AdamW": moved[name] / moved[REFERENCE],
            **({"first step, s": compiling[name]} if name in compiling else {}),
        }
        for name in table
    }


def peak_worker(connection, name, shapes):
    _, make = optimizers(shapes)[name]
    small = parameters([(200, 200), (50, 1)])  # compiles, and starts what is started once
    optimizer = make(small)
    optimizer.step()
    params = parameters(shapes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = resident("VmRSS")
    optimizer = make(params)
    for _ in range(2):
        optimizer.step()
    connection.send((resident("VmHWM") - before) / 4 / count(shapes))


def resident(field: str) -> int:
    """Bytes of this process in memory, now (``VmRSS``) or at most (``VmHWM``); Linux."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return 1024 * int(line.split()[1])


def peaks(shapes: Sequence[Shape]) -> dict[str, float]:
    """Floats per parameter that each optimizer needs on top of parameters and gradients."""
    context, found = multiprocessing.get_context("spawn"), {}
    for name in optimizers(shapes):
        ours, theirs = context.Pipe()
        process = context.Process(target=peak_worker, args=(theirs, name, shapes))
        process.start()
        theirs.close()
        found[name] = ours.recv()
        process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to add the cases to")
    parser.add_argument("--millions", type=float, nargs="*", default=[10, 100], help="numbers of parameters")
    parser.add_argument("--layouts", nargs="*", default=[*LAYOUTS], choices=LAYOUTS)
    parser.add_argument("--without", nargs="*", default=[], choices=EMITTED, help="rules to leave out")
    parser.add_argument("--what", nargs="*", default=["times", "peaks"], choices=["times", "peaks"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    EMITTED[:] = [name for name in EMITTED if name not in arguments.without]
    cases = json.loads(arguments.json.read_text())["cases"] if arguments.json and arguments.json.exists() else {}
    for millions in arguments.millions:
        for layout in arguments.layouts:
            shapes = LAYOUTS[layout](round(millions * 1e6))
            settings = {"threads": arguments.threads, "rounds": arguments.rounds, "torch": torch.__version__}
            case = cases.setdefault(f"{layout}, {millions:g} M", {"parameters": count(shapes), "optimizers": {}})
            rows = case["optimizers"]
            if "times" in arguments.what:
                case.update(settings)
                for name, row in measure(shapes, arguments.rounds).items():
                    rows.setdefault(name, {}).update(row)
            if "peaks" in arguments.what:
                for name, floats in peaks(shapes).items():
                    rows.setdefault(name, {})["peak floats"] = floats
            print(f"\n{layout}, {count(shapes):,} parameters in {len(shapes)} tensors, {arguments.threads} thread(s)")
            columns = ["ms", "to fused AdamW", "to foreach AdamW", "to copy", "bytes to fused AdamW", "peak floats"]
            print(f"{'':<34}", *(f"{column:>20}" for column in columns))
            for name, row in rows.items():
                print(f"{name:<34}", *(f"{row.get(column, float('nan')):20.3f}" for column in columns), flush=True)
    if arguments.json:
        write_atomically(arguments.json, json.dumps({"cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
