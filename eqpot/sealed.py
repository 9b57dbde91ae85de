"""Sealed files: tensors in safetensors with one JSON document, every byte under a checksum.

Loading executes nothing. Every byte of a file counts in the SHA-256 that its document begins with,
and every tensor has a SHA-256 of its own, so that damage is found and named.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from eqpot.missing import missing_file

_KEY: Final = "eqpot"
_BLANK: Final = "0" * 64
_MAX_HEADER: Final = 2**26


class LaterVersionError(ValueError):
    """A file is of a later eqpot than this one."""


@dataclass(frozen=True)
class SealedKind:
    """A kind of sealed file.

    Attributes
    ----------
    format
        Name in the document, such as ``"eqpot-potential"``.
    version
        The latest version that this eqpot reads, and the one it writes.
    noun
        What messages call such a file.
    remedy
        What to do with a damaged one.
    """

    format: str
    version: int
    noun: str
    remedy: str


def seal(
    kind: SealedKind, document: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[bytes, str]:
    """Return the bytes of a sealed file and their SHA-256.

    Parameters
    ----------
    kind
        Gives ``format`` and ``format_version`` of the document.
    document
        Whatever JSON can hold. Equal documents and tensors give equal bytes.
    tensors
        By name, on the CPU, contiguous and without shared memory.

    Raises
    ------
    ValueError
        If the document holds what JSON cannot.
    """
    whole = {
        "file_sha256": _BLANK,
        "format": kind.format,
        "format_version": kind.version,
        **document,
        "records": {name: _sha256(_bytes_of(tensor)) for name, tensor in tensors.items()},
    }
    try:
        text = json.dumps(whole, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the document of a {kind.noun} must be plain JSON: {error}") from error
    data = serialize_tensors(dict(tensors), metadata={_KEY: text})
    start = _place_of_sha256(data)
    assert start is not None and data[start : start + 64] == _BLANK.encode()
    sha256 = _sha256(data)
    return data[:start] + sha256.encode() + data[start + 64 :], sha256


def unseal(path: Path, kind: SealedKind) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return document and tensors of a sealed file, after every byte of it is checked.

    The content of the document is for the caller to check against a schema.

    Raises
    ------
    OSError
        If there is no such file.
    LaterVersionError
        If the file is of a later version.
    ValueError
        If the file is foreign, truncated or damaged; names the record.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: must be a {kind.noun} file, is a folder")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise missing_file(path) from error
    layout = _layout(path, data, kind)
    metadata = layout.get("__metadata__")
    text = metadata.get(_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ValueError(
            f"{path}: a safetensors file, but not a {kind.noun}: its header has no `{_KEY}` "
            "document"
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the header document is damaged: {error}") from error
    if not isinstance(document, dict) or document.get("format") != kind.format:
        raise ValueError(f"{path}: the header document is damaged or foreign: no `{kind.format}`")
    version = document.get("format_version")
    if isinstance(version, int) and version > kind.version:
        raise LaterVersionError(
            f"{path}: has format version {version}, this eqpot reads up to {kind.version}; "
            "install a later eqpot"
        )
    start = _place_of_sha256(data)
    blank = b"" if start is None else data[:start] + _BLANK.encode() + data[start + 64 :]
    if _sha256(blank) != document.get("file_sha256"):
        record = _damaged_record(data, layout, document.get("records"))
        raise ValueError(f"{path}: damaged: {record} does not match its SHA-256; {kind.remedy}")
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise ValueError(f"{path}: the table of tensors is wrong: {error}") from error
    return document, tensors


def _bytes_of(tensor: Tensor) -> bytes:
    array: np.ndarray[Any, Any] = tensor.numpy()
    return array.tobytes()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _place_of_sha256(data: bytes) -> int | None:
    # The document begins with it, so no text inside the document can stand in its place.
    mark = b'"' + _KEY.encode() + b'":"{\\"file_sha256\\":\\"'
    size = int.from_bytes(data[:8], "little")
    found = data.find(mark, 8, 8 + size)
    return None if found < 0 else found + len(mark)


def _layout(path: Path, data: bytes, kind: SealedKind) -> dict[str, Any]:
    """Return the safetensors header, after a check that it is one and that the file is whole."""
    size = int.from_bytes(data[:8], "little")
    if len(data) == 0:
        raise ValueError(f"{path}: the file is empty")
    if data[8:9] != b"{" or size > _MAX_HEADER:
        raise ValueError(f"{path}: not a {kind.noun} file: {_foreign_kind(data)}")
    if len(data) < 8 + size:
        raise ValueError(
            f"{path}: truncated: the header alone takes {8 + size} bytes, the file has {len(data)}"
        )
    try:
        layout = json.loads(data[8 : 8 + size])
        ends = [
            int(entry["data_offsets"][1])
            for name, entry in layout.items()
            if name != "__metadata__"
        ]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: the safetensors header is damaged") from error
    end = 8 + size + max(ends, default=0)
    if len(data) != end:
        problem = "truncated" if len(data) < end else "longer than its header says"
        raise ValueError(f"{path}: {problem}: must have {end} bytes, has {len(data)}")
    return dict(layout)


def _foreign_kind(data: bytes) -> str:
    if data[:4] == b"PK\x03\x04":
        return (
            "it is a zip archive (TorchScript .pt, compiled .pt2, torch.save or other), which is "
            "never opened here; give the .eqpot file that an export was made from"
        )
    if data[:1] == b"\x80" and data[1:2] <= b"\x05":
        return "it is a Python pickle, which is never opened here"
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return "it is an HDF5 file"
    if data[257:262] == b"ustar":
        return "it is a tar archive, which is never opened here"
    return "it does not begin like a safetensors file"


def _damaged_record(data: bytes, layout: dict[str, Any], records: Any) -> str:
    start = 8 + int.from_bytes(data[:8], "little")
    if isinstance(records, dict):
        for name, sha256 in records.items():
            try:
                low, high = layout[name]["data_offsets"]
                content = data[start + low : start + high]
            except (LookupError, TypeError, ValueError):
                continue
            if _sha256(content) != sha256:
                return f"record `{name}`"
    return "the header"
