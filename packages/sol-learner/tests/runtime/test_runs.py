"""Runs that are killed, shared, watched and configured."""

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import time

import pytest
import torch

from sol_learner import Checkpoints, LearnConfig, Learner, Workers, learn
from sol_learner.inner import TaskSet
from sol_learner.meta_training import meta_train
from sol_learner.networks import SymbolicNetwork
from sol_learner.networks.base import KERNELS
from sol_learner.runtime import Ranks, checkpoints_in, joined_ranks
from sol_learner.runtime.clock import Clock
from sol_learner.runtime.progress import MetricsFile, MultiProgress, NullProgress, Phase, TensorBoard
from sol_learner.starting import StartFinder
from sol_symbols import ZOO, SolError, UpdateRule

SMALL = LearnConfig(
    tuning_episodes=2,
    episodes=3,
    meta_batch=3,
    unroll=(4,),
    coordinates=40,
    gates=True,
    validation_episodes=2,
    record_episodes=2,
    record_coordinates=40,
    directions=("ad", "sign(g)"),
    library_generations=2,
    max_terms=3,
    prune_episodes=1,
    descent_steps=2,
    generations=2,
    population=4,
    evaluation_episodes=2,
    baselines=("adam",),
    baseline_trainings=6,
)


def run_in(folder, task, resume=True, config=SMALL, **options):
    checkpoints = Checkpoints(folder, {"config": dataclasses.asdict(config)}, resume=resume, interval=0.0)
    return Learner([task], config, checkpoints=checkpoints, **options).run()


def numbers(result):
    """Everything of a result but the time that it took."""
    summary = {name: value for name, value in result.summary.items() if name not in ("seconds", "plan")}
    return json.dumps([result.rule.to_json(), summary, result.readout.to_json()])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_run_killed_at_random_moments_ends_as_if_it_never_was(make_task, kernel, tmp_path):
    config, started = dataclasses.replace(SMALL, kernel=kernel), time.monotonic()
    reference, seconds = numbers(Learner([make_task()], config).run()), time.monotonic() - started
    moments, killed, runs = random.Random(0), 0, [tmp_path / "0"]
    while killed < 3:
        child = os.fork()
        if child == 0:
            try:
                run_in(runs[-1], make_task(), config=config)
            finally:
                os._exit(0)
        time.sleep(moments.uniform(0.1, 0.5) * seconds)
        if os.waitpid(child, os.WNOHANG)[0]:  # it was done before: another run
            runs.append(tmp_path / str(len(runs)))
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
    for folder in runs:
        assert numbers(run_in(folder, make_task(), config=config)) == reference


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def damage_empty(path):
    path.write_bytes(b"")


def damage_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def damage_number(path):
    content = path.read_bytes()
    place = content.index(b"0.1") if b"0.1" in content else content.index(b"0.2")
    path.write_bytes(content[: place + 2] + b"9" + content[place + 3 :])


@pytest.fixture(scope="module")
def left_behind(make_task, tmp_path_factory):
    """A folder of checkpoints whose newest is that of a finished run."""
    folder = tmp_path_factory.mktemp("checkpoints")
    run_in(folder, make_task())
    return folder


@pytest.mark.parametrize("damage", [damage_cut, damage_empty, damage_bit, damage_number])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(task, left_behind, tmp_path, damage):
    shutil.copytree(left_behind, tmp_path, dirs_exist_ok=True)
    old, new = checkpoints_in(tmp_path)
    damage(new)
    told = []
    checkpoints = Checkpoints(tmp_path, {"config": dataclasses.asdict(SMALL)}, resume=True, report=told.append)
    assert len(told) == 1
    assert f"{new} is damaged" in told[0]
    assert checkpoints.journal
    assert numbers(Learner([task], SMALL, checkpoints=checkpoints).run()) == numbers(Learner([task], SMALL).run())
    damage_empty(old)
    for path in checkpoints_in(tmp_path):
        damage_empty(path)
    with pytest.raises(SolError, match=r"every checkpoint in .* is damaged; start again without --resume"):
        Checkpoints(tmp_path, resume=True, report=told.append)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    Checkpoints(tmp_path, {"seed": 0, "task": "a"}).save()
    with pytest.raises(SolError, match="seed was 0, is 1"):
        Checkpoints(tmp_path, {"seed": 1, "task": "a"}, resume=True)
    assert Checkpoints(tmp_path, {"seed": 0, "task": "a"}, resume=True).elapsed >= 0
    assert not Checkpoints(tmp_path, {"seed": 1, "task": "a"}).journal
    assert checkpoints_in(tmp_path) == []  # a run that starts anew removes what was there


def test_results_are_the_same_from_the_journal_and_not(tmp_path):
    checkpoints, calls = Checkpoints(tmp_path, interval=0.0), []

    def compute():
        calls.append(1)
        return (1, [0.1, float("inf")])

    assert checkpoints.once("key", compute) == checkpoints.once("key", compute) == [1, [0.1, float("inf")]]
    checkpoints.keep("state", {"a": 1}, {"x": torch.arange(3.0)})
    again = Checkpoints(tmp_path, resume=True)
    assert again.once("key", compute) == [1, [0.1, float("inf")]]
    assert len(calls) == 1
    assert again.kept("state") == {"a": 1}
    assert again.tensors["x"].tolist() == [0, 1, 2]


def test_a_full_disk_is_said_and_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, interval=0.0)
    checkpoints.once("first", lambda: 1)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SolError, match=r"cannot write .*No space left on device"):
        checkpoints.once("second", lambda: 2)
    monkeypatch.undo()
    assert Checkpoints(tmp_path, resume=True).journal == {"first": 1}


def test_finished_runs_leave_no_checkpoints(task, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", interval=0.0)
    checkpoints.once("a", lambda: 1)
    checkpoints.clear()
    assert list(tmp_path.iterdir()) == []


# -- sharing the work ------------------------------------------------------------------------------------------


def in_ranks(size, function):
    """What ``function(ranks)`` gives on each of ``size`` gloo processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def main(rank):
        os.environ |= {"WORLD_SIZE": str(size), "RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        with joined_ranks(torch.device("cpu")) as ranks:
            queue.put((rank, function(ranks)))

    processes = [context.Process(target=main, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    results = dict(queue.get() for _ in processes)
    for process in processes:
        process.join()
    return [results[rank] for rank in range(size)]


META = LearnConfig(unroll=(4,), episodes=4, outer_lr=1e-2, coordinates=20, validation_episodes=4, gates=True)


def trained(task, meta_batch, estimator, ranks=None):
    network = SymbolicNetwork(ZOO["adam"], gates=True, generator=torch.Generator().manual_seed(0)).double()
    config = dataclasses.replace(META, meta_batch=meta_batch, estimator=estimator)
    family = TaskSet((task,), (1.0,), 0.5)
    result = meta_train(family, network, 0.03, config, progress=NullProgress(), clock=Clock(), ranks=ranks)
    return [p.tolist() for p in network.parameters()], result.loss, result.windows


@pytest.mark.parametrize("estimator", ["first-order", "exact"])
def test_two_ranks_equal_one_with_twice_the_meta_batch(make_task, estimator):
    task = make_task(dtype=torch.float64)
    one = trained(task, 6, estimator)
    two = in_ranks(2, lambda ranks: trained(task, 3, estimator, ranks))
    for weights, loss, windows in two:
        assert (loss, windows) == (pytest.approx(one[1], rel=1e-6), one[2])
        for mine, theirs in zip(weights, one[0], strict=True):
            torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=1e-4, atol=1e-6)


def test_ranks_learn_one_rule_together(task, tmp_path):
    def run(ranks):
        checkpoints = Checkpoints(tmp_path if ranks.rank == 0 else None, ranks=ranks, interval=0.0)
        return Learner([task], SMALL, checkpoints=checkpoints, ranks=ranks).run().rule.to_json()

    first, second = in_ranks(2, run)
    assert first == second
    assert checkpoints_in(tmp_path)


def test_ranks_share_work_and_results():
    def run(ranks):
        own = ranks.own(range(7))
        mean = ranks.mean([torch.tensor([float(ranks.rank)])])
        told = ranks.shared(lambda: f"from {ranks.rank}")
        return list(own), ranks.gathered([x * 10 for x in own]), mean[0].item(), told

    results = in_ranks(2, run)
    assert [own for own, *_ in results] == [[0, 1, 2], [3, 4, 5, 6]]
    assert all(rest == [[0, 10, 20, 30, 40, 50, 60], 0.5, "from 0"] for _, *rest in map(list, results))
    alone = Ranks()
    assert (alone.own([1, 2]), alone.gathered([3]), alone.shared(lambda: 4)) == ([1, 2], [3], 4)


class CancelledOnRankOne(NullProgress):
    """Asks the second rank alone to stop, after a step of a phase."""

    def __init__(self, clock, ranks, phase):
        self.clock, self.active, self.wanted, self.name = clock, ranks.rank == 1, phase, ""

    def phase(self, phase, name, steps):
        self.name = name

    def step(self, done, **numbers):
        if self.active and self.name.startswith(self.wanted):
            self.clock.cancel()


@pytest.mark.parametrize("phase", ["meta-training", "polishing"])
def test_ranks_stop_together_where_one_is_asked_to(task, phase):
    def run(ranks):
        clock = Clock(ranks=ranks)
        learner = Learner([task], SMALL, progress=CancelledOnRankOne(clock, ranks, phase), clock=clock, ranks=ranks)
        result = learner.run()
        return result.rule.to_json(), result.summary["interrupted"], len(result.comparisons)

    first, second = in_ranks(2, run)
    assert first == second
    assert first[1:] == (True, 0)


def test_what_the_first_rank_refuses_all_of_them_refuse():
    def refused():
        raise SolError("no such folder")

    def run(ranks):
        try:
            return ranks.shared(refused)
        except SolError as error:
            return str(error)

    assert in_ranks(2, run) == ["no such folder"] * 2


def test_workers_polish_the_same_rule(task):
    config = dataclasses.replace(SMALL, episodes=0, evaluation_episodes=1, baselines=())
    rules = [Learner([task], config, workers=workers).run().rule for workers in (Workers(), Workers(2, "threading"))]
    for mine, theirs in zip(*(rule.terms for rule in rules), strict=True):
        assert mine.as_coeff_Mul()[1] == theirs.as_coeff_Mul()[1]


# -- watching --------------------------------------------------------------------------------------------------


def test_metrics_are_one_json_object_a_line(task, tmp_path):
    path = tmp_path / "metrics.jsonl"
    Learner([task], SMALL, progress=MultiProgress(MetricsFile(path), NullProgress())).run()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [line for line in lines if "note" not in line]
    phases = list(dict.fromkeys(line["title"] for line in lines))
    assert list(dict.fromkeys(line["phase"] for line in lines)) == [p.value for p in Phase if p is not Phase.CHECK][:7]
    expected = [
        "tuning adam",
        "meta-training",
        "polishing",
        "pruning",
        "gradient",
        "polishing",
        "pruning",
        "measuring",
        "tuning",
        "comparing",
    ]
    assert [phase.split()[0] if "tuning" not in phase else phase for phase in phases] == expected
    assert sum("meta_loss" in line for line in lines) == SMALL.episodes
    with pytest.raises(SolError, match="cannot write"):
        MetricsFile(tmp_path / "missing" / "metrics.jsonl")


def test_a_resumed_run_tells_its_finished_steps_again(task, tmp_path):
    told = []
    for _ in range(2):
        path = tmp_path / "metrics.jsonl"
        run_in(tmp_path / "run", task, progress=MetricsFile(path))
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        same = [line for line in lines if not line.get("note", "").startswith("  done in")]  # it names the time
        told.append([{k: v for k, v in line.items() if k not in ("seconds", "left_s")} for line in same])
    assert told[0] == told[1]


def test_tensorboard_events(tmp_path):
    pytest.importorskip("tensorboard")
    reporter = TensorBoard(tmp_path)
    reporter.phase(Phase.META_TRAIN, "meta-training", 2)
    reporter.step(1, loss=0.5)
    reporter.note("text")
    assert any("tfevents" in path.name for path in tmp_path.iterdir())


# -- from Python -----------------------------------------------------------------------------------------------


def test_learning_is_one_call(make_task):
    small = {f.name: getattr(SMALL, f.name) for f in dataclasses.fields(SMALL)}
    rule = learn(make_task(), budget="1min", **{**small, "generations": 1})
    assert isinstance(rule, UpdateRule)
    assert rule.lr is not None
    short = make_task(horizon=6)
    with pytest.raises(SolError, match="task names must be unique, got regression, regression"):
        learn(make_task(), short)
    short.name = "short"
    both = learn(make_task(), short, config=dataclasses.replace(SMALL, generations=2))
    assert both.horizon is None or not both.needs_horizon  # the tasks' horizons differ
    with pytest.raises(SolError, match="at least one task is required"):
        learn()


def test_a_run_whose_every_window_diverges_ends_with_advice(make_task, monkeypatch):
    class Steep(make_task):
        def loss(self, model, batch):
            loss = super().loss(model, batch)
            return loss if self.calm else loss * float("inf")

    task = Steep()
    task.calm = True

    def then_diverge(self, run=StartFinder.run):
        start = run(self)
        task.calm = False
        return start

    monkeypatch.setattr(StartFinder, "run", then_diverge)
    with pytest.raises(SolError, match=r"all 3 windows diverged.*outer_lr"):
        Learner([task], SMALL).run()


def test_a_rule_with_a_schedule_knows_its_horizon_though_the_read_out_has_none(make_task):
    settings = {
        "start": "adam",
        "episodes": 0,
        "directions": ("ad",),
        "decays": ("ld",),
        "own_terms": 0,
        "generations": 6,
    }
    result = Learner([make_task()], dataclasses.replace(SMALL, **settings)).run()
    assert not result.readout.needs_horizon
    assert result.rule.needs_horizon
    assert result.rule.horizon == make_task().horizon
