"""A run of ``sol learn`` killed with SIGKILL at random moments and resumed, against one that was never interrupted.

    python benchmarks/kill_and_resume.py --kills 20 --json benchmarks/kill_and_resume.json

Both run the same command with a short plan. Compared bit for bit: rule.json, front.json, and summary.json without its
times.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sol_symbols import write_atomically

PLAN = ["--episodes", "4", "--library-generations", "2", "--generations", "2", "--evaluation-episodes", "4"]


def command(folder: Path | str, *more: str) -> list[str]:
    return [sys.executable, "-m", "sol_symbols.cli", "learn", "mnistnet", "--out", str(folder), *PLAN, *more]


def outcome(folder: Path) -> list[Any]:
    summary = json.loads((folder / "summary.json").read_text())
    summary.pop("seconds")
    return [json.loads((folder / name).read_text()) for name in ("rule.json", "front.json")] + [summary]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    moments, root = random.Random(arguments.seed), Path(tempfile.mkdtemp())
    start = time.monotonic()
    subprocess.run(command(root / "whole"), check=True, capture_output=True)
    seconds, reference = time.monotonic() - start, outcome(root / "whole")
    print(f"uninterrupted: {seconds:.0f} s")

    kills: list[float] = []
    equal: list[bool] = []
    runs = 0
    while len(kills) < arguments.kills:
        folder, done = root / f"killed-{runs}", False
        while not done:
            process = subprocess.Popen(command(folder, "--resume"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
            try:
                wait = moments.uniform(2, 0.6 * seconds) if len(kills) < arguments.kills else None
                done = process.wait(wait) == 0
            except subprocess.TimeoutExpired:
                assert wait is not None
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills.append(round(wait, 2))
                print(f"killed after {wait:.1f} s of run {runs}")
            else:
                if not done:
                    assert process.stderr is not None
                    message = process.stderr.read().decode()
                    if "it is finished" not in message:  # killed after its last file and before its end
                        raise SystemExit(message)
                    done = True
        equal.append(outcome(folder) == reference)
        runs += 1
        print(f"run {runs}: {'identical' if equal[-1] else 'DIFFERENT'}")
    shutil.rmtree(root)
    record = {"command": " ".join(command("DIR")[3:]), "kills after seconds": kills, "identical": equal}
    if arguments.json:
        write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")
    raise SystemExit(0 if all(equal) else 1)


if __name__ == "__main__":
    main()
