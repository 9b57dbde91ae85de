"""Files that appear under their name whole, or not at all, whatever ends the process."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PATIENCE: Final = 15.0


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
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        # "x": never through a link that someone else put there
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{path}: cannot write {len(data)} bytes: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_parts(folder: str | Path) -> None:
    """Remove what :func:`write_durably` left unfinished in a folder when its process was killed.

    Only for a folder that no other process writes to.
    """
    for path in Path(folder).glob(".*.part"):
        path.unlink(missing_ok=True)


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
    try:
        import fcntl
    except ImportError:
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
