"""Pickles of arrays from elsewhere, read without running what they say.

A pickle is a program: unrestricted, it calls any function. This reader knows containers, NumPy arrays and SciPy's CSR
matrices. Their constructors are replaced by records, and arrays are made only from dtype, shape and bytes that agree.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from sol_symbols import SolError

__all__ = ["SparseRows", "read_pickle"]

_TYPES = ("b1", "u1", "i1", "i2", "i4", "i8", "f4", "f8")


def read_pickle(path: Path) -> Any:
    """The content of a pickle that Python 2 or 3 wrote: containers, numbers, bytes, arrays and :class:`SparseRows`.

    Text that Python 2 wrote is bytes.

    Raises:
        SolError: The file cannot be read, is damaged, or loads anything else; the message names it.
    """
    try:
        with path.open("rb") as file:
            return _unwrapped(_Reader(file, encoding="bytes").load())
    except OSError as error:
        raise SolError(f"cannot read {path}: {error.strerror}") from error
    except SolError as error:
        raise SolError(f"cannot read {path}: {error}") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise SolError(f"cannot read {path}: it is damaged ({type(error).__name__}: {error})") from None


class SparseRows:
    """A CSR matrix whose indices are within its shape.

    Attributes:
        shape: Rows and columns.
        values, columns, starts: Row i has ``values[starts[i]:starts[i + 1]]`` in ``columns`` of the same slice.
    """

    def __init__(self, state: Any) -> None:
        keys = {key.decode() if isinstance(key, bytes) else key: value for key, value in state.items()}
        rows, columns = (int(size) for size in keys["_shape"])
        self.shape = rows, columns
        self.values, self.columns, self.starts = (_unwrapped(keys[name]) for name in ("data", "indices", "indptr"))
        if not (
            self.values.ndim == self.columns.ndim == 1
            and self.columns.dtype.kind == self.starts.dtype.kind == "i"
            and self.starts.shape == (rows + 1,)
            and self.starts[0] == 0
            and (numpy.diff(self.starts) >= 0).all()
            and self.starts[-1] == len(self.values) == len(self.columns)
            and (not len(self.columns) or (self.columns.min() >= 0 and self.columns.max() < columns))
        ):
            raise SolError("its sparse matrix is damaged")

    def dense(self) -> numpy.ndarray:
        """The matrix, [rows, columns]; entries that are given twice are summed."""
        matrix = numpy.zeros(self.shape, self.values.dtype)
        numpy.add.at(matrix, (numpy.arange(self.shape[0]).repeat(numpy.diff(self.starts)), self.columns), self.values)
        return matrix


class _Record:
    """What a pickle says of an object: the arguments of its constructor, then its state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    """``_reconstruct(ndarray, (0,), b"b")``, then (version, shape, dtype, Fortran order, bytes)."""

    def value(self) -> numpy.ndarray:
        _, shape, kind, fortran, content = self.state or (None,) * 5
        if not (isinstance(kind, _Type) and isinstance(content, bytes)):
            raise SolError("its array is not of numbers")
        dtype = kind.value()
        if not all(isinstance(size, int) and size >= 0 for size in shape):
            raise SolError(f"its array has the shape {shape}")
        if math.prod(shape) * dtype.itemsize != len(content):
            raise SolError(f"its array of shape {shape} has {len(content)} bytes")
        return numpy.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


class _Type(_Record):
    """``dtype("f4", 0, 1)``, then (version, byte order, ...)."""

    def value(self) -> numpy.dtype:
        name, order = (
            text.decode() if isinstance(text, bytes) else text for text in (self.arguments[0], (self.state or "||")[1])
        )
        if name not in _TYPES or order not in ("<", ">", "|", "="):
            raise SolError(f"its array has the type {order}{name}; allowed: {', '.join(_TYPES)}")
        return numpy.dtype(f"{order}{name}")


class _Sparse(_Record):
    """A ``csr_matrix`` without arguments, then its attributes."""


def _latin1(text: str, encoding: Any) -> bytes:
    """Protocol 2 pickles of Python 3 store bytes as Latin-1 text, so ``encoding`` is ignored."""
    return text.encode("latin1")


def _table(factory: Any = None) -> dict[Any, Any]:
    """A ``defaultdict``, whose factory is ignored."""
    return {}


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): object,  # an argument of _reconstruct
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("scipy.sparse.csr", "csr_matrix"): _Sparse,
    ("scipy.sparse._csr", "csr_matrix"): _Sparse,
    ("collections", "defaultdict"): _table,
    ("builtins", "list"): list,
    ("__builtin__", "list"): list,
    ("_codecs", "encode"): _latin1,
}


class _Reader(pickle.Unpickler):
    """Reads only what :data:`_KNOWN` names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise SolError(f"it loads {module}.{name}, which no data file needs")
        return _KNOWN[module, name]


def _unwrapped(value: Any) -> Any:
    """``value`` with arrays for their records, within dictionaries."""
    if isinstance(value, _Array):
        return value.value()
    if isinstance(value, _Sparse):
        return SparseRows(value.state)
    return {key: _unwrapped(item) for key, item in value.items()} if type(value) is dict else value
