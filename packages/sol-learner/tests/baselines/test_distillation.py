"""A trained LSTM in files, as PyTorch's optimizer, and as the rule that it is distilled into."""

import json

import pytest
import torch
from torch import nn

from sol_learner import Checkpoints, Clock
from sol_learner.baselines import DistilSettings, distil, learn_lstm, lstm_config, regress
from sol_learner.inner import RuleOptimizer, TaskSet, run_episodes
from sol_learner.networks import LSTMNetwork, LSTMOptimizer, TrainedLSTM
from sol_learner.runtime.clock import Interrupted
from sol_learner.search import record
from sol_learner.task import Stream, build_optimizee, draw_batches
from sol_symbols import STANDARD, ZOO, SolError, UpdateRule

SMALL = {"episodes": 3, "meta_batch": 2, "unroll": [6], "validation_episodes": 2, "validate_every": 1}
VALUES = {name: h.default for name, h in STANDARD.hyperparameters.items() if h.default is not None}


def trained_for(seed=0):
    return TrainedLSTM(LSTMNetwork(6, generator=torch.Generator().manual_seed(seed)), 0.05, {"seed": 0, "spent": 0})


def test_saved_and_loaded_it_gives_the_same_updates(tmp_path):
    trained, gradient = trained_for(), torch.randn(9)
    assert trained.save(tmp_path) == ["lstm.json", "lstm.safetensors"]
    loaded = TrainedLSTM.load(tmp_path)
    assert (loaded.lr, loaded.provenance) == (trained.lr, trained.provenance)
    one, other = (
        t.network.runner().step(gradient, t.network.zero_state(gradient), gradient, 1) for t in (trained, loaded)
    )
    assert torch.equal(one[0], other[0])
    with pytest.raises(SolError, match=r"has no lstm\.json"):
        TrainedLSTM.load(tmp_path / "absent")
    LSTMOptimizer([nn.Parameter(torch.ones(2))], tmp_path)
    content = bytearray((tmp_path / "lstm.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "lstm.safetensors").write_bytes(content)
    with pytest.raises(SolError, match="not those that were saved"):
        TrainedLSTM.load(tmp_path)
    (tmp_path / "lstm.json").write_text("[]")
    with pytest.raises(SolError, match="cannot read"):
        TrainedLSTM.load(tmp_path)


def test_a_closure_evaluates_the_loss():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = LSTMOptimizer([parameter], trained_for())

    def closure():
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    assert not torch.equal(parameter.detach(), torch.ones(2))


def test_the_optimizer_is_the_inner_loop(task):
    """Parameter by parameter, saved and restored half way, as all parameters in one vector."""
    trained = trained_for()
    *_, (_, optimizees, _) = run_episodes(task, trained.network.runner(), trained.lr, 0, Stream.VALID, [0])
    model = build_optimizee(task, 0, Stream.VALID, 0)
    batches = draw_batches(task, "train", 0, Stream.VALID, 0)
    optimizer = LSTMOptimizer(model.parameters(), trained)
    for t in range(task.horizon):
        if t == 5:
            saved = optimizer.state_dict()
            optimizer = LSTMOptimizer(model.parameters(), trained)
            optimizer.load_state_dict(saved)
        optimizer.zero_grad()
        task.loss(model, next(batches)).backward()
        optimizer.step()
    moved = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    torch.testing.assert_close(moved, optimizees.theta[0, 0])
    with pytest.raises(ValueError, match="must be at least 0"):
        LSTMOptimizer(model.parameters(), trained, lr=-1.0)


class StopAfter(Clock):
    """Runs out after so many looks at it."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def check(self):
        self.looks -= 1
        if self.looks < 0:
            raise Interrupted


def test_a_resumed_run_ends_as_if_it_had_never_stopped(task, tmp_path):
    config = lstm_config(SMALL)
    whole, training = learn_lstm(task, config)
    learn_lstm(task, config, checkpoints=Checkpoints(tmp_path, interval=0.0), clock=StopAfter(40))
    checkpoints = Checkpoints(tmp_path, resume=True)
    assert 1 < len(checkpoints.kept("meta-training")["history"]) < len(training.history)
    resumed, again = learn_lstm(task, config, checkpoints=checkpoints)
    assert again.history == training.history
    for one, other in zip(whole.network.parameters(), resumed.network.parameters()):
        assert torch.equal(one, other)


def test_wrong_settings_of_an_lstm_are_named(task):
    with pytest.raises(SolError, match="'terms' is not a setting of an LSTM"):
        lstm_config({"terms": 3})
    with pytest.raises(SolError, match="lr must be positive and finite, got 0"):
        learn_lstm(task, lr=0)


@pytest.fixture(scope="module")
def recorded(make_task):
    """Trajectories of Adam, on two sets of episodes."""
    family = TaskSet((make_task(),), (1.0,), 0.5)
    return [
        record(family, RuleOptimizer(ZOO["adam"]), 0.03, VALUES, STANDARD, 0, episodes, 40)
        for episodes in (range(2), range(2, 4))
    ]


@pytest.mark.parametrize(("text", "r2"), [("ad", 0.999999), ("0.5*ad + 0.3*ld*sign(g)", 0.98)])
def test_a_known_rule_is_found_again(recorded, text, r2):
    pytest.importorskip("gplearn")
    expression = UpdateRule.parse(text).expression
    sides = [(samples, samples.evaluate([expression])[0]) for samples in recorded]
    settings = DistilSettings(population=200, generations=8, max_terms=3)
    found = regress(*sides, {**VALUES, "T": 12}, 0.03, settings)
    assert found[-1].held_out > r2
    assert found[-1].rule.lr == 0.03
    fits = [formula.fitted for formula in found]
    assert fits == sorted(fits)
    assert [str(f.rule) for f in regress(*sides, {**VALUES, "T": 12}, 0.03, settings)] == [str(f.rule) for f in found]


def test_an_lstm_is_distilled_into_rules_that_train(task):
    pytest.importorskip("gplearn")
    trained, _ = learn_lstm(task, lstm_config(SMALL))
    settings = DistilSettings(population=100, generations=4, max_terms=2, coordinates=20, validation_episodes=2)
    found = distil(trained, TaskSet((task,), (1.0,), 0.5), settings)
    losses = [formula.loss for formula in found]
    assert losses == sorted(losses)
    assert found[0].rule.lr == trained.lr
    json.dumps([formula.record() for formula in found])


def test_wrong_settings_of_a_distillation_are_named(recorded):
    with pytest.raises(SolError, match="terms must be at least 1 and finite, got 0"):
        DistilSettings(max_terms=0)
    with pytest.raises(SolError, match="'pow' is not an operator"):
        DistilSettings(functions=("pow",))
    side = recorded[0], torch.zeros(recorded[0].weights.shape, dtype=torch.float64)
    with pytest.raises(SolError, match="all 0"):
        regress(side, side, VALUES, 0.1)
