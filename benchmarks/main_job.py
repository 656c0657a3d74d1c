"""The main job measured: the emitted file's optimizer against tuned Adam, in a plain PyTorch loop.

    sol learn mnistnet --out runs/mnistnet
    python benchmarks/main_job.py runs/mnistnet --json benchmarks/main_job.json

The loop below shares nothing with the learner but the task's data and initial weights: it imports the run's
``optimizer.py`` as any user would, steps ``torch.optim`` optimizers one model at a time, and uses seeds of the
evaluation stream, on which nothing was chosen. The rule of at most 9 terms is what ``--complexity 9`` takes from the
run's front. Baselines are tuned on the tuning stream: Adam and SGD with momentum over 13 log-spaced learning rates
around the best of a coarse grid, by final training loss and, in a second row, by the mean of training and validation
loss, which is what the learner minimises.

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
from pathlib import Path

import torch

from sol_export import export_rule
from sol_learner import load_task
from sol_learner.task import Stream, build_optimizee, draw_batches
from sol_symbols import evaluator, resolve_rule, write_atomically

LARGE = "MNIST's test images"


def load_class(path):
    spec = importlib.util.spec_from_file_location("optimizer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, module.__all__[0])


def emitted(rule):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimizer.py"
        path.write_text(export_rule(rule, "torch"), encoding="utf-8")
        return load_class(path)


def train(task, make, seed, purpose, episode, original=None):
    model = build_optimizee(task, seed, purpose, episode)
    stream = draw_batches(task, "train", seed, purpose, episode)
    optimizer = make(model.parameters())
    for _ in range(task.horizon):
        optimizer.zero_grad()
        task.loss(model, next(stream)).backward()
        optimizer.step()
    with torch.no_grad():
        results = {split: task.evaluate(model, split) for split in ("train", "valid", "test")}
        return results | ({LARGE: original.evaluate(model, "test")} if original else {})


def losses(results, split):
    return [result[split]["loss"] for result in results]


CRITERIA = {
    "train": lambda results: statistics.mean(losses(results, "train")),
    "train + valid": lambda results: statistics.mean(losses(results, "train") + losses(results, "valid")),
}


def tune(task, kind, center, seed, episodes):
    """The best rate of 13 by each criterion, and all measurements."""
    rates = [center * 10 ** (power / 12) for power in range(-6, 7)]
    measured = {
        rate: [train(task, lambda p, lr=rate: kind(p, lr), seed, Stream.TUNE, e) for e in range(episodes)]
        for rate in rates
    }
    best = {name: min(rates, key=lambda rate: score(measured[rate])) for name, score in CRITERIA.items()}
    table = [[rate, *(score(results) for score in CRITERIA.values())] for rate, results in measured.items()]
    return best, table


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"))
    arguments = parser.parse_args()
    run = json.loads((arguments.run / "summary.json").read_text())
    if run["tasks"] != ["mnistnet"]:
        raise SystemExit(f"{arguments.run} was learned on {', '.join(run['tasks'])}, not on mnistnet")
    task, seed, rule = load_task("mnistnet"), run["config"]["seed"], resolve_rule(str(arguments.run))
    original = load_task("mnistnet", arguments.data) if arguments.data else None
    kind = load_class(arguments.run / "optimizer.py")

    short = resolve_rule(str(arguments.run), complexity=9)
    optimizers, tuning = {"emitted file": kind, "at most 9 terms": emitted(short)}, {}
    baselines = {
        "adam": (lambda p, lr: torch.optim.Adam(p, lr), 0.035),
        "momentum": (lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9), 0.8),
    }
    for name, (make, center) in baselines.items():
        best, tuning[name] = tune(task, make, center, seed, episodes=4)
        for criterion, rate in best.items():
            optimizers[f"{name}, lr {rate:.3g} by {criterion}"] = lambda p, make=make, rate=rate: make(p, rate)
    results = {
        name: summary([train(task, make, seed, Stream.EVALUATE, e, original) for e in range(arguments.seeds)])
        for name, make in optimizers.items()
    }
    ours = results["emitted file"]
    adam = next(row for name, row in results.items() if name.startswith("adam"))
    measures = [name for name in adam if name.endswith(" loss")]
    results["at most 9 terms"]["ratio of it to adam"] = {
        m: results["at most 9 terms"][m]["mean"] / adam[m]["mean"] for m in measures
    }
    print("at most 9 terms / adam:", results["at most 9 terms"]["ratio of it to adam"])
    for name, row in results.items():
        cells = [f"{row[m]['mean']:.4f} ± {row[m]['sd']:.4f}" for m in ("train loss", "test loss", "test accuracy")]
        ratios = [ours[m]["mean"] / row[m]["mean"] for m in measures]
        row["ratio of the emitted file to it"] = dict(zip(measures, ratios))
        print(f"{name:<42} {'  '.join(cells)}   emitted / this: {' '.join(f'{ratio:.3f}' for ratio in ratios)}")
    record = {
        "rule": run["rule"],
        "terms": rule.complexity.terms,
        "rule of at most 9 terms": str(short),
        "seconds of learning": run["seconds"],
        "threads of learning": run["threads"],
        "processes of learning": run["jobs"],
        "versions": run["versions"],
        "seed": seed,
        "evaluation episodes": arguments.seeds,
        "read-out against network, largest relative difference": run["readout"]["error"],
        "emitted against rule, largest relative difference in 50 steps": {
            str(dtype): emitted_difference(task, kind, rule, dtype) for dtype in (torch.float32, torch.float64)
        },
        "tuning (rate, criteria)": tuning,
        "results": results,
    }
    for key in ("terms", "seconds of learning", *(k for k in record if "difference" in k)):
        print(f"{key}: {record[key]}")
    if arguments.json:
        write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
