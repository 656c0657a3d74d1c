"""The EQL network: its start, its exact read-out, its meta-gradient."""

import math
from dataclasses import replace

import pytest
import torch

from sol_learner import LearnConfig
from sol_learner.inner import TaskSet
from sol_learner.meta_training import meta_train
from sol_learner.networks import NetworkOptimizer, SymbolicNetwork
from sol_learner.runtime.clock import Clock
from sol_learner.runtime.progress import NullProgress
from sol_symbols import STANDARD, ZOO, RuleError, SolError, UpdateRule, evaluator, feature_evaluator

START = ["adam", "sgd", "lion", "powersign-ld", "nesterov", "addsign-cd"]
UNITS = [
    (("identity", "square", "exp", "sign", "neg", "add", "sub", "mul"),),
    (("mul", "identity", "tanh", "sigmoid", "abs"),),
    (("identity", "mul", "exp"), ("identity", "mul", "sign", "square")),
]


def random_network(start="adam", units=UNITS[0], seed=0):
    generator = torch.Generator().manual_seed(seed)
    network = SymbolicNetwork(ZOO[start], units=units, scale=0.3, generator=generator)
    with torch.no_grad():
        network.readout.normal_(generator=generator)
    return network


def histories(steps=20, count=200, seed=0, largest=1.0):
    generator = torch.Generator().manual_seed(seed)
    size = largest * 10 ** (-3 * torch.rand(count, generator=generator, dtype=torch.float64))
    return size * torch.randn(steps, count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("units", UNITS)
def test_before_training_the_network_is_the_start_rule(start, units):
    network = SymbolicNetwork(ZOO[start], units=units, generator=torch.Generator().manual_seed(0)).double()
    optimizer, phi = NetworkOptimizer(network), evaluator(ZOO[start], torch, 20)
    gradients = histories()
    w = torch.zeros_like(gradients[0])
    state, expected_state = optimizer.begin(w, 20), phi.init(w)
    for t, g in enumerate(gradients, start=1):
        update, state = optimizer.step(g, state, w, t)
        expected, expected_state = phi(g, expected_state, w, t)
        torch.testing.assert_close(update, expected)


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_read_out_rule_equals_the_network(start, units, seed):
    network = random_network(start, units, seed)
    rule = UpdateRule.from_json(network.rule(0.01, 20).to_json())
    optimizer, phi = NetworkOptimizer(network.double()), evaluator(rule, torch)
    w = torch.zeros(200, dtype=torch.float64)
    state, rule_state = optimizer.begin(w, 20), phi.init(w)
    for t, g in enumerate(histories(seed=seed, largest=10.0), start=1):
        update, state = optimizer.step(g, state, w, t)
        value, rule_state = phi(g, rule_state, w, t)
        finite = torch.isfinite(update)
        assert finite.float().mean() > 0.3
        torch.testing.assert_close(value[finite], update[finite], rtol=1e-6, atol=1e-9)


def test_wrong_units_and_features_are_named():
    with pytest.raises(RuleError, match="'foo' is not an operator"):
        SymbolicNetwork(ZOO["adam"], units=(("identity", "foo"),))
    with pytest.raises(RuleError, match="identity unit"):
        SymbolicNetwork(ZOO["adam"], units=(("mul",),))
    with pytest.raises(RuleError, match="unknown name 'gg'"):
        SymbolicNetwork(ZOO["adam"], features=("gg",))


def test_features_and_phi_stay_on_the_parameters_device():
    network = random_network().to("meta")
    optimizer = NetworkOptimizer(network)
    theta = torch.empty(3, 7, device="meta")
    phi, state = optimizer.step(theta, optimizer.begin(theta, 10), theta, 1)
    assert phi.device.type == "meta"
    assert phi.shape == theta.shape
    assert {value.device.type for value in state.values()} == {"meta"}


def run_steps(optimizer, gradients):
    state, phis = optimizer.begin(gradients[0], 10), []
    for t, g in enumerate(gradients, 1):
        phi, state = optimizer.step(g, state, g, t)
        phis.append(phi)
    return torch.stack(phis), state


def test_chunks_do_not_change_phi(monkeypatch):
    network, gradients = random_network(), torch.randn(5, 2, 333, generator=torch.Generator().manual_seed(3))
    whole, _ = run_steps(NetworkOptimizer(network), gradients)
    monkeypatch.setattr("sol_learner.networks.eql._CHUNK", 100)
    parts, _ = run_steps(NetworkOptimizer(network), gradients)
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("chunk", [7, 100, 200])  # a part of a step, one step, several
def test_chunks_do_not_change_meta_gradients(monkeypatch, chunk):
    network, generator = random_network(), torch.Generator().manual_seed(3)
    gradients, cotangents = list(torch.randn(5, 2, 33, generator=generator)), torch.randn(5, 2, 33, generator=generator)
    optimizer = NetworkOptimizer(network)
    state = optimizer.begin(gradients[0], 10)
    whole = optimizer.vjp(gradients, gradients, state, 3, cotangents)
    monkeypatch.setattr("sol_learner.networks.eql._PULLED", chunk)
    for part, reference in zip(optimizer.vjp(gradients, gradients, state, 3, cotangents), whole, strict=True):
        torch.testing.assert_close(part, reference, rtol=1e-4, atol=1e-4)


def test_gates_start_open_close_exactly_and_are_read_out():
    network = SymbolicNetwork(ZOO["adam"], gates=True, generator=torch.Generator().manual_seed(0))
    plain = SymbolicNetwork(ZOO["adam"], generator=torch.Generator().manual_seed(0))
    for gated, weight in zip(network.weights(), plain.weights(), strict=True):
        assert torch.equal(gated, weight)
    with torch.no_grad():
        network.readout.normal_(generator=torch.Generator().manual_seed(1))
        network.gates[0][1:] = -10.0
    assert all(not row.any() for row in network.weights()[0][1:])
    assert len(network.rule(0.1, 10).expression.free_symbols) < len(plain.features)
    before = network.open_gates().item()
    network.sample_gates(torch.Generator().manual_seed(5))
    drawn = torch.cat([w.reshape(-1) for w in network.weights()])
    network.use_mean_gates()
    assert not torch.equal(drawn, torch.cat([w.reshape(-1) for w in network.weights()]))
    assert 0 < before < 1


def test_the_gates_frequencies_are_those_of_the_penalty():
    network = SymbolicNetwork(ZOO["adam"], units=(("identity",),), gates=True)
    with torch.no_grad():
        network.readout.fill_(1.0)
        network.hidden[0].fill_(1.0)
        for index, gate in enumerate(network.gates):
            gate.fill_([-1.0, 0.5][index])
    generator, open_, total = torch.Generator().manual_seed(0), 0, 0
    for _ in range(2000):
        network.sample_gates(generator)
        values = torch.cat([w.reshape(-1) for w in network.weights()])
        open_, total = open_ + int((values > 0).sum()), total + len(values)
    assert open_ / total == pytest.approx(network.open_gates().item(), abs=0.01)


SETTINGS = LearnConfig(
    meta_batch=4, unroll=(4,), outer_lr=1e-2, coordinates=64, validation_episodes=4, validate_every=1, episodes=6
)


def train(*tasks, lr=0.03, clock=None, **settings):
    config = replace(SETTINGS, **settings)
    network = SymbolicNetwork(ZOO["adam"], gates=config.gates, generator=torch.Generator().manual_seed(0))
    family = TaskSet(tasks, (1.0,) * len(tasks), 0.5)
    return meta_train(family, network, lr, config, progress=NullProgress(), clock=clock or Clock())


def test_meta_training_improves_on_its_start_and_keeps_the_best(task):
    result = train(task)
    losses = [record["loss"] for record in result.history if "loss" in record]
    assert result.loss == min(losses) < 0.95 * losses[0]
    assert result.windows == 6 * 3
    assert result.dropped == 0


@pytest.mark.parametrize(("horizon", "windows"), [(10, 3), (12, 3), (3, 1), (1, 1)])
def test_an_episode_that_ends_within_a_window_uses_what_it_has(make_task, horizon, windows):
    assert train(make_task(horizon=horizon), episodes=1).windows == windows


def test_meta_training_drops_windows_that_are_not_finite(task):
    result = train(task, lr=1e25, episodes=2)
    assert (result.windows, result.dropped) == (0, 2)
    assert all(torch.isfinite(parameter).all() for parameter in result.network.parameters())
    first = result.divergences[0]
    assert 1 <= first["step"] <= 4
    assert first["update"] > 1e20
    assert first["feature"] in ("ad", "rs", "sqrt(v_hat)", "ag", "m_hat", "sign(g)", "sign(m)", "ld", "cd", "g")
    assert "all 2 windows diverged" in result.advice
    assert "outer_lr" in result.advice


class OneSpike:
    """A coordinate whose gradient is as steep as 20, among a thousand that are flat."""

    name, horizon, vectorizable = "spike", 12, True

    def build(self, generator):
        model = torch.nn.Linear(1000, 1, bias=False)
        torch.nn.init.constant_(model.weight, 1.0)
        return model

    def batches(self, split, generator):
        while True:
            yield torch.full((1, 1000), 1e-3).index_fill_(1, torch.tensor([500]), 20.0)

    def loss(self, model, batch):
        return model(batch).sum()

    def evaluate(self, model, split):
        return {"loss": 0.0}


def test_a_divergence_is_explained_though_its_coordinate_was_not_sampled():
    network = SymbolicNetwork(ZOO["adam"], ("g3",), (("identity", "exp"),), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.hidden[0][1] = torch.tensor([0.1, 0.0])  # exp(800)
        network.readout[1] = 1e-3
    config = replace(SETTINGS, episodes=1, meta_batch=1, coordinates=3)
    result = meta_train(
        TaskSet((OneSpike(),), (1.0,), 0.5), network, 0.01, config, progress=NullProgress(), clock=Clock()
    )
    assert result.dropped == 1
    assert result.divergences[0]["gradient"] == 20.0
    assert "the largest gradient, of all coordinates: 20)" in result.advice


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "exact"},
        {"estimator": "pes", "particles": 4, "outer_lr": 3e-3},
        {"meta_loss": "log"},
        {"meta_loss": "last"},
        {"outer_split": "valid"},
        {"unroll": (2, 6)},
        {"horizons": (4, 12)},
        {"scaling": 1.0},
        {"gates": True},
        {"clip": 1.0},
        {"precision": "bf16"},
        {"validate_every": 3},
    ],
    ids=str,
)
def test_every_way_of_meta_training_improves_on_its_start(task, settings):
    result = train(task, **settings)
    assert result.loss < 0.97 * result.history[0]["loss"]
    assert result.dropped == 0


def test_without_validation_the_last_network_is_kept(task):
    result = train(task, validate_every=0)
    assert math.isfinite(result.loss)  # measured once, at the end
    assert [record for record in result.history if "loss" in record] == [{"episode": 0, "loss": math.inf}]
    assert not torch.equal(result.network.readout, SymbolicNetwork(ZOO["adam"]).readout)


def test_without_validation_a_network_that_diverges_is_no_result(task):
    with pytest.raises(SolError, match=r"ended with a diverging network, .*: \d+ of \d+ windows .*lower outer_lr"):
        train(task, validate_every=0, outer_lr=1e6, unroll=(1,))


def test_curricula_take_their_stages_in_equal_shares(task):
    windows = [train(task, episodes=4, **s).windows for s in ({"unroll": (3, 6)}, {"horizons": (4, 12)}, {})]
    assert windows == [2 * 4 + 2 * 2, 2 * 1 + 2 * 3, 4 * 3]


def test_the_tasks_own_unroll_is_used_unless_one_is_given(make_task):
    task = make_task()
    task.unroll = 6
    assert [train(task, episodes=1, **s).windows for s in ({"unroll": ()}, {"unroll": (4,)})] == [2, 3]
    assert train(make_task(), episodes=1, unroll=()).windows == 1


def test_sparsity_closes_gates(task):
    open_ = [
        train(task, gates=True, sparsity=s, sparsity_from=0.0, validate_every=0, gate_lr=0.5).network.open_gates()
        for s in (0.0, 10.0)
    ]
    assert open_[1] < 0.7 * open_[0]


def test_a_rule_can_be_meta_trained_for_several_tasks(make_task):
    short = make_task(horizon=6)
    result = train(make_task(), short)
    assert result.windows == 3 * 3 + 3 * 2  # the tasks take turns
    assert result.loss < 0.97 * result.history[0]["loss"]


def test_meta_training_stops_with_what_it_has(task):
    clock = Clock(1e-9)
    clock.allow(1.0)
    result = train(task, clock=clock)
    assert result.windows == 0
    assert result.network.readout.sum() == 1  # the start rule


def test_the_standard_features_are_in_the_vocabulary():
    features = feature_evaluator([STANDARD.parse("ag")], STANDARD, torch)
    g = torch.tensor([0.0, 1e-9, 1.0, -1.0, 2.0], dtype=torch.float64)
    (ag,), _ = features.step(g, {}, None, 1, {})
    expected = [-1.0, -1.0, math.log(1 + 1e-6) / 10, math.log(1 + 1e-6) / 10, math.log(2 + 1e-6) / 10]
    assert ag.tolist() == pytest.approx(expected)
