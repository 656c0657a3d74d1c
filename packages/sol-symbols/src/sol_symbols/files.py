"""Files of a person's disk: write atomically, and neither follow nor replace what is not a regular file.

A path inside a folder from elsewhere may be a link to a file of the user's, a pipe that never answers, or a device.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sol_symbols.errors import SolError, quoted

__all__ = ["append_text", "check_target", "file_name", "is_regular", "lock_folder", "read_regular", "write_atomically"]

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_UNFOLLOWED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write ``content`` to a temporary file in the folder of ``path``, then move it to ``path``.

    Raises:
        SolError: ``path`` is not a regular file (see :func:`check_target`), or the folder is missing, read-only or
            full. ``path`` is unchanged.
    """
    path = Path(path)
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    temporary = None
    _refuse_others(path)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:100]}.", delete=False) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644 & ~_umask())
        os.replace(temporary, path)
    except (OSError, ValueError) as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise SolError(f"cannot write {path}: {_reason(error)}") from error


def check_target(path: str | Path) -> None:
    """Check, before any work is done, that :func:`write_atomically` can write ``path``.

    Raises:
        SolError: ``path`` is a link, a folder, a pipe or a device, or its folder does not exist or is read-only.
    """
    path = Path(path)
    _refuse_others(path)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:100]}."):
            pass
    except (OSError, ValueError) as error:
        raise SolError(f"cannot write {path}: {_reason(error)}") from error


def append_text(path: str | Path, text: str) -> None:
    """Append to a regular file; make it if it does not exist.

    Raises:
        SolError: ``path`` is not a regular file, or cannot be written.
    """
    _refuse_others(Path(path))
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _UNFOLLOWED, 0o644)
        with open(handle, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        raise SolError(f"cannot write {path}: {_reason(error)}") from error


def is_regular(path: str | Path) -> bool:
    """Whether ``path`` is a regular file: not a link to one, nor a folder, a pipe or a device."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_regular(path: str | Path, limit: int) -> bytes:
    """The content of a regular file.

    Raises:
        SolError: ``path`` does not exist, is a link, a pipe or a device, has more than ``limit`` bytes, or cannot be
            read.
    """
    _refuse_others(Path(path), "read")
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | _UNFOLLOWED)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise SolError(f"cannot read {path}: it is not a regular file")
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise SolError(f"cannot read {path}: {_reason(error)}") from error
    if len(content) > limit:
        raise SolError(f"cannot read {path}: it is larger than {limit:,} bytes")
    return content


def file_name(text: str) -> str:
    """A name for a file from a text of others: each character but letters, digits, ``.``, ``-``, ``_`` becomes ``_``.

    >>> file_name("resnet18-cifar10"), file_name("../my task\\n")
    ('resnet18-cifar10', '_._my_task_')
    """
    name = re.sub(r"[^\w.-]", "_", text, flags=re.ASCII)[:100]
    return re.sub(r"^\.", "_", name) or "_"


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a folder: another process that asks for it is refused. The lock ends with the process, however it ends.

    File systems and platforms without locks grant it to everyone.

    Raises:
        SolError: Another process holds the folder.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SolError(f"{folder} is in use by another process; wait for it or choose another folder") from None
        except OSError:  # no locks on this file system
            pass
        yield
    finally:
        os.close(handle)


def _refuse_others(path: Path, verb: str = "write") -> None:
    """Refuse what exists and is not a regular file."""
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise SolError(f"cannot {verb} {quoted(str(path))}: {error.strerror}") from None
        return  # it does not exist, or opening it says what is wrong
    except ValueError:
        return
    if kind in _KINDS:
        raise SolError(f"cannot {verb} {path}: it is {_KINDS[kind]}, not a regular file")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
