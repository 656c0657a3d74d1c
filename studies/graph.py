"""GAT and JK-Net on citation graphs: a learned rule against tuned Adam, T = 250, full batch, paired by seed.

Everything is chosen by the loss of the validation nodes after step T: rates, Adam's decoupled weight decay, rules. The
penalty 5e-4/2 |theta|^2 of the published settings is in the training loss of both besides. Test nodes and evaluation
seeds choose nothing.

``--rule`` takes one that is there to another graph, where its rate is tuned over as many candidates as Adam's: that of
GAT from Cora to the other graphs, and for JK-Net that of an earlier search of its coefficients on Cora.

    python studies/graph.py --size cpu gat-cora
    python studies/graph.py --size cpu gat-citeseer gat-pubmed --rule studies/graph-gat-cora-cpu.json
    python studies/graph.py --size cpu jknet-cora jknet-pubmed --rule studies/earlier/graph-jknet-cora-search.json
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import results, tune
from study import NO_RUN, Budget, Study, begin

from sol_learner import LearnConfig, load_task
from sol_symbols import UpdateRule

CONFIG = LearnConfig(
    objective=0.0,
    outer_split="valid",
    tuning_episodes=1,
    episodes=2,
    meta_batch=2,
    validation_episodes=2,
    validate_every=2,
    record_episodes=1,
    directions=("ad", "rs", "sign(m)", "w"),
    decays=("1", "cd"),
    own_terms=0,
    library_generations=6,
    population=8,
    polish_episodes=1,
    max_terms=8,
    generations=0,
    **NO_RUN,
)
ADAM = ["ad", "ad + w*wd where wd = 0.1", "ad + w*wd where wd = 1.0"]


SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {
        "learner": asdict(LearnConfig(objective=0.0, outer_split="valid", episodes=30, meta_batch=2, **NO_RUN)),
        "adam": ADAM,
        "grid": {"coarse": 7, "fine": 7},
    },
    "cpu": {"learner": asdict(CONFIG), "adam": ADAM, "grid": {"coarse": 5, "fine": 3}},
}
SIZES = {
    "paper": (SETTINGS["paper"], Budget(seeds=10, trials=42, tuning_seeds=4)),
    "cpu": (SETTINGS["cpu"], Budget(seeds=10, trials=24, tuning_seeds=4)),
}
ALWAYS = [
    "Each rate of Adam, with three weight decays, is tried on one tuning seed, the best three on three more.",
    "Networks and number of steps are the paper's.",
]
NOTES = {"paper": ALWAYS, "cpu": ["The rule is learned with few episodes and a library of eight terms.", *ALWAYS]}


def main(study: Study, name: str, given: Path | None) -> None:
    """Learn (or take ``given``), tune, compare, and say how it went."""
    recipe, grid, tuned = study.task(load_task, name), study.settings["grid"], {}
    task, transfer = recipe.load(), {}
    if given is None:
        rule = study.learn(recipe, LearnConfig.from_mapping(study.settings["learner"]))
    else:
        read = json.loads(given.read_text(encoding="utf-8"))
        learned = UpdateRule.parse(read["rules"]["learned"] if "rules" in read else read["rule"])
        plain = str(UpdateRule(learned.expression, learned.values))
        rule, tuned["learned"], tried = tune(task, [plain], study.kept, 0.0, **grid)
        transfer = {"learned on": given.stem, "learned tried": tried}
    adam, tuned["adam"], tried = tune(task, study.settings["adam"], study.kept, 0.0, **grid)
    comparison = study.compare(recipe, {"learned": rule, "adam": adam}, tuned=tuned)
    found = results(comparison, "accuracy")
    study.record |= {
        "rules": {"learned": str(rule), "adam": str(adam)},
        **found,
        **results(comparison, "loss"),
        "goal met (learned better, 95 % interval above 0)": found["accuracy, learned - adam"]["low"] > 0,
        **transfer,
        "adam tried": tried,
    }
    study.save()


if __name__ == "__main__":
    options: dict[str, dict[str, Any]] = {
        "tasks": {"nargs": "+"},
        "--rule": {"type": Path, "help": "JSON of this study whose rule is used instead of learning one"},
    }
    whole = begin("graph", "Table 6", "graphs", SIZES, NOTES, options)
    for name in whole.given.tasks:
        main(whole.part(name, rule=str(whole.given.rule)), name, whole.given.rule)
