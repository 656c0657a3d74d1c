"""Image classifiers of the paper: a rule that is learned on a narrow one is taken to others as it is.

The learner starts from ``sol-general``, whose rate it tries on the narrow network first, and gets at most 60 trainings
there. Its rule then trains other widths for other numbers of steps: no setting is tried there. Each opponent is tuned
there in full: rate, warm-up, decay, momenta, averaging, eps, weight decay. Comparisons in the JSON of the same settings
are not made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from study import NO_COMPARISON, Budget, Study

from sol_learner import LearnConfig, Recipe
from sol_learner.comparing import PANEL
from sol_symbols import UpdateRule
from sol_tasks import image_classification

LEARNER = LearnConfig(
    start="sol-general",
    guard=False,
    tuning_episodes=1,
    record_episodes=1,
    generations=4,
    population=8,
    polish_episodes=1,
    validation_episodes=2,
    check_episodes=0,
    **NO_COMPARISON,
)
EPOCH = 351
"""Steps: 45,000 images in batches of 128."""

CLASSIC = ("adam", "sgd", "momentum", "rmsprop")

Sizes = Mapping[str, tuple[Mapping[str, Any], Budget]]


def sizes(network: str, paper: Mapping[str, Any], cpu: Mapping[str, Any]) -> Sizes:
    """Both sizes of a study; at the paper's there are more opponents, and more trainings for each."""
    common = {"network": network, "learner": asdict(LEARNER)}
    budgets = {"paper": Budget(seeds=5, trials=48, tuning_seeds=1), "cpu": Budget(seeds=5, trials=16, tuning_seeds=1)}
    opponents = {"paper": [*PANEL, *CLASSIC], "cpu": [*PANEL]}
    found = {"paper": paper, "cpu": cpu}
    return {s: ({**common, **found[s], "opponents": opponents[s]}, budgets[s]) for s in found}


def _recipe(study: Study, precision: str = "float32", **task: Any) -> Recipe:
    """The network of the study on CIFAR-10; a ``precision`` other than float32 is that of the forward pass."""
    if precision != "float32":
        task["dtype"] = getattr(torch, precision)
    return study.task(image_classification, study.settings["network"], "cifar10", **task)


def main(study: Study) -> None:
    """Learn on the narrow network, compare on each of the others, write."""
    settings = study.settings
    narrow = _recipe(study, **settings["learned on"])
    earlier = study.earlier
    done = earlier.get("comparisons", ())
    if done:
        study.record |= {name: earlier[name] for name in ("learning", "rules", "comparisons")}
        learned = UpdateRule.parse(study.record["rules"]["learned"])
    else:
        learned = study.learn([narrow], LearnConfig.from_mapping(settings["learner"]))
        study.record["rules"] = {"learned": str(learned)}
    for task in settings["compared on"][len(done) :]:
        recipe = _recipe(study, **task)
        laid = learned.with_horizon(task["horizon"])
        study.compare(recipe, {"learned": laid, **{name: name for name in settings["opponents"]}}, tune="full")
        study.save()
