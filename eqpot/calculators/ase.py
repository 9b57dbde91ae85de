"""A potential as a calculator of ASE."""

import copy
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from numpy.typing import NDArray

from eqpot.allocation import keep_freed_memory
from eqpot.calculators.verlet_list import VerletList
from eqpot.compilation import CompiledPotential, compile_potential, load_compiled
from eqpot.data.cells import check_cell
from eqpot.elements import unknown_element
from eqpot.export import load_torchscript
from eqpot.files import load_potential
from eqpot.models import GauntModel
from eqpot.models.chunks import ChunkedModel
from eqpot.models.deployment import deployed
from eqpot.potential import N_ELEMENTS, Potential, species_table
from eqpot.program import ExplicitPotential, Program

_EDGES_AT_ONCE: Final = {False: 2**16, True: 2**20}  # by whether on a GPU
_VOIGT: Final = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])  # xx, yy, zz, yz, xz, xy


class ASECalculator(Calculator):
    """Energy, forces and stress of a potential for ASE.

    The neighbour list reaches ``skin`` beyond the radius and is kept until an atom has moved half
    of that. Edges are cut to the radius and put in one order before the model sees them, so results
    do not depend on the skin nor on what was computed before.

    Parameters
    ----------
    potential
        A native file (``.eqpot``), or a potential in memory, which stays where it is; the weights
        of a :class:`eqpot.models.GauntModel` are copied.
    dtype
        In which the model of a file runs, ``"float32"`` or ``"float64"``; a potential in memory
        keeps its own. Positions, energies and sums are float64 always.
    device
        Where the model runs: the CPU for a file, where it is for a potential in memory, unless
        given.
    skin
        Å, not negative; 0 makes a new list at each step.
    edge_budget
        Neighbours that are computed at once; larger structures are computed in chunks, which
        bounds the memory for a third of time more (:class:`eqpot.models.chunks.ChunkedModel`).
        Without it, what takes some 10 GB on a GPU (preset ``medium``), and a tenth elsewhere.
    compiled
        Compile the potential to machine code first: one to three minutes with a C++ compiler, once
        for structures of all sizes, for two to four times the speed. To keep the code, see
        :func:`eqpot.compilation.export_compiled`. On the CPU it has chunks of its own; on a GPU it
        computes all edges at once.

    Raises
    ------
    OSError, ValueError
        If the file is refused (see :func:`eqpot.files.load_potential`), ``skin`` is negative,
        ``edge_budget`` is not above zero, or it is given with ``compiled``.
    RuntimeError
        If it cannot be compiled (see :func:`eqpot.compilation.compile_potential`).

    Notes
    -----
    ``stress`` and ``stresses`` follow ASE: eV/Å³, positive in tension, in Voigt order.
    ``stresses`` are the parts of atoms in the stress over the volume of the cell, so they sum to
    ``stress``.

    Examples
    --------
    >>> atoms.calc = ASECalculator("potential.eqpot")  # doctest: +SKIP
    >>> atoms.get_potential_energy()  # doctest: +SKIP
    """

    implemented_properties = [  # noqa: RUF012 (ASE declares it as an instance variable)
        "energy",
        "free_energy",
        "forces",
        "stress",
        "energies",
        "stresses",
    ]

    def __init__(
        self,
        potential: str | Path | Potential,
        dtype: str | torch.dtype = "float32",
        device: str | torch.device | None = None,
        skin: float = 0.5,
        edge_budget: int | None = None,
        compiled: bool = False,
    ) -> None:
        if compiled and edge_budget is not None:
            raise ValueError(
                f"`edge_budget` must be left out with `compiled=True`, got {edge_budget}: compiled "
                "code has chunks of its own on the CPU, and none on a GPU"
            )
        if not isinstance(potential, Potential):
            potential = load_potential(potential, dtype=dtype, device=device or "cpu")
        elif device is not None:
            potential = copy.deepcopy(potential).to(torch.device(device))
        program: Potential | CompiledPotential = potential
        if compiled:
            program = compile_potential(potential)
        elif isinstance(potential.model, GauntModel):
            if edge_budget is None:
                edge_budget = _EDGES_AT_ONCE[potential.anchor.device.type == "cuda"]
            program = potential.with_model(ChunkedModel(deployed(potential.model), edge_budget))
        self._start(
            ExplicitPotential(program),
            list(potential.atomic_numbers),
            potential.r_max,
            potential.species_of.device,
            skin,
        )

    @classmethod
    def from_torchscript(
        cls,
        path: str | Path,
        *,
        sha256: str | None = None,
        trust: bool = False,
        device: str | torch.device = "cpu",
        skin: float = 0.5,
    ) -> "ASECalculator":
        """Return a calculator that runs an exported program.

        **Loading such a file runs code from it.**

        Parameters
        ----------
        path
            A file of :func:`eqpot.export.export_torchscript`.
        sha256, trust
            The SHA-256 of the file, or the word that it is trusted; one of them is needed.
        device, skin
            As for the class.

        Raises
        ------
        OSError, ValueError
            As :func:`eqpot.export.load_torchscript`.
        """
        program, metadata = load_torchscript(path, sha256=sha256, trust=trust, device=device)
        return cls._of_program(program, metadata, device, skin)

    @classmethod
    def from_compiled(
        cls,
        path: str | Path,
        *,
        sha256: str | None = None,
        trust: bool = False,
        skin: float = 0.5,
    ) -> "ASECalculator":
        """Return a calculator that runs a compiled package, on the device that it was made for.

        **Loading such a file runs machine code from it.**

        Parameters
        ----------
        path
            A file of :func:`eqpot.compilation.export_compiled`.
        sha256, trust
            The SHA-256 of the file, or the word that it is trusted; one of them is needed.
        skin
            As for the class.

        Raises
        ------
        OSError, ValueError
            As :func:`eqpot.compilation.load_compiled`.
        """
        program, metadata = load_compiled(path, sha256=sha256, trust=trust)
        return cls._of_program(program, metadata, metadata["device"], skin)

    @classmethod
    def _of_program(
        cls, program: Program, metadata: dict[str, Any], device: str | torch.device, skin: float
    ) -> "ASECalculator":
        calculator = cls.__new__(cls)
        numbers, r_max = metadata["atomic_numbers"], metadata["r_max"]
        calculator._start(program, numbers, r_max, torch.device(device), skin)
        return calculator

    def _start(
        self,
        program: Program,
        atomic_numbers: list[int],
        r_max: float,
        device: torch.device,
        skin: float,
    ) -> None:
        if not (skin >= 0.0 and np.isfinite(skin)):
            raise ValueError(f"`skin` must be a length in Å, zero or more, got {skin}")
        super().__init__()
        keep_freed_memory()
        self.atomic_numbers = atomic_numbers
        self._species_of = species_table(atomic_numbers).numpy()
        self.r_max = r_max
        self.skin = skin
        self._program = program
        inner = program.potential if isinstance(program, ExplicitPotential) else None
        self._compiled = inner if isinstance(inner, CompiledPotential) else None
        self._device = device
        self._list: VerletList | None = None

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Return what of a structure changed since the last call; called by ASE.

        ASE's own check, made each time a property is asked for, takes 0.15 ms where the forces of a
        small molecule take 1 ms. It also compares charges and moments, on which a potential does
        not depend.

        Parameters
        ----------
        atoms
            The structure.
        tol
            ASE's tolerance; not used, since any change counts.
        """
        last = self.atoms
        if last is None:
            return list(all_changes)
        names = ("positions", "numbers", "cell", "pbc")
        return [n for n in names if not np.array_equal(getattr(atoms, n), getattr(last, n))]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute all properties of a structure; called by ASE.

        Parameters
        ----------
        atoms
            The structure.
        properties
            Those that must be there.
        system_changes
            What changed since the last call, as ASE sees it; not used.

        Raises
        ------
        ase.calculators.calculator.PropertyNotImplementedError
            If a stress is asked of a structure without a volume.
        ValueError
            If an element is unknown, a position is not finite, a periodic row of the cell is zero
            or flat, two atoms are at one place, or the result is not finite.
        """
        super().calculate(atoms, properties, system_changes)
        structure = self.atoms
        assert structure is not None
        positions = np.array(structure.positions, dtype=np.float64)
        numbers = np.asarray(structure.numbers)
        pbc = np.asarray(structure.pbc, dtype=np.bool_)
        cell = np.array(structure.cell[:], dtype=np.float64)
        volume = _volume(cell, pbc)
        # whatever stands in rows of non-periodic axes has no meaning, and must have no influence
        cell[~pbc] = 0.0
        if self._list is not None and not self._list.is_of(numbers, cell, pbc):
            self._list = None
        self._check(positions, numbers, cell, pbc)
        wanted = set(properties or ()) & {"stress", "stresses"}
        if wanted and volume is None:
            raise PropertyNotImplementedError(_no_volume(sorted(wanted), pbc))
        self.results = self._results(positions, numbers, cell, pbc, volume)

    def _check(
        self,
        positions: NDArray[np.float64],
        numbers: NDArray[np.int64],
        cell: NDArray[np.float64],
        pbc: NDArray[np.bool_],
    ) -> None:
        wrong = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if len(wrong):
            raise ValueError(
                f"`positions` must be finite, got {positions[wrong[0]].tolist()} for atom "
                f"{wrong[0]}"
            )
        if self._list is not None:
            return  # it is of these elements in this cell
        in_table = (numbers >= 0) & (numbers < N_ELEMENTS)
        unknown = np.flatnonzero(~(in_table & (self._species_of[numbers % N_ELEMENTS] >= 0)))
        if len(unknown):
            atom = int(unknown[0])
            raise ValueError(unknown_element(atom, int(numbers[atom]), self.atomic_numbers))
        check_cell(cell, pbc)

    def _results(
        self,
        positions: NDArray[np.float64],
        numbers: NDArray[np.int64],
        cell: NDArray[np.float64],
        pbc: NDArray[np.bool_],
        volume: float | None,
    ) -> dict[str, Any]:
        n_atoms = len(positions)
        if n_atoms == 0:
            energy, energies, forces = 0.0, np.zeros(0), np.zeros((0, 3))
            virials = np.zeros((0, 3, 3))
        else:
            energy, energies, forces, virials = self._run(positions, numbers, cell, pbc)
        results: dict[str, Any] = {
            "energy": energy,
            "free_energy": energy,
            "energies": energies,
            "forces": forces,
        }
        if volume is not None:
            stresses = -0.5 * (virials + virials.transpose(0, 2, 1)) / volume
            results["stresses"] = stresses[:, *_VOIGT]
            results["stress"] = results["stresses"].sum(axis=0)
        return results

    def _run(
        self,
        positions: NDArray[np.float64],
        numbers: NDArray[np.int64],
        cell: NDArray[np.float64],
        pbc: NDArray[np.bool_],
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        energy, *parts = self._evaluate(self._inputs(positions, numbers, cell, pbc))
        energies, forces, virials = (part.detach().cpu().numpy() for part in parts)
        if not (np.isfinite(forces).all() and np.isfinite(energies).all()):
            broken = np.flatnonzero(~(np.isfinite(forces).all(axis=1) & np.isfinite(energies)))
            raise ValueError(
                f"energy or force of atom {broken[0]} is not finite; are atoms too close?"
            )
        return float(energy), energies, forces, virials

    def _inputs(
        self,
        positions: NDArray[np.float64],
        numbers: NDArray[np.int64],
        cell: NDArray[np.float64],
        pbc: NDArray[np.bool_],
    ) -> list[torch.Tensor]:
        """Return what the program takes: edges, or blocks of them if it is compiled."""
        if self._list is None or not self._list.holds(positions):
            self._list = VerletList(positions, numbers, cell, pbc, self.r_max, self.skin)
        arrays: tuple[NDArray[Any], ...]
        if self._compiled is not None:
            # what is outside of the code takes half as long as by way of edges
            blocks = self._list.blocks(positions, self._compiled.multiple)
            species = self._species_of[numbers]
            arrays = blocks.vectors, blocks.neighbors, blocks.incoming, species
        else:
            edge_index, edge_shifts = self._list.edges(positions)
            batch = np.zeros(len(positions), dtype=np.int64)
            numbers = numbers.astype(np.int64)
            arrays = positions, cell[None], numbers, edge_index, edge_shifts, batch
        return [torch.from_numpy(array).to(self._device) for array in arrays]

    def _evaluate(self, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the energy, and energies, forces and virials of the atoms."""
        if self._compiled is not None:
            vectors, neighbors, incoming, species = inputs
            energies, forces, virials = self._compiled.of_blocks(
                vectors, neighbors, incoming, species
            )
            return energies.sum(), energies, forces, virials
        energy, energies, forces, _, virials = self._program(*inputs)
        return energy, energies, forces, virials


def _volume(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> float | None:
    """Return the volume that a stress refers to, or None where there is none."""
    if not pbc.any() or not np.isfinite(cell).all():
        return None
    volume = float(abs(np.linalg.det(cell)))
    return volume if volume > 0.0 else None


def _no_volume(wanted: list[str], pbc: NDArray[np.bool_]) -> str:
    names = " and ".join(f"`{name}`" for name in wanted)
    if not pbc.any():
        return f"{names}: a structure that is periodic along no axis has no volume, so no stress"
    return (
        f"{names}: the cell has no volume: give lengths to its rows along the axes that are not "
        "periodic, which set the volume that the stress refers to and nothing else"
    )
