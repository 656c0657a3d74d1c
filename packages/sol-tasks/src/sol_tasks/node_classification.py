"""Node classification on one graph, full batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from sol_learner.task import build_seeded
from sol_symbols import SolError
from sol_tasks.graph_networks import GAT, JKNet
from sol_tasks.planetoid import load_planetoid
from sol_tasks.sparse_graph import Graph

__all__ = ["NodeClassification", "gat", "jknet"]

_NEAR = 1e-3
"""Relative difference of outputs that are the same but for rounding."""

Nodes = dict[str, Tensor]
"""The nodes of one split, by its name."""


class NodeClassification:
    """Classify the nodes of one graph.

    Args:
        name: Name of the task.
        model: Returns a fresh model for a graph: a module that maps a :class:`Graph` to logits [N, classes].
        graph: The graph; :meth:`Graph.of` makes one.
        hops: How many hops away a node can be and still affect the model's output: its number of layers, and one more
            for layers that count degrees themselves, as PyTorch Geometric's ``GCNConv`` does. The model is then called
            with the neighbourhoods of the splits only; by default with the whole graph.
        horizon: Inner steps of an episode, T.
        device: Device of the model and the graph.
        decay: lambda of the penalty lambda/2 |theta|^2 in the training loss, as in the published settings.
        vectorizable: Whether :func:`torch.vmap` can map the model, so that several are trained side by side.

    Raises:
        SolError: With ``hops``, a model's outputs at the nodes of a split are not those of the whole graph.
    """

    unroll = 50

    def __init__(
        self,
        name: str,
        model: Callable[[Graph], nn.Module],
        graph: Graph,
        hops: int | None = None,
        horizon: int = 250,
        device: torch.device | str = "cpu",
        decay: float = 5e-4,
        vectorizable: bool = False,
    ) -> None:
        self.vectorizable = vectorizable
        self.name, self.horizon, self.device, self.decay = name, horizon, torch.device(device), decay
        if hops is not None and (isinstance(hops, bool) or not isinstance(hops, int) or hops < 1):
            raise SolError(f"hops must be a whole number of at least 1, or None for the whole graph, got {hops!r}")
        self._model, self.graph = model, graph.to(device)
        nodes = self.graph.nodes.items()
        self._parts = {} if hops is None else {split: self._around(rows, hops) for split, rows in nodes}
        if hops is not None:
            self._check_hops(hops)

    def _around(self, rows: Tensor, hops: int) -> tuple[Graph, Tensor]:
        """The neighbourhood of nodes, and where in it each of them is, [N]."""
        places = torch.zeros_like(self.graph.labels)
        places[rows] = torch.arange(len(rows), device=places.device)
        return self.graph.around(rows, hops), places

    @torch.no_grad()
    def _check_hops(self, hops: int) -> None:
        model = self.build(torch.Generator().manual_seed(0))
        for name, module in model.named_modules():
            if isinstance(module, _NormBase):
                raise SolError(f"{name} normalises over all nodes that the model is called with; use hops = None")
            if getattr(module, "cached", False) is True:
                raise SolError(f"{name} keeps the first graph that it sees; set its cached = False, or use hops = None")
        whole = self._called(model.eval(), self.graph)
        for split, rows in self.graph.nodes.items():
            difference = self._difference(model, self._parts[split][0], whole[rows])
            if not difference <= _NEAR:
                more = self._difference(model, self.graph.around(rows, hops + 1), whole[rows])
                remedy = (
                    f"use hops = {hops + 1}: layers that count degrees themselves, as GCNConv does, need one more"
                    if more <= _NEAR
                    else "use more, or hops = None if a layer sees all nodes or the model keeps a graph of its own"
                )
                raise SolError(
                    f"hops = {hops} is too few: outputs at the nodes of {split!r} differ from those of the whole graph "
                    f"by {difference:.2g} of their size; {remedy}"
                )
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # layers draw random numbers
            whole = self._called(model.train(), self.graph)
            if not self._difference(model, self.graph, whole) <= _NEAR:  # dropout, drawn anew
                return
            for split, rows in self.graph.nodes.items():
                difference = self._difference(model, self._parts[split][0], whole[rows])
                if not difference <= _NEAR:
                    raise SolError(
                        f"in training mode, outputs at the nodes of {split!r} differ from those of the whole graph by "
                        f"{difference:.2g} of their size: a layer normalises over all nodes; use hops = None"
                    )

    def _difference(self, model: nn.Module, part: Graph, whole: Tensor) -> float:
        """The largest difference of a neighbourhood's outputs from those of the whole graph, relative to them."""
        found = self._called(model, part)[: len(whole)]
        return float((found - whole).abs().max() / whole.abs().max().clamp(min=1e-30))

    def _called(self, model: nn.Module, graph: Graph) -> Tensor:
        try:
            return model(graph)
        except Exception as error:  # of a model of others
            where = (
                "the whole graph" if graph is self.graph else "a neighbourhood; use hops = None if it needs all nodes"
            )
            raise SolError(f"the model of {self.name} raised {type(error).__name__}: {error}, with {where}") from error

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh model with the default initialisation of its layers."""
        return build_seeded(lambda: self._model(self.graph), generator).to(self.device)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Nodes]:
        """All nodes of the split, by its name, the same at every step."""
        return itertools.repeat({split: self.graph.nodes[split]})

    def loss(self, model: nn.Module, batch: Nodes) -> Tensor:
        """Mean cross-entropy over the nodes of the batch, in nats, plus the penalty."""
        ((split, nodes),) = batch.items()
        size = sum(parameter.square().sum() for parameter in model.parameters())
        loss = nn.functional.cross_entropy(self._logits(model, split, nodes), self.graph.labels[nodes])
        return loss + self.decay / 2 * size

    def _logits(self, model: nn.Module, split: str, nodes: Tensor) -> Tensor:
        """Logits at some nodes of a split, computed from its neighbourhood alone where there is one."""
        if split not in self._parts:
            return model(self.graph)[nodes]
        part, places = self._parts[split]
        return model(part)[places[nodes]]

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Over the nodes of the split: cross-entropy ``loss``, ``accuracy`` in [0, 1], and ``calibrated``.

        The last is the cross-entropy at the best single temperature. Confidence, which changes the loss after accuracy
        is settled, cannot change it.
        """
        nodes = self.graph.nodes[split]
        logits, labels = self._logits(model, split, nodes), self.graph.labels[nodes]
        loss, accuracy = nn.functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()
        return {"loss": float(loss), "accuracy": float(accuracy), "calibrated": _calibrated(logits, labels)}


def _calibrated(logits: Tensor, labels: Tensor) -> float:
    """min over b in [2^-8, 2^8] of the cross-entropy of b * ``logits``, which is convex in b."""
    best, loss = 0.0, torch.tensor(torch.nan)
    for width in (8.0, 0.5, 0.03):
        powers = best + torch.linspace(-width, width, 33, device=logits.device)
        scaled = powers.exp2()[:, None, None] * logits
        losses = nn.functional.cross_entropy(scaled.movedim(0, -1), labels[:, None].expand(-1, 33), reduction="none")
        loss, place = losses.mean(0).min(0)
        best = float(powers[place])
    return float(loss)


def gat(name: str, data: str | Path | None = None, device: torch.device | str = "cpu") -> NodeClassification:
    """GAT on Cora, Citeseer or PubMed, T = 250.

    Source: Velickovic et al., "Graph attention networks", ICLR 2018.
    """
    graph = load_planetoid(name, data)
    return NodeClassification(f"gat-{name.lower()}", GAT, graph, 2, device=device)


def jknet(name: str, data: str | Path | None = None, device: torch.device | str = "cpu") -> NodeClassification:
    """JK-Net on Cora, Citeseer or PubMed, T = 250.

    Source: Xu et al., "Representation learning on graphs with jumping knowledge networks", ICML 2018.
    """
    graph = load_planetoid(name, data)
    return NodeClassification(f"jknet-{name.lower()}", JKNet, graph, 6, device=device, vectorizable=True)
