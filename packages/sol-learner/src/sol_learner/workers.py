"""Processes that work side by side: joblib's, on this machine or on whatever back end it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

import joblib

from sol_learner.progress import Interrupted
from sol_symbols import SolError

__all__ = ["Workers"]

T = TypeVar("T")
U = TypeVar("U")

_REGISTER: dict[str, tuple[str, str | None]] = {
    "ray": ("ray.util.joblib", "register_ray"),
    "dask": ("distributed", None),  # registers itself with joblib when it is imported
}


class Workers:
    """Applies functions to items, ``jobs`` at a time.

    Args:
        jobs: Number of processes; 1 works in this one.
        backend: Of joblib: ``"loky"`` (processes here), ``"threading"``, ``"ray"`` or ``"dask"`` (a cluster), or any
            that the caller has registered with joblib.

    Raises:
        SolError: The back end's package is not installed, or joblib does not know it.
    """

    def __init__(self, jobs: int = 1, backend: str = "loky") -> None:
        self.jobs = jobs
        self._pool: joblib.Parallel | None = None
        if jobs == 1:
            return
        if backend in _REGISTER:
            module, function = _REGISTER[backend]
            try:
                loaded = import_module(module)
            except ImportError as error:
                raise SolError(
                    f"the back end {backend!r} needs {error.name or module}, which is not installed"
                ) from None
            if function is not None:
                getattr(loaded, function)()
        self._options = {"n_jobs": jobs, "backend": backend, "batch_size": 1}
        try:
            self._parallel = joblib.Parallel(n_jobs=jobs, backend=backend)
        except ValueError as error:
            raise SolError(f"no back end {backend!r}: {error}") from None
        try:
            joblib.Parallel(**self._options, return_as="generator_unordered")
            self._options["return_as"] = "generator_unordered"
        except ValueError:  # a back end that gives results together
            pass

    def map(self, function: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """``[function(item) for item in items]``; ``function`` must be picklable where there are several jobs."""
        if self.jobs == 1:
            return [function(item) for item in items]
        results: list[Any] = self._parallel(joblib.delayed(function)(item) for item in items)
        return results

    def completed(self, function: Callable[[T], U], items: Sequence[T]) -> Iterator[tuple[int, U | Exception]]:
        """``(i, function(items[i]))`` for each item as it is done; an exception in the result's place where it failed.

        A process that dies (killed, out of memory, its machine gone) costs the item that it was at: the items that were
        under way are tried once more, each alone, and the one whose process dies again is given up.
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
                yield i, again.get(i, SolError("the process died, twice"))

    def close(self) -> None:
        """End the processes; they start anew when they are needed again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.__exit__(None, None, None)

    def _surviving(self, function: Callable[[T], U], pairs: list[tuple[int, T]]) -> Iterator[tuple[int, U | Exception]]:
        """Results until a process dies. Its pool is left then, else kept: a cluster's processes take long to start."""
        if self._pool is None:
            self._pool = joblib.Parallel(**self._options).__enter__()
        try:
            yield from self._pool(joblib.delayed(partial(_guarded, function))(pair) for pair in pairs)
        except Exception:  # every back end has its own; those of the function itself are results
            with suppress(Exception):  # it may be too broken to be told to end
                self.close()


def _guarded(function: Callable[[T], U], pair: tuple[int, T]) -> tuple[int, U | Exception]:
    i, item = pair
    try:
        return i, function(item)
    except (SolError, Interrupted) as error:
        return i, error
    except Exception as error:  # whatever a stranger's task or optimizer raises is the item's result
        return i, SolError(f"{type(error).__name__}: {error}")
