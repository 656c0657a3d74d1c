"""Time to import sol-symbols, and to use its parts, as a multiple of the time of ``import sympy``.

    python benchmarks/import_time.py --json benchmarks/import_time.json

``sol_symbols`` imports its modules at first use, so the import alone says little: the other rows use it. Each statement
runs in a fresh process. The statements alternate, because other work on the machine then affects all of them, and the
ratio is that of the medians. Times are seconds of processor time of the process, including the start of Python.
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

STATEMENTS = (
    "import sympy",
    "import sol_symbols",
    "import sol_symbols.cli",
    "from sol_symbols import UpdateRule, evaluator",
    "from sol_symbols import UpdateRule; UpdateRule.parse('ad')",
    "from sol_symbols import *",
)


def seconds(statement: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(arguments.rounds + 1):
        for statement in STATEMENTS:
            times[statement].append(seconds(statement))
    medians = {
        statement: statistics.median(values[1:]) for statement, values in times.items()
    }  # the first fills caches
    record = {
        "versions": {name: metadata.version(name) for name in ("sympy", "numpy", "sol-symbols")},
        "python": sys.version.split()[0],
        "rounds": arguments.rounds,
        "seconds, median": {statement: round(value, 3) for statement, value in medians.items()},
        "ratio to sympy": {
            statement: round(value / medians["import sympy"], 3) for statement, value in medians.items()
        },
    }
    print(json.dumps(record, indent=1))
    if arguments.json:
        write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
