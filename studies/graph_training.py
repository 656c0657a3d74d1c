"""Whole trainings of GAT and JK-Net in C: what ``run_rule`` computes, for rules that are sums over five directions.

A step of these small networks in PyTorch is mostly overhead of many small operators; here it is one function of
``graph_training.c``. Networks, penalty, initial parameters and metrics are the task's own. Dropout has the same
distribution from another generator, its rate to 16 bits; without dropout, whole trainings are those of ``run_rule`` up
to rounding (``tests/test_graph_training.py``).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import sympy
import torch
from torch import Tensor, nn

from sol_learner.task import Stream, Substream, build_optimizee, generator_for, measured
from sol_symbols import SolError, UpdateRule, symbol
from sol_symbols.c_compiler import compile_library
from sol_tasks import NodeClassification

SOURCE = Path(__file__).with_suffix(".c")
DIRECTIONS = ("ad", "rs", "sign(m)", "w", "pull")
_SCHEDULES = ("cd", "ld", "late")


class _Graph(ctypes.Structure):
    _fields_ = [
        ("classes", ctypes.c_int),
        ("train", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("starts", "columns", "values", "into", "sources", "weights", "labels")),
        ("hops", ctypes.c_int),
        ("nodes", ctypes.c_void_p),
        ("inputs", ctypes.c_int),
        ("decay", ctypes.c_float),
        ("dropout", ctypes.c_int),
    ]


class GraphTraining:
    """Trainings of one task.

    Args:
        task: ``gat`` or ``jknet`` on a graph.
        dropout: Whether there is any.

    Raises:
        SolError: The C code cannot be compiled.
    """

    def __init__(self, task: NodeClassification, dropout: bool = True) -> None:
        self.task, self._library = task, _library()
        model = task.build(torch.Generator().manual_seed(0))
        self.attention = type(model).__name__ == "GAT"
        hops = 2 if self.attention else 6
        part = task.graph.around(task.graph.nodes["train"], hops)
        (sources, targets), weights = part.normalised
        into = torch.bincount(targets, minlength=len(part.labels)).cumsum(0)
        kept = {
            "starts": part.features.crow_indices().int(),
            "columns": part.features.col_indices().int(),
            "values": part.features.values(),
            "into": nn.functional.pad(into, (1, 0)).int(),
            "sources": sources.int(),
            "weights": weights,
            "labels": part.labels.int(),
            "nodes": torch.tensor([nodes for nodes, _ in part.within], dtype=torch.int32),
        }
        self._kept = {name: tensor.contiguous() for name, tensor in kept.items()}  # C points into them
        pointers = {name: tensor.data_ptr() for name, tensor in self._kept.items()}
        sizes = {"classes": part.classes, "train": part.within[0][0], "hops": hops, "inputs": part.features.shape[1]}
        self._graph = _Graph(**pointers, **sizes, decay=task.decay, dropout=dropout)

    def run(self, rule: str, stream: Stream, episode: int, splits: Iterable[str]) -> dict[str, dict[str, float]]:
        """The task's metrics on the splits after an episode of the rule with this text."""
        model = self.trained(UpdateRule.parse(rule), stream, episode)
        return {split: measured(self.task, model, split) for split in splits}

    def trained(self, rule: UpdateRule, stream: Stream, episode: int, steps: int | None = None) -> nn.Module:
        """The model of an episode after ``steps`` steps, by default all of them."""
        model = build_optimizee(self.task, 0, stream, episode)
        tensors = list(self._ordered(model))
        theta = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        table = coefficients(rule, self.task.horizon)
        steps = self.task.horizon if steps is None else steps
        losses = numpy.empty(steps)
        seed = int(torch.randint(2**62, (), generator=generator_for(0, stream, episode, Substream.LAYERS)))
        betas = [rule.values.get(name) or 0.5 for name in ("beta1", "beta2", "beta_avg")]
        self._library.train(
            ctypes.byref(self._graph),
            *(int(self.attention), ctypes.c_void_p(theta.data_ptr()), len(theta), steps),
            *(ctypes.c_void_p(table.ctypes.data), *map(ctypes.c_double, betas), ctypes.c_uint64(seed)),
            ctypes.c_void_p(losses.ctypes.data),
        )
        with torch.no_grad():
            for tensor, piece in zip(tensors, theta.split([tensor.numel() for tensor in tensors])):
                tensor.copy_(piece.view(tensor.shape))
        return model

    def _ordered(self, model: Any) -> Iterable[Tensor]:
        """Views of the model's parameters as C has them: in this order, matrices transposed."""
        if self.attention:
            first, second = model.first, model.second
            yield from (model.weight.T, first.att_src, first.att_dst, first.bias)
            yield from (second.lin.weight.T, second.att_src, second.att_dst, second.bias)
        else:
            yield from (layer.lin.weight.T for layer in model.layers)
            yield from (layer.bias for layer in model.layers)
            yield from (model.head.weight.T, model.head.bias)


def coefficients(rule: UpdateRule, horizon: int) -> numpy.ndarray:
    """The rate times the rule's coefficients of :data:`DIRECTIONS` at each step, float32 [T, 5].

    Raises:
        SolError: The rule is no sum over them with coefficients that only t changes, or has no rate, or another eps.
    """
    names = [symbol(f"x{i}") for i in range(len(DIRECTIONS))]
    given = [rule.vocabulary.parse(direction) for direction in DIRECTIONS]
    open_ = sympy.expand(rule.expression.xreplace(dict(zip(given, names))))
    factors = [open_.diff(name) for name in names]
    t, rest = symbol("t"), sympy.expand(open_ - sum(f * name for f, name in zip(factors, names)))
    definitions = {symbol(name): rule.vocabulary.definitions[name] for name in _SCHEDULES}
    numbers = {symbol(name): value for name, value in rule.values.items()} | {symbol("T"): horizon}
    factors[-1] *= symbol("late")  # pull is late*(w - w_avg)
    closed = [factor.xreplace(definitions).xreplace(numbers) for factor in factors]
    others = rest != 0 or any(factor.free_symbols - {t} for factor in closed)
    if others or rule.lr is None or rule.values.get("eps", 1e-8) != 1e-8:
        said = ", ".join(DIRECTIONS)
        raise SolError(f"{rule} is no sum over {said} with schedules as coefficients, a rate and eps 1e-8")
    functions = [sympy.lambdify(t, factor, "math") for factor in closed]
    rows = [[rule.lr * function(float(step)) for function in functions] for step in range(1, horizon + 1)]
    return numpy.array(rows, numpy.float32)


@cache
def _library() -> ctypes.CDLL:
    library = compile_library(SOURCE.read_text(encoding="utf-8"))
    if isinstance(library, str):
        raise SolError(f"cannot compile {SOURCE.name}: {library}; install a C compiler")
    library.train.restype = None
    return library
