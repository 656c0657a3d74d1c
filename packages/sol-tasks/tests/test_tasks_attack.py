"""Projections, losses and the attack of torchattacks; the robust models are what their list says."""

import json

import pytest
import torch
from torch import nn

from sol_learner.inner import Optimizees, run_rule
from sol_learner.task import Stream
from sol_learner.testing import check_task
from sol_symbols import SolError, UpdateRule
from sol_tasks.attack import BALLS, LOSSES, Attack, dlr, random_start
from sol_tasks.cifar10 import load_cifar10
from sol_tasks.victims import list_victims, load_robustbench, load_victim

PARTS = (slice(0, 10), slice(10, 20), slice(20, 30))
PGD = UpdateRule.parse("sign(g) where lr = 0.25")


def problem(seed=0, count=6):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 4, 4, generator=generator)
    images[0], images[1] = 0, 1  # corners of the box
    return images, torch.randint(5, (count,), generator=generator)


def linear_victim():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5))


def curved_victim():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))


def norms(delta, norm):
    return delta.flatten(1).abs().amax(1) if norm == "linf" else delta.flatten(1).norm(dim=1)


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("radius", [8 / 255, 0.5, 3.0])
@pytest.mark.parametrize("scale", [0.0, 0.1, 100.0])
def test_a_projection_ends_in_the_set_and_keeps_what_is_in_it(norm, radius, scale):
    images, _ = problem()
    delta = scale * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    inside = BALLS[norm](delta, images, radius)
    assert (norms(inside, norm) <= 1 + 1e-6).all()
    assert (images + radius * inside).min() >= -1e-6
    assert (images + radius * inside).max() <= 1 + 1e-6
    torch.testing.assert_close(BALLS[norm](inside, images, radius), inside)
    start = random_start(images, norm, radius, torch.Generator().manual_seed(2))
    torch.testing.assert_close(BALLS[norm](start, images, radius), start)


def test_the_dlr_loss_is_its_definition_and_ignores_shift_and_scale():
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0], [3.0, 1.0, 0.0, -1.0]])
    labels = torch.tensor([0, 2])
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-(3 - 1) / (3 - 0), -(0 - 3) / (3 - 0)]))
    torch.testing.assert_close(dlr(7 * logits - 5, labels), dlr(logits, labels))
    with pytest.raises(SolError, match="needs at least 3 classes, got 2"):
        dlr(logits[:, :2], labels)


def test_an_images_gradient_does_not_depend_on_the_others():
    images, labels = problem()
    victim = linear_victim()
    for loss in LOSSES.values():
        whole = images.clone().requires_grad_()
        alone = images[2:3].clone().requires_grad_()
        loss(victim(whole), labels).sum().backward()
        loss(victim(alone), labels[2:3]).sum().backward()
        torch.testing.assert_close(whole.grad[2:3], alone.grad)


def test_every_purpose_attacks_images_of_its_own():
    data = {split: problem(seed, 40) for seed, split in enumerate(("train", "valid", "test"))}
    task = Attack("attack", linear_victim(), data, images=4)
    for stream, split in ((Stream.TRAIN, "train"), (Stream.VALID, "valid"), (Stream.EVALUATE, "test")):
        model = Optimizees(task, 0, stream, [0])._models[0][0]
        assert all(any(torch.equal(image, known) for known in data[split][0]) for image in model.images)


def test_a_victim_of_two_classes_is_attacked_with_the_cross_entropy():
    images, labels = problem(count=30)
    data = {split: (images[part], labels[part] % 2) for split, part in zip(("train", "valid", "test"), PARTS)}
    torch.manual_seed(0)
    victim = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    task = Attack("attack", victim, data, images=8)
    check_task(task)
    model = task.build(torch.Generator().manual_seed(0))
    metrics, logits = task.evaluate(model, "train"), victim(model())
    signed = (logits[:, 0] - logits[:, 1]) * (1 - 2 * model.labels)
    assert metrics["loss"] == pytest.approx(signed.clamp_min(0).mean().item())
    with pytest.raises(SolError, match="use the cross-entropy"):
        Attack("attack", victim, data, loss="dlr").loss(model, ())


def test_unknown_names_are_refused():
    with pytest.raises(SolError, match="norms: linf, l2"):
        Attack("attack", linear_victim(), {}, norm="l1")
    with pytest.raises(SolError, match="losses: ce, dlr"):
        Attack("attack", linear_victim(), {}, loss="mse")


class TestRuleAttack:
    """The subclass of torchattacks.Attack."""

    @pytest.fixture(autouse=True)
    def _torchattacks(self):
        self.library = pytest.importorskip("torchattacks")
        from sol_tasks.rule_attack import RuleAttack

        self.attack = RuleAttack

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("norm", BALLS)
    @pytest.mark.parametrize("keep", ["last", "best"])
    def test_it_stays_in_the_ball_and_repeats(self, loss, norm, keep):
        images, labels = problem()
        rule = UpdateRule.parse("0.2*ld*sign(m) + 0.1*ad where lr = 0.5")
        attack = self.attack(linear_victim(), rule, norm, 0.3, 10, loss, keep=keep)
        adversarial = attack(images, labels)
        assert (norms(adversarial - images, norm) <= 0.3 + 1e-6).all()
        assert 0 <= adversarial.min() <= adversarial.max() <= 1
        assert torch.equal(adversarial, attack(images, labels))

    def test_the_sign_rule_is_pgd(self):
        images, labels = problem()
        victim = linear_victim()
        ours = self.attack(victim, PGD, steps=20)(images, labels)
        theirs = self.library.PGD(victim, 8 / 255, 2 / 255, 20)
        # The gradient of a linear victim's cross-entropy may change sign on the way; the end is a corner of the ball.
        torch.testing.assert_close(ours, theirs(images, labels), atol=4.1 / 255, rtol=0)
        assert ((ours - theirs(images, labels)).abs() < 1e-6).float().mean() > 0.8

    def test_it_is_the_task_with_the_same_rule(self):
        images, labels = problem(count=4)
        victim = linear_victim()
        task = Attack("attack", victim, dict.fromkeys(("train", "valid", "test"), (images, labels)), images=4)
        task.horizon = 12
        outcome = run_rule(task, PGD, 0, Stream.TUNE, [0])
        adversarial = self.attack(victim, PGD, steps=12)(images, labels)
        loss = -LOSSES["ce"](victim(adversarial), labels).mean()
        assert float(outcome.metrics["train"]["objective"]) == pytest.approx(float(loss), rel=0.02)

    def test_best_is_at_least_as_good_as_last(self):
        images, labels = problem(count=6)
        victim = linear_victim()
        rough = UpdateRule.parse("sign(g) where lr = 1.9")
        fooled = [
            (victim(self.attack(victim, rough, eps=0.05, steps=9, keep=keep)(images, labels)).argmax(1) != labels)
            for keep in ("last", "best")
        ]
        assert (fooled[1] >= fooled[0]).all()

    def test_it_works_in_a_multi_attack_and_targeted(self):
        images, labels = problem()
        victim = linear_victim()
        attack = self.attack(victim, PGD, eps=0.5, steps=20)
        both = self.library.MultiAttack([attack, self.attack(victim, PGD, eps=0.5, steps=5, loss="dlr")])
        assert both(images, labels).shape == images.shape
        attack.set_mode_targeted_by_function(lambda inputs, truth: (truth + 1) % 5, quiet=True)
        before = victim(images).softmax(1).gather(1, ((labels + 1) % 5)[:, None])
        after = victim(attack(images, labels)).softmax(1).gather(1, ((labels + 1) % 5)[:, None])
        assert (after > before).all()

    def test_the_default_rule_fools_more_than_pgd_in_few_steps(self):
        images, _ = problem(count=200)
        victim = curved_victim()
        labels = victim(images).argmax(1)
        fooled = [
            (
                victim(self.attack(victim, rule, eps=0.03, steps=5, keep="best")(images, labels)).argmax(1) != labels
            ).sum()
            for rule in (None, PGD)
        ]
        assert fooled[0] > fooled[1]
        with pytest.raises(SolError, match="sol-attack is for linf, got norm 'l2'; pass a rule") as refused:
            self.attack(victim, norm="l2")
        advised = UpdateRule.parse(str(refused.value).partition("such as ")[2])
        assert (victim(self.attack(victim, advised, "l2", 2.0, 20)(images, labels)).argmax(1) != labels).any()

    def test_a_rule_without_a_rate_and_unknown_names_are_refused(self):
        with pytest.raises(SolError, match="no learning rate"):
            self.attack(linear_victim(), UpdateRule.parse("sign(g)"))
        with pytest.raises(SolError, match="keep must be one of last, best, got 'first'"):
            self.attack(linear_victim(), PGD, keep="first")


def test_the_robust_models_have_their_accuracies(data):
    pytest.importorskip("PIL")
    assert len(list_victims(data)) == 7
    images, labels = (x[:500] for x in load_cifar10(data)["test"])
    records = json.loads((data / "vision" / "weights" / "models.json").read_text())["models"]
    for name in list_victims(data):
        expected = next(r["clean_acc_10k"] for r in records if name in r["file"])
        accuracy = (load_victim(name, data)(images.float() / 255).argmax(1) == labels).float().mean()
        assert 100 * accuracy == pytest.approx(expected, abs=5), name


def test_what_is_missing_is_said(tmp_path, data):
    with pytest.raises(SolError, match=r"looked for weights/models\.json there and in vision/.*alpha-beta-CROWN"):
        list_victims(tmp_path)
    with pytest.raises(SolError, match=r"unknown model 'resnet1b'.*resnet2b"):
        load_victim("resnet1b", data)
    weights = tmp_path / "weights"
    weights.mkdir()
    record = {"file": "weights/net.pth", "architecture": "Dense(3)", "normalisation": None, "state_dict_at": ""}
    (weights / "models.json").write_text(json.dumps({"models": [record]}))
    with pytest.raises(SolError, match=r"unknown layer 'Dense\(3\)' in the architecture 'Dense\(3\)'"):
        load_victim("net", tmp_path)
    record["architecture"] = "Flatten Linear(3,2)"
    (weights / "models.json").write_text(json.dumps({"models": [record]}))
    with pytest.raises(SolError, match=r"cannot load .*net\.pth"):
        load_victim("net", tmp_path)


def test_an_architecture_may_have_other_activations_and_commas(tmp_path):
    network = nn.Sequential(
        nn.Conv2d(3, 2, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(18, 4), nn.Tanh(), nn.Linear(4, 3)
    )
    (tmp_path / "weights").mkdir()
    torch.save(network.state_dict(), tmp_path / "weights" / "net.pth")
    for text in (
        "Conv(3,2,k2,s1,p0) Sigmoid Flatten Linear(18,4) Tanh Linear(4,3)",
        "Conv(3,2,k2,s1,p0), Sigmoid, Flatten , Linear(18,4), Tanh, Linear(4,3),",
    ):
        record = {"file": "weights/net.pth", "architecture": text, "normalisation": None, "state_dict_at": ""}
        (tmp_path / "weights" / "models.json").write_text(json.dumps({"models": [record]}))
        x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(load_victim("net", tmp_path)(x), network(x))


def test_robustbench_is_asked_for_its_model_and_its_absence_is_explained(tmp_path, monkeypatch):
    import sys
    import types

    asked = {}

    def load_model(name, **options):
        asked.update(options, name=name)
        return linear_victim().train()

    monkeypatch.setitem(sys.modules, "robustbench", types.ModuleType("robustbench"))
    module = types.ModuleType("robustbench.utils")
    module.load_model = load_model
    monkeypatch.setitem(sys.modules, "robustbench.utils", module)
    victim = load_robustbench("Carmon2019Unlabeled", tmp_path)
    assert asked == {
        "name": "Carmon2019Unlabeled",
        "model_dir": str(tmp_path),
        "dataset": "cifar10",
        "threat_model": "Linf",
    }
    assert not victim.training
    assert not any(p.requires_grad for p in victim.parameters())
    monkeypatch.setitem(sys.modules, "robustbench.utils", None)
    with pytest.raises(SolError, match=r"sol-tasks\[robustbench\].*pyautoattack"):
        load_robustbench("Carmon2019Unlabeled", tmp_path)
