"""The audit names what is wrong with a data set, and accuses no sound one."""

import gzip
import json
import lzma
import os
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import typer
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from eqpot.cli.audit import audit as audit_command
from eqpot.cli.reading_options import parse_units
from eqpot.data import Frame, LabelReport, read_frames
from eqpot.data.audit import Audit, Finding, audit_files, audit_frames
from eqpot.data.audit.composition import check_rank, fit_composition
from eqpot.data.audit.displacements import pair_up
from eqpot.data.audit.duplicates import label_difference, same_structure
from eqpot.data.audit.evidence import (
    Evidence,
    Ratio,
    all_electron_energy,
    gather,
    work_along_pairs,
)
from eqpot.data.audit.findings import short_sources
from eqpot.data.audit.fitted import AS_READ, fit_forces
from eqpot.data.audit.forces import check_forces, site_pull
from eqpot.data.audit.linear_model import LinearModel
from eqpot.data.audit.readings import Reading, rank
from eqpot.data.audit.refused import MOST_REFUSED, frames_and_refusals
from eqpot.data.audit.scan import scan
from eqpot.units import BOHR, GPA, HARTREE, KCAL_PER_MOL, KJ_PER_MOL
from spoiled_sets import (
    audit_spoiled,
    copper_gold,
    found_causes,
    moved,
    sound_sets,
    spoilings,
    write_frames,
)

ROOT = Path(__file__).parents[1]
NO_CELL = {"cell": np.zeros((3, 3)), "pbc": np.zeros(3, dtype=bool)}


@pytest.fixture(scope="module")
def sets():
    return sound_sets()


def causes(findings: Sequence[Finding], severity: str | None = None) -> set[str]:
    return {f.cause for f in findings if severity is None or f.severity == severity}


# --- spoiled and sound sets


@pytest.mark.parametrize("number", range(20))
def test_spoiled_silicon_is_named(sets, number, tmp_path):
    spoiling = spoilings("silicon")[number]
    audit = audit_spoiled(sets["silicon"], spoiling, tmp_path)
    assert set(spoiling.causes) <= set(found_causes(audit)), (spoiling.name, str(audit))


@pytest.mark.slow
def test_57_of_60_spoiled_sets_are_named(sets, tmp_path):
    missed, n_spoiled = [], 0
    for name, files in sets.items():
        for spoiling in spoilings(name):
            found = found_causes(audit_spoiled(files, spoiling, tmp_path))
            n_spoiled += 1
            if not set(spoiling.causes) <= set(found):
                missed.append((name, spoiling.name, found))
    assert n_spoiled == 60
    assert len(missed) <= 3, missed


@pytest.mark.parametrize("name", ["ethanol", "silicon", "alloy"])
def test_bundled_sets_have_no_error(sets, name):
    audit = audit_frames(sets[name])
    assert not audit.has_errors, str(audit)
    assert not audit.warnings, str(audit)


@pytest.mark.slow
def test_sound_data_sets_have_no_false_error(request, tmp_path):
    """A folder of data sets, one each in a folder, files `*train*` and others (extended XYZ).

    Overlap is allowed if copies have the energy of the original: then it is no false error.
    """
    folder = request.config.getoption("--datasets") or os.environ.get("EQPOT_DATASETS")
    if not folder:
        pytest.skip("give a folder of sound data sets with --datasets")
    false, n_sets = [], 0
    for name, paths in data_sets(Path(folder)):
        frames = {path.name.split(".")[0]: list(read(path)) for path in paths}
        roles = {f"train {k}" if "train" in k else f"test {k}": v for k, v in frames.items()}
        audit = audit_frames(roles)
        n_sets += 1
        shared = [f for f in audit.errors if f.cause == "overlap"]
        false += [(name, str(f)) for f in audit.errors if f.cause != "overlap"]
        false += [(name, str(f)) for f in shared if not confirmed(roles, f)]
    assert n_sets >= 1
    assert not false, "\n".join(f"{name}: {text}" for name, text in false)


def data_sets(folder: Path) -> list[tuple[str, list[Path]]]:
    found = []
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        files = sorted(p for p in place.iterdir() if ".xyz" in p.name or ".extxyz" in p.name)
        files = [p for p in files if "isolated" not in p.name]
        systems = sorted({p.name.split("_")[0] for p in files})
        if len(systems) > 2 and all(any("train" in p.name for p in files) for _ in systems):
            of_system = {s: [p for p in files if p.name.startswith(f"{s}_")] for s in systems}
            if all(any("train" in p.name for p in ps) for ps in of_system.values()):
                # several systems in one folder; of several random splits the first
                for system, paths in of_system.items():
                    first = [p for p in paths if "_0" not in p.name or "_01" in p.name]
                    found.append((f"{place.name}/{system}", first))
                continue
        found.append((place.name, files))
    return [(name, files) for name, files in found if files]


def read(path: Path) -> list[Frame]:
    return read_frames(path, require_labels=False).frames


def confirmed(sets: dict[str, list[Frame]], finding: Finding) -> bool:
    """Whether a named frame has, in the other set, one of the same atoms with the same energy."""
    by_source = {f.source: f for frames in sets.values() for f in frames}
    for source in finding.frames[:3]:
        frame = by_source[source]
        others = [f for name in finding.sets for f in sets[name] if f is not frame]
        if not any(
            len(f) == len(frame)
            and f.energy is not None
            and frame.energy is not None
            and abs(f.energy - frame.energy) < 2e-3 * len(frame)
            for f in others
        ):
            return False
    return True


# --- the quick potential


@pytest.mark.parametrize("name", ["ethanol", "alloy"])
def test_linear_model_forces_and_strain_are_derivatives_of_its_energy(sets, name):
    frame = next(f for f in sets[name]["train"] if len(f) > 1)
    model = LinearModel([frame])
    response = model.respond(frame)
    step = 1e-4
    for atom, axis in ((1, 0), (4, 2)):
        energies = []
        for sign in (1.0, -1.0):
            positions = np.array(frame.positions)
            positions[atom, axis] += sign * step
            energies.append(model.respond(replace(frame, positions=positions)).energy)
        expected = -(energies[0] - energies[1]) / (2 * step)
        np.testing.assert_allclose(response.forces[atom, axis], expected, rtol=2e-5, atol=2e-6)
    energies = []
    for sign in (1.0, -1.0):
        strain = np.eye(3)
        strain[0, 1] += sign * step
        strained = replace(frame, positions=frame.positions @ strain.T, cell=frame.cell @ strain.T)
        energies.append(model.respond(strained).energy)
    expected = (energies[0] - energies[1]) / (2 * step)
    np.testing.assert_allclose(response.strain[0, 1], expected, rtol=2e-5, atol=2e-5)


def test_fit_of_forces_foretells_energies_and_stress_of_the_alloy(sets):
    frames = sets["alloy"]["train"]
    fit = fit_forces(frames)
    assert fit.explained[AS_READ] > 0.9
    # copper and gold: elastic constants and phonons put it at some eV/Å²
    assert 2.0 < fit.stiffness < 30.0
    stress = np.array([f.stress[0, 1] * abs(np.linalg.det(f.cell)) for f in fit.frames])
    assert np.corrcoef(stress, fit.strain[:, 0, 1])[0, 1] > 0.8


# --- work along displacements


def springs(n_frames: int, seed: int = 0) -> list[Frame]:
    """Five atoms tied to places by springs: an energy exactly quadratic, turned at random."""
    generator = np.random.default_rng(seed)
    places = generator.normal(scale=2.0, size=(5, 3))
    stiffness = generator.normal(size=(15, 15))
    stiffness = stiffness @ stiffness.T + 5.0 * np.eye(15)
    # neither shifts nor turns cost energy to first order, as in a molecule
    generators = [np.tile(axis, 5) for axis in np.eye(3)]
    generators += [np.cross(axis, places - places.mean(axis=0)).ravel() for axis in np.eye(3)]
    basis = np.linalg.qr(np.array(generators).T)[0]
    project = np.eye(15) - basis @ basis.T
    stiffness = project @ stiffness @ project
    frames = []
    for k in range(n_frames):
        shift = project @ generator.normal(scale=0.005, size=15)
        force = -(stiffness @ shift)
        frame = Frame(
            np.array([1, 6, 7, 8, 9]),
            places + shift.reshape(5, 3),
            energy=0.5 * shift @ stiffness @ shift,
            forces=force.reshape(5, 3),
        )
        turn = np.linalg.qr(np.random.default_rng(k).normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        frames.append(
            replace(frame, positions=frame.positions @ turn + k, forces=frame.forces @ turn)
        )
    return frames


def test_work_between_turned_frames_of_a_quadratic_surface_is_exact():
    pairs = pair_up(springs(30))
    # what is left is the third order of the alignment
    np.testing.assert_allclose(pairs.work, pairs.energy, rtol=0.02, atol=1e-6)
    ratio = work_along_pairs(pairs, np.ones(30))
    assert ratio.value == pytest.approx(1.0, abs=0.01)
    assert pairs.curvature.min() > 0.0


def turned(frame: Frame, seed: int) -> Frame:
    turn = Rotation.random(random_state=seed).as_matrix()
    return replace(
        frame,
        positions=frame.positions @ turn,
        cell=frame.cell @ turn,
        forces=frame.forces @ turn,
        stress=turn.T @ frame.stress @ turn,
    )


def test_stress_makes_up_for_the_work_between_strained_cells():
    frames = copper_gold(60, rattle=0.02)
    for k in range(0, 60, 3):
        frames[k] = turned(frames[k], k)
    pairs = pair_up(frames)
    strain_work = np.einsum("pab,pab->p", pairs.mean_virial, pairs.strain)
    assert len(pairs.first) > 50
    # the third order is left; without the stress most of the difference would be
    left = np.std(pairs.energy - pairs.work - strain_work)
    assert left < 0.1 * np.std(pairs.energy - pairs.work)


# --- readings


def evidence(**ratios) -> Evidence:
    names = ("work", "work_per_atom", "stiffness", "nearest", "total", "total_per_atom")
    chosen = {name: ratios.get(name) for name in names}
    return Evidence(**chosen, agreement=np.nan, n_agreement=0)


def best(**ratios) -> list[str]:
    return rank(evidence(**ratios))[0][1].causes()


STIFF = Ratio(20.0, 0.3, 100, "")
NEAR = Ratio(1.0, 0.0, 100, "")


@pytest.mark.parametrize("value", [0.75, 1.0, 1.3])
def test_a_ratio_near_no_factor_accuses_nobody(value):
    assert best(work=Ratio(value, 0.1, 100, ""), stiffness=STIFF, nearest=NEAR) == []


def test_readings_follow_from_ratios():
    # ratios that each mistake gives, from the definitions of the units
    kcal = Ratio(1.0 / KCAL_PER_MOL, 0.05, 100, "")
    assert best(work=kcal, stiffness=STIFF, nearest=NEAR) == ["units.energy.kcal_per_mol"]
    soft = Ratio(20.0 / 25.7, 0.3, 100, "")
    ry = Ratio(25.7, 0.05, 100, "")
    assert best(work=ry, stiffness=soft, nearest=NEAR) == ["units.forces.rydberg_per_bohr"]
    one = Ratio(1.0, 0.05, 100, "")
    kcal_total = Ratio(1.0 / KCAL_PER_MOL, 0.02, 100, "")
    stiff = Ratio(20.0 / KCAL_PER_MOL, 0.3, 100, "")
    assert best(work=one, stiffness=stiff, nearest=NEAR, total=kcal_total) == [
        "units.energy.kcal_per_mol",
        "units.forces.kcal_per_mol_per_angstrom",
    ]
    down = Ratio(-20.0, 0.3, 100, "")
    against = Ratio(-1.0, 0.05, 100, "")
    assert best(work=against, stiffness=down, nearest=NEAR) == ["sign.forces"]
    assert best(work=against, stiffness=STIFF, nearest=NEAR) == ["sign.energy"]


def test_a_stress_accuses_no_energies_that_are_the_work_of_the_forces():
    # a metal 23 times softer than copper, as caesium is, with a stress in kbar
    soft = KCAL_PER_MOL
    frames = [
        replace(
            f, energy=f.energy * soft, forces=f.forces * soft, stress=f.stress * soft * 10.0 / GPA
        )
        for f in copper_gold(60)
    ]
    for metals in ((29, 79), (3, 12)):
        audit = audit_frames(
            {
                "train": [
                    replace(f, atomic_numbers=np.where(f.atomic_numbers == 29, *metals))
                    for f in frames
                ]
            }
        )
        assert causes(audit.errors) == {"units.stress.kbar"}, str(audit)


def test_the_stiffness_of_soft_metals_is_expected():
    lithium, steel = np.array([3] * 8), np.array([26] * 8)
    salt = np.array([19, 17] * 4)
    positions = np.arange(24.0).reshape(8, 3)
    medians = [
        gather([Frame(z, positions)], pair_up([]), None, np.zeros(0)).expected_stiffness[0]
        for z in (lithium, salt, steel)
    ]
    # means of the squared frequencies of phonons, times the mass: 1.2, 2.5 and 10 eV/Å²
    np.testing.assert_allclose(np.log(medians), np.log([1.2, 2.5, 10.0]), atol=0.7)


def test_what_changes_energies_and_forces_alike_is_no_error():
    for reading, keeps in (
        (Reading("kcal_per_mol", "kcal_per_mol"), True),
        (Reading(energy_sign=-1, force_sign=-1), True),
        (Reading("kcal_per_mol"), False),
        (Reading("hartree", "hartree", "bohr"), False),
        (Reading("hartree", "hartree", "bohr", "bohr"), False),
    ):
        assert reading.keeps_work is keeps
    change = {"energy": 1.0 / HARTREE, "forces": 1.0 / HARTREE}
    frames = [
        replace(f, **{name: getattr(f, name) * factor for name, factor in change.items()})
        for f in copper_gold(60)
    ]
    findings = audit_frames({"train": frames}).findings
    assert {"units.energy.hartree", "units.energy.rydberg"} & causes(findings, "warning")
    assert not any(cause.startswith("units.energy") for cause in causes(findings, "error"))


@pytest.mark.parametrize(
    ("times", "unit"), [(1.0 / KCAL_PER_MOL, "kcal/mol"), (1.0 / KJ_PER_MOL, "kJ/mol"), (9e4, None)]
)
def test_labels_all_in_one_unit_are_told_by_their_stiffness(times, unit):
    frames = [
        replace(f, energy=f.energy * times, forces=f.forces * times, stress=None)
        for f in copper_gold(60)
    ]
    (found,) = (f for f in audit_frames({"train": frames}).findings if f.check == "units")
    assert found.severity == "warning" and found.cause == "units.stiffness"
    assert (f"`units: {{energy: {unit}}}` under `data`" in found.remedy) == (unit is not None)


@pytest.mark.parametrize(
    ("name", "length", "stress"),
    [
        ("ethanol", 1.0, None),
        ("ethanol", BOHR, None),
        ("silicon", 1.0, "Hartree/Bohr³"),
        ("silicon", BOHR, "Hartree/Bohr³"),
        ("silicon", 1.0, "eV/Å³"),
        ("silicon", BOHR, "eV/Å³"),
        ("silicon", 1.0, "virial"),
    ],
)
def test_the_remedy_for_units_mends_all_of_them(sets, tmp_path, name, length, stress):
    """A set in Hartree and Hartree/Bohr, with lengths in Å or Bohr, is as it was when told so."""
    path = tmp_path / "atomic_units.extxyz"
    frames = [frame for frame in sets[name]["train"] if not frame.is_isolated_atom]
    images = []
    for frame in frames:
        atoms = Atoms(frame.atomic_numbers, frame.positions / length, pbc=frame.pbc)
        atoms.info["energy"] = frame.energy / HARTREE
        atoms.arrays["forces"] = frame.forces * BOHR / HARTREE
        if stress:
            atoms.cell = frame.cell / length
            unit = 1.0 if stress == "eV/Å³" else HARTREE / BOHR**3
            atoms.info["stress"] = frame.stress / unit
        if stress == "virial":
            del atoms.info["stress"]
            atoms.info["virial"] = -frame.stress * abs(np.linalg.det(frame.cell))  # eV
        images.append(atoms)
    ase.io.write(path, images)
    findings = audit_files({"train": [path]}).findings
    remedies = {f.remedy for f in findings if f.cause.startswith("units.")}
    assert len(remedies) == 1, remedies
    option = remedies.pop().partition("--units ")[2].partition("`")[0]
    assert ("length" in option) == (length != 1.0)
    mended = read_frames(path, units=parse_units([option])).frames
    for known, read in zip(frames, mended, strict=True):
        for label in ("energy", "positions", "forces") + (("stress",) if stress else ()):
            expected = getattr(known, label)
            assert getattr(read, label) == pytest.approx(expected, rel=1e-6, abs=1e-5)


def test_all_electron_energies_are_those_of_atoms():
    # Hartree-Fock energies of Clementi and Roetti (1974), in Hartree
    for z, energy in ((6, -37.6886), (8, -74.8094), (18, -526.8175)):
        assert all_electron_energy(np.array([z])) / HARTREE == pytest.approx(energy, rel=0.02)


# --- duplicates, overlap, two labels


def test_a_structure_turned_moved_renumbered_or_mirrored_is_the_same(sets):
    for name in ("ethanol", "silicon", "alloy"):
        frame = next(f for f in sets[name]["train"] if len(f) > 4 and f.forces.any())
        assert same_structure(frame, moved(frame, 3))
        mirror = np.diag([1.0, 1.0, -1.0])
        mirrored = replace(frame, positions=frame.positions @ mirror, cell=frame.cell @ mirror)
        assert same_structure(frame, mirrored)
        positions = np.array(frame.positions)
        positions[2] += 0.003
        assert not same_structure(frame, replace(frame, positions=positions))


def test_every_duplicate_is_found_and_overlap_is_an_error(sets):
    frames = sets["alloy"]["train"][:30]
    copies = [moved(frames[k], k) for k in (3, 8, 21)]
    audit = audit_frames({"train": [*frames[:20], *copies], "test": frames[20:]})
    repeated = next(f for f in audit.findings if f.cause == "duplicates")
    assert (repeated.severity, repeated.n_frames) == ("warning", 2)
    overlap = next(f for f in audit.findings if f.cause == "overlap")
    assert (overlap.severity, overlap.n_frames, overlap.sets) == ("error", 1, ("train", "test"))
    assert audit.has_errors
    between_tests = audit_frames({"test a": frames[:20], "test b": frames[10:]})
    assert causes(between_tests.findings, "error") == set()
    assert "overlap" in causes(between_tests.findings, "warning")


def test_labels_of_one_structure_are_compared(sets):
    frame = sets["silicon"]["train"][40]
    assert label_difference(frame, moved(frame, 1)) is None
    assert "energies" in label_difference(frame, replace(frame, energy=frame.energy + 0.1))[1]
    assert "forces" in label_difference(frame, replace(frame, forces=frame.forces * 1.2))[1]
    assert "stresses" in label_difference(frame, replace(frame, stress=frame.stress + 0.01))[1]


# --- single checks


def diamond(rattle: float, seed: int = 0) -> Frame:
    atoms = bulk("Si", cubic=True)
    atoms.positions += np.random.default_rng(seed).normal(scale=rattle, size=(8, 3))
    return Frame(atoms.numbers, atoms.positions, cell=atoms.cell[:], pbc=atoms.pbc)


def test_zero_forces_are_right_on_symmetric_sites_and_wrong_elsewhere():
    assert site_pull(diamond(0.0)).max() < 1e-10
    perfect = [replace(diamond(0.0), forces=np.zeros((8, 3)), energy=0.0) for _ in range(6)]
    assert check_forces(scan("s", perfect), perfect, None) == []
    forces = np.random.default_rng(0).normal(size=(8, 3))
    forces[:3] = 0.0
    held = [replace(diamond(0.05, k), forces=forces, energy=0.0) for k in range(6)]
    (finding,) = check_forces(scan("s", held), held, None)
    assert (finding.cause, finding.n_frames) == ("forces.zeroed", 6)
    none = [replace(frame, forces=np.zeros((8, 3))) for frame in held]
    assert causes(check_forces(scan("s", none), none, None)) == {"forces.all_zero"}


def test_net_forces_and_torques_are_named(sets):
    frames = [f for f in sets["ethanol"]["test"] if len(f) > 1][:10]
    pushed = [replace(f, forces=f.forces + np.array([1.0, 0.0, 0.0])) for f in frames]
    assert "forces.net_force" in causes(check_forces(scan("s", pushed), pushed, None))
    turning = [
        replace(f, forces=f.forces + np.cross([0, 0, 1.0], f.positions - f.positions.mean(0)))
        for f in frames
    ]
    assert causes(check_forces(scan("s", turning), turning, None)) == {"forces.torque"}


def test_energies_of_a_sum_over_elements_leave_nothing():
    generator = np.random.default_rng(0)
    frames = []
    for _ in range(40):
        numbers = generator.choice([1, 6, 8], size=6)
        energy = float(sum({1: -13.6, 6: -1030.0, 8: -2040.0}[z] for z in numbers.tolist()))
        frames.append(Frame(numbers, generator.normal(scale=3.0, size=(6, 3)), energy=energy))
    result = scan("s", frames)
    fit = fit_composition(result)
    np.testing.assert_allclose(fit.energies, [-13.6, -1030.0, -2040.0], rtol=1e-9)
    np.testing.assert_allclose(fit.residual, 0.0, atol=1e-7)
    assert fit.rank == 3
    assert check_rank(result, fit) == []
    single = scan("s", [f for f in frames if (f.atomic_numbers == frames[0].atomic_numbers).all()])
    assert causes(check_rank(single, fit_composition(single))) == {"composition.rank"}


def test_what_lies_far_off_or_too_close_is_named_with_its_frame(sets):
    frames = list(sets["alloy"]["train"])
    frames[7] = replace(frames[7], energy=frames[7].energy + 60.0)
    positions = np.array(frames[9].positions)
    positions[1] = positions[0] + [0.1, 0.0, 0.0]
    frames[9] = replace(frames[9], positions=positions)
    frames[11] = replace(frames[11], forces=frames[11].forces * 300.0)
    found = {f.cause: f for f in audit_frames({"train": frames}).findings}
    assert found["outliers.energy"].frames == ("alloy, frame 7",)
    assert found["distances.too_close"].frames == ("alloy, frame 9",)
    assert found["distances.too_close"].severity == "error"
    assert found["outliers.forces"].frames == ("alloy, frame 11",)


def test_labels_that_are_absent_unread_or_constant_are_named(sets):
    frames = sets["alloy"]["train"][:20]
    bare = [replace(f, forces=None, stress=None) for f in frames]
    report = LabelReport(unlabelled_keys={"dft_f", "my_virial", "note"})
    for frame in bare:
        report.add(frame)
    found = causes(audit_frames({"train": bare}, reports={"train": report}).findings)
    assert {"labels.unread.forces", "labels.unread.stress"} <= found
    assert "labels.absent.forces" in causes(audit_frames({"train": bare}).findings)
    same = [replace(f, energy=0.0, stress=np.zeros((3, 3))) for f in frames]
    assert {"energy.constant", "stress.constant"} <= causes(
        audit_frames({"train": same}).findings, "error"
    )


def test_a_label_under_two_names_in_one_file_is_named(tmp_path):
    path = tmp_path / "train.extxyz"
    frames = copper_gold(40)
    write_frames(path, frames[:20])
    write_frames(tmp_path / "other.extxyz", frames[20:], energy_key="my_energy")
    path.write_text(path.read_text() + (tmp_path / "other.extxyz").read_text())
    audit = audit_files({"train": [path]})
    (finding,) = [f for f in audit.warnings if f.cause == "labels.unread.energy"]
    assert "only 20 of 40 frames have energy" in finding.message
    assert "`my_energy`" in finding.message
    assert finding.n_frames == 20


def test_copies_of_one_frame_may_have_one_energy(sets):
    frame = next(f for f in sets["silicon"]["train"] if len(f) > 1 and f.forces.any())
    copies = [replace(moved(frame, k), stress=np.zeros((3, 3))) for k in range(8)]
    assert not causes(audit_frames({"train": copies}).findings) & {
        "energy.constant",
        "stress.constant",
    }


# --- labels that do not belong together


def permuted(files: list[Frame], label: str) -> list[Frame]:
    """Give each frame a label of another with the same atoms."""
    generator = np.random.default_rng(1)
    groups: dict[bytes, list[int]] = {}
    for k, frame in enumerate(files):
        groups.setdefault(frame.atomic_numbers.tobytes(), []).append(k)
    result = list(files)
    for group in groups.values():
        for k, other in zip(group, generator.permutation(group), strict=True):
            result[k] = replace(files[k], **{label: getattr(files[other], label)})
    return result


@pytest.mark.parametrize("name", ["silicon", "alloy"])
def test_energies_of_other_frames_are_named_and_no_unit(sets, name):
    findings = audit_frames({"train": permuted(sets[name]["train"], "energy")}).findings
    assert "energy.unrelated" in causes(findings)
    assert not any(cause.startswith("units.") for cause in causes(findings, "error"))


@pytest.mark.parametrize("name", ["alloy", "ethanol"])
def test_forces_of_another_step_are_named_and_no_unit(sets, name):
    audit = audit_frames({"train": permuted(sets[name]["train"][:100], "forces")})
    assert "forces.unrelated" in causes(audit.warnings)
    assert not audit.has_errors
    note = next(f for f in audit.findings if f.cause == "units.unchecked")
    assert "too few" not in note.message


def test_a_clear_ratio_far_from_every_unit_is_named(sets):
    frames = [replace(f, forces=2.0 * f.forces) for f in sets["alloy"]["train"]]
    audit = audit_frames({"train": frames})
    assert causes(audit.warnings) == {"energy.work_ratio"}, str(audit)
    assert not audit.has_errors


@pytest.mark.parametrize("name", ["silicon", "alloy"])
def test_a_component_that_is_zero_everywhere_is_named_and_no_unit(sets, name):
    frames = [
        f if f.forces is None else replace(f, forces=f.forces * np.array([1.0, 1.0, 0.0]))
        for f in sets[name]["train"]
    ]
    audit = audit_frames({"train": frames})
    assert causes(audit.errors) == {"forces.component_zero"}, str(audit)
    assert "the z component" in audit.errors[0].message
    flat = [replace(f, positions=f.positions * [1.0, 1.0, 0.0], **NO_CELL) for f in frames[:8]]
    assert "forces.component_zero" not in causes(audit_frames({"train": flat}).findings)


def test_what_was_checked_in_vain_is_not_called_unchecked(sets):
    frames = sets["ethanol"]["train"][:80]
    generator = np.random.default_rng(0)
    # half of the frames of another state, some 20 eV higher: no ratio is clear, none is wrong
    mixed = [replace(f, energy=f.energy + 20.0 * generator.integers(2)) for f in frames]
    few = audit_frames({"train": frames[:3]}).findings
    findings = audit_frames({"train": mixed}).findings
    assert "units.unchecked" in causes(few)
    assert "units.unchecked" not in causes(findings)
    assert {"units.unclear", "energy.unrelated"} & causes(findings)


# --- size and shape


class Made(Sequence):
    """Frames made when asked for; counts how many live at once."""

    def __init__(self, n_frames: int) -> None:
        self.n_frames = n_frames
        self.alive: weakref.WeakSet[Frame] = weakref.WeakSet()
        self.most = 0

    def __len__(self) -> int:
        return self.n_frames

    def __getitem__(self, index: int) -> Frame:
        if index >= self.n_frames:
            raise IndexError(index)
        generator = np.random.default_rng(index)
        frame = Frame(
            np.array([8, 1, 1]),
            np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
            + generator.normal(scale=0.03, size=(3, 3)),
            energy=float(generator.normal()),
        )
        self.alive.add(frame)
        self.most = max(self.most, len(self.alive))
        return frame


def test_frames_are_not_held():
    frames = Made(2000)
    audit = audit_frames({"train": frames}, sample=50)
    assert frames.most <= 60
    assert audit.sets["train"]["n_sampled"] == 50
    (note,) = [f for f in audit.findings if f.cause == "sampled"]
    assert "50 of 2000" in note.message


def test_an_audit_is_strict_json_of_a_known_shape(sets):
    audit = audit_frames({"train": sets["silicon"]["train"], "test": sets["silicon"]["test"]})
    read_back = json.loads(json.dumps(audit.as_dict(), allow_nan=False))
    table = read_back["sets"]["train"]
    assert table["labels"] == {"energy": 124, "forces": 124, "stress": 123}
    assert table["elements"]["Si"]["n_frames"] == 124
    assert table["config_types"]["diamond"]["n_frames"] == 48
    assert table["config_types"]["diamond"]["energy_spread"] > 0.0
    keys = {"severity", "check", "cause", "message", "remedy", "sets", "n_frames", "frames"}
    for finding in read_back["findings"]:
        assert set(finding) == keys
    assert "diamond_cubic" in str(audit)


def test_the_screen_tells_one_cause_once_and_json_all():
    def finding(severity, name, message, frames=()):
        return Finding(
            severity, "c", "some.cause", f"{name}: {message}", "mend it", (name,), 5, tuple(frames)
        )

    repeated = [
        finding("warning", "train", "2 frames", ["/a/b/Li_train.xyz, frame 223"]),
        finding(
            "warning",
            "test",
            "5 frames",
            [f"/a/b/Li_test.xyz, frame {k}" for k in (1, 4, 9, 12, 13)],
        ),
    ]
    notes = [finding("note", name, "nothing to see") for name in ("train", "validation", "a.xyz")]
    audit = Audit([*repeated, *notes], {})
    assert str(audit).splitlines() == [
        "warning: train, test: 2 frames (numbers of train) [some.cause]",
        "  do: mend it",
        "  in: frame 223 of Li_train.xyz and 4 more",
        "  in: frames 1, 4, 9 of Li_test.xyz and 2 more",
        "note: train, validation, a.xyz: nothing to see [some.cause]",
        "audit: 2 warnings, 3 notes",
    ]
    assert len(audit.as_dict()["findings"]) == 5
    assert audit.as_dict()["findings"][4]["remedy"] == "mend it"
    both = short_sources(["/a/train.xyz, frame 1", "/b/train.xyz, frame 2", "made here"], 3)
    assert both == "made here, frame 1 of /a/train.xyz, frame 2 of /b/train.xyz"


def test_an_audit_needs_frames():
    with pytest.raises(ValueError, match="at least one set"):
        audit_frames({})
    with pytest.raises(ValueError, match="test: there is no frame"):
        audit_frames({"test": []})
    with pytest.raises(ValueError, match="at least one file"):
        audit_files({"train": []})


# --- files and the command


@pytest.mark.parametrize("packed", [False, True])
def test_refused_frames_are_named_and_the_rest_is_read(tmp_path, packed):
    path = tmp_path / "train.extxyz"
    frames = copper_gold(12)
    write_frames(path, frames)
    lines = path.read_text().splitlines()
    for frame in (3, 8):
        row = frame * 18 + 2
        lines[row] = " ".join([*lines[row].split()[:-1], "nan"])
    path.write_text("\n".join(lines) + "\n")
    if packed:
        with path.open("rb") as plain, lzma.open(f"{path}.xz", "wb") as stream:
            shutil.copyfileobj(plain, stream)
        path = path.with_name("train.extxyz.xz")
    audit = audit_files({"train": [path]})
    (finding,) = [f for f in audit.findings if f.cause == "labels.not_finite"]
    assert finding.severity == "error"
    assert finding.frames == (f"{path}, frame 3", f"{path}, frame 8")
    assert audit.sets["train"]["n_frames"] == 10


@pytest.mark.parametrize(
    ("count", "n_read", "place"),
    [
        # with 17 of 16 atoms the next count is read as an atom; with 15 the last atom is left over
        ("17", 39, "frame 5 (line 91)"),
        ("15", 40, "frame 6 (line 108)"),
        ("1000000000", 39, "frame 5 (line 91)"),
        ("9" * 5000, 39, "frame 5 (line 91)"),
        ("sixteen", 39, "frame 5 (line 91)"),
    ],
)
def test_a_wrong_count_costs_one_frame_and_is_told(tmp_path, count, n_read, place):
    path = tmp_path / "train.extxyz"
    frames = copper_gold(40)
    write_frames(path, frames)
    lines = path.read_text().splitlines()
    lines[5 * 18] = count
    path.write_text("\n".join(lines) + "\n")
    report = LabelReport()
    items = list(frames_and_refusals(path, report, {}))
    read_again = [item for item in items if isinstance(item, Frame)]
    assert len(read_again) == n_read
    (message,) = [item for item in items if isinstance(item, str)]
    assert message.startswith(f"{path}, {place}: ")
    last = read_again[-1]
    np.testing.assert_allclose(last.positions, frames[-1].positions, atol=1e-6)
    assert last.source == f"{path}, frame 39"
    assert report.counts.n_frames == n_read
    audit = audit_files({"train": [path]})
    (finding,) = [f for f in audit.errors if f.cause == "file.damaged"]
    assert finding.n_frames == 1


def test_what_is_not_read_of_a_file_is_told(tmp_path):
    path = tmp_path / "train.extxyz"
    write_frames(path, copper_gold(4))
    whole = path.read_text()
    path.write_text(whole[: len(whole) - 200])
    messages = [
        item for item in frames_and_refusals(path, LabelReport(), {}) if isinstance(item, str)
    ]
    (message,) = messages
    assert message.startswith(f"{path}, frame 3 (line 55): ")
    packed = tmp_path / "train.extxyz.gz"
    packed.write_bytes(gzip.compress(whole.encode())[:-300])
    items = list(frames_and_refusals(packed, LabelReport(), {}))
    assert isinstance(items[-1], str)
    assert "nothing after it was read" in items[-1]
    bad = "1\nProperties=species:S:1:pos:R:3 energy=nan\nH 0 0 0\n"
    path.write_text(bad * (MOST_REFUSED + 5))
    items = list(frames_and_refusals(path, LabelReport(), {}))
    assert len(items) == MOST_REFUSED + 1
    assert "the rest of the file was not read" in items[-1]


def test_an_audit_of_files_holds_few_frames(tmp_path, monkeypatch):
    path = tmp_path / "train.extxyz"
    with path.open("w") as file:
        for k in range(2000):
            file.write(
                '2\nProperties=species:S:1:pos:R:3 energy=-31.0 pbc="F F F"\n'
                f"H 0 0 0\nH 0 0 {0.7 + 1e-4 * k}\n"
            )
    alive: weakref.WeakSet[Frame] = weakref.WeakSet()
    most = 0
    plain = Frame.__post_init__

    def counted(self):
        nonlocal most
        plain(self)
        alive.add(self)
        most = max(most, len(alive))

    monkeypatch.setattr(Frame, "__post_init__", counted)
    monkeypatch.setattr("eqpot.data.store.writing._BUFFER_BYTES", 2**12)
    audit = audit_files({"train": [path]}, sample=50)
    assert audit.sets["train"]["n_frames"] == 2000
    # the store is read in portions of up to 1000
    assert most < 1500


def command() -> typer.Typer:
    app = typer.Typer()
    app.command("audit")(audit_command)
    return app


def test_command_exits_with_1_on_errors_and_writes_json(tmp_path):
    run = CliRunner().invoke
    train = str(ROOT / "data/silicon/train.extxyz")
    test = str(ROOT / "data/silicon/test.extxyz")
    json_file = tmp_path / "audit.json"
    sound = run(command(), [train, "--test", test, "--json", str(json_file)])
    assert sound.exit_code == 0, sound.output
    assert "diamond_cubic" in sound.output
    assert set(json.loads(json_file.read_text())["sets"]) == {"train", "test"}
    overlap = run(command(), [train, "--validation", train])
    assert overlap.exit_code == 1
    assert "overlap" in overlap.output
    wrong = run(command(), [train, "--units", "forces=Hartree/Bohr"])
    assert wrong.exit_code == 1, wrong.output


def test_command_reads_files_with_the_options_of_convert(tmp_path):
    frames = copper_gold(12)
    np.savez(
        tmp_path / "set.npz",
        my_z=np.array([f.atomic_numbers for f in frames]),
        my_r=np.array([f.positions for f in frames]) / BOHR,
        my_cell=np.array([f.cell for f in frames]) / BOHR,
        E=np.array([f.energy for f in frames]) / KCAL_PER_MOL,
        F=np.array([f.forces for f in frames]) / KCAL_PER_MOL * BOHR,
        run=np.arange(12) // 3,
    )
    json_file = tmp_path / "audit.json"
    names = {"energy": "E", "forces": "F", "atomic-numbers": "my_z", "positions": "my_r"}
    names |= {"cell": "my_cell", "group": "run"}
    options = [text for name, value in names.items() for text in (f"--{name}-key", value)]
    units = "energy=kcal/mol,length=Bohr"
    result = CliRunner().invoke(
        command(),
        [str(tmp_path / "set.npz"), *options, "--units", units, "--json", str(json_file)],
    )
    assert result.exit_code == 0, (result.output, result.exception)
    table = json.loads(json_file.read_text())["sets"]["train"]
    assert table["labels"]["forces"] == 12
    closest = scan("s", frames).closest.min()
    assert table["closest_contact"] == pytest.approx(closest, rel=1e-6)
    wrong = CliRunner().invoke(command(), [str(tmp_path / "set.npz"), "--units", "kcal/mol"])
    assert isinstance(wrong.exception, ValueError)


@pytest.mark.parametrize("factor", [1 / HARTREE, 1 / KCAL_PER_MOL])
def test_labels_that_are_all_in_one_foreign_unit_are_suspected(sets, factor):
    """They agree with each other; only the stiffness of the atoms is not of this world."""
    frames = [
        replace(
            f,
            energy=None if f.energy is None else f.energy * factor,
            forces=None if f.forces is None else f.forces * factor,
            stress=None if f.stress is None else f.stress * factor,
        )
        for f in sets["silicon"]["train"]
    ]
    found = audit_frames({"train": frames}).findings
    assert {f.severity for f in found if f.check == "units"} == {"warning"}
