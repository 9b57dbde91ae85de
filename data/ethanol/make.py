"""Make the ethanol set: PBE/def2-SVP energies and forces on frames of GFN2-xTB dynamics.

Run it with a scratch folder, which keeps every finished trajectory and frame:

    python make.py --work SCRATCH

Stopped at any moment and started again with the same folder, it goes on where it was. The files
are written beside this script once all frames are there. Needs ase, pyscf and tblite.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from pyscf import dft, gto
from tblite.ase import TBLite

TEMPERATURES = (300, 600)  # K
N_TRAJECTORIES = 8  # for each temperature
N_TEST_TRAJECTORIES = 2  # the last ones of each temperature
N_FRAMES = 20  # of each trajectory

TIME_STEP = 0.5  # fs
FRICTION = 0.02  # 1/fs
EQUILIBRATION = 5000.0  # fs
SPACING = 500.0  # fs between frames

BASIS = "def2-svp"
FUNCTIONAL = "pbe"
GRID_LEVEL = 4
SCF_TOLERANCE = 1e-10  # Hartree

# Unpaired electrons of the free atoms in their ground states: ²S, ³P, ³P.
ATOM_SPINS = {"H": 1, "C": 2, "O": 2}


@dataclass(frozen=True)
class Trajectory:
    """One run of dynamics.

    Attributes
    ----------
    temperature : int
        Temperature of the thermostat in K.
    index : int
        Number of the run among those of its temperature.
    """

    temperature: int
    index: int

    @property
    def name(self) -> str:
        """Name of its file in the scratch folder."""
        return f"{self.temperature}K_{self.index:02d}"

    @property
    def is_test(self) -> bool:
        """Whether its frames belong to the test set."""
        return self.index >= N_TRAJECTORIES - N_TEST_TRAJECTORIES


def trajectories() -> list[Trajectory]:
    """Return all runs, the temperatures alternating.

    Returns
    -------
    list of Trajectory
        `N_TRAJECTORIES` runs for each of the `TEMPERATURES`.
    """
    return [Trajectory(t, i) for i in range(N_TRAJECTORIES) for t in TEMPERATURES]


def write_whole(path: Path, frames: list[Atoms]) -> None:
    """Write an extxyz file that is either complete or absent.

    Parameters
    ----------
    path : Path
        The file.
    frames : list of Atoms
        What to write.
    """
    part = path.with_suffix(".part")
    write(part, frames, format="extxyz")
    part.replace(path)


def sample(trajectory: Trajectory) -> list[Atoms]:
    """Return the frames of one run of Langevin dynamics with GFN2-xTB.

    The run starts from the anti conformer; the thermal hops of the hydroxyl group between anti and
    gauche are faster than the equilibration. The seed follows from the run alone.

    Parameters
    ----------
    trajectory : Trajectory
        Which run.

    Returns
    -------
    list of Atoms
        `N_FRAMES` frames without labels, the centre of mass at the origin.
    """
    rng = np.random.default_rng([trajectory.temperature, trajectory.index])
    atoms = molecule("CH3CH2OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=trajectory.temperature, rng=rng)
    dynamics = Langevin(
        atoms,
        timestep=TIME_STEP * units.fs,
        temperature_K=trajectory.temperature,
        friction=FRICTION / units.fs,
        fixcm=False,
        rng=rng,
    )
    dynamics.run(round(EQUILIBRATION / TIME_STEP))
    frames = []
    for _ in range(N_FRAMES):
        dynamics.run(round(SPACING / TIME_STEP))
        frame = Atoms(atoms.symbols, atoms.positions - atoms.get_center_of_mass())
        frame.info["config_type"] = f"md_{trajectory.temperature}K"
        frame.info["trajectory"] = trajectory.index
        frames.append(frame)
    return frames


def frames_of(trajectory: Trajectory, work: Path) -> list[Atoms]:
    """Return the frames of a run, from the scratch folder if they are there.

    They pass through the file in any case: the labels then belong to the rounded positions that
    are published.

    Parameters
    ----------
    trajectory : Trajectory
        Which run.
    work : Path
        The scratch folder.

    Returns
    -------
    list of Atoms
        Frames without labels.
    """
    path = work / f"{trajectory.name}.extxyz"
    if not path.exists():
        write_whole(path, sample(trajectory))
    return read(path, ":", format="extxyz")


def molecule_of(atoms: Atoms, spin: int = 0) -> gto.Mole:
    """Return a geometry with its basis for PySCF.

    Parameters
    ----------
    atoms : Atoms
        Positions in Å.
    spin : int
        Number of unpaired electrons.

    Returns
    -------
    pyscf.gto.Mole
        The neutral molecule.
    """
    positions = atoms.positions / units.Bohr
    geometry = list(zip(atoms.get_chemical_symbols(), positions.tolist(), strict=True))
    return gto.M(atom=geometry, unit="Bohr", basis=BASIS, spin=spin, verbose=0)


def converge(mean_field: dft.rks.RKS | dft.uks.UKS, grid_level: int) -> float:
    """Run the self-consistent field and return the energy.

    Parameters
    ----------
    mean_field : RKS or UKS
        The calculation; its functional and thresholds are set here.
    grid_level : int
        Level of PySCF's integration grid, 0 (coarse) to 9.

    Returns
    -------
    float
        Energy in Hartree.

    Raises
    ------
    RuntimeError
        If the field does not converge.
    """
    mean_field.xc = FUNCTIONAL
    mean_field.grids.level = grid_level
    mean_field.conv_tol = SCF_TOLERANCE
    mean_field.max_cycle = 200
    energy = mean_field.kernel()
    if not mean_field.converged:
        raise RuntimeError(f"no convergence for {mean_field.mol.atom}")
    return float(energy)


def with_labels(atoms: Atoms, energy: float, forces: np.ndarray) -> Atoms:
    """Return a copy of the frame with energy and forces.

    Parameters
    ----------
    atoms : Atoms
        The frame.
    energy : float
        Energy in Hartree.
    forces : ndarray, shape (n_atoms, 3)
        Forces in Hartree/Bohr.

    Returns
    -------
    Atoms
        The frame with eV and eV/Å in its calculator.
    """
    labelled = atoms.copy()
    labelled.calc = SinglePointCalculator(
        labelled, energy=energy * units.Hartree, forces=forces * units.Hartree / units.Bohr
    )
    return labelled


def label(
    atoms: Atoms,
    grid_level: int = GRID_LEVEL,
    grid_response: bool = True,
    density_fitting: bool = False,
) -> Atoms:
    """Return a molecule with its energy and forces.

    Parameters
    ----------
    atoms : Atoms
        The frame.
    grid_level : int
        Level of PySCF's integration grid.
    grid_response : bool
        Whether the forces follow the grid as it moves with the atoms. Only then are they the
        exact derivative of the energy, and their sum is zero.
    density_fitting : bool
        Whether the Coulomb integrals are approximated by an auxiliary basis.

    Returns
    -------
    Atoms
        The labelled frame.
    """
    mean_field = dft.RKS(molecule_of(atoms))
    if density_fitting:
        mean_field = mean_field.density_fit()
    energy = converge(mean_field, grid_level)
    gradient = mean_field.nuc_grad_method()
    gradient.grid_response = grid_response
    return with_labels(atoms, energy, -gradient.kernel())


def label_atom(symbol: str) -> Atoms:
    """Return an isolated atom with its spin-polarised energy and zero force.

    Parameters
    ----------
    symbol : str
        Chemical symbol.

    Returns
    -------
    Atoms
        The labelled atom, `config_type=isolated_atom`.
    """
    atoms = Atoms(symbol, [(0.0, 0.0, 0.0)], info={"config_type": "isolated_atom"})
    mean_field = dft.UKS(molecule_of(atoms, ATOM_SPINS[symbol]))
    return with_labels(atoms, converge(mean_field, GRID_LEVEL), np.zeros((1, 3)))


def labelled_frames(trajectory: Trajectory, work: Path) -> Iterator[Atoms]:
    """Yield the labelled frames of a run, computing those the scratch folder lacks.

    Parameters
    ----------
    trajectory : Trajectory
        Which run.
    work : Path
        The scratch folder.

    Yields
    ------
    Atoms
        A labelled frame.
    """
    for i, frame in enumerate(frames_of(trajectory, work)):
        path = work / f"{trajectory.name}_{i:03d}.extxyz"
        if not path.exists():
            write_whole(path, [label(frame)])
        yield read(path, format="extxyz")


def make(work: Path, out: Path) -> None:
    """Compute everything and write the files of the set.

    Parameters
    ----------
    work : Path
        The scratch folder.
    out : Path
        Folder of the finished files.
    """
    work.mkdir(parents=True, exist_ok=True)
    files = {"train": [label_atom(symbol) for symbol in ATOM_SPINS]}
    for trajectory in trajectories():
        name = f"test_{trajectory.temperature}K" if trajectory.is_test else "train"
        files.setdefault(name, []).extend(labelled_frames(trajectory, work))
        print(f"{trajectory.name} done", flush=True)
    for name, frames in files.items():
        write_whole(out / f"{name}.extxyz", frames)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the ethanol set.")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder, kept")
    make(parser.parse_args().work, Path(__file__).parent)
