"""Make the silicon set: PBE energies, forces and stresses of small strained and rattled cells.

Run it with a scratch folder, which keeps every finished frame:

    python make.py --work SCRATCH

Stopped at any moment and started again with the same folder, it goes on where it was. The files
are written beside this script once all frames are there. Needs ase, gpaw and gpaw-data.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from gpaw import GPAW, PW, FermiDirac

LATTICE_CONSTANT = 5.47  # Å, about that of PBE
RATTLE = (0.01, 0.10)  # Å, range of the standard deviation of a coordinate
STRAIN = 0.05  # largest component
STRAINS = ("none", "isotropic", "uniaxial", "shear")  # frame i of a family has kind i modulo 4
EOS_SCALES = np.linspace(0.94, 1.06, 13)  # of the lattice constant
TEST_EVERY = 5  # of each family one frame in so many belongs to the test set

CUTOFF = 300.0  # eV
K_SPACING = 0.30  # 1/Å, with the factor 2π
SMEARING = 0.1  # eV, width of the Fermi-Dirac function


def diamond() -> Atoms:
    """Return the primitive diamond cell, 2 atoms."""
    return bulk("Si", "diamond", a=LATTICE_CONSTANT)


def diamond_cubic() -> Atoms:
    """Return the conventional diamond cell, 8 atoms."""
    return bulk("Si", "diamond", a=LATTICE_CONSTANT, cubic=True)


def diamond_double() -> Atoms:
    """Return two conventional diamond cells in a row, 16 atoms."""
    return diamond_cubic() * (2, 1, 1)


def vacancy_cubic() -> Atoms:
    """Return the conventional diamond cell without one atom, 7 atoms."""
    return diamond_cubic()[1:]


def vacancy_double() -> Atoms:
    """Return two conventional diamond cells without one atom, 15 atoms."""
    return diamond_double()[1:]


def beta_tin() -> Atoms:
    """Return the primitive body-centred tetragonal cell of the β-tin phase, 2 atoms."""
    a, c = 4.80, 2.64
    cell = np.array([[-a, a, c], [a, -a, c], [a, a, -c]]) / 2
    return Atoms("Si2", [(0, 0, 0), (0, a / 2, c / 4)], cell=cell, pbc=True)


def simple_cubic() -> Atoms:
    """Return two simple cubic cells, 2 atoms."""
    return bulk("Si", "sc", a=2.53) * (1, 1, 2)


@dataclass(frozen=True)
class Family:
    """Frames that are distortions of one structure.

    Attributes
    ----------
    name : str
        Its `config_type`.
    build : callable
        Returns the perfect structure.
    n_frames : int
        Number of frames.
    """

    name: str
    build: Callable[[], Atoms]
    n_frames: int


FAMILIES = (
    Family("diamond", diamond, 60),
    Family("diamond_cubic", diamond_cubic, 30),
    Family("vacancy_cubic", vacancy_cubic, 15),
    Family("beta_tin", beta_tin, 15),
    Family("simple_cubic", simple_cubic, 10),
    Family("diamond_double", diamond_double, 5),
    Family("vacancy_double", vacancy_double, 5),
)


def random_strain(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return a random strain.

    Parameters
    ----------
    kind : str
        One of the `STRAINS`.
    rng : Generator
        Source of randomness.

    Returns
    -------
    ndarray, shape (3, 3)
        Symmetric, no component beyond `STRAIN`.
    """
    size = rng.uniform(-STRAIN, STRAIN)
    i, j = rng.choice(3, size=2, replace=False)
    strain = np.zeros((3, 3))
    if kind == "isotropic":
        np.fill_diagonal(strain, size)
    elif kind == "uniaxial":
        strain[i, i] = size
    elif kind == "shear":
        strain[i, j] = strain[j, i] = size
    return strain


def rounded(atoms: Atoms) -> Atoms:
    """Return the frame with the digits of its file, so that the labels belong to them."""
    frame = atoms.copy()
    frame.set_cell(frame.cell.array.round(8))
    frame.positions = frame.positions.round(8)
    return frame


def distorted(family: Family, index: int) -> Atoms:
    """Return a frame of a family: strained first, then rattled.

    Parameters
    ----------
    family : Family
        Which family.
    index : int
        Number of the frame; it decides the kind of strain and, with the family, the seed.

    Returns
    -------
    Atoms
        The frame without labels.
    """
    rng = np.random.default_rng([FAMILIES.index(family), index])
    atoms = family.build()
    deformation = np.eye(3) + random_strain(STRAINS[index % len(STRAINS)], rng)
    atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    atoms.positions += rng.normal(scale=rng.uniform(*RATTLE), size=(len(atoms), 3))
    atoms.info["config_type"] = family.name
    return rounded(atoms)


def scaled(scale: float) -> Atoms:
    """Return a perfect diamond crystal of the equation of state.

    Parameters
    ----------
    scale : float
        Lattice constant in units of `LATTICE_CONSTANT`.

    Returns
    -------
    Atoms
        The frame without labels.
    """
    atoms = diamond()
    atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
    atoms.info["config_type"] = "equation_of_state"
    return rounded(atoms)


def all_frames() -> dict[str, list[Atoms]]:
    """Return every periodic frame of the set without labels.

    Returns
    -------
    dict of str to list of Atoms
        The frames of each `config_type`.
    """
    frames = {"equation_of_state": [scaled(float(scale)) for scale in EOS_SCALES]}
    for family in FAMILIES:
        frames[family.name] = [distorted(family, i) for i in range(family.n_frames)]
    return frames


def k_points(atoms: Atoms, spacing: float) -> tuple[int, ...]:
    """Return the numbers of k-points along the reciprocal vectors.

    Parameters
    ----------
    atoms : Atoms
        A periodic frame.
    spacing : float
        Largest distance between neighbouring points in 1/Å, with the factor 2π.

    Returns
    -------
    tuple of int
        Three numbers.
    """
    lengths = 2 * np.pi * atoms.cell.reciprocal().lengths()
    return tuple(int(n) for n in np.ceil(lengths / spacing))


def label(
    atoms: Atoms,
    cutoff: float = CUTOFF,
    spacing: float = K_SPACING,
    smearing: float = SMEARING,
) -> Atoms:
    """Return a crystal with its energy, forces and stress.

    The energy is the electronic free energy: with smearing, forces and stress are derivatives of
    that and of no other.

    Parameters
    ----------
    atoms : Atoms
        The frame.
    cutoff : float
        Largest kinetic energy of a plane wave in eV.
    spacing : float
        Distance between k-points in 1/Å, with the factor 2π.
    smearing : float
        Width of the Fermi-Dirac function in eV.

    Returns
    -------
    Atoms
        The labelled frame.
    """
    labelled = atoms.copy()
    labelled.calc = GPAW(
        mode=PW(cutoff),
        xc="PBE",
        kpts={"size": k_points(atoms, spacing), "gamma": False},
        occupations=FermiDirac(smearing),
        eigensolver="rmm-diis",
        convergence={"density": 1e-5, "eigenstates": 1e-8},
        txt=None,
    )
    energy = labelled.get_potential_energy(force_consistent=True)
    forces, stress = labelled.get_forces(), labelled.get_stress()
    labelled.calc = SinglePointCalculator(labelled, energy=energy, forces=forces, stress=stress)
    return labelled


def label_atom() -> Atoms:
    """Return the isolated atom with its spin-polarised energy and zero force.

    The ³P atom is computed in a periodic box whose sides differ: that lets the p shell choose an
    axis. Its occupations are integers.

    Returns
    -------
    Atoms
        The labelled atom without a cell, `config_type=isolated_atom`.
    """
    boxed = Atoms("Si", cell=(10.0, 11.0, 12.0), pbc=True, magmoms=[2.0])
    boxed.center()
    boxed.calc = GPAW(
        mode=PW(CUTOFF),
        xc="PBE",
        hund=True,
        occupations=FermiDirac(0.0, fixmagmom=True),
        convergence={"density": 1e-5, "eigenstates": 1e-8},
        txt=None,
    )
    energy = boxed.get_potential_energy(force_consistent=True)
    atoms = Atoms("Si", [(0.0, 0.0, 0.0)], info={"config_type": "isolated_atom"})
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((1, 3)))
    return atoms


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


def kept(path: Path, compute: Callable[[], Atoms]) -> Atoms:
    """Return a frame from the scratch folder, computing it if it is not there.

    Parameters
    ----------
    path : Path
        Its file.
    compute : callable
        Returns the labelled frame.

    Returns
    -------
    Atoms
        The labelled frame.
    """
    if not path.exists():
        write_whole(path, [compute()])
        print(path.stem, flush=True)
    return read(path, format="extxyz")


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
    train = [kept(work / "isolated_atom.extxyz", label_atom)]
    test = []
    for name, frames in all_frames().items():
        for i, frame in enumerate(frames):
            labelled = kept(work / f"{name}_{i:03d}.extxyz", lambda frame=frame: label(frame))
            (test if i % TEST_EVERY == TEST_EVERY - 1 else train).append(labelled)
    write_whole(out / "train.extxyz", train)
    write_whole(out / "test.extxyz", test)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the silicon set.")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder, kept")
    make(parser.parse_args().work, Path(__file__).parent)
