"""The native file of a potential: safetensors for the weights, one JSON document for all else."""

from pathlib import Path
from typing import Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

import eqpot
from eqpot.durable import write_durably
from eqpot.elements import SYMBOLS
from eqpot.models import GauntModel, GauntSettings, build_model
from eqpot.physics.zbl import ZBLRepulsion
from eqpot.potential import Potential
from eqpot.sealed import SealedKind, seal, unseal

UNITS: Final = {
    "energy": "eV",
    "length": "Å",
    "forces": "eV/Å",
    "stress": "eV/Å³, positive in tension",
}

_KIND: Final = SealedKind("eqpot-potential", 4, "potential", "fetch the file again")
_SINCE: Final = {"envelope_power": 2, "l_along": 3, "final_gate": 4}
"""Settings that files of earlier versions lack; there the defaults of :class:`_Settings` hold."""
_DTYPES: Final = {"float32": torch.float32, "float64": torch.float64}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Settings(_Strict):
    # The upper bounds are far beyond use: they keep a hostile file from filling the memory.
    n_features: int = Field(ge=1, le=4096)
    l_max: int = Field(ge=0, le=12)
    l_hidden: int = Field(ge=0, le=12)
    l_along: int = Field(default=0, ge=0, le=12)
    n_senders: int = Field(ge=1, le=4096)
    n_layers: int = Field(ge=1, le=16)
    n_radial: int = Field(ge=1, le=256)
    correlation: int = Field(ge=1, le=8)
    n_element_channels: int = Field(ge=0, le=256)
    envelope_power: int = Field(default=6, ge=2, le=12)
    final_gate: bool = True


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
        If a weight is not finite, ``raw_weights`` has other parameters, ``provenance`` or
        ``errors`` hold what JSON cannot, or the model is one of
        :func:`eqpot.models.deployment.deployed`, which lacks the weights that a file holds.
    """
    if isinstance(potential.model, GauntModel) and potential.model.isolated is not None:
        raise ValueError(
            "`potential.model` is deployed, so its weights are not those of a file; save the "
            "potential that it was made from"
        )
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


def assemble(model: nn.Module, description: dict[str, Any]) -> Potential:
    """Return the potential of a model and of what :func:`describe` says of all around it.

    Parameters
    ----------
    model
        As in :class:`eqpot.potential.Potential`.
    description
        With ``atomic_numbers``, ``reference_energies``, ``scale``, ``r_max`` and ``repulsion``.

    Returns
    -------
    Potential
        In float64.
    """
    atomic_numbers = description["atomic_numbers"]
    repulsion = None
    if description["repulsion"] is not None:
        repulsion = ZBLRepulsion(
            torch.tensor(atomic_numbers),
            torch.tensor(description["repulsion"]["covalent_radii"], dtype=torch.float64),
        )
    return Potential(
        model,
        atomic_numbers,
        description["reference_energies"],
        description["scale"],
        description["r_max"],
        repulsion,
    ).to(torch.float64)


def wrong_field(path: Path, document: str, error: ValidationError) -> ValueError:
    """Return the error to raise where a document in a file does not fit its schema."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    field = f"{document} field `{where}`" if where else document
    return ValueError(f"{path}: {field} is wrong: {first['msg']}")


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
    document = {**describe(potential), "provenance": provenance, "errors": errors}
    return seal(_KIND, document, tensors)


def _parameters(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}": parameter.detach().cpu().contiguous().clone()
        for name, parameter in module.named_parameters()
    }


def _read(path: Path) -> tuple[_Header, dict[str, Tensor]]:
    document, tensors = unseal(path, _KIND)
    try:
        header = _Header.model_validate(document)
    except ValidationError as error:
        raise wrong_field(path, "header", error) from error
    _check_header(path, header)
    return header, tensors


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
    expected = [SYMBOLS[z] for z in header.atomic_numbers]
    if header.elements != expected:
        raise ValueError(
            f"{path}: header field `elements` must be those of `atomic_numbers`, {expected}, is "
            f"{header.elements}"
        )
    for name, version in _SINCE.items():
        if header.format_version >= version and name not in header.model.settings.model_fields_set:
            raise ValueError(f"{path}: header field `model.settings.{name}` is missing")
    try:
        GauntSettings(**header.model.settings.model_dump())
    except ValueError as error:
        raise ValueError(f"{path}: header field `model.settings` is wrong: {error}") from error


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
    potential = assemble(model, header.model_dump())
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
