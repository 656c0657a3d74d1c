"""Rules on trainings that they were not learned on, against the best of the panel, tuned on each.

    python benchmarks/generalise.py --json benchmarks/generalise.json --picture docs/generalise.png
    python benchmarks/generalise.py runs/mnistnet --targets relu siren
    python benchmarks/generalise.py sol-fits --panel-of benchmarks/generalise.json --json generalise_fits.json

Each rule is used as it is and, as ``RULE x``, with the best of five learning rates, by one training each. ``sol tune``
is the best of sol-general and sol-fits, each at five rates, and then with more and more weight decay, as this command
chooses it, by one training and by three trainings for each. AdamW, NAdamW, Nesterov momentum and Lion are tuned on each
target, with schedule, warm-up and weight decay. All optimizers train on ten held-out seeds. A ratio is that of mean
final losses to the one of the panel with the lowest training loss.

The targets are in ``generalise_targets.py``; some need ``SOL_DATA``. Rerun it with the same store to continue.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
from generalise_targets import GROUPS, TARGETS, make

from sol_learner import Recipe, Workers
from sol_learner.comparing import PANEL, compare
from sol_learner.inner import choose_rule, nearby
from sol_symbols import ZOO, SolError, UpdateRule, resolve_rule, write_atomically

EXPENSIVE = {"text-transformer": 48, "siren": 48, "autoencoder": 48, "burgers": 32, "cifar10-cnn": 24}
"""Trainings of each optimizer of the panel, where fewer than by default."""

LEAST = 0.05
"""Smaller ratios count as this in means and in the picture: a training loss can be 0."""


TUNED = {"sol tune": 1, "sol tune --seeds 3": 3}
"""Names of the shipped rule that is chosen with its rate and weight decay, and the trainings for each of these."""


def optimizers_for(task, rules, tune):
    """Each rule as it is and with its rate chosen, and what the choice measured."""
    optimizers: dict[str, UpdateRule] = {}
    chosen: dict[str, Any] = {}
    for name, rule in rules.items():
        optimizers[name] = rule
        try:
            chosen[name] = [[one.lr, loss] for one, loss in choose_rule(task, nearby(rule))]
        except SolError as error:  # no rate is finite
            chosen[name] = [[rule.lr, str(error)]]
        optimizers[f"{name} x"] = replace(rule, lr=chosen[name][0][0])
    if tune:
        for name, seeds in TUNED.items():
            measured = choose_rule(task, episodes=seeds, decays=True)
            optimizers[name] = measured[0][0].with_horizon(task.horizon)
            chosen[name] = [[rule.name, rule.lr, rule.values.get("wd", 0.0), loss] for rule, loss in measured]
    return optimizers, chosen


def row(comparison, rules, known):
    """Losses and ratios of one target; ``known`` is an earlier one that has the panel."""
    losses: dict[str, Any] = {name: known["losses"][name] for name in PANEL} if known else {}
    for optimizer in comparison.optimizers:
        found = {kind: optimizer.quantities(None).get(f"{kind} loss") for kind in ("train", "test")}
        losses[optimizer.name] = {kind: None if x is None else [float(v) for v in x] for kind, x in found.items()}
    means = {name: numpy.mean(both["train"]) for name, both in losses.items() if name in PANEL}
    best = min(means, key=lambda name: means[name] if numpy.isfinite(means[name]) else numpy.inf)
    ratios = {
        name: {kind: ratio(losses[name][kind], losses[best][kind]) for kind in ("train", "test")} for name in rules
    }
    settings = {name: known["settings"][name] for name in PANEL} if known else {}
    settings |= {o.name: dict(o.settings) for o in comparison.optimizers}
    return {"best": best, "ratios": ratios, "losses": losses, "settings": settings, "steps": comparison.horizon}


def ratio(a: list[float] | None, b: list[float] | None) -> float | None:
    """Ratio of means; infinite if a run is lost."""
    if a is None or b is None:
        return None
    value = float(numpy.mean(a) / numpy.mean(b))
    return value if numpy.isfinite(value) else float("inf")


def geometric(rows, name, kind="train"):
    values = [max(r["ratios"][name][kind], LEAST) for r in rows if r["ratios"][name][kind] is not None]
    return float(numpy.exp(numpy.mean(numpy.log(values)))) if values else float("nan")


def table(rows, names):
    lines = [f"{'target':<20}{'best':<10}" + "".join(f"{name[-18:]:>20}" for name in names)]
    for target, record in rows.items():
        cells = [f"{record['ratios'][n]['train']:.2f} / {record['ratios'][n]['test']:.2f}" for n in names]
        lines.append(f"{target:<20}{record['best']:<10}" + "".join(f"{cell:>20}" for cell in cells))
    for group, members in {**GROUPS, "sixteen": GROUPS["family"] + GROUPS["far"], "all": TARGETS}.items():
        some = [rows[target] for target in members if target in rows]
        if some:
            cells = []
            for name in names:
                worst = max(r["ratios"][name]["train"] for r in some)
                cells.append(f"{geometric(some, name):.2f} / {geometric(some, name, 'test'):.2f} ({worst:.2f})")
            lines.append(f"{group + ', ' + str(len(some)):<30}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines) + "\ntraining / held-out loss over the best of the tuned panel; in brackets the worst"


def picture(rows, names, path):
    """A dot for each target."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    order = [target for target in TARGETS if target in rows]
    figure, axes = pyplot.subplots(figsize=(7, 0.24 * len(order) + 1.2))
    for name, marker in zip(names, "o^sD"):
        values = [min(max(rows[target]["ratios"][name]["train"], LEAST), 4) for target in order]
        counted = f"{name}, {11 * TUNED[name]} trainings or more" if name in TUNED else name
        label = counted.replace(" x", ", rate chosen from five")
        axes.plot(values, range(len(order)), marker, label=label, alpha=0.8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    ticks = [0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 4]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks[:-1]] + ["4 or more"])
    axes.minorticks_off()
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.set_xlabel("training loss over that of the best tuned AdamW, NAdamW, Nesterov or Lion")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rules", nargs="*", help="zoo names, run folders, files; default sol-general")
    parser.add_argument("--tune", action="store_true", help="also the shipped rule and rate that sol tune chooses")
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trainings", type=int, default=120)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--store", type=Path, default=Path("runs/generalise.sqlite"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--panel-of", type=Path, help="JSON of an earlier run with the panel, which is not run again")
    parser.add_argument("--panel-only", action="store_true", help="tune the panel, for a later run")
    arguments = parser.parse_args()
    arguments.store.parent.mkdir(parents=True, exist_ok=True)
    names = [] if arguments.panel_only else arguments.rules or ["sol-general"]
    tune = arguments.tune or not (arguments.rules or arguments.panel_only)
    rules = {name: ZOO[name] if name in ZOO else resolve_rule(name) for name in names}
    workers, rows = Workers(arguments.jobs), {}
    known = json.loads(arguments.panel_of.read_text())["targets"] if arguments.panel_of else {}
    for target in arguments.targets:
        start = time.monotonic()
        task = make(target)
        optimizers, chosen = optimizers_for(task, {n: r.with_horizon(task.horizon) for n, r in rules.items()}, tune)
        comparison = compare(
            Recipe(make, (target,)),
            {**optimizers, **({} if known else {name: name for name in PANEL})},
            episodes=arguments.seeds,
            trainings=min(arguments.trainings, EXPENSIVE.get(target, arguments.trainings)),
            store=arguments.store,
            workers=workers,
        )
        rows[target] = {**row(comparison, optimizers, known.get(target)), "rates": chosen}
        shown = {n: f"{r['train']:.2f}/{r['test']:.2f}" for n, r in rows[target]["ratios"].items()}
        print(f"{target}: {rows[target]['best']}, {time.monotonic() - start:.0f} s", shown, flush=True)
        if arguments.json:
            record = {"rules": {name: str(rule) for name, rule in rules.items()}, "targets": rows}
            write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")
    workers.close()
    if rules:
        print(table(rows, [*optimizers]))
        if arguments.picture:
            names = [name for name in optimizers if not (tune and (name.endswith(" x") or "--" in name))]
            picture(rows, names, arguments.picture)


if __name__ == "__main__":
    main()
