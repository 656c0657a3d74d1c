"""Citation graphs: the data is what is known of it."""

import collections
import contextlib
import pickle
import warnings

import numpy
import pytest
import scipy.sparse
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


def write_graph(folder, name="cora"):
    """A graph in the files' form: 503 labelled nodes and 2 test nodes on a ring, 4 features."""
    random = numpy.random.default_rng(0)
    count, held = 505, 2
    x = random.random((count, 4)).astype(numpy.float32)
    y = numpy.eye(3, dtype=numpy.int32)[numpy.arange(count) % 3]
    ring = collections.defaultdict(list, {i: [(i + 1) % count, (i - 1) % count, i] for i in range(count)})
    sparse = scipy.sparse.csr_matrix
    parts = {"allx": sparse(x[:-held]), "tx": sparse(x[-held:])}
    parts |= {"y": y[:3], "ally": y[:-held], "ty": y[-held:], "graph": ring}
    folder.mkdir(parents=True)
    for part, content in parts.items():
        (folder / f"ind.{name}.{part}").write_bytes(pickle.dumps(content, protocol=2))
    (folder / f"ind.{name}.test.index").write_text("504\n503\n")
    return x, y, ring


def test_the_files_are_put_together_as_published(tmp_path):
    x, y, _ = write_graph(tmp_path / "Cora" / "raw")
    graph = load_planetoid("Cora", tmp_path)
    order = [*range(503), 504, 503]  # the files list the test nodes as test.index does
    expected = torch.from_numpy(x / numpy.maximum(x.sum(1, keepdims=True), 1))[order]
    torch.testing.assert_close(graph.features.to_dense(), expected)
    assert graph.labels.tolist() == [y[i].argmax() for i in order]
    assert graph.edges.shape == (2, 1010)
    assert {*map(tuple, graph.edges.T.tolist())} == {(i, (i + d) % 505) for i in range(505) for d in (1, -1)}
    assert {k: v.tolist() for k, v in graph.nodes.items()} == {
        "train": [0, 1, 2],
        "valid": [*range(3, 503)],
        "test": [503, 504],
    }


SYSTEM = b"cposix\nsystem\n(Vtouch RAN\ntR."
REDUCED = b"csol_tasks.planetoid\nload_planetoid\n(VCora\ntR."
NESTED = b"(dp0\nI0\n(lp1\ncbuiltins\neval\n(V1\ntRas."


@pytest.mark.parametrize("part", ["tx", "allx", "y", "ty", "ally", "graph"])
@pytest.mark.parametrize("hostile", [SYSTEM, REDUCED, NESTED], ids=["system", "ours", "nested"])
def test_the_files_are_not_code(part, hostile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "Cora" / "raw"
    write_graph(raw)
    (raw / f"ind.cora.{part}").write_bytes(hostile)
    with pytest.raises(SolError, match=rf"ind\.cora\.{part}: it loads .*, which no data file needs"):
        load_planetoid("Cora", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["Cora"]


def test_damaged_files_are_said_and_never_crash(tmp_path):
    raw = tmp_path / "Cora" / "raw"
    write_graph(raw)
    random = numpy.random.default_rng(0)
    for part in ("tx", "allx", "graph", "y", "test.index"):
        file = raw / f"ind.cora.{part}"
        whole = file.read_bytes()
        for damage in range(12):
            content = bytearray(whole)
            if damage % 3:
                content[random.integers(min(len(content), 400))] ^= 1 << random.integers(8)
            else:
                del content[random.integers(len(content)) :]
            file.write_bytes(content)
            with contextlib.suppress(SolError):  # a flipped bit in a number is another number
                load_planetoid("Cora", tmp_path)
        file.write_bytes(whole)


def test_indices_outside_of_a_sparse_matrix_are_refused(tmp_path):
    raw = tmp_path / "Cora" / "raw"
    x, *_ = write_graph(raw)
    matrix = scipy.sparse.csr_matrix(x[-2:])
    matrix.indices[0] = 1_000_000
    (raw / "ind.cora.tx").write_bytes(pickle.dumps(matrix, protocol=2))
    with pytest.raises(SolError, match=r"ind\.cora\.tx: its sparse matrix is damaged"):
        load_planetoid("Cora", tmp_path)


def test_a_graph_is_downloaded_once_and_read_as_others(tmp_path, monkeypatch):
    write_graph(tmp_path / "there" / "raw")
    asked = []

    def urlopen(address, timeout):
        asked.append(address)
        return (tmp_path / "there" / "raw" / address.rpartition("/")[2]).open("rb")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    assert len(load_planetoid("Cora").labels) == len(load_planetoid("Cora").labels) == 505
    assert len(asked) == 7
    assert asked[0] == "https://github.com/kimiyoung/planetoid/raw/master/data/ind.cora.tx"


def test_a_graph_that_cannot_be_fetched_is_said(tmp_path, monkeypatch):
    def urlopen(address, timeout):
        raise OSError("cannot connect to github.com\nand more")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    with pytest.raises(SolError, match=r"cannot download Cora to .*: OSError cannot connect.*--data DIR") as caught:
        load_planetoid("Cora")
    assert "\n" not in str(caught.value)
