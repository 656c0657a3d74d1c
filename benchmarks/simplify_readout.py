"""How long it takes to simplify a large read-out: 14 features, two layers of 10 units, 30 % of the weights not zero.

    python benchmarks/simplify_readout.py --json benchmarks/simplify_readout.json

Ten random networks; CPU seconds of reading the formula out, of ``simplify`` and of ``simplify`` with constants rounded
to three digits, nodes before and after, and the largest relative change of values that the proof found.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from sol_learner.networks import SymbolicNetwork
from sol_symbols import ZOO, simplify, write_atomically

LAYER = ("identity*2", "square", "mul*4", "sign*2", "exp")


def random_network(seed, density=0.3):
    generator = torch.Generator().manual_seed(seed)
    network = SymbolicNetwork(ZOO["adam"], units=(LAYER, LAYER), generator=generator)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
            weight.mul_(torch.rand(weight.shape, generator=generator) < density)
    return network


def timed(function, *arguments):
    start = time.process_time()
    return function(*arguments), time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--networks", type=int, default=10)
    arguments = parser.parse_args()
    simplify(ZOO["adam"])  # imports
    rows = []
    for seed in range(arguments.networks):
        network = random_network(seed)
        rule, reading = timed(network.rule, 0.01, 100)
        exact, simplifying = timed(simplify, rule)
        rounded, rounding = timed(simplify, rule, 3)
        rows.append(
            {
                "nodes": rule.complexity.nodes,
                "nodes after": exact.rule.complexity.nodes,
                "seconds, read-out": reading,
                "seconds, simplify": simplifying,
                "seconds, simplify with 3 digits": rounding,
                "change": exact.change,
                "change with 3 digits": rounded.change,
            }
        )
        print("  ".join(f"{name} {value:.3g}" for name, value in rows[-1].items()))
    for name in ("seconds, read-out", "seconds, simplify", "seconds, simplify with 3 digits"):
        values = [row[name] for row in rows]
        print(f"{name}: median {statistics.median(values):.2f}, largest {max(values):.2f}")
    if arguments.json:
        write_atomically(arguments.json, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
