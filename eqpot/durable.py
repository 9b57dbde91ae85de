"""Files that appear under their name whole, or not at all, whatever ends the process."""

import contextlib
import os
import secrets
from pathlib import Path


def write_durably(path: str | Path, data: bytes) -> None:
    """Write a file so that its name holds the old content or the new one, never a part.

    Parameters
    ----------
    path
        The file; its folder must exist.
    data
        Content.

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
