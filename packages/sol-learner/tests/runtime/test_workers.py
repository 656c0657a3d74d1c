"""Processes that share work."""

import os
import pickle
import subprocess
import sys
import threading
import time
from functools import partial

import cloudpickle
import pytest
import torch

from sol_learner import LearnConfig, Workers
from sol_learner.pipeline import suitable_jobs
from sol_learner.runtime.clock import Clock, Interrupted
from sol_learner.runtime.workers import shared_threads
from sol_symbols import SolError


def test_loky_workers_map():
    assert Workers(2).map(abs, [-1, 2, -3]) == [1, 2, 3]


def test_loky_workers_are_sent_a_constant_once():
    def where(constant, _):  # sent by value, because the processes cannot import this file
        return os.getpid(), id(constant.value), constant.value

    workers = Workers(2)
    large, small = workers.constant({"data": list(range(100_000))}), workers.constant([2])
    for constant in (large, small):
        assert len(pickle.dumps(constant)) < 100
        results = [result for _ in range(3) for result in workers.map(partial(where, constant), [1, 2])]
        assert len({(pid, identity) for pid, identity, _ in results}) == len({pid for pid, *_ in results}) <= 2
        assert all(pid != os.getpid() and value == constant.value for pid, _, value in results)


ORPHANS = """
import os, time
from sol_learner import LearnConfig, Workers

workers = Workers(2)
constant = workers.constant([1])
print(*workers.map(lambda i: constant.value and time.sleep(1) or os.getpid(), [1, 2]), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_processes_end_with_the_one_that_started_them():
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as parent:
        pids = parent.stdout.readline().split()
        parent.kill()
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return
        time.sleep(0.1)
    pytest.fail("processes outlived the one that started them")


STARTING = """
import os, signal, threading, time
from sol_learner import Clock, Workers

with Clock().catching_interrupts():
    threading.Timer(0.5, os.killpg, (0, signal.SIGINT)).start()
    print(Workers(2).map(abs, [-1, 2]))
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs groups of processes")
def test_processes_that_start_are_kept_from_control_c():
    result = subprocess.run([sys.executable, "-c", STARTING], capture_output=True, text=True, start_new_session=True)
    assert result.stdout == "[1, 2]\n"
    assert result.stderr.strip() == "stopping; what is complete is kept (press Ctrl-C again to stop at once)"


def test_what_fails_in_another_process_is_said_as_its_own_error():
    class UnpicklableError(Exception):
        """Cannot be sent back: it takes two arguments."""

        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    def fails(kind):
        if kind == "ends":
            os._exit(3)
        raise UnpicklableError("this", kind)

    workers = Workers(2)
    with pytest.raises(SolError, match=r"^UnpicklableError: this and that$"):
        workers.map(fails, ["that"])
    with pytest.raises(SolError, match=r"^a worker process ended \(TerminatedWorkerError\): .* one process \(--jobs 1"):
        workers.map(fails, ["ends"])
    assert workers.map(abs, [-1, 2]) == [1, 2]


# loky's thread may look for work that the shutdown has just dropped: a KeyError, after which it ends as it should
@pytest.mark.filterwarnings("ignore:Exception in thread ExecutorManagerThread")
def test_a_cancelled_clock_ends_what_is_under_way():
    clock, workers = Clock(), Workers(2)
    threading.Timer(1, clock.cancel).start()
    workers.start(abs, -1)
    with pytest.raises(Interrupted):
        workers.map(time.sleep, [1000, 1000], clock)
    assert workers.map(abs, [-1, 2]) == [1, 2]


@pytest.mark.parametrize("workers", [Workers(), Workers(2, "threading")])
def test_other_workers_are_given_a_constant_as_it_is(workers):
    constant = workers.constant([1])
    assert (constant.key, workers.map(lambda i: constant.value[0] + i, [1, 2])) == (None, [2, 3])


def test_one_process_per_core_for_what_can_be_sent_and_fits_into_memory(task, monkeypatch):
    with shared_threads(1):
        torch.set_num_threads(5)
        wide, narrow = LearnConfig(), LearnConfig(population=4)
        assert [suitable_jobs([task], config) for config in (wide, narrow)] == [5, 4]
        task.vectorizable = False
        assert [suitable_jobs([task], config) for config in (wide, LearnConfig(episodes=2))] == [5, 1]
        each = len(cloudpickle.dumps(task)) + 5 * 4 * (5 * 4 + 4 + 4 * 2 + 2)
        monkeypatch.setattr("sol_learner.pipeline.memory", lambda: 4 * (2 * each + 9))
        assert suitable_jobs([task], wide) == 2
        monkeypatch.undo()
        task.stream = (x for x in "a generator cannot be sent")
        assert suitable_jobs([task], wide) == 1


@pytest.mark.parametrize("held", [threading.Lock(), (x for x in "a generator")], ids=lambda o: type(o).__name__)
def test_what_cannot_be_sent_to_other_processes_is_named(task, held):
    task.held = held
    workers = Workers(2)
    with pytest.raises(SolError, match=r"^cannot send regression to other processes: .*; use one process \(--jobs 1"):
        workers.constant(task)
    assert Workers(2, "threading").constant(task).value is task


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "2", True, None])
def test_jobs_are_a_count(jobs):
    with pytest.raises(SolError, match="jobs must be a number of processes of at least 1, got "):
        Workers(jobs)


def test_processes_share_the_threads():
    before = torch.get_num_threads()
    with shared_threads(before + 1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("backend", "message"), [("ray", "needs the package ray"), ("nonsense", "no backend 'nonsense'")]
)
def test_wrong_backends_are_named(backend, message):
    if backend == "ray":
        try:
            import ray  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("ray is installed")
    with pytest.raises(SolError, match=message):
        Workers(2, backend)
