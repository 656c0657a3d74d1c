"""PyTorch as a library for formulas through which derivatives are taken."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

__all__ = ["DIFFERENTIABLE"]


class _Differentiable(ModuleType):
    """PyTorch's functions, with the derivative of sqrt taken as 0 at 0.

    At a history of zeros Adam's denominator is sqrt(0), whose derivative is infinite; what it is multiplied by is 0.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def sqrt(x: Tensor) -> Tensor:
        zero = x == 0
        return torch.where(zero, x, torch.sqrt(torch.where(zero, 1.0, x)))


DIFFERENTIABLE = _Differentiable("torch")
"""The module :mod:`torch`, for derivatives."""
