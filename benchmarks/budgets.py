"""Wall time of ``sol learn`` against its budget, and what the plan does with the time.

    python benchmarks/budgets.py --json benchmarks/budgets.json
    python benchmarks/budgets.py --budgets 60

The task is a user's file: a convolutional network on 8 x 8 digits whose training takes about 3 s on one core. The time
is that of the whole command, from its start to its end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits

from sol_learner import from_loaders
from sol_symbols import write_atomically


def digits() -> Any:
    """A network of two convolutions with batch norm, 400 steps with batches of 64."""
    data = load_digits()
    images = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)
    return from_loaders(
        "digits-cnn",
        lambda: torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(512, 10),
        ),
        torch.utils.data.TensorDataset(images, torch.tensor(data.target)),
        loss_fn=torch.nn.functional.cross_entropy,
        steps=400,
    )


def run(budget: float, folder: Path) -> dict[str, Any]:
    task = f"{Path(__file__).resolve()}:digits"
    command = [sys.executable, "-m", "sol_symbols.cli", "learn", task, "--out", folder.name]
    command += ["--budget", f"{budget:g}s"]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent)  # the output names no machine
    seconds = time.monotonic() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    return {"budget": budget, "seconds": round(seconds, 1), "output": (done.stdout + done.stderr).splitlines()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budgets", type=float, nargs="*", default=[60.0, 300.0, 900.0], help="in seconds")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as root:
        for budget in arguments.budgets:
            runs.append(run(budget, Path(root, f"{budget:g}")))
            print(f"budget {budget:g} s: {runs[-1]['seconds']} s", *runs[-1]["output"], sep="\n  ", flush=True)
            if arguments.json:
                record = {"load": [round(x, 2) for x in os.getloadavg()], "runs": runs}
                write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
