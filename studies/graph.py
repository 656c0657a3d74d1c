"""GAT and JK-Net on citation graphs: a learned rule against tuned Adam, T = 250, full batch, paired by seed.

Everything is chosen by the loss of the validation nodes after step T: rates, Adam's decoupled weight decay, rules. The
penalty 5e-4/2 |theta|^2 of the published settings is in the training loss of both besides. Test nodes and evaluation
seeds choose nothing.

A rule is learned with few episodes and a library of eight terms (sized for two cores; the settings are in the JSON).
``--rule`` takes one that is there to another graph, where its rate is tuned over as many candidates as Adam's: that of
GAT from Cora to the other graphs, and for JK-Net that of an earlier search of its coefficients on Cora.

    python studies/graph.py gat-cora
    python studies/graph.py gat-citeseer gat-pubmed --rule studies/graph-gat-cora.json
    python studies/graph.py jknet-cora jknet-citeseer jknet-pubmed --rule studies/earlier/graph-jknet-cora-search.json
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
    library_generations=6,
    population=8,
    polish_episodes=1,
    terms=8,
    generations=0,
    front=False,
    evaluation=1,
    baselines=(),
)
ADAM = ["ad", "ad + w*wd where wd = 0.1", "ad + w*wd where wd = 1.0"]
GRID = {"coarse": 5, "fine": 3}


def study(name: str, data: Path, given: Path | None, seeds: int) -> dict[str, object]:
    """Learn (or take ``given``), tune, compare, and say how it went."""
    task = load_task(name, data)
    kept = memory(f"graph-{name}", rule=str(given), config=asdict(CONFIG))
    tuned = {}
    if given is None:
        learning = learn(task, CONFIG, kept)
        rule = UpdateRule.parse(learning["rule"])
    else:
        learning = {"rule": json.loads(given.read_text())["rule"], "learned on": given.stem}
        read = UpdateRule.parse(learning["rule"])
        plain = str(UpdateRule(read.expression, read.values))
        rule, tuned["learned"], learning["tried"] = tune(task, [plain], kept, 0.0, **GRID)
    adam, tuned["adam"], tried = tune(task, ADAM, kept, 0.0, **GRID)
    rules = {"learned": rule, "adam": adam}
    with open_progress() as progress:
        comparison = compare(task, rules, seed=0, episodes=seeds, progress=progress, tuned=tuned, memory=kept)
    print(comparison.table(), flush=True)
    found = results(comparison, "accuracy")
    return {
        "task": name,
        "rule": str(rule),
        **found,
        "goal met (learned better, 95 % interval above 0)": found["accuracy, learned - adam"]["low"] > 0,
        "adam tried": tried,
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
