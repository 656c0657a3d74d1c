"""Start-up time of ``import sol_symbols``, ``sol --help`` and ``sol tasks`` as multiples of ``import sympy``.

    python benchmarks/import_time.py --json benchmarks/import_time.json

Each statement runs in its own process; the kinds alternate, so that other work on the machine hits both, and the
ratio is that of the medians. Times are wall seconds of the process, the start of Python included.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from sol_symbols import write_atomically

STATEMENTS = {
    "sympy": "import sympy",
    "sol_symbols": "import sol_symbols",
    "UpdateRule and ZOO": "from sol_symbols import ZOO, UpdateRule",
    "Adam read": "from sol_symbols import ZOO, UpdateRule; ZOO['adam']",
    "sol --help": "import sys; from sol_symbols.cli import main; sys.exit(main(['--help']))",
    "sol tasks": "import sys; from sol_symbols.cli import main; sys.exit(main(['tasks']))",
}


def seconds(statement):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    times = {name: [] for name in STATEMENTS}
    for _ in range(arguments.rounds + 1):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement))
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
