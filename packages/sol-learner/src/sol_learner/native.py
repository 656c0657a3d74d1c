"""The EQL network as compiled C, for coordinates on the CPU.

A C compiler is asked once for each network and precision, which takes about a second; nothing stays on the disk.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from sol_learner.native_source import native_source, scalar_names
from sol_symbols import Evaluator, SolError, hoisted

if TYPE_CHECKING:
    from sol_learner.network import SymbolicNetwork

__all__ = ["NativeKernel", "find_compiler"]

Result = TypeVar("Result")

_TYPES = {torch.float32: "float", torch.float64: "double"}
_SHARE = 1 << 15  # coordinates that one thread takes at a time; results do not depend on the number of threads
_FLAGS = ("-O2", "-shared", "-fPIC", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
_ATTEMPTS = (("-march=native", "-DVECTOR_FUNCTIONS", "-lmvec"), ("-march=native",), ())
"""Further flags, best first; glibc's libmvec has exponentials and the like of whole vectors."""


def find_compiler() -> list[str] | None:
    """The command of the C compiler: the environment's ``CC``, else ``cc``; ``None`` if there is no such program."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    return command if shutil.which(command[0]) else None


@functools.lru_cache(maxsize=32)
def _compiled(source: str) -> ctypes.CDLL:
    """The code compiled and loaded.

    Raises:
        SolError: There is no C compiler, or it fails.
    """
    command = find_compiler()
    if command is None:
        raise SolError("no C compiler")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        code, library = Path(folder, "network.c"), Path(folder, "network.so")
        code.write_text(source, encoding="utf-8")
        for flags in _ATTEMPTS:
            run = [*command, *_FLAGS, str(code), "-o", str(library), *flags, "-lm"]
            try:
                subprocess.run(run, capture_output=True, text=True, check=True)
                return ctypes.CDLL(str(library))
            except (OSError, subprocess.CalledProcessError) as error:
                output = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    raise SolError(f"{shlex.join(command)} failed: {output.strip().partition(chr(10))[0]}")


class NativeKernel:
    """phi, new states and meta-gradients of a network.

    Args:
        network: phi.
        features: An evaluator of its features.

    Raises:
        SolError: There is no C compiler, or it cannot compile the network.
    """

    def __init__(self, network: SymbolicNetwork, features: Evaluator) -> None:
        # Elementwise code then knows numbers by name only: 1 - beta and the like are calculated in double precision.
        self._network, self._features = network, Evaluator(hoisted(features.program), torch)
        self._scalars, self._uses_w = scalar_names(self._features), features.program.uses("w")
        self._libraries: dict[torch.dtype, ctypes.CDLL] = {}
        self._given: tuple[tuple[str, float], ...] = ()
        self._rows: dict[int, list[float]] = {}
        self._library(next(network.parameters()).dtype)

    @staticmethod
    def fits(tensor: Tensor) -> bool:
        """Whether coordinates are such that the kernel can compute with them: float32 or float64 on the CPU."""
        return tensor.device.type == "cpu" and tensor.dtype in _TYPES

    def _library(self, dtype: torch.dtype) -> ctypes.CDLL:
        if dtype not in self._libraries:
            self._libraries[dtype] = _compiled(native_source(self._network, self._features, _TYPES[dtype]))
        return self._libraries[dtype]

    def _numbers(self, steps: Sequence[int], values: Mapping[str, float]) -> ctypes.Array[ctypes.c_double]:
        """Scalars of all steps, one step after the other."""
        given = tuple(values.items())
        if given != self._given:  # the same steps come again in every window and episode
            self._given, self._rows = given, {}
        for t in steps:
            if t not in self._rows:
                row = self._features.scalars(t, values)
                self._rows[t] = [float(row[name]) for name in self._scalars]
        flat = [number for t in steps for number in self._rows[t]]
        return (ctypes.c_double * len(flat))(*flat)

    def step(self, flat: Sequence[Tensor], t: int, values: Mapping[str, float]) -> list[Tensor]:
        """phi and the new states, [n] each, from gradient, parameters and states at step ``t``. Where the states can be
        overwritten they are: fresh memory of that size costs as much as all the calculation."""
        g, w, *state = map(_dense, flat)
        weights = [_dense(weight).to(g.dtype) for weight in self._network.weights()]
        phi = torch.empty_like(g)
        arguments = (
            *(_address(g), _address(w) if self._uses_w else None, _addresses(state), _addresses(weights)),
            *(self._numbers([t], values), _address(phi)),
        )
        function = self._library(g.dtype).forward
        _shared(lambda start, stop: function(ctypes.c_long(start), ctypes.c_long(stop), *arguments), len(g))
        return [phi, *state]

    def pull_back(
        self,
        gradients: Sequence[Tensor],
        thetas: Sequence[Tensor],
        state: Sequence[Tensor],
        first: int,
        values: Mapping[str, float],
        cotangents: Tensor,
    ) -> tuple[Tensor, ...]:
        """See :meth:`~sol_learner.update_network.NetworkRunner.pull_back`."""
        effective = self._network.weights()
        g, w, old, c = ([_dense(x) for x in values] for values in (gradients, thetas, state, [cotangents]))
        weights = [_dense(weight).to(cotangents.dtype) for weight in effective]
        size, sizes = g[0].numel(), [weight.numel() for weight in weights]
        numbers = self._numbers(range(first, first + len(g)), values)
        arguments = (
            *(ctypes.c_long(size), ctypes.c_long(len(g)), _addresses(g), _addresses(w) if self._uses_w else None),
            *(_addresses(old), _addresses(weights), numbers, _address(c[0])),
        )
        function = self._library(cotangents.dtype).pull_back

        def run(start: int, stop: int) -> Tensor:
            out = torch.zeros(sum(sizes), dtype=torch.float64)
            function(ctypes.c_long(start), ctypes.c_long(stop), *arguments, _address(out))
            return out

        total = torch.stack(_shared(run, size)).sum(0).split(sizes)
        parts = [part.to(weight.dtype).view_as(weight) for part, weight in zip(total, effective)]
        return torch.autograd.grad(effective, list(self._network.parameters()), parts)


def _dense(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _shared(run: Callable[[int, int], Result], size: int) -> list[Result]:
    """``run(start, stop)`` on shares of ``size`` coordinates, by as many threads as PyTorch uses."""
    shares = [(start, min(start + _SHARE, size)) for start in range(0, size, _SHARE)]
    threads = min(torch.get_num_threads(), len(shares))
    if threads < 2:
        return [run(*share) for share in shares]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda share: run(*share), shares))
