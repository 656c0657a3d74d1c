"""Node classification on citation graphs: full batch, PyTorch Geometric's layers and data.

Features are kept sparse (1 % of Cora's are not zero), and dropout acts on the values that are there: the same
distribution as on the dense matrix, and an inner step of GAT on Cora takes a tenth of the time.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sol_learner import build_seeded
from sol_symbols import SolError
from sol_tasks.extras import import_extra

__all__ = ["GRAPHS", "Graph", "NodeClassification", "gat", "jknet", "load_planetoid"]

GRAPHS = ("Cora", "Citeseer", "PubMed")


@dataclass(frozen=True)
class Graph:
    """A graph with labelled nodes, on one device.

    Attributes:
        features: [N, F], sparse (CSR).
        edges: Source and target of each edge, [2, E].
        normalised: ``edges`` with self-loops, [2, E + N], and the weight of each, D^-1/2 (A + I) D^-1/2, [E + N].
        labels: [N].
        nodes: Nodes of the splits ``train``, ``valid`` and ``test``.
        classes: Number of classes.
    """

    features: Tensor
    edges: Tensor
    normalised: tuple[Tensor, Tensor]
    labels: Tensor
    nodes: dict[str, Tensor]
    classes: int

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


def load_planetoid(name: str, data: Path | None = None) -> Graph:
    """Cora, Citeseer or PubMed with the public split: 20 training nodes a class, 500 valid, 1000 test.

    Rows of the features are scaled to sum 1.

    Args:
        name: One of :data:`GRAPHS`.
        data: Folder that holds ``graph/NAME/raw`` or ``NAME/raw`` with the files ``ind.*`` of the original
            distribution, which is only read. Without it PyTorch Geometric fetches them into a cache.

    Raises:
        SolError: The extra is not installed, or the files are missing.
    """
    datasets = import_extra("torch_geometric.datasets", "graph")
    utils = import_extra("torch_geometric.nn.conv.gcn_conv", "graph")
    if data is None:
        loaded = datasets.Planetoid(str(Path.home() / ".cache" / "sol"), name)
    else:
        raw = next((r / name / "raw" for r in (data / "graph", data) if (r / name / "raw").is_dir()), None)
        if raw is None:
            raise SolError(
                f"no {name} in {data}: looked for the folders graph/{name}/raw and {name}/raw with the files "
                f"ind.{name.lower()}.* of github.com/kimiyoung/planetoid/data"
            )
        with tempfile.TemporaryDirectory() as scratch:  # PyTorch Geometric writes beside what it reads
            copy = Path(scratch) / name / "raw"
            copy.mkdir(parents=True)
            for file in raw.glob("ind.*"):
                shutil.copyfile(file, copy / file.name)
            with contextlib.redirect_stderr(io.StringIO()):  # it tells that it is processing
                loaded = datasets.Planetoid(scratch, name)
    graph = loaded[0]
    features = graph.x / graph.x.sum(1, keepdim=True).clamp_min(1)
    masks = {"train": graph.train_mask, "valid": graph.val_mask, "test": graph.test_mask}
    return Graph(
        _sparse(features),
        graph.edge_index,
        utils.gcn_norm(graph.edge_index, None, len(graph.y)),
        graph.y,
        {split: mask.nonzero().squeeze(1) for split, mask in masks.items()},
        int(loaded.num_classes),
    )


def _sparse(dense: Tensor) -> Tensor:
    with warnings.catch_warnings():  # PyTorch says of every CSR tensor that its support is in beta
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return dense.to_sparse_csr()


def _drop(features: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout of a sparse matrix."""
    if not training:
        return features
    values = nn.functional.dropout(features.values(), rate)
    rows, columns = features.crow_indices(), features.col_indices()
    return torch.sparse_csr_tensor(rows, columns, values, features.shape, check_invariants=False)


class _GAT(nn.Module):
    """ELU(GAT 8 x 8 heads), GAT of one head; dropout 0.6 of features and attention."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        layers = import_extra("torch_geometric.nn", "graph")
        self.first = layers.GATConv(graph.features.shape[1], 8, heads=8, dropout=0.6)
        self.second = layers.GATConv(64, graph.classes, heads=1, concat=False, dropout=0.6)

    def forward(self, graph: Graph) -> Tensor:
        x = nn.functional.elu(self.first(_drop(graph.features, 0.6, self.training), graph.edges))
        return self.second(nn.functional.dropout(x, 0.6, self.training), graph.edges)


class _JKNet(nn.Module):
    """Six GCN layers of 16 with ReLU and dropout 0.5, the maximum over their outputs, a linear head."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        layers = import_extra("torch_geometric.nn", "graph")
        widths = (graph.features.shape[1], *[16] * 6)
        self.layers = nn.ModuleList(layers.GCNConv(i, o, normalize=False) for i, o in itertools.pairwise(widths))
        self.head = nn.Linear(16, graph.classes)

    def forward(self, graph: Graph) -> Tensor:
        x, outputs = graph.features, []
        for layer in self.layers:
            x = nn.functional.dropout(torch.relu(layer(x, *graph.normalised)), 0.5, self.training)
            outputs.append(x)
        return self.head(torch.stack(outputs).amax(0))


class NodeClassification:
    """Classify the nodes of one graph.

    Args:
        name: Name of the task.
        model: Makes a fresh model, a module from a :class:`Graph` to logits [N, classes].
        graph: The graph.
        horizon: Inner steps of an episode, T.
        device: Where model and graph live.
        decay: lambda of the penalty lambda/2 |theta|^2 in the training loss, as in the published settings.
    """

    vectorizable = False
    unroll = 50

    def __init__(
        self,
        name: str,
        model: type[nn.Module],
        graph: Graph,
        horizon: int = 250,
        device: torch.device | str = "cpu",
        decay: float = 5e-4,
    ) -> None:
        self.name, self.horizon, self.device, self.decay = name, horizon, torch.device(device), decay
        self._model, self.graph = model, graph.to(device)

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh model with the initial weights that its layers draw."""
        return build_seeded(lambda: self._model(self.graph), generator).to(self.device)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Tensor]:
        """All nodes of the split, the same at every step."""
        return itertools.repeat(self.graph.nodes[split])

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean cross-entropy over the nodes ``batch``, in nats, and the penalty."""
        logits = model(self.graph)[batch]
        size = sum(parameter.square().sum() for parameter in model.parameters())
        return nn.functional.cross_entropy(logits, self.graph.labels[batch]) + self.decay / 2 * size

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Cross-entropy ``loss`` and ``accuracy`` in [0, 1] over the nodes of the split."""
        nodes = self.graph.nodes[split]
        logits, labels = model(self.graph)[nodes], self.graph.labels[nodes]
        loss = nn.functional.cross_entropy(logits, labels)
        return {"loss": float(loss), "accuracy": float((logits.argmax(1) == labels).float().mean())}


def gat(name: str, data: Path | None = None, device: torch.device | str = "cpu") -> NodeClassification:
    """GAT on a graph of :data:`GRAPHS`. Source: Velickovic et al., "Graph attention networks", ICLR 2018."""
    return NodeClassification(f"gat-{name.lower()}", _GAT, load_planetoid(name, data), device=device)


def jknet(name: str, data: Path | None = None, device: torch.device | str = "cpu") -> NodeClassification:
    """JK-Net on a graph of :data:`GRAPHS`. Source: Xu et al., "Representation learning on graphs with jumping
    knowledge networks", ICML 2018.
    """
    return NodeClassification(f"jknet-{name.lower()}", _JKNet, load_planetoid(name, data), device=device)
