"""A SQLite cache of training runs: studies can be interrupted and resumed, and no run is computed twice.

Each row is one run. Its key is the hash of everything that determines the run's numbers (see
:meth:`sol_learner.comparing.trials.Trial.identity`), so after a change of task, optimizer, setting or version the old
row is not found. Each row has a digest of its key and result: a damaged row counts as absent and is computed again.
Several processes can share a file. If two compute the same run concurrently, the first row is kept and both return it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sol_symbols import SolError

__all__ = ["Store"]

_VERSION = 2
_TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY,
    task TEXT NOT NULL, optimizer TEXT NOT NULL, settings TEXT NOT NULL,
    stream TEXT NOT NULL, seed INTEGER NOT NULL, episode INTEGER NOT NULL, steps INTEGER NOT NULL,
    identity TEXT NOT NULL, result TEXT NOT NULL, digest TEXT NOT NULL,
    stored TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
)
"""


class Store:
    """Stored results of runs, by identity.

    Args:
        path: The file; created if it does not exist.

    Raises:
        SolError: The file cannot be opened or is not a store of this version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_file():
            raise SolError(f"cannot use the store {path}: it is not a regular file")
        with self._open(writing=True) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version == 1:
                _add_digests(connection)
            elif version != _VERSION and (version or tables):
                raise SolError(f"{path} is a SQLite file but not a run store that this version can read")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _open(self, writing: bool = False) -> Iterator[sqlite3.Connection]:
        """A separate connection per use, so that other processes and threads get access in between."""
        try:
            connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            try:
                with connection:
                    connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
                    yield connection
            finally:
                connection.close()
        except (sqlite3.Error, ValueError) as error:
            raise SolError(f"cannot use the store {self.path}: {error}") from None

    def get(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """The stored result, or ``None``."""
        with self._open() as connection:
            return _read(connection, _key(identity))

    def put(self, identity: Mapping[str, Any], task: str, optimizer: str, result: Mapping[str, Any]) -> dict[str, Any]:
        """Store a result unless one exists; return the stored one. ``task`` and ``optimizer`` are for human readers."""
        key = _key(identity)
        settings = json.dumps(identity["settings"])
        episode = identity["episode"]  # a list for trainings side by side
        episode = episode if isinstance(episode, int) else json.dumps(episode)
        place = (identity["stream"], identity["seed"], episode, identity["steps"])
        with self._open(writing=True) as connection:
            known = _read(connection, key)
            if known is not None:
                return known
            text = json.dumps(result, allow_nan=False)
            connection.execute(
                "INSERT OR REPLACE INTO runs (key, task, optimizer, settings, stream, seed, episode, steps, identity,"
                " result, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, task, optimizer, settings, *place, _text(identity), text, _digest(key, text)),
            )
        return json.loads(text)

    def __len__(self) -> int:
        with self._open() as connection:
            return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])


def _read(connection: sqlite3.Connection, key: str) -> dict[str, Any] | None:
    """A result whose digest is right."""
    row = connection.execute("SELECT result, digest FROM runs WHERE key = ?", (key,)).fetchone()
    return json.loads(row[0]) if row is not None and row[1] == _digest(key, row[0]) else None


def _add_digests(connection: sqlite3.Connection) -> None:
    """Bring a store of version 1 to this version; its rows are taken as they are."""
    connection.create_function("digest", 2, _digest)
    connection.execute("ALTER TABLE runs ADD COLUMN digest TEXT NOT NULL DEFAULT ''")
    connection.execute("UPDATE runs SET digest = digest(key, result)")


def _digest(key: str, result: object) -> str:
    return hashlib.sha256(f"{key} {result}".encode(errors="replace")).hexdigest()


def _text(identity: Mapping[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)


def _key(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(identity).encode()).hexdigest()
