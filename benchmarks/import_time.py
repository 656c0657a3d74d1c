"""Time of ``import sol_symbols`` as a multiple of that of ``import sympy``.

    python benchmarks/import_time.py --json benchmarks/import_time.json

Each import runs in a process of its own; both kinds alternate, so that other work on the machine hits both, and the
ratio is that of the medians. Times of the process, including the start of Python, are in seconds of processor time.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from sol_symbols import write_atomically

MODULES = ("sympy", "sol_symbols", "sol_symbols.cli")


def seconds(module):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    times = {module: [] for module in MODULES}
    for _ in range(arguments.rounds + 1):
        for module in MODULES:
            times[module].append(seconds(module))
    medians = {module: statistics.median(values[1:]) for module, values in times.items()}  # the first one fills caches
    record = {
        "versions": {name: metadata.version(name) for name in ("sympy", "numpy", "sol-symbols")},
        "python": sys.version.split()[0],
        "rounds": arguments.rounds,
        "seconds, median": {module: round(value, 3) for module, value in medians.items()},
        "ratio to sympy": {module: round(value / medians["sympy"], 3) for module, value in medians.items()},
    }
    print(json.dumps(record, indent=1))
    if arguments.json:
        write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
