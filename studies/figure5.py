"""Figure 5: training loss on MNISTNET and its variants, a learned rule against tuned and learned optimizers.

The rule (``sol learn``), that of the paper's recipe (``--preset paper``) and the LSTM (L2LGD2) are learned on MNISTNET;
the LSTM is distilled into a formula (Symbolic L2O), whose coefficients are then tuned on MNISTNET too, its authors'
third stage, here by CMA-ES. All are taken to the three variants unchanged, and so is sol-general. The hand-made
optimizers, Lion and the rules of NOS-RL (PowerSign, AddSign) are tuned on each network: rate, warm-up, decay, momenta,
averaging, eps and weight decay.

ENOS's rule is left out: no published form of it could be found.

    OMP_NUM_THREADS=1 python studies/figure5.py --size cpu --jobs 2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study import NO_COMPARISON, Budget, Study, begin

from sol_learner import Checkpoints, LearnConfig, Progress, Task, load_task, open_progress
from sol_learner.baselines import DistilSettings, distil, learn_lstm, lstm_config
from sol_learner.comparing import PANEL
from sol_learner.inner import RuleOptimizer, TaskSet
from sol_learner.networks import TrainedLSTM
from sol_learner.runtime.progress import Phase
from sol_learner.search import CandidateEvaluator, polish, record
from sol_symbols import STANDARD, ZOO, UpdateRule

NETWORKS = ("mnistnet", "mnistnet-2layer", "mnistnet-big", "mnistnet-relu")
TUNED = (
    *PANEL,
    *("adam", "sgd", "momentum", "rmsprop"),
    *("powersign-ld", "powersign-cd", "addsign-ld", "addsign-cd"),
)
LSTM_LR = 0.1
LEARNERS = {
    "learner": asdict(LearnConfig(**NO_COMPARISON)),
    "paper's recipe": asdict(LearnConfig.from_mapping({"preset": "paper", **NO_COMPARISON})),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {
        **LEARNERS,
        "lstm": {"episodes": 10_000, "horizons": [20, 50, 100], "meta_batch": 1},
        "distillation": {"validation_episodes": 8, "population": 2_000, "generations": 50},
        "coefficients": {"generations": 50, "population": 16},
    },
    "cpu": {
        **LEARNERS,
        "lstm": {
            "episodes": 600,
            "horizons": [20, 50, 100],
            "meta_batch": 1,
            "validation_episodes": 2,
            "validate_every": 15,
        },
        "distillation": {"validation_episodes": 4},
        "coefficients": {"generations": 10, "population": 8},
    },
}
SIZES = {
    "paper": (SETTINGS["paper"], Budget(seeds=20, trials=480, tuning_seeds=1)),
    "cpu": (SETTINGS["cpu"], Budget(seeds=20, trials=240, tuning_seeds=1)),
}
ALWAYS = [
    "Networks, data, batches of 128, the 100 steps, and the 50 episodes of 10 networks of the paper's recipe are the"
    " paper's. Every optimizer without a learning rate is tuned on each network: rate, warm-up, decay, momenta,"
    " averaging, eps, weight decay. The paper does not say that its baselines were.",
    "What was learned was learned on MNISTNET and is taken to the other three as it is, rate included; sol-general was"
    " learned on other trainings.",
    "ENOS's rule has no published form that could be found, so it is not here.",
]
NOTES = {
    "paper": ALWAYS,
    "cpu": [
        *ALWAYS,
        "Smaller than its authors' is the training of L2LGD2's LSTM: 600 episodes, not 10,000.",
    ],
}


def train_lstm(study: Study, task: Task, progress: Progress) -> Path:
    """The folder of the LSTM, meta-trained on ``task``."""
    folder, config = study.folder / "lstm", lstm_config(study.settings["lstm"])
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(folder / "checkpoints", {**asdict(config), "lr": LSTM_LR}, resume=True)
    trained, training = learn_lstm(task, config, lr=LSTM_LR, checkpoints=checkpoints, progress=progress)
    checkpoints.save(force=True)
    trained.save(folder)
    study.record["lstm"] = {
        "lr": LSTM_LR,
        "config": trained.provenance["config"],
        "validation": [(entry["episode"], entry["loss"]) for entry in training.history if "loss" in entry],
        "windows": training.windows,
        "dropped": training.dropped,
    }
    return folder


def distilled(study: Study, folder: Path, family: TaskSet, progress: Progress) -> list[dict[str, Any]]:
    """Formulas that copy the LSTM, the best first."""
    settings = DistilSettings(**study.settings["distillation"])
    return [formula.record() for formula in distil(TrainedLSTM.load(folder), family, settings, progress)]


def search(
    family: TaskSet, rule: UpdateRule, settings: Mapping[str, Any], objective: float, progress: Progress
) -> UpdateRule:
    """The rule with its coefficients tuned by CMA-ES, an episode for each candidate."""
    candidates = CandidateEvaluator(family, 0, 0, 4)
    values = {name: h.default for name, h in STANDARD.hyperparameters.items() if h.default is not None}
    adam, lr, episodes = RuleOptimizer(ZOO["adam"]), rule.lr or LSTM_LR, candidates.fresh(1)
    samples = record(family, adam, lr, values, STANDARD, 0, episodes, 200)
    options = {**settings, "episodes": 1, "sigma": 0.3, "seed": 0, "phase": Phase.DISTIL}
    return polish(rule, samples, candidates, progress=progress, **options).rule


def main(study: Study) -> None:
    """Learn on MNISTNET, compare on all four, write."""
    recipe = study.task(load_task, NETWORKS[0])
    learned, published = (study.learn([recipe], LearnConfig.from_mapping(study.settings[key]), key) for key in LEARNERS)
    task, objective = recipe.load(), float(study.settings["learner"]["objective"])
    family = TaskSet((task,), (1.0,), objective)
    with open_progress() as progress:
        folder = train_lstm(study, task, progress)
        formulas = study.kept.once("distilled", lambda: distilled(study, folder, family, progress))
        copy = UpdateRule.parse(formulas[0]["rule"])
        tuned = study.kept.once(
            "coefficients", lambda: str(search(family, copy, study.settings["coefficients"], objective, progress))
        )
    study.record["distilled"] = formulas
    rules = {"learned": learned, "sol-general": ZOO["sol-general"], "the paper's recipe": published}
    rules |= {"Symbolic L2O": copy, "Symbolic L2O, tuned": UpdateRule.parse(tuned)}
    study.record["rules"] = {name: str(rule) for name, rule in rules.items()}
    optimizers = {**rules, "L2LGD2": str(folder), **{name: name for name in TUNED}}
    for network in NETWORKS:
        study.compare(study.task(load_task, network), optimizers, tune="full")
    study.save()


if __name__ == "__main__":
    main(begin("figure5", "Figure 5", "training loss on MNISTNET and its variants", SIZES, NOTES))
