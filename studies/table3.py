"""Table 3 and Figure 1: ResNet-18 on CIFAR-10, a learned rule against tuned SGD, momentum and Adam.

The rule is learned on the network that it is compared on, and not tuned again. The paper's Symbolic L2O was learned
on ResNet-18 too; here it is the rule that ``figure5.py`` distilled from an LSTM on MNISTNET at the same size, if that
was run, with its learning rate tuned like the others'.

    OMP_NUM_THREADS=1 python studies/table3.py --size cpu --jobs 2
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from common import HERE
from study import NO_RUN, Budget, Study, begin

from sol_learner import LearnConfig
from sol_symbols import UpdateRule
from sol_tasks import image_classification

TUNED = ("sgd", "momentum", "adam")
SMALL = LearnConfig(
    objective=1.0,
    tuning_episodes=1,
    episodes=2,
    meta_batch=2,
    validation_episodes=2,
    record_episodes=1,
    directions=("ad", "sign(g)", "sign(m)", "w"),
    decays=("1", "ld"),
    own_terms=0,
    library_generations=6,
    population=8,
    polish_episodes=1,
    max_terms=6,
    prune_episodes=1,
    generations=2,
    **NO_RUN,
)
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {
        "task": {"width": 64, "horizon": 7_800, "batch_size": 128, "sample": 5_000},
        "learner": asdict(LearnConfig(episodes=20, meta_batch=1, horizons=(200, 1_000, 7_800), **NO_RUN)),
    },
    "cpu": {
        "task": {"width": 4, "horizon": 60, "batch_size": 32, "sample": 500},
        "learner": asdict(SMALL),
    },
}
SIZES = {
    "paper": (SETTINGS["paper"], Budget(seeds=3, trials=12, tuning_seeds=1)),
    "cpu": (SETTINGS["cpu"], Budget(seeds=3, trials=12, tuning_seeds=1)),
}
ALWAYS = ["Every optimizer but the learned one is tuned, over as many rates each."]
NOTES = {
    "paper": ["The paper's text does not give the number of epochs; here they are 20.", *ALWAYS],
    "cpu": [
        "ResNet-18 with a sixteenth of the filters (44,000 parameters), trained for 60 batches of 32, which is a 24th"
        " of an epoch: this shows that the study runs, and is far from the paper's accuracies.",
        *ALWAYS,
        "Symbolic L2O is the rule that was distilled on MNISTNET, not one that was learned on ResNet-18.",
    ],
}


def main(study: Study) -> None:
    """Learn, compare, write."""
    recipe = study.task(image_classification, "resnet18", "cifar10", **study.settings["task"])
    learned = study.learn(recipe, LearnConfig.from_mapping(study.settings["learner"]))
    optimizers: dict[str, Any] = {"learned": learned}
    distilled = HERE / f"figure5-{study.size}.json"
    if distilled.is_file():
        rule = UpdateRule.parse(json.loads(distilled.read_text(encoding="utf-8"))["rules"]["Symbolic L2O"])
        optimizers["Symbolic L2O"] = UpdateRule(rule.expression, rule.values)  # without its rate
    study.record["rules"] = {name: str(rule) for name, rule in optimizers.items()}
    study.compare(recipe, {**optimizers, **{name: name for name in TUNED}})
    study.save()


if __name__ == "__main__":
    main(begin("table3", "Table 3", "ResNet-18 on CIFAR-10", SIZES, NOTES))
