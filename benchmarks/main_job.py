"""The main job measured in a plain PyTorch loop: an emitted file against the tuned panel and constant Adam.

    sol learn mnistnet --out runs/mnistnet
    sol learn mnistnet --seed 1 --out runs/seed1
    python benchmarks/main_job.py runs/mnistnet runs/seed1 --json benchmarks/main_job.json

The loop below shares nothing with the learner but the task's data and initial weights: it imports a run's
``optimizer.py`` as any user would, steps one model at a time, and uses seeds of the evaluation stream, on which nothing
was chosen. The opponents are AdamW, NAdamW, Nesterov momentum, Lion, and Adam at a constant rate, with the settings
that ``panel.py`` found by 240 trainings each, as the PyTorch code that ``sol compare`` prints.

The digits that the task comes with hold 500 for testing. Where a folder with the original files is given (``--data``,
or the variable ``SOL_DATA``), the same trained networks are also tested on MNIST's own 10,000 test images, none of
which is among the digits; they tell the same with less noise.
"""

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sol_export import export_rule
from sol_learner import load_task
from sol_learner.comparing.torch_code import torch_code
from sol_learner.task import Stream, build_optimizee, draw_batches
from sol_symbols import ZOO, UpdateRule, evaluator, resolve_rule, write_atomically

LARGE = "MNIST's test images"
OTHERS = ("learned", "scale-free")
"""Optimizers of ``panel.json`` that are not of the panel."""


def load_class(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("optimizer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, module.__all__[0])


def emitted(rule: UpdateRule) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimizer.py"
        path.write_text(export_rule(rule, "torch"), encoding="utf-8")
        return load_class(path)


def train(task, make, seed, purpose, episode, original=None):
    """Metrics after training with the optimizer, and the scheduler if there is one, that ``make`` gives for a model."""
    model = build_optimizee(task, seed, purpose, episode)
    stream = draw_batches(task, "train", seed, purpose, episode)
    optimizer, scheduler = make(model)
    for _ in range(task.horizon):
        optimizer.zero_grad()
        task.loss(model, next(stream)).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    with torch.no_grad():
        results = {split: task.evaluate(model, split) for split in ("train", "valid", "test")}
        return results | ({LARGE: original.evaluate(model, "test")} if original else {})


def panel(task):
    """The panel's optimizers as functions of a model, from the settings and the code in ``panel.json``."""
    suite = json.loads((Path(__file__).parent / "panel.json").read_text(encoding="utf-8"))
    (comparison,) = (c for c in suite["comparisons"] if c["task"] == task.name)
    made = {}
    for row in comparison["optimizers"]:
        name = row["name"]
        if name not in OTHERS:
            rule = ZOO[name.removesuffix("-constant")]
            made[name] = partial(run_code, torch_code(name, rule, row["settings"], task.horizon))
    return made


def run_code(code: str, model: torch.nn.Module) -> tuple[Any, Any]:
    """The optimizer and the scheduler that the code makes."""
    names: dict[str, Any] = {"model": model}
    exec(code, names)
    return names["optimizer"], names.get("scheduler")


def summary(results):
    return {
        f"{split} {name}": {"mean": statistics.mean(values), "sd": statistics.stdev(values), "values": values}
        for split in results[0]
        for name in ("loss", "accuracy")
        if split != "valid"
        for values in [[result[split][name] for result in results]]
    }


def emitted_difference(task, kind, rule, dtype, steps=50):
    """Largest relative difference of parameters between the emitted file and the rule after each of 50 real steps."""
    model = build_optimizee(task, 0, Stream.EVALUATE, 0).to(dtype)
    stream = draw_batches(task, "train", 0, Stream.EVALUATE, 0)
    optimizer, phi = kind(model.parameters()), evaluator(rule, torch)
    mirror = [p.detach().clone() for p in model.parameters()]
    states, worst = [phi.init(w) for w in mirror], 0.0
    for t in range(1, steps + 1):
        inputs, labels = next(stream)
        optimizer.zero_grad()
        task.loss(model, (inputs.to(dtype), labels)).backward()
        for i, p in enumerate(model.parameters()):
            update, states[i] = phi(p.grad, states[i], mirror[i], t)
            mirror[i] = mirror[i] - rule.lr * update
        optimizer.step()
        for p, w in zip(model.parameters(), mirror):
            worst = max(worst, float((p.detach() - w).abs().max() / w.abs().max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task("mnistnet")
    original = load_task("mnistnet", arguments.data) if arguments.data else None

    def measured(make):
        episodes = range(arguments.seeds)
        return summary([train(task, make, 0, Stream.EVALUATE, episode, original) for episode in episodes])

    opponents = {name: measured(make) for name, make in panel(task).items()}
    best = min(
        (name for name in opponents if name != "adam-constant"), key=lambda n: opponents[n]["train loss"]["mean"]
    )
    record = {"evaluation episodes": arguments.seeds, "opponents": opponents, "best of the panel": best, "runs": []}
    for name, row in opponents.items():
        print(f"{name:<16}", *(f"{m} {row[m]['mean']:.4f} ± {row[m]['sd']:.4f}" for m in row if m.endswith("loss")))
    for folder in arguments.runs:
        run = json.loads((folder / "summary.json").read_text())
        if run["tasks"] != ["mnistnet"]:
            raise SystemExit(f"{folder} was learned on {', '.join(run['tasks'])}, not on mnistnet")
        rule, kind = resolve_rule(str(folder)), load_class(folder / "optimizer.py")
        row = measured(lambda model, kind=kind: (kind(model.parameters()), None))
        row["ratio to the best of the panel"], row["ratio to constant Adam"] = (
            {m: row[m]["mean"] / theirs[m]["mean"] for m in row if m.endswith("loss")}
            for theirs in (opponents[best], opponents["adam-constant"])
        )
        row |= {"rule": run["rule"], "learner seed": run["config"]["seed"], "trainings": run["trainings"]}
        row |= {"seconds of learning": run["seconds"], "versions": run["versions"]}
        row["emitted against rule, largest relative difference in 50 steps"] = {
            str(dtype): emitted_difference(task, kind, rule, dtype) for dtype in (torch.float32, torch.float64)
        }
        record["runs"].append(row)
        print(
            f"learner seed {row['learner seed']}:",
            *(f"{k}: {v}" for k, v in row.items() if "ratio" in k or "differ" in k),
        )
    if arguments.json:
        write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
