"""Checkpoints: a run that was killed at any moment continues as if nothing had happened.

A run is a program whose only memory between its units of work (an episode of meta-training, a generation of polishing,
a rule on the front) is what those units returned. So a checkpoint stores just that: a journal of results by name, and
the tensors of meta-training. A resumed run is the same program; units in the journal are not computed again.

A checkpoint is one safetensors file, the journal being JSON in its header: nothing in it is executed when it is read.
It is written to a temporary file and moved into place; the two newest are kept, and a hash detects damage.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from sol_learner.runtime.ranks import Ranks
from sol_symbols import SolError, write_atomically
from sol_symbols.files import is_regular

__all__ = ["CHECKPOINTS", "Checkpoints", "checkpoints_in"]

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints, within that of a run that is not finished."""

_KEPT = 2
_NAMES = "[0-9]" * 8 + ".safetensors"


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, if there is one, oldest first."""
    return [] if folder.is_symlink() else sorted(path for path in folder.glob(_NAMES) if is_regular(path))


class Checkpoints:
    """The memory of a run.

    Args:
        folder: Where to keep checkpoints; ``None`` to keep none.
        identity: What a checkpoint must agree on to belong to this run (task, configuration), JSON-able.
        resume: Whether to continue from the newest checkpoint in the folder, if there is one.
        report: Called with a message about each damaged checkpoint.
        ranks: Processes of the run; rank 0 reads and writes.
        interval: Minimum seconds between two writes of results that are cheap to recompute.

    Raises:
        SolError: The folder's checkpoints are of another run, or all of them are damaged.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        identity: Mapping[str, Any] | None = None,
        *,
        resume: bool = False,
        report: Callable[[str], None] = print,
        ranks: Ranks | None = None,
        interval: float = 1.0,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.ranks, self.interval = ranks or Ranks(), interval
        self.identity = json.loads(json.dumps(dict(identity or {})))
        self.journal: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self.elapsed = 0.0
        self._written, self._number, self._start = -float("inf"), 0, time.monotonic()
        self.tensors = self.ranks.shared(lambda: self._begin(resume, report))

    def _begin(self, resume: bool, report: Callable[[str], None]) -> dict[str, Tensor]:
        """The tensors to continue from."""
        old = [] if self.folder is None else checkpoints_in(self.folder)
        if resume and old:
            self._load(old, report)
        elif not resume:
            for path in old:
                path.unlink()
        return self.tensors

    def once(self, key: str, compute: Callable[[], Any], together: bool = False) -> Any:
        """The result of a unit of work: from the journal, or computed and written there.

        Args:
            key: Name of the unit.
            compute: Returns a JSON-able value; :meth:`once` returns it after a round trip through JSON.
            together: Whether all ranks call ``compute``, because it splits its work among them.
        """
        if self.ranks.shared(lambda: key in self.journal):
            return self.ranks.shared(lambda: self.journal[key])
        value = compute() if together else None

        def finish() -> Any:
            self.journal[key] = json.loads(json.dumps(value if together else compute()))
            self.save()
            return self.journal[key]

        return self.ranks.shared(finish)

    def keep(self, key: str, value: Any, tensors: Mapping[str, Tensor]) -> None:
        """Replace the journal's entry ``key`` and all tensors: the state of a phase after a unit of its work."""
        self.journal[key] = json.loads(json.dumps(value))
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.save()

    def kept(self, key: str) -> Any:
        """The value last passed to :meth:`keep` for ``key``, ``None`` before."""
        return self.ranks.shared(lambda: self.journal.get(key))

    def save(self, force: bool = False) -> None:
        """Write a checkpoint, unless the last one is younger than the interval.

        Raises:
            SolError: It cannot be written; the earlier checkpoint is intact.
        """
        now = time.monotonic()
        if self.folder is None or self.ranks.rank != 0 or (now - self._written < self.interval and not force):
            return
        record = json.dumps(
            {"identity": self.identity, "journal": self.journal, "elapsed": self.elapsed + now - self._start}
        )
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.tensors.items()}
        header = {"record": record, "sha256": _digest(record, tensors)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SolError(f"cannot make the folder {self.folder}: {error.strerror}") from error
        self._number += 1
        write_atomically(self.folder / f"{self._number:08}.safetensors", safetensors.torch.save(tensors, header))
        self._written = now
        for path in checkpoints_in(self.folder)[:-_KEPT]:
            path.unlink()

    def clear(self) -> None:
        """Remove all checkpoints: the run is finished."""
        if self.folder is not None and self.ranks.rank == 0 and self.folder.is_dir():
            for path in [*checkpoints_in(self.folder), *self.folder.glob(f".{_NAMES}.*")]:
                path.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _load(self, paths: list[Path], report: Callable[[str], None]) -> None:
        for path in reversed(paths):
            try:
                record, tensors = _read(path)
            except (OSError, ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
                more = "" if path == paths[0] else "; using the one before it"
                report(f"{path} is damaged ({error}){more}")
                continue
            changed = [k for k in self.identity if record["identity"].get(k) != self.identity[k]]
            if changed:
                changes = "; ".join(f"{k} was {record['identity'].get(k)!r}, is {self.identity[k]!r}" for k in changed)
                raise SolError(f"cannot resume {path.parent}: its settings differ ({changes})")
            self.journal, self.tensors, self.elapsed = record["journal"], tensors, float(record["elapsed"])
            self._number = int(paths[-1].stem)
            return
        raise SolError(f"every checkpoint in {paths[0].parent} is damaged; start again without --resume")


def _digest(record: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(record.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safetensors.safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    if _digest(header["record"], tensors) != header["sha256"]:
        raise ValueError("its content does not match its hash")
    record = json.loads(header["record"])
    whole = isinstance(record, dict) and all(isinstance(record.get(name), dict) for name in ("identity", "journal"))
    if not whole or type(record.get("elapsed")) not in (int, float) or not 0 <= record["elapsed"] < 1e12:
        raise ValueError("its record is not that of a run")
    return record, tensors
