"""Citation graphs: the data is what is known of it, sparse layers are the dense ones, Adam reaches known accuracies."""

import warnings

import pytest
import torch

from sol_learner.inner import Optimizees, run_rule
from sol_learner.task import Stream
from sol_learner.testing import check_task
from sol_symbols import ZOO, SolError
from sol_tasks import Graph, NodeClassification, gat, jknet, load_planetoid
from sol_tasks.sparse_graph import _matrix

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


def _plain(model, graph):
    """The outputs of GAT or JK-Net by PyTorch Geometric's layers on dense features and the whole graph."""
    x, (edges, weights) = graph.features.to_dense(), graph.normalised
    if hasattr(model, "head"):
        outputs = [x]
        for layer in model.layers:
            outputs.append(torch.relu(layer(outputs[-1], edges, weights)))
        return model.head(torch.stack(outputs[1:]).amax(0))
    model.first.lin = torch.nn.Linear(x.shape[1], 64, bias=False)
    model.first.lin.weight = model.weight
    plain = model.second(torch.nn.functional.elu(model.first(x, edges)), edges)
    model.first.lin = torch.nn.Identity()
    return plain


@pytest.mark.parametrize(("make", "name"), [(gat, "Cora"), (jknet, "Cora"), (gat, "Citeseer"), (jknet, "Citeseer")])
def test_outputs_and_gradients_are_those_of_the_plain_layers_on_the_whole_graph(make, name, data):
    task = make(name, data)
    graph = task.graph
    model = task.build(torch.Generator().manual_seed(0)).eval()
    plain = _plain(model, graph)
    for split, nodes in graph.nodes.items():
        loss = torch.nn.functional.cross_entropy(plain[nodes], graph.labels[nodes])
        assert task.evaluate(model, split)["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert NodeClassification("whole", type(model), graph).evaluate(model, split) == task.evaluate(model, split)
    nodes, parameters = graph.nodes["train"], list(model.parameters())
    size = sum(parameter.square().sum() for parameter in parameters)
    loss = torch.nn.functional.cross_entropy(plain[nodes], graph.labels[nodes]) + 5e-4 / 2 * size
    expected = torch.autograd.grad(loss, parameters)
    for ours, theirs in zip(torch.autograd.grad(task.loss(model, nodes), parameters), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_a_neighbourhood_holds_what_reaches_its_nodes():
    edges = torch.tensor([[1, 2, 3, 4, 5, 0], [0, 1, 2, 3, 4, 5]])  # a ring: 0 <- 1 <- 2 <- 3 <- 4 <- 5 <- 0
    loops = torch.cat([edges, torch.arange(6).expand(2, 6)], 1)
    weights = torch.arange(12.0)
    features = _matrix(torch.arange(6), torch.arange(6), torch.arange(6.0), (6, 6))[0]
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
    features = _matrix(rows, columns, torch.ones(len(rows)), (300, 200))[0]
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


@pytest.mark.parametrize(("name", "low", "high"), [("Cora", 0.78, 0.845), ("Citeseer", 0.67, 0.74)])
def test_adam_reaches_the_known_accuracy(name, low, high, data):
    outcome = run_rule(gat(name, data), ZOO["adam"], 0, Stream.TUNE, [0], 0.01, splits=("test",), horizon=100)
    assert low < outcome.metrics["test"]["accuracy"].item() < high


@pytest.mark.parametrize("make", [gat, jknet])
def test_bfloat16_is_near_to_float32(make, data):
    task = make("Cora", data)
    exact, near = (
        Optimizees(task, 0, Stream.TRAIN, [0], precision=precision).losses_and_gradients()
        for precision in ("float32", "bf16")
    )
    torch.testing.assert_close(near[0], exact[0], rtol=0.02, atol=0)
    assert torch.nn.functional.cosine_similarity(near[1], exact[1], dim=-1).item() > 0.99


def test_a_graph_and_a_model_of_ones_own():
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(30, (2, 60), generator=generator)
    features, labels = torch.rand(30, 5, generator=generator), torch.arange(30) % 3
    nodes = dict(zip(("train", "valid", "test"), torch.arange(30).split(10)))
    graph = Graph.of(features, torch.cat([edges, edges.flip(0)], 1), labels, nodes)
    assert graph.classes == 3
    torch.testing.assert_close(graph.features.to_dense(), features)

    class Own(torch.nn.Module):
        def __init__(self, graph):
            super().__init__()
            self.linear = torch.nn.Linear(graph.features.shape[1], graph.classes)

        def forward(self, graph):
            return graph.propagate(graph.project(self.linear.weight.T), 0) + self.linear.bias

    check_task(NodeClassification("own", Own, graph))
    whole, part = NodeClassification("own", Own, graph), NodeClassification("own", Own, graph, hops=1)
    model = whole.build(torch.Generator().manual_seed(0))
    assert part.evaluate(model, "test") == pytest.approx(whole.evaluate(model, "test"))


def test_a_missing_or_damaged_graph_is_said(tmp_path):
    with pytest.raises(SolError, match=r"no Cora in .*graph/Cora/raw.*kimiyoung/planetoid"):
        load_planetoid("Cora", tmp_path)
    raw = tmp_path / "Cora" / "raw"
    raw.mkdir(parents=True)
    for part in ("x", "tx", "allx", "y", "ty", "ally", "graph"):
        (raw / f"ind.cora.{part}").write_bytes(b"cut short")
    with pytest.raises(
        SolError, match=r"^no ind\.cora\.test\.index in .*Cora/raw; get it from .*kimiyoung/planetoid.*"
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
        SolError, match=r"cannot fetch Cora into .*: NoNetworkError cannot connect.*--data DIR"
    ) as caught:
        load_planetoid("Cora")
    assert "\n" not in str(caught.value)
