"""Processes that evaluate candidates side by side: joblib's, on this machine or on whatever back end it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeVar

import joblib

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
        try:
            self._parallel = joblib.Parallel(n_jobs=jobs, backend=backend)
        except ValueError as error:
            raise SolError(f"no back end {backend!r}: {error}") from None

    def map(self, function: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """``[function(item) for item in items]``; ``function`` must be picklable where there are several jobs."""
        if self.jobs == 1:
            return [function(item) for item in items]
        results: list[Any] = self._parallel(joblib.delayed(function)(item) for item in items)
        return results
