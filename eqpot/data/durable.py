"""Large files that appear whole or not at all."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_ENDING = ".partial"


@contextlib.contextmanager
def written_durably(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; what was written there takes its place at the end.

    The content is flushed to the disk before it is renamed, and the folder after, so that a crash
    leaves the old file or the new one. After an error the temporary file is removed; those that
    killed processes left are removed at the next run for the same ``path``. They are known by
    their lock: a process that still writes holds it.

    Raises
    ------
    OSError
        If the folder does not exist or may not be written.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, must be a file")
    _remove_stale(path)
    partial, lock = _locked(path)
    try:
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        lock.close()
    # the rename itself is durable only with its folder
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _locked(path: Path) -> tuple[Path, IO[bytes]]:
    """Return the name and the locked handle of a new temporary file."""
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_ENDING}")
        # "x": never through a link that someone else put there
        lock = partial.open("xb")
        _try_lock(lock)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), partial.stat()):
                return partial, lock
        # another process took it for stale before it was locked
        lock.close()


def _remove_stale(path: Path) -> None:
    prefix = f".{path.name}."
    for entry in path.parent.iterdir():
        code = entry.name.removeprefix(prefix).removesuffix(_ENDING)
        if entry.name != f"{prefix}{code}{_ENDING}" or len(code) != 12 or entry.is_symlink():
            continue
        with contextlib.suppress(OSError), entry.open("r+b") as file:
            if _try_lock(file):
                entry.unlink(missing_ok=True)


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another process, or a file system without locks
        return False
    return True
