"""GAT and JK-Net on citation graphs: a learned rule against tuned Adam and AdamW, T = 250, full batch, paired by seed.

Everything is chosen by the loss of the validation nodes after step T: rates, AdamW's weight decay, rules. The penalty
5e-4/2 |theta|^2 of the published settings is in the training loss of all contenders. Test nodes and evaluation seeds
choose nothing.

A rule is learned for each network on Cora, with few episodes and a library of eight terms (sized for two cores; the
settings are in the JSON). ``--rule`` takes it to another graph, where its rate is tuned as Adam's is.

    python studies/graph.py gat-cora jknet-cora
    python studies/graph.py gat-citeseer --rule studies/graph-gat-cora.json
    python studies/graph.py gat-pubmed --rule studies/graph-gat-cora.json --seeds 3
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from evidence import HERE, learn, memory, results, save, tune

from sol_learner import LearnConfig, compare, load_task, open_progress
from sol_symbols import UpdateRule

CONFIG = LearnConfig(
    objective=0.0,
    outer_split="valid",
    tuning_episodes=1,
    episodes=2,
    meta_batch=2,
    validation=2,
    validate_every=2,
    record_episodes=1,
    directions=("ad", "rs", "sign(m)", "w"),
    decays=("1", "cd"),
    own_terms=0,
    library_generations=7,
    population=8,
    polish_episodes=1,
    terms=8,
    generations=0,
    front=False,
    evaluation=1,
    baselines=(),
)
DECAYS = (0.03, 0.3, 1.0)
GRID = {"coarse": 5, "fine": 5}


def study(name: str, data: Path, given: Path | None, seeds: int) -> dict[str, object]:
    """Learn (or take ``given``), tune, compare, and say how it went."""
    task = load_task(name, data)
    kept = memory(f"graph-{name}", rule=str(given), config=asdict(CONFIG))
    if given is None:
        learning = learn(task, CONFIG, kept)
        rule, tuned = UpdateRule.parse(learning["rule"]), {}
        adam = learning["tuning"]["tasks"][name]
        tuned["adam"] = (adam["lr"], adam["measured"])
    else:
        learning = {"rule": json.loads(given.read_text())["rule"], "learned on": given.stem}
        read = UpdateRule.parse(learning["rule"])
        rule = UpdateRule(read.expression, read.values)
        tuned = {
            "learned": tune(task, [str(rule)], kept, 0.0, **GRID)[1:],
            "adam": tune(task, ["ad"], kept, 0.0, **GRID)[1:],
        }
    variants = [f"ad + w*wd where wd = {decay}" for decay in DECAYS]
    adamw, *tuned["adamw"] = tune(task, variants, kept, 0.0, **GRID)
    rules = {"learned": rule, "adam": UpdateRule.parse("ad"), "adamw": adamw}
    with open_progress() as progress:
        comparison = compare(task, rules, seed=0, episodes=seeds, progress=progress, tuned=tuned, memory=kept)
    print(comparison.table(), flush=True)
    found = results(comparison, "accuracy")
    return {
        "task": name,
        "rule": str(rule),
        **found,
        "goal met (learned better than both, 95 % intervals above 0)": all(
            found[f"accuracy, learned - {other}"]["low"] > 0 for other in ("adam", "adamw")
        ),
        "learning": learning,
        "comparison": comparison.record(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--rule", type=Path, help="JSON of this study whose rule is used instead of learning one")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.tasks:
        save(HERE / f"graph-{name}.json", study(name, Path(arguments.data), arguments.rule, arguments.seeds))
