"""Table 2: test accuracy of the NOS-RL ConvNet on CIFAR-10, a learned rule against ten tuned optimizers.

The rule is learned on the network that it is compared on, and not tuned again. Each of the others gets the same
number of learning rates, on the same tuning seeds. ENOS's rule, the paper's eleventh, is left out: no published form of
it could be found.

``convnet.py`` is another small size of this table: the full ConvNet, 60 steps, against the five hand-made optimizers.

    OMP_NUM_THREADS=1 python studies/table2.py --size cpu --jobs 2
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from study import NO_RUN, Budget, Study, begin

from sol_learner import LearnConfig
from sol_tasks import image_classification

BY_HAND = ("adam", "sgd", "momentum", "nesterov", "rmsprop")
TUNED = (*BY_HAND, "powersign-ld", "powersign-cd", "addsign-ld", "addsign-cd", "lion")
SMALL = LearnConfig(
    objective=1.0,
    tuning_episodes=1,
    episodes=4,
    meta_batch=4,
    validation_episodes=4,
    record_episodes=2,
    library_generations=10,
    population=10,
    polish_episodes=1,
    max_terms=8,
    prune_episodes=1,
    generations=6,
    **NO_RUN,
)
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {
        "task": {"width": 32, "horizon": 3_900, "batch_size": 128, "sample": 5_000},
        "learner": asdict(LearnConfig(episodes=50, meta_batch=2, horizons=(400, 1_000, 3_900), **NO_RUN)),
    },
    "cpu": {
        "task": {"width": 8, "horizon": 60, "batch_size": 64, "sample": 1_000},
        "learner": asdict(SMALL),
    },
}
SIZES = {
    "paper": (SETTINGS["paper"], Budget(seeds=5, trials=16, tuning_seeds=1)),
    "cpu": (SETTINGS["cpu"], Budget(seeds=5, trials=12, tuning_seeds=1)),
}
ALWAYS = [
    "Every optimizer but the learned one is tuned, over as many rates each; the paper does not say that its baselines"
    " were.",
    "ENOS's conv2 has no published form that could be found, so it is not here.",
]
NOTES = {
    "paper": ["The paper's text does not give the number of epochs; here they are 10.", *ALWAYS],
    "cpu": [
        "The ConvNet has 8 and 16 filters and 256 hidden units (the paper's 32, 64 and 1024), and is trained for 60"
        " batches of 64, a twelfth of an epoch, so accuracies are far below the paper's.",
        *ALWAYS,
    ],
}


def main(study: Study) -> None:
    """Learn, compare, write."""
    recipe = study.task(image_classification, "convnet", "cifar10", **study.settings["task"])
    learned = study.learn(recipe, LearnConfig.from_mapping(study.settings["learner"]))
    study.record["rules"] = {"learned": str(learned)}
    study.compare(recipe, {"learned": learned, **{name: name for name in TUNED}})
    study.save()


if __name__ == "__main__":
    main(begin("table2", "Table 2", "a ConvNet on CIFAR-10", SIZES, NOTES))
