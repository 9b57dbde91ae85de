"""The file of an exported potential: what it says of itself, and whether it is trusted.

Exports are programs in zip archives. Whoever loads one is asked here for its SHA-256, or for the
word that it is trusted; what it says of itself is read without that.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from eqpot.elements import SYMBOLS
from eqpot.files import describe, load_potential, read_header, wrong_field
from eqpot.missing import missing_file
from eqpot.potential import Potential
from eqpot.program import INPUTS, OUTPUTS

MOST_UNPACKED: Final = 50
"""How many times its size an export may unpack to, at most; its weights are not packed."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable")
    return text


PrintableText = Annotated[str, AfterValidator(_printable)]
"""What may be shown on a terminal."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    kind: PrintableText
    settings: dict[PrintableText, bool | int | float]


class ExportMetadata(BaseModel):
    """What every export says of itself; of a later eqpot it may say more."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    format: PrintableText
    eqpot_version: PrintableText
    torch_version: PrintableText
    native_sha256: PrintableText | None
    model: _Model
    dtype: PrintableText
    atomic_numbers: list[Annotated[int, Field(ge=1, le=118)]] = Field(min_length=1, max_length=118)
    elements: list[str]
    r_max: float = Field(gt=0.0)

    @model_validator(mode="after")
    def _elements_are_those_of_the_numbers(self) -> "ExportMetadata":
        expected = [SYMBOLS[z] for z in self.atomic_numbers]
        if self.elements != expected:
            raise ValueError(f"`elements` must be those of `atomic_numbers`, {expected}")
        return self


@dataclass(frozen=True)
class ExportKind:
    """A kind of exports, which are zip archives.

    Attributes
    ----------
    format
        Name in the metadata, such as ``"eqpot-torchscript"``.
    noun
        What messages call such a file.
    text_in
        Returns the metadata in an archive, as JSON.
    schema
        What the metadata must hold.
    """

    format: str
    noun: str
    text_in: Callable[[zipfile.ZipFile], str | bytes]
    schema: type[ExportMetadata] = ExportMetadata


def open_source(
    potential: Potential | str | Path, dtype: torch.dtype, kind: ExportKind
) -> tuple[Potential, dict[str, Any]]:
    """Return the potential that is to be exported, and the metadata of its export.

    Parameters
    ----------
    potential
        A native file, or a potential in memory.
    dtype
        In which the model runs.
    kind
        Of the export.

    Returns
    -------
    Potential
        That of the file, or the one given.
    dict
        Elements, radius, layers, units, versions and the hash that the native file carries in its
        header.

    Raises
    ------
    OSError, ValueError
        If the native file is refused (see :func:`eqpot.files.load_potential`), or a potential in
        memory runs in another type than ``dtype``.
    """
    native_sha256 = None
    if isinstance(potential, Potential):
        own = next(potential.parameters()).dtype
        if own != dtype:
            raise ValueError(
                f"`potential` runs in {own}, `dtype` is {dtype}; save it and export the file, so "
                "that its constants are made in the type wanted"
            )
    else:
        native_sha256 = read_header(potential)["file_sha256"]
        potential = load_potential(potential, dtype=dtype)
    metadata = describe(potential)
    metadata["format"] = kind.format
    metadata["n_layers"] = metadata["model"]["settings"]["n_layers"]
    metadata["torch_version"] = str(torch.__version__)
    metadata["native_sha256"] = native_sha256
    metadata["inputs"] = list(INPUTS)
    metadata["outputs"] = list(OUTPUTS)
    return potential, metadata


def read_metadata(path: Path, kind: ExportKind, content: bytes | None = None) -> dict[str, Any]:
    """Return the metadata of an export, of any version. None of its code is loaded.

    Parameters
    ----------
    path
        The file.
    kind
        Which it must be.
    content
        Its bytes, if they were read before.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such export, or damaged.
    """
    if content is None:
        content = _read(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(m.file_size for m in archive.infolist()) > MOST_UNPACKED * len(content):
                raise ValueError(f"it unpacks to more than {MOST_UNPACKED} times its size")
            found = json.loads(kind.text_in(archive))
            damaged = archive.testzip()
    except Exception as error:  # whatever the readers make of other files and of damage
        raise ValueError(
            f"{path}: is no {kind.noun} that eqpot exported, or is damaged: {error}; export the "
            "potential again"
        ) from error
    if damaged is not None:
        raise ValueError(
            f"{path}: damaged: {damaged} does not match its checksum; export the potential again"
        )
    if not isinstance(found, dict) or found.get("format") != kind.format:
        raise ValueError(f"{path}: is no {kind.noun} that eqpot exported")
    try:
        kind.schema.model_validate(found)
    except ValidationError as error:
        raise wrong_field(path, "metadata", error) from error
    return found


def read_member(archive: zipfile.ZipFile, ending: str) -> bytes:
    """Return the first file in an archive whose name ends so.

    PyTorch stores metadata as it is. What is compressed is refused: it may fill the memory.

    Raises
    ------
    LookupError
        If there is none.
    ValueError
        If it is compressed.
    """
    member = next((m for m in archive.infolist() if m.filename.endswith(ending)), None)
    if member is None:
        raise LookupError(f"no file in the archive ends with {ending}")
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed")
    return archive.read(member)


def read_trusted(path: Path, sha256: str | None, trust: bool, kind: ExportKind) -> bytes:
    """Return the content of a file that may be loaded as a program.

    Parameters
    ----------
    path
        The file.
    sha256
        SHA-256 of the file, from a source you trust.
    trust
        Whether it is trusted without a SHA-256.
    kind
        Which it is.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If neither ``sha256`` nor ``trust`` is given, or the SHA-256 differs.
    """
    data = _read(path)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise ValueError(f"{path}: `sha256` is {sha256}, but the file has {found}")
    if sha256 is None and not trust:
        raise ValueError(
            f"{path}: a {kind.noun} is a program that runs when it is loaded; give its `sha256`, "
            "or `trust=True` if you know where it is from"
        )
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise missing_file(path) from error
