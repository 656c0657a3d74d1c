"""A graph with sparse features, its neighbourhoods, and the sparse products that graph networks need.

Two things make a step cheap and leave its result unchanged. Features stay sparse (1 % of Cora's are not zero), and
dropout acts on the stored values, which has the same distribution as on the dense matrix. And the outputs of L layers
at the nodes of a split depend only on the nodes within L hops, and those of layer l on the nodes within L - l. Only
these are computed, which is a small part of PubMed for the 60 training nodes of GAT.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sol_symbols import SolError
from sol_tasks.extras import import_extra

__all__ = ["Graph"]

_SPLITS = ("train", "valid", "test")


class _Matrix:
    """A sparse matrix for products, and its transpose, which PyTorch would sort again for every gradient.

    Attributes:
        csr: The matrix.
        order: Where the values of the transpose are among those of ``csr``.
        transposed: The transpose.
    """

    order: Tensor
    transposed: _Matrix

    def __init__(self, csr: Tensor) -> None:
        self.csr = csr

    @classmethod
    def of(cls, csr: Tensor) -> _Matrix:
        """The matrix ``csr`` with its transpose."""
        starts = csr.crow_indices()
        rows = torch.arange(len(starts) - 1, device=starts.device).repeat_interleave(starts.diff())
        transposed, order = _csr(csr.col_indices(), rows, csr.values(), (csr.shape[1], csr.shape[0]))
        this, other = cls(csr), cls(transposed)
        this.order, other.order = order, order.argsort()
        this.transposed, other.transposed = other, this
        return this

    def __matmul__(self, dense: Tensor) -> Tensor:
        return _Product.apply(self, None, dense)

    def product(self, values: Tensor, dense: Tensor) -> Tensor:
        """The product with other values at the same places."""
        return _Product.apply(self, values, dense)


class _Product(torch.autograd.Function):
    """A :class:`_Matrix` times a dense one, with other values where they are given; differentiable in the dense one.

    Dense matrices that :func:`torch.vmap` stacks are multiplied at once, as one with more columns.
    Autocast is disabled, because CPUs have no sparse products in bfloat16.
    """

    @staticmethod
    def forward(matrix: _Matrix, values: Tensor | None, dense: Tensor) -> Tensor:
        csr = matrix.csr
        if values is not None:
            rows, columns = csr.crow_indices(), csr.col_indices()
            csr = torch.sparse_csr_tensor(rows, columns, values, csr.shape, check_invariants=False)
        with torch.autocast(dense.device.type, enabled=False):
            return (csr @ dense.to(csr.dtype)).to(dense.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[_Matrix, Tensor | None, Tensor], output: Tensor) -> None:
        ctx.matrix, values, _ = inputs
        ctx.save_for_backward(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        (values,) = ctx.saved_tensors
        if values is not None:
            values = values[ctx.matrix.order]
        return None, None, _Product.apply(ctx.matrix.transposed, values, gradient)

    @staticmethod
    def vmap(info: Any, in_dims: Any, matrix: _Matrix, values: Tensor | None, dense: Tensor) -> tuple[Tensor, int]:
        _, along, axis = in_dims
        if along is not None and values is not None:  # masks of its own for each model
            columns = itertools.repeat(dense) if axis is None else dense.unbind(axis)
            return torch.stack([_Product.apply(matrix, *own) for own in zip(values.unbind(along), columns)]), 0
        wide = dense.movedim(axis, 1)
        return _Product.apply(matrix, values, wide.flatten(1)).unflatten(1, wide.shape[1:]), 1


@dataclass(frozen=True)
class Graph:
    """A graph with labelled nodes on one device; :meth:`of` makes one.

    Attributes:
        features: [N, F], sparse (CSR).
        edges: Source and target of each edge, [2, E].
        normalised: ``edges`` with self-loops, [2, E + N], and the weight of each, D^-1/2 (A + I) D^-1/2, [E + N].
        labels: [N].
        nodes: Nodes of the splits ``train``, ``valid`` and ``test``.
        classes: Number of classes.
        within: For a neighbourhood (see :meth:`around`), how many nodes are within 0, 1, ... hops, and how many of the
            normalised edges point to these nodes. Empty for a whole graph.
    """

    features: Tensor
    edges: Tensor
    normalised: tuple[Tensor, Tensor]
    labels: Tensor
    nodes: dict[str, Tensor]
    classes: int
    within: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, features: Any, edges: Any, labels: Any, nodes: Mapping[str, Any]) -> Graph:
        """Make a graph, of tensors, arrays or lists, or SciPy's sparse matrices.

        Args:
            features: Floats, [N, F].
            edges: Source and target of each edge, [2, E]; an undirected edge is listed in both directions. Or the
                sparse adjacency matrix, [N, N].
            labels: Integers from 0, [N] or [N, 1]; anything at nodes that are in no split.
            nodes: The nodes of the splits ``train``, ``valid`` and ``test``: indices, each once, or boolean masks [N].

        Raises:
            SolError: An argument is not as above, or PyTorch Geometric is not installed.
        """
        if hasattr(edges, "tocoo"):  # an adjacency matrix of SciPy
            matrix = edges.tocoo()
            edges = torch.stack([torch.from_numpy(part).long() for part in (matrix.row, matrix.col)])
        features = features.toarray() if hasattr(features, "toarray") else features
        features, edges = _tensor("features", features), _tensor("edges", edges)
        labels = _checked_labels(_tensor("labels", labels), features)
        _check_edges(edges, len(labels))
        nodes = _checked_nodes(nodes, len(labels))
        for one, other in itertools.combinations(nodes, 2):
            common = int(torch.isin(nodes[one], nodes[other]).sum())
            if common:
                raise SolError(f"the splits {one!r} and {other!r} share {common} nodes; give each node to one")
        for split, rows in nodes.items():
            least = int(labels[rows].min())
            if least < 0:
                raise SolError(
                    f"labels of the nodes of {split!r} must be at least 0, got {least}; leave these nodes out"
                )
        normalise = import_extra("torch_geometric.nn.conv.gcn_conv", "graph").gcn_norm
        normalised = normalise(edges, None, len(labels), dtype=features.dtype)
        classes = 1 + max(int(labels[rows].max()) for rows in nodes.values())
        return cls(_sparse(features), edges, normalised, labels, nodes, classes)

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
        """The neighbourhood that ``hops`` layers need for their outputs at the nodes ``rows``.

        Its nodes are ``rows``, in this order, then those that reach them in 1, 2, ..., ``hops`` steps. Its edges are
        those that point to nodes fewer than ``hops`` hops away.
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
        """Features times ``weight`` [F, O], with dropout ``rate`` on the features: [N, O]."""
        if not rate:
            return self._features @ weight
        return self._features.product(nn.functional.dropout(self.features.values(), rate), weight)

    def into(self, hop: int) -> tuple[Tensor, int]:
        """The normalised edges to nodes within ``hop`` hops, and the number of these nodes; all for a whole graph."""
        nodes, edges = self.within[hop] if self.within else (len(self.labels), len(self.normalised[1]))
        return self.normalised[0][:, :edges], nodes

    def propagate(self, x: Tensor, hop: int) -> Tensor:
        """D^-1/2 (A + I) D^-1/2 x at the nodes within ``hop`` hops, from x at the nodes within ``hop`` + 1.

        For a whole graph, x and the result are at all nodes.
        """
        return self._propagation[hop if self.within else 0] @ x

    @cached_property
    def _features(self) -> _Matrix:
        return _Matrix.of(self.features)

    @cached_property
    def _propagation(self) -> list[_Matrix]:
        """The matrix of :meth:`propagate` for each hop."""
        (sources, targets), weights = self.normalised
        sizes = [nodes for nodes, _ in self.within] or [len(self.labels)] * 2
        counts = [edges for _, edges in self.within[:-1]] or [len(weights)]
        return [
            _Matrix.of(_csr(targets[:count], sources[:count], weights[:count], shape)[0])
            for count, shape in zip(counts, itertools.pairwise(sizes))
        ]


def _tensor(what: str, given: Any) -> Tensor:
    """A tensor of a tensor, an array or a list."""
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        kind = type(given).__name__
        raise SolError(f"{what} must be a tensor, an array or a list of numbers, got {kind}") from None


def _checked_labels(labels: Tensor, features: Tensor) -> Tensor:
    if features.ndim != 2 or features.layout != torch.strided or not features.is_floating_point() or not len(features):
        raise SolError(
            f"features must be a dense matrix of floats, [N, F], got {features.dtype} of shape {tuple(features.shape)}"
        )
    if not features.isfinite().all():
        raise SolError("features hold NaN or infinity; fill the gaps, or leave the column out")
    flat = labels.squeeze(1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1 or len(flat) != len(features) or flat.is_floating_point() or flat.dtype == torch.bool:
        raise SolError(
            f"labels must be integers, one for each of {len(features)} nodes, [N]; got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )
    return flat.long()


def _check_edges(edges: Tensor, count: int) -> None:
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype != torch.int64:
        hint = "; transpose it" if edges.ndim == 2 and edges.shape[1] == 2 else ""
        raise SolError(f"edges must be int64, [2, E], got {edges.dtype} of shape {tuple(edges.shape)}{hint}")
    if edges.numel() and not (int(edges.min()) >= 0 and int(edges.max()) < count):
        raise SolError(f"edges must join nodes 0 to {count - 1}, got {int(edges.min())} to {int(edges.max())}")


def _checked_nodes(nodes: Mapping[str, Any], count: int) -> dict[str, Tensor]:
    if {*nodes} != {*_SPLITS}:
        hint = "; rename 'val' to 'valid'" if "val" in nodes else ""
        raise SolError(f"nodes must have the splits {', '.join(_SPLITS)}, got {', '.join(map(str, nodes))}{hint}")
    return {split: _checked_split(split, _tensor(f"nodes of {split!r}", x), count) for split, x in nodes.items()}


def _checked_split(split: str, given: Tensor, count: int) -> Tensor:
    if given.dtype == torch.bool and given.shape == (count,):
        given = given.nonzero().squeeze(1)
    if given.ndim != 1 or given.is_floating_point() or given.is_complex() or given.dtype in (torch.bool, torch.uint8):
        raise SolError(
            f"nodes of {split!r} must be indices or a boolean mask of {count} nodes, got {given.dtype} of shape "
            f"{tuple(given.shape)}"
        )
    if not len(given):
        raise SolError(f"the split {split!r} has no nodes")
    if not (int(given.min()) >= 0 and int(given.max()) < count):
        raise SolError(
            f"nodes of {split!r} must be from 0 to {count - 1}, got {int(given.min())} to {int(given.max())}"
        )
    if len(given.unique()) != len(given):
        hint = "; a mask has to be boolean" if len(given) == count and int(given.max()) <= 1 else ""
        raise SolError(f"nodes of {split!r} are given twice: {len(given)} indices of {len(given.unique())} nodes{hint}")
    return given.long()


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A CSR matrix and the order of its values. Its indices have 32 bits, as CPU kernels require."""
    order = rows.argsort(stable=True)
    starts = nn.functional.pad(rows.bincount(minlength=shape[0]).cumsum(0), (1, 0))
    indices = starts.int(), columns[order].int()
    with warnings.catch_warnings():  # PyTorch warns once that CSR tensors are in beta
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        matrix = torch.sparse_csr_tensor(*indices, values[order], shape, check_invariants=False)
    return matrix, order


def _rows(matrix: Tensor, chosen: Tensor) -> Tensor:
    """The rows ``chosen`` of a sparse matrix."""
    starts = matrix.crow_indices().long()
    counts = starts.diff()[chosen]
    rows = torch.arange(len(chosen), device=chosen.device).repeat_interleave(counts)
    first = starts[chosen] - (counts.cumsum(0) - counts)
    entries = torch.arange(len(rows), device=chosen.device) + first[rows]
    shape = (len(chosen), matrix.shape[1])
    return _csr(rows, matrix.col_indices()[entries], matrix.values()[entries], shape)[0]


def _sparse(dense: Tensor) -> Tensor:
    rows, columns = dense.nonzero().unbind(1)
    return _csr(rows, columns, dense[rows, columns], (dense.shape[0], dense.shape[1]))[0]
