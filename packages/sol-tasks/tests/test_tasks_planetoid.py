"""Citation graphs: the data is what is known of it."""

import warnings

import pytest
import torch

from sol_symbols import SolError
from sol_tasks import load_planetoid

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


def test_a_missing_or_damaged_graph_is_said(tmp_path):
    with pytest.raises(SolError, match=r"no Cora in .*Cora/raw there and in graph/.*kimiyoung/planetoid"):
        load_planetoid("Cora", tmp_path)
    raw = tmp_path / "Cora" / "raw"
    raw.mkdir(parents=True)
    for part in ("x", "tx", "allx", "y", "ty", "ally", "graph"):
        (raw / f"ind.cora.{part}").write_bytes(b"cut short")
    with pytest.raises(
        SolError, match=r"^no ind\.cora\.test\.index in .*Cora/raw; get the missing files from .*kimiyoung/planetoid.*"
    ):
        load_planetoid("Cora", tmp_path)
    (raw / "ind.cora.test.index").write_text("1\n")
    with pytest.raises(SolError, match=r"^cannot read Cora in .*Cora/raw: .*kimiyoung/planetoid.*"):
        load_planetoid("Cora", tmp_path)


def test_a_graph_that_cannot_be_fetched_is_said(tmp_path, monkeypatch):
    import torch_geometric.datasets

    class NoNetworkError(Exception):
        """As of aiohttp."""

    def download(self):
        raise NoNetworkError("cannot connect to github.com\nand more")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(torch_geometric.datasets.Planetoid, "download", download)
    with pytest.raises(
        SolError, match=r"cannot download Cora to .*: NoNetworkError cannot connect.*--data DIR"
    ) as caught:
        load_planetoid("Cora")
    assert "\n" not in str(caught.value)
