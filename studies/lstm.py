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
from dataclasses import asdict, replace
from pathlib import Path

from evidence import paired, save, search, summary

from sol_learner import (
    Checkpoints,
    DistilSettings,
    Family,
    Purpose,
    TrainedLSTM,
    compare,
    distil,
    learn_lstm,
    load_task,
    lstm_config,
    open_progress,
    run_episodes,
)
from sol_symbols import ZOO

LR = 0.1
CONFIG = lstm_config(
    {"episodes": 90, "horizons": [20, 50, 100], "meta_batch": 1, "validation": 2, "validate_every": 15}
)
SETTINGS = DistilSettings(validation=4)
GENERATIONS, POPULATION = 10, 8


def evaluated(task, trained: TrainedLSTM, seeds: int) -> dict[str, list[float]]:
    """Loss after the last step on the training and the test split, of each evaluation episode."""
    runner = trained.network.runner()
    *_, (_, optimizees, _) = run_episodes(task, runner, trained.lr, 0, Purpose.EVALUATE, range(seeds))
    return {split: optimizees.evaluate(split)["loss"][0].tolist() for split in ("train", "test")}


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
        tuned = search(task, found[0].rule, GENERATIONS, POPULATION, progress)
        seconds["tune coefficients"] = time.monotonic() - begun
        rules = {
            "Symbolic L2O": found[0].rule,
            "Symbolic L2O, tuned": tuned.rule,
            "adam": replace(ZOO["adam"], lr=None),
        }
        comparison = compare(task, rules, seed=0, episodes=seeds, progress=progress, objective=CONFIG.objective)
    losses = {"L2LGD2": evaluated(task, trained, seeds)}
    for contender in comparison.contenders:
        losses[contender.name] = {split: contender.metric(split, "loss").tolist() for split in ("train", "test")}
    adam = comparison.contenders[-1]
    print(comparison.table(), flush=True)
    record = {
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
        "tuned": {"rule": str(tuned.rule), "generations": GENERATIONS, "population": POPULATION},
        "seconds": seconds,
    }
    for name, table in record["losses"].items():
        print(f"{name:20} train {table['train']['mean']:.4f} ± {table['train']['std']:.4f}", flush=True)
    save(Path(__file__).with_suffix(".json"), record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ["SOL_DATA"]) if "SOL_DATA" in os.environ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/lstm"))
    arguments = parser.parse_args()
    main(arguments.data, arguments.seeds, arguments.out)
