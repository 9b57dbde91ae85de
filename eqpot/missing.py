"""The error for a file that is not there: with names close to it, and where its path starts."""

from difflib import get_close_matches
from pathlib import Path


def missing_file(path: Path) -> FileNotFoundError:
    """Return the error to raise where a file is not there."""
    message = f"{path}: no such file"
    if path.is_dir():
        message += ", but a folder"
    elif not path.parent.is_dir():
        message += f"; there is no folder {path.parent} either"
    else:
        there = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
        near = get_close_matches(path.name, there, n=3)
        if near:
            message += f"; did you mean {', '.join(sorted(near))}?"
    if not path.is_absolute():
        message += f" (relative paths start at the working directory, {Path.cwd()})"
    return FileNotFoundError(message)
