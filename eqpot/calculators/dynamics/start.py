"""The start of a run: what it needs of a structure, and the velocities it draws."""

import hashlib

import ase
import numpy as np
from ase.constraints import FixAtoms
from numpy.typing import NDArray

from eqpot.calculators.dynamics.settings import MDSettings
from eqpot.units import BOLTZMANN


def check_structure(atoms: ase.Atoms, settings: MDSettings) -> None:
    """Raise ValueError if the structure cannot be run this way."""
    if len(atoms) == 0:
        raise ValueError("`atoms` must hold at least one atom, got none")
    if atoms.calc is None:
        raise ValueError("`atoms` must have a calculator attached (`atoms.calc`), got none")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(np.array(atoms.cell)).all()):
        raise ValueError("`atoms` must have finite positions and cell")
    masses = atoms.get_masses()
    if not (np.isfinite(masses).all() and (masses > 0).all()):
        bad = int(np.argmin(np.where(np.isfinite(masses), masses, -np.inf)))
        raise ValueError(f"masses must be positive, got {masses[bad]} for atom {bad}")
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            raise ValueError(
                "`atoms` may have no constraints but FixAtoms, got "
                f"{type(constraint).__name__}; remove it with `atoms.set_constraint()`"
            )
    if settings.keep_momenta and not atoms.has("momenta"):
        raise ValueError(
            "`keep_momenta` needs a structure with momenta, got one without; "
            "leave it out to draw velocities"
        )
    if settings.ensemble != "npt":
        return
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise ValueError(
            '`ensemble` "npt" needs a cell periodic in three directions, got '
            f"pbc {atoms.pbc.tolist()} and a cell of rank {atoms.cell.rank}"
        )
    if "stress" not in atoms.calc.implemented_properties:
        raise ValueError(
            '`ensemble` "npt" needs a calculator with stress, got '
            f"{type(atoms.calc).__name__}, which gives {atoms.calc.implemented_properties}"
        )
    if atoms.constraints:
        raise ValueError('`ensemble` "npt" cannot hold atoms fixed; remove the constraints')
    if not settings.fix_center:
        raise ValueError('`fix_center` must be true for `ensemble` "npt", got false')


def random_generator(seed: int, stream: int) -> np.random.Generator:
    """Return a generator; velocities (stream 0) and noise (1) must not share one."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream])))


def free_atoms(atoms: ase.Atoms) -> NDArray[np.bool_]:
    """Return which atoms move: bool, shape (n_atoms,)."""
    free = np.ones(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        free[constraint.index] = False
    return free


def start_momenta(
    atoms: ase.Atoms, settings: MDSettings, free: NDArray[np.bool_], fix_center: bool
) -> tuple[NDArray[np.float64], int]:
    """Return the momenta to start from, shape (n_atoms, 3), and the degrees of freedom.

    Drawn momenta are normal, less translation and, of molecules, rotation; they are not scaled to
    the exact temperature, which would not be a draw from the canonical ensemble.
    """
    n_dof = 3 * int(free.sum()) - 3 * fix_center
    masses: NDArray[np.float64] = atoms.get_masses()[:, None]
    if settings.keep_momenta:
        momenta: NDArray[np.float64] = atoms.get_momenta() * free[:, None]
    else:
        width = np.sqrt(masses * BOLTZMANN * settings.temperature)
        noise = random_generator(settings.seed, 0).standard_normal((len(atoms), 3))
        momenta = noise * width * free[:, None]
    if fix_center:
        momenta = momenta - masses / masses.sum() * momenta.sum(axis=0)
        if not atoms.pbc.any() and not settings.keep_momenta:
            arms = atoms.get_positions() - atoms.get_center_of_mass()
            squares = (masses * arms**2).sum()
            inertia = np.eye(3) * squares - (masses * arms).T @ arms
            tolerance = 1e-10 * max(1.0, float(squares))
            spin = np.linalg.pinv(inertia, rcond=1e-10) @ np.cross(arms, momenta).sum(axis=0)
            momenta = momenta - masses * np.cross(spin, arms)
            if settings.ensemble == "nve":
                # Only there angular momentum stays zero; friction and noise bring rotation back.
                n_dof -= int(np.linalg.matrix_rank(inertia, tol=tolerance))
    if n_dof <= 0:
        raise ValueError(
            f"{len(atoms)} atoms of which {int((~free).sum())} are fixed leave no degree of "
            "freedom; free more atoms, or set `fix_center` to false"
        )
    return momenta, n_dof


def bare_copy(atoms: ase.Atoms) -> ase.Atoms:
    """Return the structure without results and notes of its file, which would go stale."""
    return ase.Atoms(
        numbers=atoms.numbers,
        positions=atoms.get_positions(),
        masses=atoms.get_masses() if atoms.has("masses") else None,
        cell=np.array(atoms.cell),
        pbc=atoms.pbc,
        constraint=list(atoms.constraints),
    )


def fingerprint(atoms: ase.Atoms, with_momenta: bool) -> str:
    """Return a hash of all that defines the start."""
    digest = hashlib.sha256()
    parts = [
        atoms.numbers.astype("<i8"),
        atoms.get_positions().astype("<f8"),
        np.array(atoms.cell).astype("<f8"),
        atoms.pbc.astype("<i8"),
        atoms.get_masses().astype("<f8"),
        free_atoms(atoms).astype("<i8"),
    ]
    if with_momenta:
        parts.append(atoms.get_momenta().astype("<f8"))
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]
