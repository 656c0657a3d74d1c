"""Citation graphs: sparse layers are the dense ones, Adam reaches known accuracies."""

import warnings

import pytest
import torch

from sol_learner.inner import Optimizees, run_rule
from sol_learner.inner.side_by_side import obstacle
from sol_learner.task import Stream
from sol_learner.testing import check_task
from sol_symbols import ZOO
from sol_tasks import Graph, NodeClassification, gat, jknet
from sol_tasks.node_classification import _calibrated

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torch_geometric")


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
    for ours, theirs in zip(torch.autograd.grad(task.loss(model, {"train": nodes}), parameters), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_jknet_trains_side_by_side(data):
    task = jknet("Cora", data)
    assert task.vectorizable
    assert obstacle(task) is None


@pytest.mark.parametrize("scale", [0.1, 1.0, 40.0])
def test_the_calibrated_loss_is_the_smallest_over_temperatures(scale):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (400,), generator=generator)
    logits = torch.nn.functional.one_hot(labels, 5) + torch.randn(400, 5, generator=generator)
    inverse = torch.logspace(-3, 3, 4001, base=2.0)
    smallest = min(float(torch.nn.functional.cross_entropy(b * logits, labels)) for b in inverse)
    assert _calibrated(scale * logits, labels) == pytest.approx(smallest, rel=1e-5)


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
    some = {"test": nodes["test"][[7, 2]]}
    torch.testing.assert_close(part.loss(model, some), whole.loss(model, some))
    assert not torch.isclose(part.loss(model, some), part.loss(model, {"test": nodes["test"]}))
