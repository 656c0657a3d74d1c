"""The EQL network as compiled C, for coordinates on the CPU.

A C compiler runs once for each network and precision. That takes about a second for the default network and grows with
the square of a layer's width. The files are deleted once they are loaded.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from sol_learner.networks.base import EQLLayers
from sol_learner.networks.native_source import native_source, scalar_names
from sol_symbols import Evaluator, SolError, hoisted
from sol_symbols.c_compiler import compile_library

__all__ = ["NativeKernel"]

Result = TypeVar("Result")

_TYPES = {torch.float32: "float", torch.float64: "double"}
_compiled = functools.cache(compile_library)  # once a process
_SHARE = 1 << 15  # coordinates that one thread takes at a time; results do not depend on the number of threads


class NativeKernel:
    """phi, new states and meta-gradients of a network.

    Args:
        network: phi.
        features: An evaluator of its features.

    Raises:
        SolError: There is no C compiler, or it cannot compile the network in its precision.
    """

    def __init__(self, network: EQLLayers, features: Evaluator) -> None:
        # Elementwise code then refers to numbers only by name: 1 - beta and the like are computed in double precision.
        self._arguments = network, features
        self._network, self._features = network, Evaluator(hoisted(features.program), torch)
        self._scalars, self._uses_w = scalar_names(self._features), features.program.uses("w")
        self._libraries: dict[torch.dtype, ctypes.CDLL | str] = {}
        self._given: tuple[tuple[str, float], ...] = ()
        self._rows: dict[int, list[float]] = {}
        library = self._library(next(network.parameters()).dtype)
        if isinstance(library, str):
            raise SolError(library)

    def __reduce__(self) -> tuple[type[NativeKernel], tuple[EQLLayers, Evaluator]]:
        return NativeKernel, self._arguments  # another process compiles the code again

    def fits(self, *tensors: Tensor) -> bool:
        """Whether the kernel can process the tensors: on the CPU, of equal size, all float32 or all float64."""
        first = tensors[0]
        alike = all(x.dtype == first.dtype and x.is_cpu and x.numel() == first.numel() for x in tensors)
        return alike and isinstance(self._library(first.dtype), ctypes.CDLL)

    def _library(self, dtype: torch.dtype) -> ctypes.CDLL | str:
        """The code for coordinates of ``dtype``, or why there is none."""
        if dtype not in _TYPES:
            return f"no code for {dtype}"
        if dtype not in self._libraries:
            self._libraries[dtype] = _compiled(native_source(self._network, self._features, _TYPES[dtype]))
        return self._libraries[dtype]

    def _function(self, name: str, dtype: torch.dtype) -> Callable[..., object]:
        library = self._library(dtype)
        assert isinstance(library, ctypes.CDLL)
        return library[name]

    def _numbers(self, steps: Sequence[int], values: Mapping[str, float]) -> ctypes.Array[ctypes.c_double]:
        """Scalars of all steps, one step after the other."""
        given = tuple(values.items())
        if given != self._given:  # every window and episode repeats the same steps
            self._given, self._rows = given, {}
        for t in steps:
            if t not in self._rows:
                row = self._features.scalars(t, values)
                self._rows[t] = [float(row[name]) for name in self._scalars]
        flat = [number for t in steps for number in self._rows[t]]
        return (ctypes.c_double * len(flat))(*flat)

    def step(self, flat: Sequence[Tensor], t: int, values: Mapping[str, float]) -> list[Tensor]:
        """phi and the new states, [n] each, at step ``t``, from gradient, parameters and states that pass :meth:`fits`.

        Overwrites the states where it can: allocating that much memory costs as much as the whole computation.
        """
        g, w, *state = map(_dense, flat)
        weights = [_dense(weight).to(g.dtype) for weight in self._network.weights()]
        phi = torch.empty_like(g)
        arguments = (
            *(_address(g), _address(w) if self._uses_w else None, _addresses(state), _addresses(weights)),
            *(self._numbers([t], values), _address(phi)),
        )
        function = self._function("forward", g.dtype)
        _shared(lambda start, stop: function(ctypes.c_long(start), ctypes.c_long(stop), *arguments), len(g))
        return [phi, *state]

    def vjp(
        self,
        gradients: Sequence[Tensor],
        thetas: Sequence[Tensor],
        state: Sequence[Tensor],
        first: int,
        values: Mapping[str, float],
        cotangents: Tensor,
    ) -> tuple[Tensor, ...]:
        """See :meth:`~sol_learner.networks.base.NetworkRunner.vjp`; for tensors that pass :meth:`fits`."""
        effective = self._network.weights()
        g, w, old, c = ([_dense(x) for x in given] for given in (gradients, thetas, state, [cotangents]))
        weights = [_dense(weight).to(cotangents.dtype) for weight in effective]
        size, sizes = g[0].numel(), [weight.numel() for weight in weights]
        numbers = self._numbers(range(first, first + len(g)), values)
        arguments = (
            *(ctypes.c_long(size), ctypes.c_long(len(g)), _addresses(g), _addresses(w) if self._uses_w else None),
            *(_addresses(old), _addresses(weights), numbers, _address(c[0])),
        )
        function = self._function("vjp", cotangents.dtype)

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
    """``run(start, stop)`` on shares of ``size`` coordinates, with as many threads as PyTorch uses."""
    shares = [(start, min(start + _SHARE, size)) for start in range(0, size, _SHARE)]
    threads = min(torch.get_num_threads(), len(shares))
    if threads < 2:
        return [run(*share) for share in shares]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda share: run(*share), shares))
