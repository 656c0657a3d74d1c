"""GAT and JK-Net on citation graphs: a learned rule against tuned Adam, T = 250, full batch, paired over seeds.

Sized for two cores. On Cora and Citeseer a rule is learned for each network and graph, with few episodes (the settings
are in the JSON), and compared over ten seeds. A step on PubMed takes ten times as long: there the rule of the same
network learned on Cora is used, its rate tuned as Adam's is, and the number of seeds is smaller.

Adam is tuned over 9 + 9 rates on the tuning stream, by the mean of training and validation loss after step T, which is
also what rules are chosen by. Evaluation seeds are of a stream of their own; the test nodes choose nothing.

    python studies/graph.py gat-cora jknet-cora gat-citeseer jknet-citeseer
    python studies/graph.py --search gat-cora jknet-cora jknet-citeseer
    python studies/graph.py gat-pubmed --rule studies/graph-gat-cora.json --seeds 3
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import evidence
import torch
from evidence import paired, save, summary

from sol_learner import (
    Clock,
    LearnConfig,
    Learner,
    Progress,
    Task,
    compare,
    load_task,
    open_progress,
    tune_learning_rate,
)
from sol_symbols import ZOO, UpdateRule

CONFIG = LearnConfig(
    tuning_episodes=1,
    episodes=4,
    meta_batch=4,
    unroll=(50,),
    validation=2,
    validate_every=2,
    record_episodes=2,
    front=False,
    terms=6,
    library_generations=8,
    generations=8,
    prune_episodes=1,
    population=8,
    polish_episodes=1,
    evaluation=10,
    baselines=("adam",),
)


TERMS = "0.6*ad + 0.3*cd*ad + 0.05*rs + 0.05*cd*sign(m) + 0.01*w"


def search(task: Task, progress: Progress) -> tuple[UpdateRule, tuple[float, list[tuple[float, float]]]]:
    """The last phase of learning alone: CMA-ES on the coefficients of :data:`TERMS`, and the tuning of Adam.

    Meta-training's loss is that of the training nodes, which a better fit does not generalise from here; CMA-ES
    works on the objective itself, of which the validation nodes are a half.
    """
    tuned = tune_learning_rate(task, ZOO["adam"], CONFIG.seed, 1, coarse=7, fine=5)
    rule = UpdateRule.parse(f"{TERMS} where lr = {tuned[0]}, T = {task.horizon}")
    return evidence.search(task, rule, 10, 8, progress).rule, tuned


def study(name: str, data: Path, given: UpdateRule | None, seeds: int, searching: bool) -> dict[str, object]:
    """Learn (or take ``given``), compare, and say how it went."""
    task, start = load_task(name, data), time.monotonic()
    with open_progress() as progress:
        if searching:
            (rule, tuned), front = search(task, progress), []
            rules = {"learned": rule, "adam": ZOO["adam"]}
            comparison = compare(
                task, rules, seed=CONFIG.seed, episodes=seeds, progress=progress, tuned={"adam": tuned}
            )
        elif given is None:
            result = Learner([task], CONFIG, progress=progress).run()
            rule, comparison, front = result.rule, result.comparisons[0], result.summary["front"]
        else:
            rule, front = given, []
            rates = {
                key: tune_learning_rate(task, value, CONFIG.seed, 1, clock=Clock(), coarse=5, fine=3)
                for key, value in {"learned": UpdateRule(given.expression, given.values), "adam": ZOO["adam"]}.items()
            }
            rule = UpdateRule(given.expression, given.values)
            rules = {"learned": rule, "adam": ZOO["adam"]}
            comparison = compare(task, rules, seed=CONFIG.seed, episodes=seeds, progress=progress, tuned=rates)
    accuracies = {c.name: c.metric("test", "accuracy").tolist() for c in comparison.contenders}
    print(comparison.table(), flush=True)
    difference = paired(accuracies["learned"], accuracies["adam"])
    return {
        "task": name,
        "rule": str(rule),
        "learned on": name if given is None else "given",
        "how": f"CMA-ES on the coefficients of {TERMS}" if searching else "the whole pipeline",
        "config": asdict(CONFIG),
        "test accuracy": {key: summary(values) for key, values in accuracies.items()},
        "learned - adam": difference,
        "goal met (learned better, 95 % interval above 0)": difference["low"] > 0,
        "front": front,
        "seconds": round(time.monotonic() - start, 1),
        "comparison": comparison.record(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--rule", type=Path, help="JSON of this study whose rule is used instead of learning one")
    parser.add_argument("--search", action="store_true", help="skip meta-training: CMA-ES on a few given terms")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rule = UpdateRule.parse(json.loads(arguments.rule.read_text())["rule"]) if arguments.rule else None
    for name in arguments.tasks:
        result = study(name, Path(arguments.data), rule, arguments.seeds, arguments.search)
        suffix = "-search" if arguments.search else ""
        save(Path(__file__).with_name(f"graph-{name}{suffix}.json"), result)
