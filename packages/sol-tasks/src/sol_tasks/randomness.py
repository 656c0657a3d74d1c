"""Layers that draw random numbers in the forward pass, as dropout does, made functions of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from sol_learner import build_seeded

__all__ = ["call_with_seed", "seeds"]

Value = TypeVar("Value")


def seeds(generator: torch.Generator) -> Iterator[Tensor]:
    """An endless stream of seeds, scalar int64 tensors on the CPU, one for each step's forward pass."""
    while True:
        yield torch.randint(2**62, (), generator=generator)


def call_with_seed(function: Callable[[], Value], seed: Tensor) -> Value:
    """``function()`` with PyTorch's global generators seeded, and restored afterwards."""
    return build_seeded(function, torch.Generator().manual_seed(int(seed)))
