"""The graph networks of the paper: GAT and JK-Net, with PyTorch Geometric's layers.

Each maps a :class:`~sol_tasks.sparse_graph.Graph` to logits, [N, classes].
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from sol_tasks.extras import import_extra
from sol_tasks.sparse_graph import Graph

__all__ = ["GAT", "JKNet"]


class GAT(nn.Module):
    """Two GAT layers: 8 heads of 8 units with ELU, then one head; dropout 0.6 on features and attention.

    Source: Velickovic et al., "Graph attention networks", ICLR 2018.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        layers = import_extra("torch_geometric.nn", "graph")
        width = graph.features.shape[1]
        self.first = layers.GATConv(width, 8, heads=8, dropout=0.6, add_self_loops=False)
        self.second = layers.GATConv(64, graph.classes, heads=1, concat=False, dropout=0.6, add_self_loops=False)
        self.weight, self.first.lin = self.first.lin.weight, nn.Identity()  # forward multiplies sparse features itself

    def forward(self, graph: Graph) -> Tensor:
        """Logits [N, classes] at the nodes of the graph; for a neighbourhood, at the nodes that it surrounds."""
        drop = 0.6 if self.training else 0.0
        (near, inner), (edges, nodes) = graph.into(1), graph.into(0)
        x = nn.functional.elu(self.first(graph.project(self.weight.T, drop), near)[:inner])
        return self.second(nn.functional.dropout(x, drop), edges)[:nodes]


class JKNet(nn.Module):
    """Six GCN layers of 16 units with ReLU and dropout 0.5, the maximum over their outputs, and a linear head.

    A layer multiplies by the normalised adjacency matrix, so only the weights of PyTorch Geometric's layers are used.
    Source: Xu et al., "Representation learning on graphs with jumping knowledge networks", ICML 2018.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        conv = import_extra("torch_geometric.nn", "graph").GCNConv
        widths = (graph.features.shape[1], *[16] * 6)
        self.layers: Any = nn.ModuleList(conv(i, o, normalize=False) for i, o in itertools.pairwise(widths))
        self.head = nn.Linear(16, graph.classes)

    def forward(self, graph: Graph) -> Tensor:
        """Logits [N, classes] at the nodes of the graph; for a neighbourhood, at the nodes that it surrounds."""
        x, outputs = torch.empty(0), []
        for index, layer in enumerate(self.layers):
            projected = layer.lin(x) if index else graph.project(layer.lin.weight.T)
            x = graph.propagate(projected, len(self.layers) - 1 - index) + layer.bias
            x = nn.functional.dropout(torch.relu(x), 0.5, self.training)
            outputs.append(x)
        return self.head(torch.stack([output[: len(x)] for output in outputs]).amax(0))
