"""Node classification on one graph, full batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sol_learner.task import build_seeded
from sol_symbols import SolError
from sol_tasks.graph_networks import GAT, JKNet
from sol_tasks.planetoid import load_planetoid
from sol_tasks.sparse_graph import Graph

__all__ = ["NodeClassification", "gat", "jknet"]


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

    Raises:
        SolError: With ``hops``, a model's outputs at the nodes of a split are not those of the whole graph.
    """

    vectorizable = False
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
    ) -> None:
        self.name, self.horizon, self.device, self.decay = name, horizon, torch.device(device), decay
        self._model, self.graph = model, graph.to(device)
        nodes = self.graph.nodes.items()
        self._parts = {} if hops is None else {split: self.graph.around(rows, hops) for split, rows in nodes}
        if hops is not None:
            self._check_hops(hops)

    @torch.no_grad()
    def _check_hops(self, hops: int) -> None:
        model = self.build(torch.Generator().manual_seed(0))
        norm = next((name for name, module in model.named_modules() if isinstance(module, _BatchNorm)), None)
        if norm is not None:
            raise SolError(f"{norm} normalises over all nodes that the model is called with; use hops = None")
        whole = model.eval()(self.graph)
        for split, rows in self.graph.nodes.items():
            difference = float((model(self._parts[split])[: len(rows)] - whole[rows]).abs().max())
            if not difference <= 1e-3 * float(whole[rows].abs().max()):
                raise SolError(
                    f"hops = {hops} is too few: outputs at the nodes of {split!r} differ from those of the whole graph "
                    f"by {difference:.2g}; use hops = {hops + 1} for layers that count degrees themselves, as GCNConv "
                    "does, or hops = None"
                )

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh model with the default initialisation of its layers."""
        return build_seeded(lambda: self._model(self.graph), generator).to(self.device)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Tensor]:
        """All nodes of the split, the same at every step."""
        return itertools.repeat(self.graph.nodes[split])

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean cross-entropy over the nodes ``batch``, in nats, plus the penalty."""
        logits = self._logits(model, batch)
        size = sum(parameter.square().sum() for parameter in model.parameters())
        return nn.functional.cross_entropy(logits, self.graph.labels[batch]) + self.decay / 2 * size

    def _logits(self, model: nn.Module, nodes: Tensor) -> Tensor:
        """Logits at ``nodes``; for the nodes of a split, computed from its neighbourhood alone."""
        for split, part in self._parts.items():
            if nodes is self.graph.nodes[split]:
                return model(part)[: len(nodes)]
        return model(self.graph)[nodes]

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Cross-entropy ``loss`` and ``accuracy`` in [0, 1] over the nodes of the split."""
        nodes = self.graph.nodes[split]
        logits, labels = self._logits(model, nodes), self.graph.labels[nodes]
        loss = nn.functional.cross_entropy(logits, labels)
        return {"loss": float(loss), "accuracy": float((logits.argmax(1) == labels).float().mean())}


def gat(name: str, data: Path | None = None, device: torch.device | str = "cpu") -> NodeClassification:
    """GAT on Cora, Citeseer or PubMed, T = 250.

    Source: Velickovic et al., "Graph attention networks", ICLR 2018.
    """
    return NodeClassification(f"gat-{name.lower()}", GAT, load_planetoid(name, data), 2, device=device)


def jknet(name: str, data: Path | None = None, device: torch.device | str = "cpu") -> NodeClassification:
    """JK-Net on Cora, Citeseer or PubMed, T = 250.

    Source: Xu et al., "Representation learning on graphs with jumping knowledge networks", ICML 2018.
    """
    return NodeClassification(f"jknet-{name.lower()}", JKNet, load_planetoid(name, data), 6, device=device)
