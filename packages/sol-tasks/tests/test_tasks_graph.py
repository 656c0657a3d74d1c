"""Citation graphs: the data is what is known of it, sparse layers are the dense ones, Adam reaches known accuracies."""

import warnings

import pytest
import torch

from sol_learner import Purpose, run_rule
from sol_symbols import ZOO, SolError
from sol_tasks import gat, load_planetoid
from sol_tasks.graph import _drop

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torch_geometric")

FACTS = {"Cora": (2708, 1433, 10556, 7), "Citeseer": (3327, 3703, 9104, 6), "PubMed": (19717, 500, 88648, 3)}


@pytest.mark.parametrize("name", FACTS)
def test_the_graphs_are_the_known_ones(name, data):
    graph = load_planetoid(name, data)
    nodes, features, edges, classes = FACTS[name]
    assert tuple(graph.features.shape) == (nodes, features)
    assert (graph.edges.shape, graph.classes) == ((2, edges), classes)
    assert {split: len(rows) for split, rows in graph.nodes.items()} == {
        "train": 20 * classes,
        "valid": 500,
        "test": 1000,
    }
    assert len(torch.cat(list(graph.nodes.values())).unique()) == 20 * classes + 1500
    sums = graph.features.to_dense().sum(1)
    assert ((sums - 1).abs() < 1e-4).logical_or(sums == 0).all()
    assert not (data / "graph" / name / "processed").exists()


def test_a_gat_layer_gives_the_same_for_sparse_features(data):
    task = gat("Cora", data)
    first = task.build(torch.Generator().manual_seed(0)).eval().first
    dense = first(task.graph.features.to_dense(), task.graph.edges)
    torch.testing.assert_close(first(task.graph.features, task.graph.edges), dense)


def test_dropout_of_a_sparse_matrix_keeps_its_mean_and_drops_its_share():
    generator = torch.Generator().manual_seed(0)
    dense = (torch.rand(300, 200, generator=generator) < 0.1).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sparse = dense.to_sparse_csr()
    torch.manual_seed(0)
    dropped = _drop(sparse, 0.6, True).to_dense()
    kept = dropped[dense > 0]
    assert (dropped[dense == 0] == 0).all()
    assert set(kept.unique().tolist()) == {0.0, 2.5}
    assert (kept == 0).float().mean() == pytest.approx(0.6, abs=0.02)
    assert _drop(sparse, 0.6, False) is sparse


@pytest.mark.parametrize(("name", "low", "high"), [("Cora", 0.78, 0.845), ("Citeseer", 0.67, 0.74)])
def test_adam_reaches_the_known_accuracy(name, low, high, data):
    outcome = run_rule(gat(name, data), ZOO["adam"], 0, Purpose.TUNE, [0], 0.01, splits=("test",), horizon=100)
    assert low < outcome.metrics["test"]["accuracy"].item() < high


def test_a_missing_graph_is_said(tmp_path):
    with pytest.raises(SolError, match=r"no Cora in .*graph/Cora/raw.*kimiyoung/planetoid"):
        load_planetoid("Cora", tmp_path)
