"""Attacks on seven robust CIFAR-10 models: a learned rule beside PGD and APGD of torchattacks; l_inf, 8/255, 100 steps.

A rule is learned on one model, on images of the training set (chosen on other images of the training set), and
evaluated on test images against that model and the six others. The first 1,000 test images had been looked at (which
decaying rules do better than PGD on them) before TERMS was written down, so the evaluation is on the images after
them; ``--first 0`` gives the others, for comparison only. All attacks start once, at random. Robust accuracy is what
the victim still classifies correctly: low is good.

``last`` is the last iterate, as PGD's; ``best`` keeps each image's best iterate, as APGD does: compare PGD with
``last`` and APGD with ``best``. PGD is also given at a tuned rate with ``best``, and so is the rule of the whole
pipeline, where it is not the one that validation chose.

Sized for two cores: 32 images an episode in learning, few generations of polishing (the settings are in the JSON).

    python studies/attack.py --images 500
    python studies/attack.py --images 500 --again studies/attack.json   # evaluate rules that are learned already
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import evidence
import torch
import torchattacks
from evidence import save

from sol_learner import (
    LearnConfig,
    Learner,
    open_progress,
    tune_learning_rate,
)
from sol_symbols import UpdateRule
from sol_tasks import attack_cifar10, list_victims, load_cifar10, load_victim
from sol_tasks.rule_attack import RuleAttack

CONFIG = LearnConfig(
    tuning_episodes=2,
    episodes=2,
    meta_batch=4,
    unroll=(20,),
    validation=6,
    validate_every=1,
    front=False,
    terms=4,
    library_generations=6,
    generations=6,
    prune_episodes=1,
    population=8,
    polish_episodes=1,
    evaluation=2,
    baselines=(),
)
STEPS, RADIUS = 100, 8 / 255


def learned_rule(data: Path, victim: str, start: str) -> tuple[UpdateRule, dict[str, object]]:
    """The rule, and how it was reached."""
    task = attack_cifar10(data, victim=victim, images=32)
    begun = time.monotonic()
    with open_progress() as progress:
        result = Learner([task], replace(CONFIG, start=start), progress=progress).run()
    facts = {"how": f"the whole pipeline, started from {start}", "rule": str(result.rule)}
    facts |= {"validation loss": result.summary["polish"]["loss"]}
    facts |= {"front": result.summary["front"], "tuning": result.summary["tuning"]}
    return result.rule, {**facts, "seconds": round(time.monotonic() - begun, 1)}


TERMS = "0.3*ld*sign(m) + 0.3*cd*sign(m) + 0.2*ld*ad + 0.1*sign(g) + 0.1*ad"


def searched_rule(data: Path, victim: str, lr: float) -> tuple[UpdateRule, dict[str, object]]:
    """The last phase of learning alone: CMA-ES on the coefficients of :data:`TERMS`."""
    task, begun = attack_cifar10(data, victim=victim, images=32), time.monotonic()
    rule = UpdateRule.parse(f"{TERMS} where lr = {lr}, T = {STEPS}")
    with open_progress() as progress:
        found = evidence.search(task, rule, 20, 10, progress)
    facts = {"how": f"CMA-ES on the coefficients of {TERMS}", "rule": str(found.rule), "validation loss": found.loss}
    return found.rule, {**facts, "seconds": round(time.monotonic() - begun, 1)}


def attacks(
    victim: torch.nn.Module, rule: UpdateRule, pipeline: UpdateRule, pgd_rate: float
) -> dict[str, torchattacks.attack.Attack]:
    """What is compared, all with the same budget of gradients."""
    sign = UpdateRule.parse("sign(g)")
    return {
        "PGD (2/255)": torchattacks.PGD(victim, RADIUS, 2 / 255, STEPS),
        "PGD (tuned), best": RuleAttack(victim, sign, "linf", RADIUS, STEPS, lr=pgd_rate, keep="best"),
        "APGD-CE": torchattacks.APGD(victim, "Linf", RADIUS, STEPS, loss="ce"),
        "learned, last": RuleAttack(victim, rule, "linf", RADIUS, STEPS),
        "learned, best": RuleAttack(victim, rule, "linf", RADIUS, STEPS, keep="best"),
        "whole pipeline, best": RuleAttack(victim, pipeline, "linf", RADIUS, STEPS, keep="best"),
    }


def robust_accuracy(attack: torchattacks.attack.Attack, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Per cent still right after the attack, and the seconds that it took."""
    torch.manual_seed(0)
    begun, right = time.monotonic(), 0
    for part, truth in zip(images.split(250), labels.split(250)):
        adversarial = attack(part, truth)
        assert (adversarial - part).abs().max() <= RADIUS + 1e-6
        assert 0 <= adversarial.min() <= adversarial.max() <= 1
        with torch.no_grad():
            right += int((attack.model(adversarial).argmax(1) == truth).sum())
    return {"robust": 100 * right / len(labels), "seconds": round(time.monotonic() - begun, 1)}


def learned(data: Path, learned_on: str) -> tuple[float, list[dict[str, object]]]:
    """PGD's tuned rate, and the rules that were tried, with their loss on the validation images."""
    task = attack_cifar10(data, victim=learned_on, images=32)
    pgd_rate, _ = tune_learning_rate(task, UpdateRule.parse("sign(g)"), CONFIG.seed, CONFIG.tuning_episodes)
    tried = [searched_rule(data, learned_on, pgd_rate), learned_rule(data, learned_on, "adam")]
    return pgd_rate, [facts for _, facts in tried]


def main(data: Path, first: int, count: int, learned_on: str, again: Path | None) -> None:
    """Learn, evaluate, write."""
    if again is None:
        pgd_rate, tried = learned(data, learned_on)
    else:
        earlier = json.loads(again.read_text())
        pgd_rate, tried = earlier["PGD's tuned rate, in radii"], earlier["tried"]
    rule = UpdateRule.parse(min(tried, key=lambda facts: facts["validation loss"])["rule"])
    pipeline = UpdateRule.parse(next(facts["rule"] for facts in tried if "pipeline" in facts["how"]))
    images, labels = (x[first : first + count] for x in load_cifar10(data)["test"])
    images, table = images.float() / 255, {}
    for name in list_victims(data):
        victim = load_victim(name, data)
        table[name] = {
            k: robust_accuracy(a, images, labels) for k, a in attacks(victim, rule, pipeline, pgd_rate).items()
        }
        print(name, {key: value["robust"] for key, value in table[name].items()}, flush=True)

    def wins(ours: str, theirs: str) -> int:
        return sum(row[ours]["robust"] < row[theirs]["robust"] for row in table.values())

    pairs = [
        ("learned, last", "PGD (2/255)"),
        ("learned, best", "PGD (tuned), best"),
        ("learned, best", "APGD-CE"),
        ("APGD-CE", "learned, best"),
        ("whole pipeline, best", "PGD (tuned), best"),
    ]
    result = {
        "rule": str(rule),
        "learned on": learned_on,
        "images": f"test images {first} to {first + count - 1}",
        "steps": STEPS,
        "radius": "8/255",
        "PGD's tuned rate, in radii": pgd_rate,
        "config": asdict(CONFIG),
        "tried": tried,
        "robust accuracy in per cent": table,
        "victims on which ours is strictly lower, of 7": {f"{a} < {b}": wins(a, b) for a, b in pairs},
        "goal: PGD beaten on all seven": wins("learned, last", "PGD (2/255)") == len(table),
        "goal: APGD beaten on most": wins("learned, best", "APGD-CE") > len(table) / 2,
    }
    save(Path(__file__).with_name("attack.json" if first else "attack-seen-images.json"), result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1000)
    parser.add_argument("--again", type=Path, help="JSON of this study whose rules are evaluated")
    parser.add_argument("--learned-on", default="cifar_cnn_a_adv")
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    main(Path(arguments.data), arguments.first, arguments.images, arguments.learned_on, arguments.again)
