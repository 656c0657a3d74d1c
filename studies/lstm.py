"""L2LGD2 and Symbolic L2O on MNISTNET against tuned Adam: final training loss on held-out seeds.

The LSTM is meta-trained by the loop of ``sol learn-lstm``, distilled by that of ``sol distil``, and used as it is;
Symbolic L2O is measured as distilled, and with its coefficients tuned on the task afterwards (its authors' third stage,
here by CMA-ES). Adam gets the best of 18 learning rates on tuning episodes. Evaluation episodes choose nothing.

Sized for two cores: the LSTM sees some episodes of one optimizee, first of 20, then of 50, then of 100 steps; its
authors give it 10,000. An interrupted run goes on where it was.

    OMP_NUM_THREADS=1 python studies/lstm.py --seeds 5
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict
from pathlib import Path

from evidence import paired, save, summary

from sol_learner import (
    Candidates,
    Checkpoints,
    DistilSettings,
    Family,
    Progress,
    RuleOptimizer,
    Task,
    compare,
    distil,
    learn_lstm,
    load_task,
    lstm_config,
    open_progress,
    polish,
    record,
    tune_learning_rate,
)
from sol_symbols import STANDARD, ZOO, UpdateRule

LR = 0.1
CONFIG = lstm_config(
    {"episodes": 90, "horizons": [20, 50, 100], "meta_batch": 1, "validation": 2, "validate_every": 15}
)
SETTINGS = DistilSettings(validation=4)
GENERATIONS, POPULATION = 10, 8


def search(task: Task, rule: UpdateRule, progress: Progress) -> UpdateRule:
    """The rule with its coefficients tuned by CMA-ES, an episode for each candidate."""
    family = Family((task,), (1.0,), CONFIG.objective)
    candidates = Candidates(family, 0, 0, 4)
    values = {name: h.default for name, h in STANDARD.hyperparameters.items() if h.default is not None}
    samples = record(family, RuleOptimizer(ZOO["adam"]), rule.lr, values, STANDARD, 0, candidates.fresh(1), 200)
    settings = {"generations": GENERATIONS, "population": POPULATION, "episodes": 1, "sigma": 0.3, "seed": 0}
    return polish(rule, samples, candidates, progress=progress, **settings).rule


def main(data: Path, seeds: int, out: Path) -> None:
    """Train, distil, tune, compare, write."""
    task, seconds = load_task("mnistnet", data), {}
    family = Family((task,), (1.0,), CONFIG.objective)
    out.mkdir(parents=True, exist_ok=True)
    with open_progress() as progress:
        begun = time.monotonic()
        memory = Checkpoints(out / "checkpoints", {**asdict(CONFIG), "lr": LR}, resume=True)
        trained, training = learn_lstm(task, CONFIG, lr=LR, memory=memory, progress=progress)
        memory.save(force=True)
        seconds["learn"] = memory.elapsed + time.monotonic() - begun
        trained.save(out)
        begun = time.monotonic()
        found = distil(trained, family, SETTINGS, progress)
        seconds["distil"] = time.monotonic() - begun
        begun = time.monotonic()
        tuned = search(task, found[0].rule, progress)
        seconds["tune coefficients"] = time.monotonic() - begun
        entrants = {
            "L2LGD2": str(out),
            "Symbolic L2O": found[0].rule,
            "Symbolic L2O, tuned": tuned,
            "adam": ZOO["adam"],
        }
        rate = tune_learning_rate(task, ZOO["adam"], 0, weight=CONFIG.objective)
        comparison = compare(task, entrants, episodes=seeds, tuned={"adam": rate}, progress=progress)
    losses = {
        contender.name: {split: contender.metric(split, "loss").tolist() for split in ("train", "test")}
        for contender in comparison.contenders
    }
    adam = comparison.contenders[-1]
    print(comparison.table(), flush=True)
    results = {
        "task": task.name,
        "steps": task.horizon,
        "evaluation episodes": seeds,
        "losses": {
            name: {split: {**summary(values), "each": values} for split, values in table.items()}
            for name, table in losses.items()
        },
        "training loss - Adam's": {
            name: paired(table["train"], losses["adam"]["train"]) for name, table in losses.items() if name != "adam"
        },
        "adam": {"lr": adam.lr, "rates tried": adam.tuning},
        "lstm": {
            "lr": LR,
            "config": trained.provenance["config"],
            "validation": [(r["episode"], r["loss"]) for r in training.history if "loss" in r],
            "windows": training.windows,
            "dropped": training.dropped,
        },
        "distilled": {"settings": asdict(SETTINGS), "rules": [formula.record() for formula in found]},
        "tuned": {"rule": str(tuned), "generations": GENERATIONS, "population": POPULATION},
        "seconds": seconds,
    }
    for name, table in results["losses"].items():
        print(f"{name:20} train {table['train']['mean']:.4f} ± {table['train']['std']:.4f}", flush=True)
    save(Path(__file__).with_suffix(".json"), results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ["SOL_DATA"]) if "SOL_DATA" in os.environ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/lstm"))
    arguments = parser.parse_args()
    main(arguments.data, arguments.seeds, arguments.out)
