"""The native file of a potential: safetensors for the weights, one JSON document for all else.

Loading executes nothing. Every byte of the file counts in the SHA-256 that its header carries, and
every tensor has a SHA-256 of its own, so that damage is found and named.
"""

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor, nn

import eqpot
from eqpot.elements import SYMBOLS
from eqpot.models import GauntModel, GauntSettings, build_model
from eqpot.physics.zbl import ZBLRepulsion
from eqpot.potential import Potential

FORMAT: Final = "eqpot-potential"
FORMAT_VERSION: Final = 1
UNITS: Final = {
    "energy": "eV",
    "length": "Å",
    "forces": "eV/Å",
    "stress": "eV/Å³, positive in tension",
}

_KEY: Final = "eqpot"
_BLANK: Final = "0" * 64
_MAX_HEADER: Final = 2**26
_DTYPES: Final = {"float32": torch.float32, "float64": torch.float64}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Settings(_Strict):
    # The upper bounds are far beyond use: they keep a hostile file from filling the memory.
    n_features: int = Field(ge=1, le=4096)
    l_max: int = Field(ge=0, le=12)
    l_hidden: int = Field(ge=0, le=12)
    n_layers: int = Field(ge=1, le=16)
    n_radial: int = Field(ge=1, le=256)
    correlation: int = Field(ge=1, le=8)


class _Model(_Strict):
    kind: Literal["gaunt"]
    settings: _Settings


class _Repulsion(_Strict):
    kind: Literal["zbl"]
    covalent_radii: list[float]


class _Header(_Strict):
    file_sha256: str
    format: Literal["eqpot-potential"]
    format_version: int
    eqpot_version: str
    model: _Model
    atomic_numbers: list[int] = Field(min_length=1, max_length=118)
    elements: list[str]
    r_max: float = Field(gt=0.0)
    avg_num_neighbors: float = Field(gt=0.0)
    units: dict[str, str]
    dtype: Literal["float32", "float64"]
    reference_energies: list[float]
    scale: float
    repulsion: _Repulsion | None
    provenance: dict[str, Any]
    errors: dict[str, Any]
    records: dict[str, str]


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """Return a floating type from its name or itself.

    Raises
    ------
    ValueError
        If it is neither float32 nor float64.
    """
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found not in _DTYPES.values():
        raise ValueError(f"`dtype` must be float32 or float64, got {dtype}")
    assert isinstance(found, torch.dtype)
    return found


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


def save_potential(
    path: str | Path,
    potential: Potential,
    *,
    raw_weights: nn.Module | None = None,
    provenance: dict[str, Any] | None = None,
    errors: dict[str, Any] | None = None,
) -> str:
    """Write a potential; the file appears whole or not at all.

    Parameters
    ----------
    path
        The file, by habit ``name.eqpot``.
    potential
        Its parameters are those used by default (``ema.<parameter>``).
    raw_weights
        Potential of the same shape with the weights before averaging (``weights.<parameter>``).
    provenance
        How it was trained: recipe, dataset hashes, versions. Whatever JSON can hold.
    errors
        Validation errors. Whatever JSON can hold.

    Returns
    -------
    str
        SHA-256 that identifies the file, as in ``file_sha256`` of its header.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError
        If the model is of no family that files know.
    ValueError
        If a weight is not finite, ``raw_weights`` has other parameters, or ``provenance`` or
        ``errors`` hold what JSON cannot.
    """
    data, sha256 = _serialize(potential, raw_weights, provenance or {}, errors or {})
    write_durably(path, data)
    return sha256


def load_potential(
    path: str | Path,
    dtype: str | torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    weights: str = "ema",
) -> Potential:
    """Return the potential of a file, in evaluation mode, without gradients of its parameters.

    Parameters
    ----------
    path
        A file of :func:`save_potential`.
    dtype
        In which the model runs; energies, positions and sums are float64 in any case.
    device
        Where it runs.
    weights
        ``"ema"`` (averaged) or ``"raw"``.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If the file is foreign, truncated, damaged or of a later version, or holds no such weights.
    """
    if weights not in ("ema", "raw"):
        raise ValueError(f'`weights` must be "ema" or "raw", got {weights!r}')
    header, tensors = _read(Path(path))
    return _build(Path(path), header, tensors, weights).to(
        device=torch.device(device), dtype=dtype_of(dtype)
    )


def read_header(path: str | Path) -> dict[str, Any]:
    """Return the JSON document of a potential file, after its integrity is checked.

    Raises
    ------
    OSError, ValueError
        As :func:`load_potential`.
    """
    return _read(Path(path))[0].model_dump()


def describe(potential: Potential) -> dict[str, Any]:
    """Return what a file says of a potential, less training: elements, radius, model, units.

    Raises
    ------
    TypeError
        If the model is of no family that files know.
    """
    model = potential.model
    if not isinstance(model, GauntModel):
        raise TypeError(f"`potential.model` must be a GauntModel, got {type(model).__name__}")
    dtype = next(potential.parameters()).dtype
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "eqpot_version": eqpot.__version__,
        "model": {"kind": "gaunt", "settings": model.settings.as_dict()},
        "atomic_numbers": [int(z) for z in potential.atomic_numbers],
        "elements": [SYMBOLS[z] for z in potential.atomic_numbers],
        "r_max": float(potential.r_max),
        "avg_num_neighbors": float(model.avg_num_neighbors),
        "units": UNITS,
        "dtype": str(dtype).removeprefix("torch."),
        "reference_energies": [float(energy) for energy in potential.reference_energies],
        "scale": float(potential.scale),
        "repulsion": _describe_repulsion(potential.repulsion),
    }


def _describe_repulsion(repulsion: ZBLRepulsion | None) -> dict[str, Any] | None:
    if repulsion is None:
        return None
    radii = repulsion.radii
    assert isinstance(radii, Tensor)
    # The shortest decimal of a float32 is the number that was meant: 0.31, not 0.310000002384.
    return {"kind": "zbl", "covalent_radii": [float(str(r)) for r in radii.detach().cpu().numpy()]}


def _serialize(
    potential: Potential,
    raw_weights: nn.Module | None,
    provenance: dict[str, Any],
    errors: dict[str, Any],
) -> tuple[bytes, str]:
    document: dict[str, Any] = {"file_sha256": _BLANK, **describe(potential)}
    tensors = _parameters("ema", potential)
    if raw_weights is not None:
        raw = _parameters("weights", raw_weights)
        shapes = {name.split(".", 1)[1]: tensor.shape for name, tensor in raw.items()}
        if shapes != {name.split(".", 1)[1]: tensor.shape for name, tensor in tensors.items()}:
            raise ValueError("`raw_weights` must have the parameters of `potential`, has others")
        tensors |= raw
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"weight `{name}` is not finite: such a potential is not saved")
    document["provenance"] = provenance
    document["errors"] = errors
    document["records"] = {name: _sha256(_bytes_of(tensor)) for name, tensor in tensors.items()}
    try:
        text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"`provenance` and `errors` must be plain JSON: {error}") from error
    data = serialize_tensors(tensors, metadata={_KEY: text})
    start = _place_of_sha256(data)
    assert start is not None and data[start : start + 64] == _BLANK.encode()
    sha256 = _sha256(data)
    return data[:start] + sha256.encode() + data[start + 64 :], sha256


def _parameters(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}": parameter.detach().cpu().contiguous().clone()
        for name, parameter in module.named_parameters()
    }


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


def _read(path: Path) -> tuple[_Header, dict[str, Tensor]]:
    if path.is_dir():
        raise IsADirectoryError(f"{path}: must be a potential file, is a folder")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    layout = _layout(path, data)
    metadata = layout.get("__metadata__")
    text = metadata.get(_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ValueError(
            f"{path}: a safetensors file, but not a potential: its header has no `{_KEY}` document"
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the header document is damaged: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path}: the header document is damaged or foreign: no `{FORMAT}`")
    version = document.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ValueError(
            f"{path}: has format version {version}, this eqpot {eqpot.__version__} reads up to "
            f"{FORMAT_VERSION}; install a later eqpot"
        )
    start = _place_of_sha256(data)
    expected = document.get("file_sha256")
    blank = b"" if start is None else data[:start] + _BLANK.encode() + data[start + 64 :]
    if _sha256(blank) != expected:
        record = _damaged_record(data, layout, document.get("records"))
        raise ValueError(
            f"{path}: damaged: {record} does not match its SHA-256; fetch the file again"
        )
    try:
        header = _Header.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: header field `{where}` is wrong: {first['msg']}") from error
    _check_header(path, header)
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise ValueError(f"{path}: the table of tensors is wrong: {error}") from error
    return header, tensors


def _layout(path: Path, data: bytes) -> dict[str, Any]:
    """Return the safetensors header, after a check that it is one and that the file is whole."""
    size = int.from_bytes(data[:8], "little")
    if len(data) == 0:
        raise ValueError(f"{path}: the file is empty")
    if data[8:9] != b"{" or size > _MAX_HEADER:
        raise ValueError(f"{path}: not a potential file: {_foreign_kind(data)}")
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
        return "it is a zip archive (TorchScript, torch.save or other), which is never opened here"
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


def _check_header(path: Path, header: _Header) -> None:
    n_elements = len(header.atomic_numbers)
    lists: list[tuple[str, int]] = [
        ("elements", len(header.elements)),
        ("reference_energies", len(header.reference_energies)),
    ]
    if header.repulsion is not None:
        lists.append(("repulsion.covalent_radii", len(header.repulsion.covalent_radii)))
    for name, length in lists:
        if length != n_elements:
            raise ValueError(
                f"{path}: header field `{name}` must have {n_elements} values, has {length}"
            )
    wrong = [z for z in header.atomic_numbers if not 1 <= z <= 118]
    if wrong:
        raise ValueError(f"{path}: header field `atomic_numbers` must be 1 to 118, has {wrong}")


def _build(path: Path, header: _Header, tensors: dict[str, Tensor], weights: str) -> Potential:
    prefix = "ema." if weights == "ema" else "weights."
    values = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if not values:
        raise ValueError(f"{path}: holds no `{weights}` weights, only the averaged ones")
    settings = GauntSettings(**header.model.settings.model_dump())
    embedding = values.get("model.embedding")
    expected = (len(header.atomic_numbers), settings.n_features)
    if embedding is None or tuple(embedding.shape) != expected:
        raise ValueError(f"{path}: record `{prefix}model.embedding` must have shape {expected}")
    # The fresh weights are all overwritten; drawing them must not move the caller's generator.
    with torch.random.fork_rng(devices=[]):
        model = build_model(
            settings, len(header.atomic_numbers), header.r_max, header.avg_num_neighbors
        )
    repulsion = None
    if header.repulsion is not None:
        repulsion = ZBLRepulsion(
            torch.tensor(header.atomic_numbers),
            torch.tensor(header.repulsion.covalent_radii, dtype=torch.float64),
        )
    potential = Potential(
        model,
        header.atomic_numbers,
        header.reference_energies,
        header.scale,
        header.r_max,
        repulsion,
    ).to(torch.float64)
    parameters = dict(potential.named_parameters())
    if parameters.keys() != values.keys():
        missing, unknown = parameters.keys() - values.keys(), values.keys() - parameters.keys()
        raise ValueError(
            f"{path}: records do not fit the model: missing {sorted(missing)}, "
            f"unknown {sorted(unknown)}"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            if values[name].shape != parameter.shape:
                raise ValueError(
                    f"{path}: record `{prefix}{name}` must have shape {tuple(parameter.shape)}, "
                    f"has {tuple(values[name].shape)}"
                )
            parameter.copy_(values[name])
    return potential.eval().requires_grad_(False)
