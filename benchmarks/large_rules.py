"""What a step of a rule costs in a comparison or a search where the model is large: in pieces and whole, in one run.

    OMP_NUM_THREADS=1 python benchmarks/large_rules.py --json benchmarks/large_rules.json

The same steps are taken in turn with pieces that fit into a cache (the default from a million parameters on) and
without; a ratio is the median over the rounds of the processor times. Memory is in huge pages, as under ``sol``.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from sol_symbols import ZOO, Layout, UpdateRule, evaluation, evaluator, write_atomically

RULES = ("adamw", "lion", "sol-elementwise", "sol-general")
Shape = tuple[int, ...]
BLOCK: list[Shape] = [*4 * [(384, 384)], *6 * [(384,)], (1536, 384), (1536,), (384, 1536), (384,)]
MODELS: dict[str, Sequence[Shape]] = {
    **{f"{millions} M in 16 matrices": 16 * [(250 * millions, 250)] for millions in (1, 2, 4)},
    "BERT of 6 layers, 22.7 M": [(30522, 384), (512, 384), *6 * BLOCK, (2, 384), (2,)],
}


def measure(rule: UpdateRule, shapes: Sequence[Shape], rounds: int) -> dict[str, float]:
    """Median milliseconds of a step in pieces and whole, and the median of their ratio."""
    layout = Layout(tuple(shapes))
    generator = torch.Generator().manual_seed(0)
    w = 0.1 * torch.randn(sum(layout.sizes), generator=generator)
    g = torch.randn(w.shape, generator=generator)
    rule = rule.with_horizon(1000) if rule.needs_horizon else rule
    phi = evaluator(rule, torch, hoist=True, layout=layout)
    large, times = evaluation.LARGE, {"pieces": list[float](), "whole": list[float]()}
    state = phi.init(w)
    for t in range(1, rounds + 2):
        for how, limit in (("pieces", 1), ("whole", len(w) + 1)):
            evaluation.LARGE = limit
            start = time.process_time()
            _, after = phi(g, state, w, t)
            times[how].append(time.process_time() - start)
        state = after
    evaluation.LARGE = large
    pieces, whole = (times[how][1:] for how in ("pieces", "whole"))
    return {
        "pieces, ms": 1e3 * statistics.median(pieces),
        "whole, ms": 1e3 * statistics.median(whole),
        "pieces to whole": statistics.median(a / b for a, b in zip(pieces, whole)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    found = {
        model: {name: measure(ZOO[name], shapes, arguments.rounds) for name in RULES}
        for model, shapes in MODELS.items()
    }
    settings = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": arguments.rounds}
    text = json.dumps({"settings": settings, "models": found}, indent=1) + "\n"
    print(text)
    if arguments.json:
        write_atomically(arguments.json, text)


if __name__ == "__main__":
    main()
