"""Data-parallel processes: one that ``torchrun`` started, or a single process.

Every rank runs the same program. Work that is split (optimizees, candidates) is split by rank and combined by the
methods below; rank 0 does everything else and broadcasts it, so all ranks continue with the same numbers.
Every exchange also carries requests to stop, so all ranks stop at the same place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sol_symbols import SolError
from sol_symbols.errors import quoted

__all__ = ["Ranks", "joined_ranks"]

T = TypeVar("T")


class Ranks:
    """The processes of a run.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        asked: Whether this process was asked to stop.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
        self.asked = self._agreed = False

    @property
    def stopping(self) -> bool:
        """Whether all ranks should stop; all of them learn it at the same point of the program."""
        return self.asked if self.size == 1 else self._agreed

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's share: a contiguous part, as equal as possible."""
        first, last = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return items[first:last]

    def mean(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Elementwise mean over ranks, which have equal shares."""
        if self.size == 1:
            return tuple(tensors)
        flat = torch.cat([*(tensor.reshape(-1) for tensor in tensors), tensors[0].new_tensor([float(self.asked)])])
        dist.all_reduce(flat)
        self._agreed |= bool(flat[-1] > 0)
        flat = flat[:-1]
        parts = (flat / self.size).split([tensor.numel() for tensor in tensors])
        return tuple(part.view_as(tensor) for part, tensor in zip(parts, tensors))

    def gathered(self, own: Sequence[T]) -> list[T]:
        """The results of all ranks' shares, in order."""
        if self.size == 1:
            return list(own)
        shares: list[Any] = [None] * self.size
        dist.all_gather_object(shares, (list(own), self.asked))
        self._agreed |= any(asked for _, asked in shares)
        return [item for share, _ in shares for item in share]

    def shared(self, value: Callable[[], T]) -> T:
        """The result of ``value`` on rank 0, the only rank that calls it. An exception is raised on all ranks."""
        if self.size == 1:
            return value()
        box: list[Any] = [None]
        if self.rank == 0:
            try:
                box = [(value(), None, self.asked)]
            except Exception as error:
                box = [(None, error, self.asked)]
        dist.broadcast_object_list(box)
        result, refused, asked = box[0]
        self._agreed |= asked
        if refused is not None:
            raise refused
        return result


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """The ranks that ``torchrun`` has started (it sets ``WORLD_SIZE``), or this process alone.

    The backend is NCCL for a CUDA device, gloo for any other.

    Raises:
        SolError: ``WORLD_SIZE`` is not a number of processes.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1:
        raise SolError(
            f"WORLD_SIZE must be the number of processes that torchrun started, got {quoted(size)}; unset it"
        )
    if int(size) == 1 or dist.is_initialized():
        yield Ranks()
        return
    # Long, because ranks wait for each other through whole phases.
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=1))
    try:
        yield Ranks()
    finally:
        dist.destroy_process_group()
