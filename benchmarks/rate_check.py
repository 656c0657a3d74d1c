"""What the check at 1.4 times the rate earns where trainings are few: SIREN, a picture an episode.

    python benchmarks/rate_check.py --json benchmarks/rate_check.json

The settings are those of ``learn_ordinary.py``. For each learner seed, every rule that the search validated trains on
the validation episodes at its own rate, at 1.4 times and at twice the rate, and on a hundred further pictures of the
validation stream. A picture is lost if its loss is more than twenty times the median. Printed is which rule would be
chosen without a check, and by one or three episodes of each, and what it does on the hundred. It needs ``SOL_DATA``. A
repeated call continues.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from generalise_targets import make
from learn_ordinary import SETTINGS

from sol_learner import LearnConfig, Learner
from sol_learner.inner import run_rule
from sol_learner.search.polishing import Polished
from sol_learner.search.validity import failures
from sol_learner.task import Stream
from sol_symbols import UpdateRule, write_atomically

FACTORS = (1.0, 1.4, 2.0)
FURTHER = 100
EPISODES: int = SETTINGS["check_episodes"]
SEED_OF_FURTHER = 77
WEIGHT = LearnConfig().objective


class Watched(Learner):
    """A learner that keeps what it chose from."""

    polished: Polished

    def valid_choice(self, polished: Polished) -> Any:
        self.polished = polished
        return super().valid_choice(polished)


def measured(seed: int) -> list[dict[str, Any]]:
    """The rules of a search, the best first, up to its start: their losses at each rate, and on further pictures."""
    task = make("siren")
    learner = Watched([task], LearnConfig(seed=seed, **SETTINGS))
    learner.run()
    rows = []
    for rule in learner.polished.contenders:
        row: dict[str, Any] = {"rule": str(rule)}
        row |= {f"x {factor:g}": on_pictures(task, rule, seed, factor) for factor in FACTORS}
        found = run_rule(task, rule, SEED_OF_FURTHER, Stream.VALID, range(FURTHER)).objective(WEIGHT)[0]
        rows.append(row | {"median": float(found.median()), "lost": int((found > 20 * found.median()).sum())})
    return rows


def on_pictures(task: Any, rule: UpdateRule, seed: int, factor: float) -> list[float]:
    """Losses on the validation episodes at a multiple of the rule's rate."""
    assert rule.lr is not None
    rule = replace(rule, lr=factor * rule.lr)
    found: list[float] = run_rule(task, rule, seed, Stream.VALID, range(EPISODES)).objective(WEIGHT)[0].tolist()
    return found


def chosen(rows: list[dict[str, Any]], rate: str, episodes: int) -> dict[str, Any]:
    """The first rule that does not fail at the rate, as in the learner."""
    table = {rate: [sum(row[rate][:episodes]) / episodes for row in rows]}
    return min(rows, key=lambda row: len(failures(table, rows.index(row))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[*range(8)], help="of the learner")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for seed in arguments.seeds:
        if str(seed) not in found:
            found[str(seed)] = measured(seed)
            write_atomically(arguments.json, json.dumps(found, indent=1) + "\n")
        rows = found[str(seed)]
        ways = {"no check": rows[0], "the start": rows[-1]}
        ways |= {f"{rate} by {n}": chosen(rows, rate, n) for rate in ("x 1.4", "x 2") for n in (1, EPISODES)}
        shown = (f"{way}: {row['median']:.2e}, {row['lost']} lost" for way, row in ways.items())
        print(f"seed {seed}:", "; ".join(shown), flush=True)


if __name__ == "__main__":
    main()
