"""What each part of the learner earns on MNISTNET: the whole recipe, and the recipe with one part taken away.

    python benchmarks/ablation.py --json benchmarks/ablation.json

Three seeds of the learner. Reported is the rule's final training and test loss over ten seeds of the evaluation stream,
and their ratios to Adam's, tuned on the tuning stream by the objective that the learner uses. Rerun it
with the same file to continue.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sol_learner import LearnConfig, Learner, compare, load_task
from sol_learner.task import Stream, Substream, generator_for
from sol_symbols import ZOO, write_atomically

PARTS: dict[str, dict[str, Any]] = {
    "the whole recipe": {},
    "without the start at Adam": {"random start": True},
    "without meta-training": {"episodes": 0},
    "without a meta-batch (B = 1)": {"meta_batch": 1},
    "without keeping the best": {"validate_every": 0},
    "with gates": {"gates": True},
    "without the search over the library": {"library_generations": 0},
    "without pruning": {"terms": 100},
    "without polishing": {"generations": 0},
}


class RandomStart(Learner):
    """A network of random weights of about the size of the trained ones in place of one that equals Adam."""

    def trainer(self, family, lr):
        trainer = super().trainer(family, lr)
        generator = generator_for(self.config.seed, Stream.TRAIN, 0, Substream.RECORDING)
        with torch.no_grad():
            for parameter in trainer.network.parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        return trainer


def measure(name: str, seed: int) -> dict[str, Any]:
    settings = dict(PARTS[name])
    kind = RandomStart if settings.pop("random start", False) else Learner
    config = LearnConfig(seed=seed, front=False, baselines=(), **settings)
    start = time.monotonic()
    result = kind([load_task("mnistnet")], config).run()
    tuned = replace(ZOO["adam"], lr=result.summary["tuning"]["lr"])
    learned, adam = compare("mnistnet", {"learned": result.rule, "adam": tuned}, seed=seed).optimizers
    row = {"terms": result.rule.complexity.terms, "seconds": time.monotonic() - start, "rule": str(result.rule)}
    for split in ("train", "test"):
        values, base = (who.metric(split, "loss") for who in (learned, adam))
        row[split] = values.tolist()
        row[f"{split}, ratio to adam"] = float(values.mean() / base.mean())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    arguments = parser.parse_args()
    record = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    for seed in arguments.seeds:
        for name in arguments.only:
            rows = record.setdefault(name, {})
            if str(seed) not in rows:
                rows[str(seed)] = measure(name, seed)
                if arguments.json:
                    write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")
            row = rows[str(seed)]
            ratios = [row[f"{split}, ratio to adam"] for split in ("train", "test")]
            print(
                f"seed {seed}  {name:<38} {row['terms']:>3} terms  " + "  ".join(f"{r:.3f}" for r in ratios), flush=True
            )
    print()
    for name, rows in record.items():
        cells = []
        for split in ("train", "test"):
            ratios = [row[f"{split}, ratio to adam"] for row in rows.values()]
            cells.append(f"{split} {statistics.mean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
        print(f"{name:<38} {'  '.join(cells)}")


if __name__ == "__main__":
    main()
