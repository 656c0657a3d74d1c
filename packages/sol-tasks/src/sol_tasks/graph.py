"""Node classification on citation graphs: full batch, PyTorch Geometric's layers and data.

Two things make a step cheap and leave its result as it is. Features are kept sparse (1 % of Cora's are not zero), and
dropout acts on the values that are there: the same distribution as on the dense matrix. And the outputs of L layers at
the nodes of a split follow from the nodes within L hops of them, layer l from those within L - l: only these are
computed, which is a small part of PubMed for the 60 training nodes of GAT.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sol_learner import build_seeded
from sol_symbols import SolError
from sol_tasks.extras import import_extra

__all__ = ["GRAPHS", "Graph", "NodeClassification", "gat", "jknet", "load_planetoid"]

GRAPHS = ("Cora", "Citeseer", "PubMed")


class _Product(torch.autograd.Function):
    """A sparse matrix times a dense one; its transpose is given, which PyTorch would sort anew for every gradient.

    Automatic casting does not reach it: CPUs have no sparse products in bfloat16.
    """

    @staticmethod
    def forward(matrix: Tensor, transposed: Tensor, dense: Tensor) -> Tensor:
        with torch.autocast(dense.device.type, enabled=False):
            return (matrix @ dense.to(matrix.dtype)).to(dense.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.matrix, ctx.transposed, _ = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _Product.apply(ctx.transposed, ctx.matrix, gradient)


@dataclass(frozen=True)
class Graph:
    """A graph with labelled nodes, on one device; :meth:`of` makes one.

    Attributes:
        features: [N, F], sparse (CSR).
        edges: Source and target of each edge, [2, E].
        normalised: ``edges`` with self-loops, [2, E + N], and the weight of each, D^-1/2 (A + I) D^-1/2, [E + N].
        labels: [N].
        nodes: Nodes of the splits ``train``, ``valid`` and ``test``.
        classes: Number of classes.
        within: In a neighbourhood, see :meth:`around`: how many nodes are within 0, 1, ... hops, and how many of the
            normalised edges go into these. Empty for a whole graph.
    """

    features: Tensor
    edges: Tensor
    normalised: tuple[Tensor, Tensor]
    labels: Tensor
    nodes: dict[str, Tensor]
    classes: int
    within: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, features: Tensor, edges: Tensor, labels: Tensor, nodes: dict[str, Tensor]) -> Graph:
        """The graph of features [N, F] (dense), edges [2, E] (source and target; both directions of an undirected one),
        labels [N] (int64, from 0) and, for ``train``, ``valid`` and ``test``, the numbers of the split's nodes.

        Raises:
            SolError: PyTorch Geometric is not installed.
        """
        normalise = import_extra("torch_geometric.nn.conv.gcn_conv", "graph").gcn_norm
        normalised = normalise(edges, None, len(labels), dtype=features.dtype)
        return cls(_sparse(features), edges, normalised, labels, nodes, int(labels.max()) + 1)

    def to(self, device: torch.device | str) -> Graph:
        """The graph on another device."""
        edges, weights = self.normalised
        return replace(
            self,
            features=self.features.to(device),
            edges=self.edges.to(device),
            normalised=(edges.to(device), weights.to(device)),
            labels=self.labels.to(device),
            nodes={split: rows.to(device) for split, rows in self.nodes.items()},
        )

    def around(self, rows: Tensor, hops: int) -> Graph:
        """The nodes ``rows``, in this order, then those that reach them in 1, 2, ..., ``hops`` steps, and the edges
        into nodes that are fewer hops away: what ``hops`` layers need for their outputs at ``rows``.
        """
        (sources, targets), weights = self.normalised
        distance = torch.full_like(self.labels, hops + 1)
        distance[rows] = 0
        for hop in range(1, hops + 1):
            reached = sources[distance[targets] == hop - 1]
            distance[reached] = distance[reached].clamp(max=hop)
        others = torch.argsort(distance, stable=True)
        order = torch.cat([rows, others[len(rows) :]])[: int((distance <= hops).sum())]
        place = torch.empty_like(self.labels)
        place[order] = torch.arange(len(order), device=place.device)

        def renumbered(edges: Tensor) -> tuple[Tensor, Tensor]:
            chosen = (distance[edges[1]] < hops).nonzero().squeeze(1)
            chosen = chosen[torch.argsort(place[edges[1, chosen]], stable=True)]
            return place[edges[:, chosen]], chosen

        edges, chosen = renumbered(self.normalised[0])
        into = distance[targets[chosen]]
        return Graph(
            _rows(self.features, order),
            renumbered(self.edges)[0],
            (edges, weights[chosen]),
            self.labels[order],
            {},
            self.classes,
            tuple((int((distance <= hop).sum()), int((into <= hop).sum())) for hop in range(hops + 1)),
        )

    def project(self, weight: Tensor, rate: float = 0.0) -> Tensor:
        """Features times ``weight`` [F, O], a share ``rate`` of them dropped and the others scaled up: [N, O]."""
        transposed, order = self._transposed
        if not rate:
            return _Product.apply(self.features, transposed, weight)
        values = nn.functional.dropout(self.features.values(), rate)
        return _Product.apply(_with(self.features, values), _with(transposed, values[order]), weight)

    def into(self, hop: int) -> tuple[Tensor, int]:
        """The normalised edges into nodes within ``hop`` hops, and how many nodes these are; all of a whole graph."""
        nodes, edges = self.within[hop] if self.within else (len(self.labels), len(self.normalised[1]))
        return self.normalised[0][:, :edges], nodes

    def propagate(self, x: Tensor, hop: int) -> Tensor:
        """D^-1/2 (A + I) D^-1/2 x at the nodes within ``hop`` hops, of x within one hop more; all of a whole graph."""
        return _Product.apply(*self._propagation[hop if self.within else 0], x)

    @cached_property
    def _transposed(self) -> tuple[Tensor, Tensor]:
        """The transposed features, and where their values are in the features'."""
        starts = self.features.crow_indices()
        rows = torch.arange(len(starts) - 1, device=starts.device).repeat_interleave(starts.diff())
        shape = (self.features.shape[1], self.features.shape[0])
        return _matrix(self.features.col_indices(), rows, self.features.values(), shape)

    @cached_property
    def _propagation(self) -> list[tuple[Tensor, Tensor]]:
        """The matrix of :meth:`propagate` and its transpose, for each hop."""
        (sources, targets), weights = self.normalised
        sizes = [nodes for nodes, _ in self.within] or [len(self.labels)] * 2
        counts = [edges for _, edges in self.within[:-1]] or [len(weights)]
        matrices = []
        for count, (into, of) in zip(counts, itertools.pairwise(sizes)):
            s, t, w = sources[:count], targets[:count], weights[:count]
            matrices.append((_matrix(t, s, w, (into, of))[0], _matrix(s, t, w, (of, into))[0]))
        return matrices


def _matrix(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A CSR matrix and the order that its values are in. Its indices have 32 bits, which kernels of CPUs ask for."""
    order = rows.argsort(stable=True)
    starts = nn.functional.pad(rows.bincount(minlength=shape[0]).cumsum(0), (1, 0))
    matrix = torch.sparse_csr_tensor(starts.int(), columns[order].int(), values[order], shape, check_invariants=False)
    return matrix, order


def _with(matrix: Tensor, values: Tensor) -> Tensor:
    """A sparse matrix with other values."""
    rows, columns = matrix.crow_indices(), matrix.col_indices()
    return torch.sparse_csr_tensor(rows, columns, values, matrix.shape, check_invariants=False)


def _rows(matrix: Tensor, chosen: Tensor) -> Tensor:
    """Some rows of a sparse matrix."""
    starts = matrix.crow_indices().long()
    counts = starts.diff()[chosen]
    rows = torch.arange(len(chosen), device=chosen.device).repeat_interleave(counts)
    first = starts[chosen] - (counts.cumsum(0) - counts)
    entries = torch.arange(len(rows), device=chosen.device) + first[rows]
    shape = (len(chosen), matrix.shape[1])
    return _matrix(rows, matrix.col_indices()[entries], matrix.values()[entries], shape)[0]


def load_planetoid(name: str, data: Path | None = None) -> Graph:
    """Cora, Citeseer or PubMed with the public split: 20 training nodes a class, 500 valid, 1000 test.

    Rows of the features are scaled to sum 1.

    Args:
        name: One of :data:`GRAPHS`.
        data: Folder that holds ``graph/NAME/raw`` or ``NAME/raw`` with the files ``ind.*`` of the original
            distribution, which is only read. Without it PyTorch Geometric fetches them into a cache.

    Raises:
        SolError: The extra is not installed, or the files are missing, damaged or cannot be fetched.
    """
    planetoid = import_extra("torch_geometric.datasets", "graph").Planetoid
    graph = _fetched(planetoid, name) if data is None else _read(planetoid, name, data)
    features = graph.x / graph.x.sum(1, keepdim=True).clamp_min(1)
    masks = {"train": graph.train_mask, "valid": graph.val_mask, "test": graph.test_mask}
    nodes = {split: mask.nonzero().squeeze(1) for split, mask in masks.items()}
    return Graph.of(features, graph.edge_index, graph.y, nodes)


_SOURCE = "github.com/kimiyoung/planetoid/tree/master/data"
_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")


def _fetched(planetoid: Any, name: str) -> Any:
    folder = Path.home() / ".cache" / "sol"
    try:
        return planetoid(str(folder), name)[0]
    except Exception as error:  # of aiohttp, fsspec, pickle or the system, which have no class in common
        raise SolError(
            f"PyTorch Geometric cannot fetch {name} into {folder / name}: {_line(error)}; or put the files "
            f"ind.{name.lower()}.* of {_SOURCE} into DIR/graph/{name}/raw: --data DIR"
        ) from error


def _read(planetoid: Any, name: str, data: Path) -> Any:
    raw = next((r / name / "raw" for r in (data / "graph", data) if (r / name / "raw").is_dir()), None)
    if raw is None:
        raise SolError(
            f"no {name} in {data}: looked for the folders graph/{name}/raw and {name}/raw with the files "
            f"ind.{name.lower()}.* of {_SOURCE}"
        )
    files = [raw / f"ind.{name.lower()}.{part}" for part in _PARTS]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise SolError(f"no {', '.join(absent)} in {raw}; get it from {_SOURCE}")
    with tempfile.TemporaryDirectory() as scratch:  # PyTorch Geometric writes beside what it reads
        copy = Path(scratch) / name / "raw"
        copy.mkdir(parents=True)
        try:
            for file in files:
                shutil.copyfile(file, copy / file.name)
            with contextlib.redirect_stderr(io.StringIO()):  # it tells that it is processing
                return planetoid(scratch, name)[0]
        except Exception as error:  # of pickle, NumPy, PyTorch or the system, which have no class in common
            raise SolError(f"cannot read {name} in {raw}: {_line(error)}; get it anew from {_SOURCE}") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__} {error}".partition("\n")[0]


def _sparse(dense: Tensor) -> Tensor:
    with warnings.catch_warnings():  # PyTorch says of every CSR tensor that its support is in beta
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        rows, columns = dense.nonzero().unbind(1)
        return _matrix(rows, columns, dense[rows, columns], (dense.shape[0], dense.shape[1]))[0]


class _GAT(nn.Module):
    """ELU(GAT 8 x 8 heads), GAT of one head; dropout 0.6 of features and attention."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        layers = import_extra("torch_geometric.nn", "graph")
        width = graph.features.shape[1]
        self.first = layers.GATConv(width, 8, heads=8, dropout=0.6, add_self_loops=False)
        self.second = layers.GATConv(64, graph.classes, heads=1, concat=False, dropout=0.6, add_self_loops=False)
        self.weight, self.first.lin = self.first.lin.weight, nn.Identity()  # sparse features are multiplied here

    def forward(self, graph: Graph) -> Tensor:
        drop = 0.6 if self.training else 0.0
        (near, inner), (edges, nodes) = graph.into(1), graph.into(0)
        x = nn.functional.elu(self.first(graph.project(self.weight.T, drop), near)[:inner])
        return self.second(nn.functional.dropout(x, drop), edges)[:nodes]


class _JKNet(nn.Module):
    """Six GCN layers of 16 with ReLU and dropout 0.5, the maximum over their outputs, a linear head.

    A layer is a product with the normalised matrix, so of PyTorch Geometric's only the weights are used.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        conv = import_extra("torch_geometric.nn", "graph").GCNConv
        widths = (graph.features.shape[1], *[16] * 6)
        self.layers: Any = nn.ModuleList(conv(i, o, normalize=False) for i, o in itertools.pairwise(widths))
        self.head = nn.Linear(16, graph.classes)

    def forward(self, graph: Graph) -> Tensor:
        x, outputs = torch.empty(0), []
        for index, layer in enumerate(self.layers):
            projected = layer.lin(x) if index else graph.project(layer.lin.weight.T)
            x = graph.propagate(projected, len(self.layers) - 1 - index) + layer.bias
            x = nn.functional.dropout(torch.relu(x), 0.5, self.training)
            outputs.append(x)
        return self.head(torch.stack([output[: len(x)] for output in outputs]).amax(0))


class NodeClassification:
    """Classify the nodes of one graph.

    Args:
        name: Name of the task.
        model: Makes a fresh model for the graph that it gets: a module from a :class:`Graph` to logits [N, classes].
        graph: The graph; :meth:`Graph.of` makes one.
        hops: From how far nodes reach the model's output at a node, its number of layers: the model then sees the
            neighbourhoods of the splits only. The whole graph by default.
        horizon: Inner steps of an episode, T.
        device: Where model and graph live.
        decay: lambda of the penalty lambda/2 |theta|^2 in the training loss, as in the published settings.
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

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh model with the initial weights that its layers draw."""
        return build_seeded(lambda: self._model(self.graph), generator).to(self.device)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Tensor]:
        """All nodes of the split, the same at every step."""
        return itertools.repeat(self.graph.nodes[split])

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean cross-entropy over the nodes ``batch``, in nats, and the penalty."""
        logits = self._logits(model, batch)
        size = sum(parameter.square().sum() for parameter in model.parameters())
        return nn.functional.cross_entropy(logits, self.graph.labels[batch]) + self.decay / 2 * size

    def _logits(self, model: nn.Module, nodes: Tensor) -> Tensor:
        """Logits at ``nodes``; of a split's, from its neighbourhood alone."""
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
    """GAT on a graph of :data:`GRAPHS`. Source: Velickovic et al., "Graph attention networks", ICLR 2018."""
    return NodeClassification(f"gat-{name.lower()}", _GAT, load_planetoid(name, data), 2, device=device)


def jknet(name: str, data: Path | None = None, device: torch.device | str = "cpu") -> NodeClassification:
    """JK-Net on a graph of :data:`GRAPHS`. Source: Xu et al., "Representation learning on graphs with jumping
    knowledge networks", ICML 2018.
    """
    return NodeClassification(f"jknet-{name.lower()}", _JKNet, load_planetoid(name, data), 6, device=device)
