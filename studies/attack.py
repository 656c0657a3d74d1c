"""Attacks on seven robust CIFAR-10 models: a learned rule, PGD and APGD of torchattacks; l_inf, 8/255.

A rule is learned on one model with the cross-entropy, for all numbers of steps at once, on images of the training set,
and chosen on other images of the training set. It attacks that model and the six others on test images that no earlier
rule had been looked at with. Robust accuracy is what the victim still classifies correctly: low is good. Attacks
start at random, several times; all take as many gradients as there are steps (APGD one more).

``last`` returns the last iterate, as PGD of torchattacks does; ``best`` each image's best iterate, as APGD does. With
the DLR loss, which the rule has not seen in learning, the same rule is compared with PGD and APGD on that loss.
Differences are paired: an image's is the mean over the starts, and intervals and p-values are over images.
AutoAttack (APGD-CE, targeted APGD and FAB with 100 steps, Square with 5,000 queries) bounds what an attack can reach.

The library is scale-free (signs and directions of Adam's kind, no momentum in units of the gradient), because victims
differ in the size of their gradients, and has powers of the linear decay, because on the training images a step that
begins large and shrinks fast did better than a constant one.

    OMP_NUM_THREADS=1 python studies/attack.py --size cpu
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from statistics import fmean
from typing import Any, TypedDict

import torch
import torchattacks
from common import paired
from study import NO_COMPARISON, Budget, Study, begin

from sol_learner import LearnConfig
from sol_symbols import UpdateRule
from sol_tasks import attack_cifar10, list_victims, load_cifar10, load_victim
from sol_tasks.attack import dlr
from sol_tasks.rule_attack import RuleAttack

CONFIG = LearnConfig(
    objective=1.0,
    features=("ad", "rs", "sign(g)", "sign(m)", "ld", "cd"),
    episodes=0,
    tuning_episodes=1,
    validation_episodes=4,
    record_episodes=1,
    directions=("sign(g)", "sign(m)", "ad", "rs"),
    decays=("1", "ld", "ld**3", "ld**8"),
    own_terms=0,
    library_generations=22,
    population=10,
    polish_episodes=1,
    sigma=0.5,
    max_terms=7,
    prune_episodes=1,
    generations=8,
    check_episodes=0,
    start="signsgd",
    **NO_COMPARISON,
)
RADIUS, BATCH = 8 / 255, 250
COMMON: dict[str, Any] = {"learned on": "cifar_cnn_a_adv", "steps": [10, 20, 50, 100], "tuning images": 500}
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {
        **COMMON,
        "images of an episode": 256,
        "test images": (3_500, 10_000),
        "starts": 5,
        "learner": asdict(replace(CONFIG, validation_episodes=16, library_generations=60, generations=40)),
    },
    "cpu": {
        **COMMON,
        "images of an episode": 128,
        "test images": (2_500, 3_500),
        "starts": 3,
        "learner": asdict(CONFIG),
    },
}
NO_BUDGET = Budget(seeds=1, trials=0, tuning_seeds=0)
SIZES = {size: (settings, NO_BUDGET) for size, settings in SETTINGS.items()}
ALWAYS = [
    "Other models than the paper's, whose weights are not at hand: seven adversarially or provably trained ones.",
    "An image that is not classified correctly without an attack counts as a success.",
    "PGD is tuned for each number of steps on the model that the rule is learned on, over 32 settings.",
    "AutoAttack starts once.",
]
NOTES = {
    "paper": ["The test images before the first were used by earlier runs.", *ALWAYS],
    "cpu": ["1,000 test images and three starts, and 128 images an episode in learning.", *ALWAYS],
}
PGD = "sign(g) where lr = 0.25"  # steps of 2/255
STEPPED = [
    f"{decay}*sign({what}) where lr = {rate}"
    for decay, what, rate in itertools.product(("1", "ld"), ("g", "m"), (16, 8, 4, 2, 1, 0.5, 0.25, 0.125))
]
"""PGD with and without momentum and linear decay at eight rates; it is tuned over these for each number of steps."""
PAIRS = [("learned, last", "PGD"), ("learned, best", "PGD, best"), ("learned, best", "APGD")]
PAIRS += [("learned, best", "tuned PGD"), ("learned-DLR, best", "PGD-DLR, best"), ("learned-DLR, best", "APGD-DLR")]
BOUND, MEAN = "AutoAttack", "mean"

Make = Callable[[torch.nn.Module], torchattacks.attack.Attack]


def ruled(rule: str, loss: str, keep: str, steps: int, start: int) -> Make:
    """An attack by a rule, whose schedule spans the steps."""
    laid = UpdateRule.parse(rule).with_horizon(steps)
    return partial(RuleAttack, rule=laid, loss=loss, keep=keep, seed=start, eps=RADIUS, steps=steps)


def attacks(rule: str, tuned: str, steps: int, start: int) -> dict[str, Make]:
    """What is compared, all with the same number of gradients.

    Args:
        rule: The learned rule.
        tuned: PGD as it was tuned.
        steps: Gradients.
        start: Seed of the random starts.
    """
    ball: dict[str, Any] = {"eps": RADIUS, "steps": steps}

    def apgd(loss: str) -> Make:
        return partial(torchattacks.APGD, norm="Linf", loss=loss, seed=start, **ball)

    return {
        "PGD": partial(torchattacks.PGD, alpha=2 / 255, **ball),
        "PGD, best": ruled(PGD, "ce", "best", steps, start),
        "tuned PGD": ruled(tuned, "ce", "best", steps, start),
        "APGD": apgd("ce"),
        "learned, last": ruled(rule, "ce", "last", steps, start),
        "learned, best": ruled(rule, "ce", "best", steps, start),
        "PGD-DLR, best": ruled(PGD, "dlr", "best", steps, start),
        "APGD-DLR": apgd("dlr"),
        "learned-DLR, best": ruled(rule, "dlr", "best", steps, start),
    }


def auto_attack(victim: torch.nn.Module) -> torchattacks.attack.Attack:
    """The four attacks of AutoAttack's standard version at its authors' budget; torchattacks' own takes ten steps.

    Source: Croce and Hein, ICML 2020.
    """
    ball: dict[str, Any] = {"norm": "Linf", "eps": RADIUS, "seed": 0}
    targeted: dict[str, Any] = {**ball, "steps": 100, "n_classes": 10}
    parts = [
        torchattacks.APGD(victim, loss="ce", steps=100, **ball),
        torchattacks.APGDT(victim, **targeted),
        torchattacks.FAB(victim, multi_targeted=True, **targeted),
        torchattacks.Square(victim, n_queries=5_000, **ball),
    ]
    return torchattacks.MultiAttack(parts)


class Run(TypedDict):
    """An attack on all images from one start.

    Attributes:
        left: Indices of the images that are still classified correctly.
        ms: Milliseconds of processor time for an image that is attacked.
    """

    left: list[int]
    ms: float


def attacked(victim: torch.nn.Module, make: Make, images: torch.Tensor, labels: torch.Tensor, start: int) -> Run:
    """Attack the images that are classified correctly, [N, C, H, W] in [0, 1]."""
    with torch.no_grad():
        right = (victim(images).argmax(1) == labels).nonzero().flatten()
    torch.manual_seed(start)  # PGD of torchattacks has no seed of its own
    attack, begun, left = make(victim), time.process_time(), list[int]()
    for part in right.split(BATCH):
        clean, truth = images[part], labels[part]
        adversarial = attack(clean, truth)
        assert (adversarial - clean).abs().max() <= RADIUS + 1e-6
        assert 0 <= adversarial.min() <= adversarial.max() <= 1
        with torch.no_grad():
            left += part[victim(adversarial).argmax(1) == truth].tolist()
    return {"left": left, "ms": 1000 * (time.process_time() - begun) / len(right)}


@torch.no_grad()
def distance(victim: torch.nn.Module, make: Make, images: torch.Tensor, labels: torch.Tensor) -> float:
    """What the learner minimises: the mean over the images of max(-DLR, 0) after the attack."""
    attack = make(victim)
    logits = torch.cat([victim(attack(x, y)) for x, y in zip(images.split(BATCH), labels.split(BATCH))])
    return float((-dlr(logits, labels)).clamp_min(0).mean())


def main(study: Study) -> None:
    """Learn, tune PGD, attack, write."""
    settings, data, kept = study.settings, study.given.data, study.kept
    options = {"victim": settings["learned on"], "images": settings["images of an episode"]}
    tasks = [
        study.task(attack_cifar10, name=f"attack-{steps}", horizon=steps, **options) for steps in settings["steps"]
    ]
    rule = str(study.learn(tasks, LearnConfig.from_mapping(settings["learner"])))

    def loaded(split: str, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = (part[first:last].to(study.given.device) for part in load_cifar10(data)[split])
        return images.float() / 255, labels

    victims = {name: load_victim(name, data, study.given.device) for name in list_victims(data)}
    victim, tuned = victims[settings["learned on"]], dict[int, str]()
    known = loaded("train", 0, settings["tuning images"])
    for steps in settings["steps"]:
        tried = {
            text: kept.once(
                f"tuned/{steps}/{text}", partial(distance, victim, ruled(text, "ce", "best", steps, 0), *known)
            )
            for text in STEPPED
        }
        tuned[steps] = min(tried, key=tried.__getitem__)
    print(f"tuned PGD: {tuned}", flush=True)

    first, last = settings["test images"]
    images, labels = loaded("test", first, last)
    starts, runs = range(settings["starts"]), defaultdict[tuple[int, str], list[Run]](list)
    for steps, (name, victim), start in itertools.product(settings["steps"], victims.items(), starts):
        for key, make in attacks(rule, tuned[steps], steps, start).items():
            run = partial(attacked, victim, make, images, labels, start)
            runs[steps, key].append(kept.once(f"{name}/{steps}/{key}/{start}", run))
        print(steps, name, start, flush=True)
    bounds = [
        kept.once(f"{name}/{BOUND}", partial(attacked, v, auto_attack, images, labels, 0))
        for name, v in victims.items()
    ]

    def standing(found: list[Run]) -> torch.Tensor:
        """1 where an image is still classified correctly, else 0: [victims, starts, images]."""
        whole = torch.zeros(len(found), len(labels), dtype=torch.float64)
        for row, run in zip(whole, found):
            row[run["left"]] = 1
        return whole.view(len(victims), -1, len(labels))

    robust = {s: {key: standing(runs[s, key]) for key in attacks(rule, tuned[s], s, 0)} for s in settings["steps"]}
    columns = {s: {**robust[s], BOUND: standing(bounds)} for s in robust}
    study.record |= {
        "rules": {"learned": rule, **{f"PGD tuned for {steps} steps": text for steps, text in tuned.items()}},
        "images": f"test images {first} to {last - 1}",
        "radius": "8/255",
        "robust accuracy": {s: by_victim(victims, columns[s]) for s in robust},
        "robust accuracy after all starts": {
            s: by_victim(victims, {k: v.amin(1, keepdim=True) for k, v in columns[s].items()}) for s in robust
        },
        "success, first - second": {s: differences(victims, robust[s]) for s in robust},
        "milliseconds of processor time for an image, mean of the victims": {
            s: {key: round(fmean(run["ms"] for run in runs[s, key]), 2) for key in robust[s]} for s in robust
        },
        "tables": [
            {"title": f"Robust accuracy in per cent, {s} steps; low is good", **rows(victims, columns[s])}
            for s in robust
        ],
    }
    study.save()


def by_victim(names: Iterable[str], stands: Mapping[str, torch.Tensor]) -> dict[str, dict[str, float]]:
    """Robust accuracy by victim and attack, and the mean over the victims."""
    means = {key: [*stand.mean((1, 2)).tolist(), float(stand.mean())] for key, stand in stands.items()}
    return {n: {key: round(v[i], 6) for key, v in means.items()} for i, n in enumerate([*names, MEAN])}


def rows(names: Iterable[str], stands: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Head and rows of a table, in per cent."""
    found = by_victim(names, stands)
    return {
        "head": ["model", *stands],
        "rows": [[n, *(round(100 * x, 2) for x in r.values())] for n, r in found.items()],
    }


def differences(names: Iterable[str], stands: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """By pair and victim, how much more often the first attack succeeds; paired over images."""
    fooled = {key: [*(1 - stand).mean(1), (1 - stand).mean((0, 1))] for key, stand in stands.items()}
    return {
        f"{a} : {b}": {n: paired(x.tolist(), y.tolist()) for n, x, y in zip([*names, MEAN], fooled[a], fooled[b])}
        for a, b in PAIRS
    }


if __name__ == "__main__":
    main(begin("attack", "Table 5", "attacks on robust CIFAR-10 models", SIZES, NOTES))
