"""Trainings of graph networks in C are those of the learner."""

import importlib
import warnings
from pathlib import Path

import pytest
import torch

from sol_learner.inner import RuleOptimizer, run_episodes, run_rule
from sol_learner.task import Stream, trainable
from sol_symbols import SolError, UpdateRule
from sol_symbols.c_compiler import find_compiler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torch_geometric")
pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C compiler")

from sol_tasks import Graph, NodeClassification  # noqa: E402
from sol_tasks.graph_networks import GAT, JKNet  # noqa: E402

RULE = UpdateRule.parse(
    "(0.6 + 0.3*cd)*ad + 0.1*rs*ld + 0.2*cd*sign(m) + 0.1*w + 50*pull where lr = 0.02, rise_power = 3, T = 12"
)


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "studies")
    return importlib.import_module("graph_training")


def task(network, hops):
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(90, (2, 150), generator=generator)
    edges = edges[:, edges[0] != edges[1]]
    edges = torch.cat([edges, edges.flip(0)], 1).unique(dim=1)
    features = torch.rand(90, 30, generator=generator) * (torch.rand(90, 30, generator=generator) < 0.2)
    nodes = dict(zip(("train", "valid", "test"), torch.randperm(90, generator=generator).split([20, 30, 40])))
    graph = Graph.of(features, edges, torch.arange(90) % 3, nodes)
    return NodeClassification("small", network, graph, hops, horizon=12)


class Mean:
    """A network without dropout: in evaluation mode, and it stays there."""

    def __init__(self, network):
        self.network = network

    def __call__(self, graph):
        model = self.network(graph).eval()
        model.train = lambda mode=True: model
        return model


@pytest.mark.parametrize(("network", "hops"), [(GAT, 2), (JKNet, 6)])
def test_without_dropout_a_training_is_that_of_the_learner(module, network, hops):
    own = task(network, hops)
    model = module.GraphTraining(own, dropout=False).trained(RULE, Stream.TRAIN, 3)
    still = task(Mean(network), hops)
    *_, (_, optimizees, _) = run_episodes(still, RuleOptimizer(RULE), RULE.lr, 0, Stream.TRAIN, [3])
    theirs = optimizees.views(optimizees.theta[0, 0])
    for ours, other in zip(trainable(model), theirs, strict=True):
        torch.testing.assert_close(ours.detach(), other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("network", "hops"), [(GAT, 2), (JKNet, 6)])
def test_with_dropout_losses_are_the_learners_on_average(module, network, hops):
    own = task(network, hops)
    training = module.GraphTraining(own)
    ours = torch.tensor([training.run(str(RULE), Stream.TRAIN, e, ["train"])["train"]["loss"] for e in range(40)])
    theirs = run_rule(own, RULE, 0, Stream.TRAIN, range(40), splits=("train",)).metrics["train"]["loss"][0]
    spread = float((theirs - ours).std()) / 40**0.5
    assert float(ours.mean()) == pytest.approx(float(theirs.mean()), abs=4 * spread)
    assert len(ours.unique()) == 40


def test_other_rules_are_refused(module):
    others = ("g where lr = 0.1", "ad**2 where lr = 0.1", "ad", "ad where lr = 1, eps = 1e-4", "ad*g where lr = 1")
    for text in others:
        with pytest.raises(SolError, match="is no sum over ad, rs"):
            module.coefficients(UpdateRule.parse(text), 10)
