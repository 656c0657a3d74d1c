"""Worker processes, by joblib: on this machine or on another backend."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from importlib import import_module
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Generic, TypeVar

import cloudpickle
import joblib
import torch
from joblib.externals.loky import get_reusable_executor

from sol_learner.runtime.clock import Clock, Interrupted
from sol_symbols import SolError

__all__ = ["Constant", "Workers", "memory", "shared_threads", "threads"]

T = TypeVar("T")
U = TypeVar("U")


def shared_threads(jobs: int) -> AbstractContextManager[None]:
    """Limit this process to its share of PyTorch's threads, one of ``jobs`` equal shares."""
    return threads(max(1, torch.get_num_threads() // jobs))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use ``count`` of PyTorch's threads in the context; ``None`` leaves the number unchanged."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def memory() -> int:
    """Bytes of memory of the machine, or of the container if that has a limit; 2**40 if it does not say."""
    found = 2**40
    with suppress(AttributeError, ValueError, OSError):  # on Windows
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(ValueError, OSError):
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return found


class Constant(Generic[T]):
    """A large ``value`` that functions for :class:`Workers` use repeatedly.

    Processes on this machine receive it once, when they start, instead of with every call.
    """

    def __init__(self, value: T, key: int | None = None) -> None:
        self.value, self.key = value, key

    def __reduce__(self) -> tuple[Any, ...]:
        return (Constant, (self.value,)) if self.key is None else (_sent, (self.key,))


_constants: dict[int, Any] = {}
"""Values of the constants that this process was sent."""


def _sent(key: int) -> Constant[Any]:
    return Constant(_constants[key], key)


class Workers:
    """Applies functions to items, ``jobs`` at a time.

    Args:
        jobs: Number of processes; 1 works in this one.
        backend: Of joblib: ``"loky"`` (processes here), ``"threading"``, ``"ray"`` or ``"dask"`` (the cluster that
            ``RAY_ADDRESS`` or ``DASK_SCHEDULER_ADDRESS`` names, or one that they start here), or any that the caller
            has registered with joblib.

    Raises:
        SolError: ``jobs`` is no count, the backend's package is not installed, or joblib does not know it.
    """

    def __init__(self, jobs: int = 1, backend: str = "loky") -> None:
        if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
            raise SolError(f"jobs must be a number of processes of at least 1, got {jobs!r}")
        self.jobs, self._backend = jobs, backend
        self._pool: joblib.Parallel | None = None
        self._last: threading.Thread | None = None
        if jobs == 1:
            return
        try:
            connected = _CLUSTERS.get(backend, lambda: backend)()
        except ImportError as error:
            raise SolError(
                f"the backend {backend!r} needs the package {error.name or backend}, which is not installed"
            ) from None
        self._own = backend == "loky"
        self._constants: dict[int, Any] = {}
        self._options: dict[str, Any] = {"n_jobs": jobs, "backend": connected, **self._beginning()}
        try:
            joblib.Parallel(**self._options)
        except ValueError as error:
            raise SolError(f"no backend {backend!r}: {error}") from None
        self._unordered = {"batch_size": 1, "return_as": "generator_unordered"}
        try:
            joblib.Parallel(**self._options, **self._unordered)
        except ValueError:  # a backend that returns all results together
            del self._unordered["return_as"]

    def constant(self, value: T) -> Constant[T]:
        """Return ``value`` for functions passed to :meth:`map`; running processes are replaced.

        Raises:
            SolError: It cannot be sent to other processes.
        """
        if self.jobs == 1 or self._backend == "threading":
            return Constant(value)
        try:
            cloudpickle.dumps(value)
        except Exception as error:  # objects of others can raise anything
            parts = value if isinstance(value, tuple) else (value,)
            name = ", ".join(str(getattr(part, "name", type(part).__name__)) for part in parts)
            raise SolError(
                f"cannot send {name} to other processes: {error}; use one process (--jobs 1, Workers(1)), or create "
                "what it holds on first use"
            ) from None
        if not self._own:
            return Constant(value)
        key = len(self._constants)
        self._constants[key] = value
        self._options |= self._beginning()
        return Constant(value, key)

    def _beginning(self) -> dict[str, Any]:
        """joblib's option for starting processes on this machine; a new object makes it restart them."""
        return {"initializer": partial(_prepare, os.getpid(), dict(self._constants))} if self._own else {}

    def start(self, function: Callable[[T], Any], item: T) -> None:
        """Start the processes ahead of :meth:`map`, each on ``function(item)``, without waiting."""
        if self.jobs > 1:  # an error will occur again in map, and be reported there
            self._run(function, [item] * self.jobs)

    def map(self, function: Callable[[T], U], items: Sequence[T], clock: Clock | None = None) -> list[U]:
        """``[function(item) for item in items]``; ``function`` must be picklable with several jobs.

        Raises:
            Interrupted: ``clock`` was cancelled while other processes ran; those on this machine are killed.
            SolError: ``function`` failed in another process, or the process did.
        """
        if self.jobs == 1:
            return [function(item) for item in items]
        running = self._run(partial(_guarded, function), [*enumerate(items)])
        try:
            while not wait([running], timeout=0.1).done:
                if clock is not None and clock.cancelled:
                    raise Interrupted
        except BaseException:
            running.cancel()
            if self._own:
                get_reusable_executor(reuse=True).shutdown(wait=False, kill_workers=True)
            raise
        try:
            results: list[tuple[int, Any]] = running.result()
        except Exception as error:  # every backend has its own
            raise SolError(
                f"a worker process ended ({type(error).__name__}): it ran out of memory, was killed, or cannot load "
                "the task; use one process (--jobs 1)"
            ) from error
        for _, result in results:
            if isinstance(result, Exception):
                raise result
        return [result for _, result in results]

    def _run(self, function: Callable[[T], U], items: Sequence[T]) -> Future[list[U]]:
        """The results for all items, after all earlier work is done; a separate thread runs it."""
        before, running = self._last, Future[list[Any]]()

        def work() -> None:
            with _uninterrupted():
                if before is not None:
                    before.join()
                if running.set_running_or_notify_cancel():
                    parallel = joblib.Parallel(**self._options)  # one that failed would give results of then, too
                    try:
                        running.set_result(parallel(joblib.delayed(function)(item) for item in items))
                    except BaseException as error:
                        running.set_exception(error)

        self._last = threading.Thread(target=work, daemon=True)
        self._last.start()
        return running

    def completed(self, function: Callable[[T], U], items: Sequence[T]) -> Iterator[tuple[int, U | Exception]]:
        """``(i, function(items[i]))`` for each item as it completes; if it failed, an exception in place of the result.

        A process that dies (killed, out of memory, its machine gone) loses only its current item: the items that were
        in progress are retried once, each alone, and an item whose process dies again fails.
        """
        if self.jobs == 1:
            for i, item in enumerate(items):
                yield _guarded(function, (i, item))
            return
        waiting = list(enumerate(items))
        while waiting:
            wave, waiting = waiting[: 8 * self.jobs], waiting[8 * self.jobs :]
            missing = dict(wave)
            for i, result in self._surviving(function, wave):
                del missing[i]
                yield i, result
            for i, item in missing.items():
                again = dict(self._surviving(function, [(i, item)]))
                yield i, again.get(i, SolError("the worker process died twice"))

    def close(self) -> None:
        """End the processes; they restart when they are needed again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.__exit__(None, None, None)

    def _surviving(self, function: Callable[[T], U], pairs: list[tuple[int, T]]) -> Iterator[tuple[int, U | Exception]]:
        """Results until a process dies. The pool is then closed, else kept: a cluster's processes start slowly."""
        if self._pool is None:
            self._pool = joblib.Parallel(**self._options, **self._unordered).__enter__()
        try:
            with _uninterrupted():
                results = self._pool(joblib.delayed(partial(_guarded, function))(pair) for pair in pairs)
            yield from results
        except Exception:  # every backend has its own; those of the function itself are results
            with suppress(Exception):  # it may be too broken to end
                self.close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Block Ctrl-C in this thread and in the processes that it starts, even before they begin to ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    resource_tracker.ensure_running()  # joblib needs it, and starting it unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ray() -> str:
    """The backend for the Ray cluster at ``RAY_ADDRESS``, or for one that Ray starts here."""
    import_module("ray.util.joblib").register_ray()
    return "ray"


def _dask() -> Any:
    """The backend for the current Dask client, or for a new one: where Dask's settings say, by default here."""
    distributed = import_module("distributed")
    joblib.parallel.EXTERNAL_BACKENDS["dask"]()
    try:
        client = distributed.get_client()
    except ValueError:
        client = distributed.Client()
    return joblib.parallel.BACKENDS["dask"](client=client)  # by name, joblib would pass it arguments that it rejects


_CLUSTERS: dict[str, Callable[[], Any]] = {"ray": _ray, "dask": _dask}


def _prepare(parent: int, constants: dict[int, Any]) -> None:
    """Set up a process on this machine: leave Ctrl-C to its ``parent``, and exit soon after it, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _constants.update(constants)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _guarded(function: Callable[[T], U], pair: tuple[int, T]) -> tuple[int, U | Exception]:
    i, item = pair
    try:
        return i, function(item)
    except (SolError, Interrupted) as error:
        return i, error
    except Exception as error:  # any error of a third-party task or optimizer is the item's result
        return i, SolError(f"{type(error).__name__}: {error}")
