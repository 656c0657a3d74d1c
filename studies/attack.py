"""Attacks on seven robust CIFAR-10 models: a learned rule, PGD and APGD of torchattacks; l_inf, 8/255, 100 steps.

A rule is learned on one model, with the cross-entropy, on images of the training set, chosen on other images of the
training set, and evaluated against that model and the six others on test images that earlier rules had not been looked
at with. Robust accuracy is what the victim still classifies correctly: low is good. All
attacks start once, at random, and take 100 gradients (APGD 101).

``last`` returns the last iterate, as PGD of torchattacks does; ``best`` each image's best iterate, as APGD does. With
the DLR loss, which the rule has not seen in learning, the same rule is compared with PGD and APGD on that loss.

The library is scale-free (signs and directions of Adam's kind, no momentum in units of the gradient), because victims
differ in the size of their gradients, and has powers of the linear decay, because on the training images a step that
begins large and shrinks fast did better than a constant one.

    OMP_NUM_THREADS=1 python studies/attack.py --size cpu
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
import torchattacks
from study import NO_RUN, Budget, Study, begin

from sol_learner import LearnConfig
from sol_symbols import UpdateRule
from sol_tasks import attack_cifar10, list_victims, load_cifar10, load_victim
from sol_tasks.rule_attack import RuleAttack

CONFIG = LearnConfig(
    objective=1.0,
    features=("ad", "rs", "sign(g)", "sign(m)", "ld", "cd"),
    tuning_episodes=1,
    episodes=2,
    meta_batch=4,
    validation_episodes=4,
    validate_every=1,
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
    generations=6,
    **{**NO_RUN, "start": "signsgd"},
)
STEPS, RADIUS, CHUNK = 100, 8 / 255, 500
LEARNED_ON = "cifar_cnn_a_adv"
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {
        "learned on": LEARNED_ON,
        "images of an episode": 256,
        "test images": (2_500, 10_000),
        "learner": asdict(replace(CONFIG, episodes=20, validation_episodes=16, library_generations=60, generations=40)),
    },
    "cpu": {
        "learned on": LEARNED_ON,
        "images of an episode": 64,
        "test images": (2_000, 2_500),
        "learner": asdict(CONFIG),
    },
}
NO_BUDGET = Budget(seeds=1, trials=0, tuning_seeds=0)
SIZES = {size: (settings, NO_BUDGET) for size, settings in SETTINGS.items()}
ALWAYS = [
    "Other models than the paper's, whose weights are not at hand: seven adversarially or provably trained ones.",
    "An image that is not classified correctly without an attack counts as a success.",
]
NOTES = {
    "paper": ["The test images before the first were used by earlier runs.", *ALWAYS],
    "cpu": ["500 test images, and 64 images an episode in learning, with few generations.", *ALWAYS],
}
PGD = UpdateRule.parse("sign(g) where lr = 0.25")  # steps of 2/255

Make = Callable[[torch.nn.Module], torchattacks.attack.Attack]


def attacks(rule: UpdateRule) -> dict[str, Make]:
    """What is compared, all with the same budget of gradients."""

    def ruled(rule: UpdateRule, loss: str, keep: str) -> Make:
        return partial(RuleAttack, rule=rule, eps=RADIUS, steps=STEPS, loss=loss, keep=keep)

    def apgd(loss: str) -> Make:
        return partial(torchattacks.APGD, norm="Linf", eps=RADIUS, steps=STEPS, loss=loss)

    return {
        "PGD": partial(torchattacks.PGD, eps=RADIUS, alpha=2 / 255, steps=STEPS),
        "PGD, best": ruled(PGD, "ce", "best"),
        "APGD": apgd("ce"),
        "learned, last": ruled(rule, "ce", "last"),
        "learned, best": ruled(rule, "ce", "best"),
        "PGD-DLR, best": ruled(PGD, "dlr", "best"),
        "APGD-DLR": apgd("dlr"),
        "learned-DLR, best": ruled(rule, "dlr", "best"),
    }


def survivors(victim: torch.nn.Module, make: Make, images: torch.Tensor, labels: torch.Tensor) -> list[int]:
    """Number of images still classified correctly; and, for scale, the milliseconds of processor time an image."""
    with torch.no_grad():
        right = victim(images).argmax(1) == labels
    images, labels, count = images[right], labels[right], 0
    torch.manual_seed(0)
    attack, begun = make(victim), time.process_time()
    for part, truth in zip(images.split(250), labels.split(250)):
        adversarial = attack(part, truth)
        assert (adversarial - part).abs().max() <= RADIUS + 1e-6
        assert 0 <= adversarial.min() <= adversarial.max() <= 1
        with torch.no_grad():
            count += int((victim(adversarial).argmax(1) == truth).sum())
    return [count, round(1000 * (time.process_time() - begun) / len(labels))]


def main(study: Study) -> None:
    """Learn, evaluate, write."""
    settings, data, kept = study.settings, study.given.data, study.kept
    options = {"victim": settings["learned on"], "images": settings["images of an episode"]}
    rule = study.learn(study.task(attack_cifar10, **options), LearnConfig.from_mapping(settings["learner"]))
    first, last = settings["test images"]
    images, labels = (part.to(study.given.device) for part in load_cifar10(data)["test"])
    table: dict[str, dict[str, float]] = {}
    for name in list_victims(data):
        victim, table[name] = load_victim(name, data, study.given.device), {}
        for key, make in attacks(rule).items():
            left = 0
            for start in range(first, last, CHUNK):
                part = slice(start, min(start + CHUNK, last))
                run = partial(survivors, victim, make, images[part].float() / 255, labels[part])
                left += kept.once(f"{name}/{key}/{part.start}-{part.stop}", run)[0]
            table[name][key] = round(100 * left / (last - first), 3)
        print(name, table[name], flush=True)

    def lower(ours: str, theirs: str) -> dict[str, int]:
        signs = [(row[ours] > row[theirs]) - (row[ours] < row[theirs]) for row in table.values()]
        return {"lower": signs.count(-1), "equal": signs.count(0), "higher": signs.count(1)}

    pairs = [("learned, last", "PGD"), ("learned, best", "PGD, best"), ("learned, best", "APGD")]
    pairs += [("learned-DLR, best", "PGD-DLR, best"), ("learned-DLR, best", "APGD-DLR")]
    columns = [*attacks(rule)]
    mean = {key: sum(row[key] for row in table.values()) / len(table) for key in columns}
    rows = [[name, *(round(x, 2) for x in row.values())] for name, row in [*table.items(), ("mean", mean)]]
    study.record |= {
        "rules": {"learned": str(rule)},
        "images": f"test images {first} to {last - 1}",
        "steps": STEPS,
        "radius": "8/255",
        "robust accuracy in per cent": table,
        "mean over the victims": mean,
        "victims on which the first's robust accuracy is": {f"{a} : {b}": lower(a, b) for a, b in pairs},
        "goal: PGD beaten on all seven": lower("learned, last", "PGD")["lower"] == len(table),
        "goal: APGD beaten on most": lower("learned, best", "APGD")["lower"] > len(table) / 2,
        "tables": [{"title": "Robust accuracy in per cent, low is good", "head": ["model", *columns], "rows": rows}],
    }
    study.save()


if __name__ == "__main__":
    main(begin("attack", "Table 5", "attacks on robust CIFAR-10 models", SIZES, NOTES))
