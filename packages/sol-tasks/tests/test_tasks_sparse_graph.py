"""Neighbourhoods and sparse products are the dense ones."""

import pytest
import torch

from sol_tasks import Graph
from sol_tasks.sparse_graph import _csr, _Matrix


def test_a_neighbourhood_holds_what_reaches_its_nodes():
    edges = torch.tensor([[1, 2, 3, 4, 5, 0], [0, 1, 2, 3, 4, 5]])  # a ring: 0 <- 1 <- 2 <- 3 <- 4 <- 5 <- 0
    loops = torch.cat([edges, torch.arange(6).expand(2, 6)], 1)
    weights = torch.arange(12.0)
    features = _csr(torch.arange(6), torch.arange(6), torch.arange(6.0), (6, 6))[0]
    ring = Graph(features, edges, (loops, weights), torch.arange(6), {}, 6)
    part = ring.around(torch.tensor([3, 0]), 2)
    assert part.labels.tolist() == [3, 0, 1, 4, 2, 5]
    assert part.within == ((2, 4), (4, 8), (6, 8))
    assert sorted(part.labels[part.edges].T.tolist()) == [[1, 0], [2, 1], [4, 3], [5, 4]]
    found = {
        (*part.labels[edge].tolist(), weight.item()) for edge, weight in zip(part.normalised[0].T, part.normalised[1])
    }
    assert found == {(s, t, w) for s, t, w in zip(*loops.tolist(), weights.tolist()) if t in (0, 1, 3, 4)}
    torch.testing.assert_close(part.features.to_dense(), features.to_dense()[part.labels])
    x, matrix = torch.randn(6, 3), torch.zeros(6, 6).index_put((loops[1], loops[0]), weights)
    torch.testing.assert_close(part.propagate(x[part.labels], 1), (matrix @ x)[part.labels[:4]])
    torch.testing.assert_close(part.propagate(x[part.labels[:4]], 0), (matrix @ x)[[3, 0]])
    torch.testing.assert_close(ring.propagate(x, 0), matrix @ x)


def test_dropout_of_a_sparse_matrix_keeps_its_mean_and_drops_its_share():
    dense = torch.rand(300, 200, generator=torch.Generator().manual_seed(0)) < 0.1
    rows, columns = dense.nonzero().unbind(1)
    features = _csr(rows, columns, torch.ones(len(rows)), (300, 200))[0]
    graph = Graph(
        features, torch.empty(2, 0).long(), (torch.empty(2, 0).long(), torch.empty(0)), torch.empty(300), {}, 2
    )
    torch.manual_seed(0)
    weight = torch.eye(200, requires_grad=True)
    dropped = graph.project(weight, 0.6)
    kept = dropped.detach()[dense]
    assert (dropped[~dense] == 0).all()
    assert set(kept.unique().tolist()) == {0.0, 2.5}
    assert (kept == 0).float().mean() == pytest.approx(0.6, abs=0.02)
    direction = torch.randn(300, 200)
    (gradient,) = torch.autograd.grad(dropped, weight, direction)
    torch.testing.assert_close(gradient, dropped.detach().T @ direction)  # the same values are dropped in it
    torch.testing.assert_close(graph.project(weight), dense.float())


@pytest.mark.parametrize("own", [False, True])
def test_products_that_are_mapped_are_those_one_by_one(own):
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(6, 4, generator=generator) * (torch.rand(6, 4, generator=generator) < 0.5)
    rows, columns = dense.nonzero().unbind(1)
    matrix = _Matrix.of(_csr(rows, columns, dense[rows, columns], (6, 4))[0])
    values = torch.rand(3, len(rows), generator=generator)
    x = torch.rand(2, 3, 4, 5, generator=generator, requires_grad=True)

    def one(numbers, y):
        return matrix.product(numbers, y) if own else matrix @ y

    mapped = torch.vmap(torch.vmap(one), in_dims=(None, 0))(values, x)
    filled = torch.zeros(3, 6, 4).index_put((torch.arange(3)[:, None], rows, columns), values)
    expected = (filled if own else dense) @ x
    torch.testing.assert_close(mapped, expected)
    direction = torch.rand(2, 3, 6, 5, generator=generator)
    ours, theirs = (torch.autograd.grad(y, x, direction)[0] for y in (mapped, expected))
    torch.testing.assert_close(ours, theirs)
