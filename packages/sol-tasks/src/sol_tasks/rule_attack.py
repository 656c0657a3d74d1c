"""A rule as a torchattacks attack, for its evaluations and ``MultiAttack``, and for RobustBench's evaluations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchattacks.attack import Attack as _TorchAttack

from sol_symbols import ZOO, Layout, SolError, UpdateRule, evaluator
from sol_tasks.attack import BALLS, LOSSES, check_images, check_radius, in_precision_of, random_start

__all__ = ["RuleAttack"]


_L2 = "g*inv0(sqrt(dot(g, g))) where lr = 0.25"


class RuleAttack(_TorchAttack):
    """delta <- project(delta - lr * phi(g)), where g is the gradient of minus the attack's loss, summed over images.

    As in :mod:`sol_tasks.attack`, the perturbation is eps delta, so learning rates are in units of the radius.

    Args:
        model: The victim. It maps images in [0, 1] to logits.
        rule: The update rule; ``sign(g) where lr = 0.25`` is PGD with steps of eps/4. Its schedule spans ``steps``.
            Default: ``sol-attack`` of the zoo, for ``linf``.
        norm: ``linf`` or ``l2``.
        eps: Radius of the ball.
        steps: Number of steps.
        loss: ``ce``, or ``dlr`` for a victim that is so confident that the gradient of its cross-entropy vanishes.
        lr: Replaces the rule's learning rate.
        keep: ``last`` returns the last iterate, as PGD does. ``best`` returns for each image, as APGD does, the iterate
            with the highest loss among those that fool the victim, or among all if none does.
        seed: Seed of the random start.

    Raises:
        SolError: There is no learning rate, or no rule for ``l2``, or ``norm``, ``loss`` or ``keep`` is unknown, or
            ``eps`` or ``steps`` is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        rule: UpdateRule | None = None,
        norm: str = "linf",
        eps: float = 8 / 255,
        steps: int = 100,
        loss: str = "ce",
        lr: float | None = None,
        keep: str = "last",
        seed: int = 0,
    ) -> None:
        for what, given, known in (("norm", norm, BALLS), ("loss", loss, LOSSES), ("keep", keep, ("last", "best"))):
            if given not in known:
                raise SolError(f"{what} must be one of {', '.join(known)}, got {given!r}")
        if not (eps > 0 and steps >= 1):
            raise SolError(f"eps and steps must be positive, got {eps} and {steps}")
        check_radius(norm, eps)
        if rule is None and norm != "linf":
            raise SolError(f"sol-attack is for linf, got norm {norm!r}; pass a rule, such as {_L2}")
        rule = ZOO["sol-attack"] if rule is None else rule
        super().__init__(rule.name or "RuleAttack", model)
        rate = rule.lr if lr is None else lr
        if rate is None:
            raise SolError(f"the rule {rule} has no learning rate; pass lr, or append one to the rule: where lr = ...")
        self.rule, self.norm, self.eps, self.steps = rule, norm, eps, steps
        self.loss, self.lr, self.keep, self.seed = loss, rate, keep, seed
        self.supported_mode = ["default", "targeted"]

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images, [N, C, H, W].

        Raises:
            SolError: ``images`` are none, or not floats in [0, 1]; or ``labels`` are not classes, [N].
        """
        check_images(images, labels)
        images = in_precision_of(self.model, images.detach().to(self.device))
        labels = labels.detach().to(self.device).long()
        sign = 1.0
        if self.targeted:
            labels, sign = self.get_target_label(images, labels), -1.0
        self._checked = False
        delta = random_start(images, self.norm, self.eps, torch.Generator().manual_seed(self.seed))
        # Each image is a tensor of its own: the first axis holds independent runs.
        phi = evaluator(self.rule, torch, self.steps, hoist=True, layout=Layout((tuple(images.shape[1:]),)))
        state, best = phi.init(delta.flatten(1)), _Best(delta)
        for t in range(1, self.steps + 1):
            value, logits, gradient = self._gradient(images, labels, delta, sign)
            best.see(delta, value, (logits.argmax(1) != labels) == (sign > 0))
            update, state = phi(gradient.flatten(1), state, delta.flatten(1), t, -value)
            delta = BALLS[self.norm](delta - self.lr * update.view_as(delta), images, self.eps)
        if self.keep == "best":
            with torch.no_grad():
                logits = self.get_logits(images + self.eps * delta)
                best.see(delta, sign * LOSSES[self.loss](logits, labels), (logits.argmax(1) != labels) == (sign > 0))
            delta = best.delta
        return (images + self.eps * delta).clamp(0, 1)

    def _gradient(self, images: Tensor, labels: Tensor, delta: Tensor, sign: float) -> tuple[Tensor, Tensor, Tensor]:
        """The maximised loss, [N]; the logits; and the gradient of minus the summed loss with respect to ``delta``."""
        variable = delta.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.get_logits(images + self.eps * variable)
            if not self._checked and int(labels.max()) >= logits.shape[1]:
                raise SolError(f"labels must be below the victim's {logits.shape[1]} classes, got {int(labels.max())}")
            self._checked = True
            value = sign * LOSSES[self.loss](logits, labels)
            (gradient,) = torch.autograd.grad(-value.sum(), variable)
        return value.detach(), logits.detach(), gradient


class _Best:
    """Keeps the best perturbation of each image, by success first and by loss second."""

    def __init__(self, delta: Tensor) -> None:
        self.delta = delta.clone()
        self.value = delta.new_full((len(delta),), -torch.inf)
        self.success = torch.zeros(len(delta), dtype=torch.bool, device=delta.device)

    def see(self, delta: Tensor, value: Tensor, success: Tensor) -> None:
        better = (success & ~self.success) | ((success == self.success) & (value > self.value))
        self.delta[better], self.value[better] = delta[better], value[better]
        self.success |= success
