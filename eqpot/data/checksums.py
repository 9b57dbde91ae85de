"""SHA-256 of data, by which a run says what it was trained on."""

import hashlib
from pathlib import Path


def sha256_of(path: Path, start: int = 0) -> str:
    """Return the SHA-256 of a file; of a folder, that of its files' names and SHA-256.

    Parameters
    ----------
    path
        The file or folder; links in a folder are left out.
    start
        First byte of the file that counts.
    """
    if path.is_dir():
        entries = sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
        lines = [f"{sha256_of(entry)}  {entry.relative_to(path).as_posix()}\n" for entry in entries]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.file_digest(file, "sha256").hexdigest()
