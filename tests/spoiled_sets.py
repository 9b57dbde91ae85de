"""Sound sets and their spoiled copies, each with the cause that an audit must name.

Three sound sets: ethanol (molecules, no stress), silicon (small crystals) and a copper-gold alloy
made here with the EMT potential of ASE (many compositions). Of each, twenty copies are spoiled in
the ways that users meet. What the audit must answer was written down with the way of spoiling.

    python tests/spoiled_sets.py        # audit all sixty, print a table
"""

import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.spatial.transform import Rotation

from eqpot.data import Frame, read_frames
from eqpot.units import BOHR, GPA, HARTREE, KCAL_PER_MOL

ROOT = Path(__file__).parents[1]

Files = dict[str, list[Frame]]


@dataclass(frozen=True)
class Spoiling:
    """A way to spoil a set: its name, what it does, and the causes of which all must be named."""

    name: str
    spoil: Callable[[Files], Files]
    causes: tuple[str, ...]
    energy_key: str = "energy"


def sound_sets() -> dict[str, Files]:
    """Return the three sound sets as files of frames, by name."""
    ethanol = {
        "train": read_frames(ROOT / "data/ethanol/train.extxyz").frames,
        "test": read_frames(ROOT / "data/ethanol/test_300K.extxyz").frames,
    }
    silicon = {
        "train": read_frames(ROOT / "data/silicon/train.extxyz").frames,
        "test": read_frames(ROOT / "data/silicon/test.extxyz").frames,
    }
    alloy = copper_gold(90)
    return {
        "ethanol": ethanol,
        "silicon": silicon,
        "alloy": {"train": alloy[:75], "test": alloy[75:]},
    }


def copper_gold(n_frames: int, rattle: float = 0.08, seed: int = 5) -> list[Frame]:
    """Return rattled and strained fcc cells of 16 atoms with EMT labels."""
    generator = np.random.default_rng(seed)
    frames = []
    for index in range(n_frames):
        atoms = bulk("Cu", "fcc", a=3.75, cubic=True).repeat((2, 2, 1))
        # ten arrangements return, as the snapshots of ten trajectories would
        arrangement = np.random.default_rng(index % 10)
        atoms.numbers[arrangement.random(len(atoms)) < 0.5] = 79
        strain = generator.normal(scale=0.015, size=(3, 3))
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
        atoms.positions += generator.normal(scale=rattle, size=atoms.positions.shape)
        atoms.calc = EMT()
        frames.append(
            Frame(
                atoms.numbers,
                atoms.positions,
                cell=atoms.cell[:],
                pbc=atoms.pbc,
                energy=atoms.get_potential_energy(),
                forces=atoms.get_forces(),
                stress=atoms.get_stress(voigt=False),
                source=f"alloy, frame {index}",
            )
        )
    return frames


def write_frames(path: Path, frames: Iterable[Frame], energy_key: str = "energy") -> None:
    """Write frames as extended XYZ, numbers that are not finite included."""
    structures = []
    for frame in frames:
        atoms = Atoms(frame.atomic_numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        labels = {"forces": frame.forces, "stress": frame.stress}
        if energy_key == "energy":
            labels["energy"] = frame.energy
        else:
            atoms.info[energy_key] = frame.energy
        atoms.calc = SinglePointCalculator(
            atoms, **{name: value for name, value in labels.items() if value is not None}
        )
        if frame.config_type:
            atoms.info["config_type"] = frame.config_type
        structures.append(atoms)
    ase.io.write(path, structures, format="extxyz")


# --- ways to spoil


def each(change: Callable[[Frame], Frame]) -> Callable[[Files], Files]:
    """Return the spoiling that changes every frame of every file."""
    return lambda files: {name: [change(f) for f in frames] for name, frames in files.items()}


def scaled(energy=1.0, forces=1.0, length=1.0) -> Callable[[Files], Files]:
    def change(frame: Frame) -> Frame:
        return replace(
            frame,
            energy=frame.energy * energy,
            forces=None if frame.forces is None else frame.forces * forces,
            positions=frame.positions * length,
            cell=frame.cell * length,
        )

    return each(change)


def per_atom(frame: Frame) -> Frame:
    return replace(frame, energy=frame.energy / len(frame))


def transposed(frame: Frame) -> Frame:
    if frame.forces is None:
        return frame
    return replace(frame, forces=np.ascontiguousarray(frame.forces.T).reshape(-1, 3))


def reversed_forces(frame: Frame) -> Frame:
    return frame if frame.forces is None else replace(frame, forces=frame.forces[::-1])


def turned_axes(frame: Frame) -> Frame:
    return frame if frame.forces is None else replace(frame, forces=frame.forces[:, [2, 0, 1]])


def stress_times(factor: float | Callable[[Frame], float]) -> Callable[[Files], Files]:
    def change(frame: Frame) -> Frame:
        if frame.stress is None:
            return frame
        number = factor(frame) if callable(factor) else factor
        return replace(frame, stress=frame.stress * number)

    return each(change)


def vasp_order(frame: Frame) -> Frame:
    """Six numbers in the order of VASP, xx yy zz xy yz zx, read as xx yy zz yz xz xy."""
    if frame.stress is None:
        return frame
    s = frame.stress
    yz, xz, xy = s[0, 1], s[1, 2], s[0, 2]
    return replace(
        frame, stress=np.array([[s[0, 0], xy, xz], [xy, s[1, 1], yz], [xz, yz, s[2, 2]]])
    )


def not_a_number(files: Files) -> Files:
    frames = list(files["train"])
    broken = frames[17]
    forces = np.array(broken.forces)
    forces[0, 1] = np.nan
    # a frame refuses such a number, so it is put in behind its back, as a file would hold it
    spoiled = replace(broken)
    object.__setattr__(spoiled, "forces", forces)
    frames[17] = spoiled
    return {**files, "train": frames}


def moved(frame: Frame, seed: int) -> Frame:
    """Return the same structure turned, shifted and renumbered, with its labels."""
    generator = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    order = generator.permutation(len(frame))
    shift = generator.normal(size=3)
    return replace(
        frame,
        atomic_numbers=frame.atomic_numbers[order],
        positions=(frame.positions @ turn + shift)[order],
        cell=frame.cell @ turn,
        forces=(frame.forces @ turn)[order],
        stress=None if frame.stress is None else turn.T @ frame.stress @ turn,
    )


def duplicated(files: Files) -> Files:
    frames = files["train"]
    return {**files, "train": [*frames, *(moved(frames[k], k) for k in (20, 30, 40))]}


def overlapping(files: Files) -> Files:
    return {**files, "test": [*files["test"], *(moved(files["train"][k], k) for k in (25, 35))]}


def two_labels(files: Files) -> Files:
    frames = files["train"]
    others = [replace(moved(frames[k], k), energy=frames[k].energy + 0.3) for k in (22, 33)]
    return {**files, "train": [*frames, *others]}


def constrained(frame: Frame) -> Frame:
    """A third of the atoms was held fixed, and their forces were written as zero."""
    if frame.forces is None:
        return frame
    forces = np.array(frame.forces)
    forces[: max(1, len(forces) // 3)] = 0.0
    return replace(frame, forces=forces)


def shuffled(files: Files) -> Files:
    frames = files["train"]
    rows = [k for k, frame in enumerate(frames) if len(frame) > 1]
    order = np.random.default_rng(0).permutation(rows)
    result = list(frames)
    for k, other in zip(rows, order, strict=True):
        result[k] = replace(frames[k], energy=frames[other].energy)
    return {**files, "train": result}


def outlying(files: Files) -> Files:
    frames = list(files["train"])
    frames[50] = replace(frames[50], energy=frames[50].energy + 15.0)
    return {**files, "train": frames}


COMMON = (
    Spoiling("energy in kcal/mol", scaled(energy=1 / KCAL_PER_MOL), ("units.energy.kcal_per_mol",)),
    Spoiling("energy in Hartree", scaled(energy=1 / HARTREE), ("units.energy.hartree",)),
    Spoiling(
        "forces in kcal/mol/Å",
        scaled(forces=1 / KCAL_PER_MOL),
        ("units.forces.kcal_per_mol_per_angstrom",),
    ),
    Spoiling(
        "forces in Hartree/Bohr",
        scaled(forces=BOHR / HARTREE),
        ("units.forces.hartree_per_bohr",),
    ),
    Spoiling(
        "energy and forces in kcal/mol",
        scaled(energy=1 / KCAL_PER_MOL, forces=1 / KCAL_PER_MOL),
        ("units.energy.kcal_per_mol", "units.forces.kcal_per_mol_per_angstrom"),
    ),
    Spoiling("positions in Bohr", scaled(length=1 / BOHR), ("units.positions.bohr",)),
    Spoiling("forces negated", scaled(forces=-1.0), ("sign.forces",)),
    Spoiling("energy negated", scaled(energy=-1.0), ("sign.energy",)),
    Spoiling("energy per atom", each(per_atom), ("energy.per_atom",)),
    Spoiling("forces transposed", each(transposed), ("forces.transposed",)),
    Spoiling("a force is NaN", not_a_number, ("labels.not_finite",)),
    Spoiling("duplicates", duplicated, ("duplicates",)),
    Spoiling("overlap", overlapping, ("overlap",)),
    Spoiling("two labels", two_labels, ("labels.contradict",)),
    Spoiling("constrained forces zeroed", each(constrained), ("forces.zeroed",)),
    Spoiling(
        "energy under another key",
        lambda files: files,
        ("labels.unread.energy",),
        energy_key="E_total_ref",
    ),
)
MOLECULES = (
    Spoiling("energies of other frames", shuffled, ("energy.unrelated",)),
    Spoiling("forces in reverse order", each(reversed_forces), ("forces.atom_order",)),
    Spoiling("axes of forces turned", each(turned_axes), ("forces.axes",)),
    Spoiling("an energy far off", outlying, ("outliers.energy",)),
)
CRYSTALS = (
    Spoiling("stress in kbar", stress_times(10.0 / GPA), ("units.stress.kbar",)),
    Spoiling("stress negated", stress_times(-1.0), ("sign.stress",)),
    Spoiling(
        "virial for stress",
        stress_times(lambda frame: -abs(np.linalg.det(frame.cell))),
        ("stress.virial",),
    ),
    Spoiling("stress in the order of VASP", each(vasp_order), ("stress.order",)),
)


def spoilings(name: str) -> tuple[Spoiling, ...]:
    """Return the ways in which a set is spoiled: twenty."""
    return COMMON + (MOLECULES if name == "ethanol" else CRYSTALS)


def audit_spoiled(files: Files, spoiling: Spoiling, folder: Path):
    """Write a spoiled copy to a folder and return its audit."""
    from eqpot.data.audit import audit_files

    paths = {}
    for name, frames in spoiling.spoil(files).items():
        path = folder / f"{name}.extxyz"
        write_frames(path, frames, spoiling.energy_key)
        paths[name] = [path]
    return audit_files(paths)


def found_causes(audit) -> list[str]:
    """Return the causes of errors and warnings."""
    return sorted({f.cause for f in audit.findings if f.severity != "note"})


def main() -> int:
    """Audit all spoiled copies; print what was found; exit with 1 below 57."""
    right = total = 0
    for name, files in sound_sets().items():
        for spoiling in (Spoiling("nothing", lambda f: f, ()), *spoilings(name)):
            if sys.argv[1:] and not any(a in f"{name}/{spoiling.name}" for a in sys.argv[1:]):
                continue
            with tempfile.TemporaryDirectory() as folder:
                audit = audit_spoiled(files, spoiling, Path(folder))
            found = found_causes(audit)
            good = set(spoiling.causes) <= set(found)
            if spoiling.causes:
                right += good
                total += 1
            else:
                good = not audit.has_errors
            print(f"{'ok  ' if good else 'MISS'} {name:<8} {spoiling.name:<30} {', '.join(found)}")
            sys.stdout.flush()
    print(f"{right} of {total} with the right cause")
    return 0 if right >= 57 else 1


if __name__ == "__main__":
    sys.exit(main())
