"""Files that appear under their name whole, or not at all, whatever ends the process."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

_ENDING: Final = ".part"
_PATIENCE: Final = 15.0


@contextlib.contextmanager
def written_durably(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; what was written there takes its place at the end.

    The content is flushed to the disk before it is renamed, and the folder after, so that a crash
    leaves the old file or the new one. After an error the temporary file is removed; those that
    killed processes left are removed at the next run for the same ``path``. They are known by
    their lock: a process that still writes holds it.

    Parameters
    ----------
    path
        The file; its folder must exist. Where it is a link, the file that it leads to is written.
    previous
        Name under which a file that is replaced is kept; of a link, the link.

    Raises
    ------
    OSError
        If the folder does not exist or may not be written.
    """
    if previous is None:
        path = _meant(path)
    _check_place(path)
    _remove_stale(path)
    partial, lock = _locked(path)
    try:
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
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


def check_place(path: Path) -> None:
    """Check that a file may be written, before the work that makes its content.

    Raises
    ------
    OSError
        If there is no such folder, it may not be written to, or the file is a folder.
    """
    _check_place(_meant(path))


def _meant(path: Path) -> Path:
    """Return the file that a link leads to: it is replaced, and the link stays."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, must be a file")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path}: the folder {path.parent} may not be written to")


def write_durably(path: str | Path, data: bytes, previous: Path | None = None) -> None:
    """Write a file so that its name holds the old content or the new one, never a part.

    Parameters
    ----------
    path
        The file; its folder must exist.
    data
        Content.
    previous
        Name under which a file that is replaced is kept.

    Raises
    ------
    OSError
        If the folder does not exist, is full or may not be written; names file and size.
    """
    try:
        with written_durably(Path(path), previous) as partial:
            partial.write_bytes(data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{path}: cannot write {len(data)} bytes: {reason}") from error


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
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another process, or a file system without locks
        return False
    return True


@contextlib.contextmanager
def locked_folder(folder: str | Path) -> Iterator[None]:
    """Keep a folder to this process; the lock leaves no file and ends with the process.

    Where the system or the file system knows no such locks, nothing is locked.

    Raises
    ------
    OSError
        If another process has the lock for more than some seconds, for which the loaders of a
        process that was killed may outlive it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        started = time.monotonic()
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() - started > _PATIENCE:
                    raise OSError(
                        f"{folder}: another process is writing to this folder; wait for its end"
                    ) from error
                time.sleep(0.1)
            except OSError:
                break
        yield
    finally:
        # closing alone would leave the lock with processes that were forked meanwhile
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)
