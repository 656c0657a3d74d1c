"""A tuned optimizer as PyTorch code: its constructor, its decoupled weight decay, its schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import sympy

from sol_learner.comparing.optimizer_specs import TorchSpec, resolve_optimizer
from sol_symbols import ZOO, SolError, UpdateRule

__all__ = ["described", "torch_code"]

_BETAS = "betas=({beta1}, {beta2})"
_CLASSES = {
    "sgd": ("torch.optim.SGD", "", ""),
    "momentum": ("torch.optim.SGD", "momentum={mu}", ""),
    "nesterov": ("torch.optim.SGD", "momentum={mu}, nesterov=True", ""),
    "adagrad": ("torch.optim.Adagrad", "eps={eps}", ""),
    "rmsprop": ("torch.optim.RMSprop", "alpha={beta2}, eps={eps}", ""),
    "adam": ("torch.optim.AdamW", f"{_BETAS}, eps={{eps}}", "weight_decay={wd}"),
    "nadam": (
        "torch.optim.NAdam",
        f"{_BETAS}, eps={{eps}}, momentum_decay=math.inf",
        "weight_decay={wd}, decoupled_weight_decay=True",
    ),
    "radam": (
        "torch.optim.RAdam",
        f"{_BETAS}, eps={{eps}}",
        "weight_decay={wd}, decoupled_weight_decay=True",
    ),
    "lion": ("pytorch_optimizer.Lion", _BETAS, "weight_decay={wd}"),
}
"""Zoo rules that a library has: the class, its arguments, and those of decoupled weight decay, if it has them."""

_DECAYS = {
    "linear": "1 - {u}",
    "cosine": "(1 + math.cos(math.pi * {u})) / 2",
    "sqrt": "1 - math.sqrt({u})",
}

_WEIGHT_DECAY = """
@optimizer.register_step_pre_hook
@torch.no_grad()
def decay_weights(optimizer, args, kwargs):  # decoupled weight decay
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.mul_(1 - group["lr"] * {wd})
"""


def torch_code(name: str, rule: UpdateRule | None, settings: Mapping[str, float | str], steps: int) -> str:
    """PyTorch code that constructs a baseline for ``model``; empty if no library has it.

    The code defines ``optimizer`` and, if the learning rate changes, ``scheduler``, which steps after the optimizer.
    It needs PyTorch, and pytorch-optimizer for Lion or a class of that library.

    Args:
        name: Its name; ``torch:CLASS`` and ``pytorch_optimizer:CLASS`` name classes.
        rule: Its rule. Zoo rules, also with ``+ wd*w``, are known.
        settings: Learning rate, hyperparameters and schedule.
        steps: Steps of the schedule.
    """
    if "lr" not in settings:
        return ""
    made = _of_rule(rule, settings) if rule is not None else _of_class(name, settings)
    if not made:
        return ""
    constructor, body = made
    schedule = _schedule(settings, steps)
    code = f"{constructor}\n{body}{schedule}"
    modules = [module for module in ("math", "pytorch_optimizer", "torch") if f"{module}." in code]
    return "\n".join(f"import {module}" for module in modules) + f"\n\n{code}"


def _of_rule(rule: UpdateRule, settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """The constructor, and the decoupled weight decay if the class has none."""
    decay = sympy.Mul(*(symbol for symbol in rule.expression.free_symbols if symbol.name in ("w", "wd")))
    bare = sympy.expand(rule.expression - decay) if decay.is_Mul else rule.expression
    name = next((name for name in _CLASSES if ZOO[name].expression in (bare, rule.expression)), None)
    if name is None:
        return None
    values = {**rule.values, **settings}
    cls, arguments, decaying = _CLASSES[name]
    wd = values.get("wd") or 0
    given = [f"lr={settings['lr']}", arguments, decaying if wd else ("weight_decay=0" if cls.endswith("AdamW") else "")]
    text = ", ".join(part for part in given if part).format_map(values)
    return f"optimizer = {cls}(model.parameters(), {text})", _WEIGHT_DECAY.format(wd=wd) if wd and not decaying else ""


def _of_class(name: str, settings: Mapping[str, Any]) -> tuple[str, str] | None:
    try:
        spec = resolve_optimizer(name)
    except SolError:
        return None
    if not isinstance(spec, TorchSpec) or spec.source.endswith(".py"):
        return None
    values = {key: value for key, value in settings.items() if key not in ("schedule", "warmup", "floor")}
    if "beta1" in values:
        further = inspect.signature(spec.optimizer_class).parameters["betas"].default[2:]
        values["betas"] = (values.pop("beta1"), values.pop("beta2"), *further)
    arguments = ", ".join(f"{key}={value}" for key, value in values.items())
    return f"optimizer = {spec.source}.{spec.name}(model.parameters(), {arguments})", ""


def _schedule(settings: Mapping[str, Any], steps: int) -> str:
    """The scheduler; see ``schedule_factor`` for the formula."""
    decay, warm = settings.get("schedule", "constant"), round(float(settings.get("warmup", 0)) * steps)
    if decay == "constant" and not warm:
        return ""
    u = f"((step - {warm}) / {steps - warm})" if warm else f"(step / {steps})"
    factor = _DECAYS[str(decay)].format(u=u) if decay != "constant" else "1"
    floor = float(settings.get("floor", 0))
    if floor and decay != "constant":
        factor = f"{floor} + {1 - floor} * ({factor})"
    if warm:
        factor = f"(step + 1) / {warm} if step < {warm} else {factor}"
    line = f"scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: {factor})"
    return f"{line}\n# for {steps} steps; call scheduler.step() after each optimizer.step()\n"


def described(settings: Mapping[str, float | str], rate: bool = True) -> str:
    """Learning rate and schedule in words.

    >>> described({"lr": 0.02, "warmup": 0.05, "schedule": "linear", "floor": 0.1})
    'lr 0.02, warm-up 5 %, linear decay to a tenth'
    >>> described({"lr": 0.02, "schedule": "constant"}, rate=False)
    'constant rate'
    """
    schedule, warm, floor = settings.get("schedule"), settings.get("warmup"), settings.get("floor")
    words = [f"lr {float(settings['lr']):.3g}"] if rate and "lr" in settings else []
    words += [f"warm-up {100 * float(warm):g} %"] if warm else []
    if schedule in _DECAYS:
        shape = "1 - sqrt" if schedule == "sqrt" else str(schedule)
        words.append(f"{shape} decay{' to a tenth' if floor == 0.1 else f' to {floor}' if floor else ''}")
    elif schedule == "constant" and not words:
        words.append("constant rate")
    return ", ".join(words)
