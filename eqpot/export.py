"""Outward doors: a potential as a TorchScript program, verified before it is written.

TorchScript files are programs. They are written here for engines; nothing in the package loads one
unless its SHA-256 is given or it is trusted by name.
"""

import hashlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Dict, Final, List, Tuple

import torch
from torch import Tensor, nn

from eqpot import keys
from eqpot.durable import write_durably
from eqpot.files import describe, dtype_of, load_potential, read_header
from eqpot.potential import Potential

METADATA: Final = "eqpot.json"
"""Name of the extra file that carries the metadata, as JSON."""
OUTPUTS: Final = (keys.ENERGY, keys.NODE_ENERGY, keys.FORCES, keys.STRESS, keys.NODE_VIRIAL)
"""What an exported potential returns, in this order."""

_TOLERANCE: Final = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Of the verification, relative to the largest value or 1: rounding, with room for other orders."""
_CALLS: Final = 3  # the profiling executor compiles anew at its second and third call

Program = Callable[..., Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]


class ExplicitPotential(nn.Module):
    """A potential whose arguments and results are plain tensors, as engines call it.

    Parameters
    ----------
    potential
        What computes.
    """

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(
        self,
        positions: Tensor,
        cell: Tensor,
        atomic_numbers: Tensor,
        edge_index: Tensor,
        edge_shifts: Tensor,
        batch: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return ``energy``, ``node_energy``, ``forces``, ``stress`` and ``node_virial``.

        Parameters
        ----------
        positions, cell, atomic_numbers, edge_index, edge_shifts, batch
            As in :mod:`eqpot.keys`, the edges in any order; the number of graphs is the length of
            ``cell``. Positions in
            float64 give energies and forces in float64, whatever the model runs in.

        Returns
        -------
        tuple of Tensor
            In the shapes and units of :mod:`eqpot.keys`.
        """
        if bool((edge_index[0].diff() < 0).any()):
            order = torch.argsort(edge_index[0], stable=True)
            edge_index = edge_index[:, order]
            edge_shifts = edge_shifts[order]
        graph: Dict[str, Tensor] = {
            keys.POSITIONS: positions,
            keys.CELL: cell,
            keys.ATOMIC_NUMBERS: atomic_numbers,
            keys.EDGE_INDEX: edge_index,
            keys.EDGE_SHIFTS: edge_shifts,
            keys.BATCH: batch,
        }
        outputs: Dict[str, Tensor] = self.potential(graph)
        return (
            outputs[keys.ENERGY],
            outputs[keys.NODE_ENERGY],
            outputs[keys.FORCES],
            outputs[keys.STRESS],
            outputs[keys.NODE_VIRIAL],
        )


def export_torchscript(
    potential: Potential | str | Path, path: str | Path, dtype: str | torch.dtype = torch.float32
) -> dict[str, Any]:
    """Write a potential as a TorchScript program, after it was compared with the original.

    The program is loaded back and called on random graphs of changing size, three times each,
    before the file gets its name.

    Parameters
    ----------
    potential
        A native file, or a potential in memory.
    path
        The file, by habit ``name.pt``.
    dtype
        In which the model runs; inputs and results are float64.

    Returns
    -------
    dict
        The metadata written: elements, radius, layers, units, versions and the hash that the native
        file carries in its header; and, not in the file, the largest difference seen.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    RuntimeError
        If the program differs from the potential; nothing is written then.
    ValueError
        If the native file is refused (see :func:`eqpot.files.load_potential`).
    """
    dtype = dtype_of(dtype)
    native_sha256 = None
    if isinstance(potential, Potential):
        _check_dtype(potential, dtype)
    else:
        native_sha256 = read_header(potential)["file_sha256"]
        potential = load_potential(potential, dtype=dtype)
    metadata = describe(potential)
    metadata["format"] = "eqpot-torchscript"
    metadata["n_layers"] = metadata["model"]["settings"]["n_layers"]
    metadata["torch_version"] = str(torch.__version__)
    metadata["native_sha256"] = native_sha256
    metadata["inputs"] = [
        keys.POSITIONS,
        keys.CELL,
        keys.ATOMIC_NUMBERS,
        keys.EDGE_INDEX,
        keys.EDGE_SHIFTS,
        keys.BATCH,
    ]
    metadata["outputs"] = list(OUTPUTS)
    eager = ExplicitPotential(potential).eval()
    data = _script(eager, {METADATA: json.dumps(metadata, ensure_ascii=True)})
    metadata["largest_difference"] = _verify(eager, _load(data)[0], potential, dtype)
    write_durably(path, data)
    return metadata


def load_torchscript(
    path: str | Path,
    *,
    sha256: str | None = None,
    trust: bool = False,
    device: str | torch.device = "cpu",
) -> tuple[Program, dict[str, Any]]:
    """Return an exported program and its metadata.

    **Loading such a file runs code from it.**

    Parameters
    ----------
    path
        A file of :func:`export_torchscript`.
    sha256
        SHA-256 of the file, from a source you trust.
    trust
        Load without a SHA-256, because you know where the file is from.
    device
        Where it runs.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If neither ``sha256`` nor ``trust`` is given, the SHA-256 differs, or the file is no export.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise ValueError(f"{path}: `sha256` is {sha256}, but the file has {found}")
    if sha256 is None and not trust:
        raise ValueError(
            f"{path}: a TorchScript file is a program that runs when it is loaded; give its "
            "`sha256`, or `trust=True` if you know where it is from"
        )
    try:
        program, metadata = _load(data, torch.device(device))
    except RuntimeError as error:
        raise ValueError(f"{path}: is no TorchScript file that torch can load") from error
    if metadata.get("format") != "eqpot-torchscript":
        raise ValueError(f"{path}: a TorchScript file, but not one that eqpot exported")
    return program, metadata


def _check_dtype(potential: Potential, dtype: torch.dtype) -> None:
    if next(potential.parameters()).dtype == dtype:
        return
    raise ValueError(
        f"`potential` runs in {next(potential.parameters()).dtype}, `dtype` is {dtype}; save it "
        "and export the file, so that its constants are made in the type wanted"
    )


def _script(module: nn.Module, extra_files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # TorchScript is the door to the engines of today; users need not read of its successor.
        warnings.filterwarnings("ignore", message=r"`?torch\.jit")
        program: Any = torch.jit.script(module)
        torch.jit.save(program, buffer, _extra_files=extra_files)
    return buffer.getvalue()


def _load(data: bytes, device: torch.device | None = None) -> tuple[Program, dict[str, Any]]:
    extra_files: dict[str, Any] = {METADATA: ""}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`?torch\.jit")
        program: Program = torch.jit.load(io.BytesIO(data), device, _extra_files=extra_files)
    text = extra_files[METADATA]
    return program, json.loads(text) if text else {}


def _verify(
    eager: ExplicitPotential, program: Program, potential: Potential, dtype: torch.dtype
) -> float:
    device = next(potential.parameters()).device
    generator = torch.Generator().manual_seed(0)
    zero = torch.zeros((), dtype=torch.float64, device=device)
    e0 = torch.tensor(potential.reference_energies, dtype=torch.float64, device=device)
    species_of = potential.species_of
    assert isinstance(species_of, Tensor)
    largest = 0.0
    for n_atoms in (6, 3, 11, 1, 8):
        inputs = [
            tensor.to(device)
            for tensor in _random_inputs(
                n_atoms, potential.atomic_numbers, potential.r_max, generator
            )
        ]
        expected = eager(*inputs)
        # E0s are thousands of eV and exact in both: an error must not look small beside them
        isolated = e0[species_of[inputs[2]]]
        offsets = {
            keys.NODE_ENERGY: isolated,
            keys.ENERGY: torch.zeros_like(expected[0]).index_add(0, inputs[5], isolated),
        }
        for _ in range(_CALLS):
            for name, result, reference in zip(OUTPUTS, program(*inputs), expected, strict=True):
                difference = (result - reference).abs().max().item()
                difference /= max(1.0, (reference - offsets.get(name, zero)).abs().max().item())
                if not difference <= _TOLERANCE[dtype]:
                    raise RuntimeError(
                        f"the exported program differs from the potential: `{name}` by "
                        f"{difference:.1e} (relative) for {n_atoms} atoms; nothing was written"
                    )
                largest = max(largest, difference)
    return largest


def _random_inputs(
    n_atoms: int, atomic_numbers: List[int], r_max: float, generator: torch.Generator
) -> List[Tensor]:
    """Return two random periodic structures in one batch, with every pair of atoms within r_max."""
    numbers = torch.tensor(atomic_numbers)
    spread = r_max / 3.0**0.5
    positions, cells, species, edges, shifts, batch = [], [], [], [], [], []
    for index in range(2):
        cell = torch.eye(3, dtype=torch.float64) * r_max
        cell = cell + 0.2 * r_max * torch.rand(3, 3, dtype=torch.float64, generator=generator)
        points = spread * torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator)
        steps = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3)
        vectors = points[None, :, None] - points[:, None, None] + (steps @ cell)[None, None]
        distances = torch.linalg.vector_norm(vectors, dim=-1)
        i, j, s = torch.where((distances < r_max) & (distances > 0.4))
        positions.append(points)
        cells.append(cell)
        chosen = torch.randint(len(numbers), (n_atoms,), generator=generator)
        species.append(numbers[chosen])
        edges.append(torch.stack([i, j]) + index * n_atoms)
        shifts.append(steps[s])
        batch.append(torch.full((n_atoms,), index))
    return [
        torch.cat(positions),
        torch.stack(cells),
        torch.cat(species),
        torch.cat(edges, dim=1),
        torch.cat(shifts),
        torch.cat(batch),
    ]
