"""Laws of data: what is read, stored and batched is what the file says, or an error names why not.

Numbers must survive reading, storing and batching to the last bit; labels are found by name and
counted; every damaged or ambiguous file is refused with a message that says where and what to do.
"""

import gzip
import json
import lzma
import multiprocessing
import os
import pickle
import re
import stat
import textwrap
import zipfile
from pathlib import Path

import ase.db
import ase.io
import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from hypothesis import given
from hypothesis import strategies as st

from eqpot import keys, units
from eqpot.data import (
    Frame,
    FrameStore,
    GraphDataset,
    collate,
    count_labels,
    frame_to_graph,
    iter_frames,
    read_frames,
    split_frames,
    write_store,
)
from eqpot.data.audit import audit_files
from eqpot.data.declared_units import unit_factors
from eqpot.data.extxyz_writing import write_extxyz
from eqpot.data.neighbors import neighbor_list
from eqpot.elements import SYMBOLS
from eqpot.graph import check_graph
from eqpot.physics.reference_energies import reference_energies
from strategies import ordinary_set, structures

CELL = np.array([[5.1, 0.2, 0.0], [-1.0, 4.7, 0.3], [0.4, 0.1, 6.0]])
STRESS = np.array([[0.010, 0.002, -0.003], [0.002, -0.020, 0.004], [-0.003, 0.004, 0.030]])


def frame_of(atoms, seed=0, **changes):
    rng = np.random.default_rng(seed)
    labels = {"energy": -17617.38760091234, "forces": rng.normal(size=(len(atoms), 3))}
    if atoms.pbc.all():
        labels["stress"] = STRESS
    given_ = {
        "atomic_numbers": atoms.numbers,
        "positions": atoms.positions,
        "cell": atoms.cell[:],
        "pbc": atoms.pbc,
        **labels,
        **changes,
    }
    return Frame(**given_)


def some_frames():
    frames = [
        frame_of(atoms, seed, config_type=name, weight=1.0 + seed, source=f"set.xyz, frame {seed}")
        for seed, (name, atoms) in enumerate(ordinary_set().items())
    ]
    bare = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
    weighted = frame_of(bare, forces=None, atom_weights=[0.0, 2.5])
    return [*frames, frame_of(bare, energy=None), weighted]


def assert_same_frame(one, other):
    for name in ("atomic_numbers", "positions", "cell", "pbc", "forces", "stress", "atom_weights"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    for name in ("energy", "config_type", "weight", "source"):
        assert getattr(one, name) == getattr(other, name)


def written(tmp_path, text, name="train.xyz"):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text).lstrip())
    return path


def extxyz(tmp_path, header, *, atom="Si 0 0 0", name="train.xyz"):
    return written(tmp_path, f"1\n{header}\n{atom}\n", name)


FILES = Path(__file__).parent / "files"
SILICON = Path(__file__).parents[1] / "data" / "silicon" / "train.extxyz"
LATTICE = 'Lattice="4 0 0 0 4 0 0 0 4"'


# --- frames


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atomic_numbers": np.array([1, 0])}, "atom 1 has atomic number 0.*virtual sites"),
        ({"atomic_numbers": np.array([1, 119])}, "atom 1 has atomic number 119"),
        ({"atomic_numbers": np.array([1.0, 8.0])}, "`atomic_numbers` must be integers"),
        ({"atomic_numbers": np.zeros(0, dtype=int)}, "`atomic_numbers` .* at least one atom"),
        ({"positions": np.zeros((3, 3))}, r"`positions` must have shape \(2, 3\), got \(3, 3\)"),
        ({"positions": [[0, 0, 0], [0, np.nan, 0]]}, "`positions` must be finite.*atom 1"),
        ({"forces": [[0, 0, np.inf], [0, 0, 0]]}, "`forces` must be finite.*atom 0"),
        ({"forces": np.zeros((2, 2))}, r"`forces` must have shape \(2, 3\)"),
        ({"energy": np.nan}, "`energy` must be finite, got nan"),
        ({"energy": [1.0, 2.0]}, "`energy` must be one number"),
        ({"stress": np.zeros(6)}, r"`stress` must have shape \(3, 3\)"),
        ({"stress": STRESS * np.nan}, "`stress` must be finite"),
        ({"weight": 0.0}, "`weight` must be above zero"),
        ({"weight": np.inf}, "`weight` must be finite"),
        ({"atom_weights": np.ones(3)}, r"`atom_weights` must have shape \(2,\), got \(3,\)"),
        (
            {"atom_weights": [1.0, -0.5]},
            "`atom_weights` must .* 0 or above, got -0.5 for atom 1",
        ),
        ({"atom_weights": [np.nan, 1.0]}, "`atom_weights` must be finite .* got nan for atom 0"),
        ({"cell": np.zeros((3, 3)), "pbc": [0, 1, 0]}, "`cell` row 1 is zero"),
        ({"cell": np.ones(3)}, r"`cell` must have shape \(3, 3\)"),
        ({"cell": CELL * np.nan}, "`cell` must be finite"),
        ({"pbc": [1.0, 1.0, 1.0]}, "`pbc` must be three booleans"),
    ],
)
def test_unsound_frames_are_refused(changes, message):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
    with pytest.raises(ValueError, match=f"^a.xyz, frame 3: {message}"):
        frame_of(atoms, source="a.xyz, frame 3", **changes)


def test_frames_cannot_be_changed():
    positions = np.zeros((1, 3))
    frame = Frame(np.array([6]), positions)
    positions[0] = 1.0
    assert not frame.positions.any()
    with pytest.raises(ValueError, match="read-only"):
        frame.positions[0] = 1.0


def test_labels_are_counted():
    counts = count_labels(some_frames())
    assert dict(counts.items()) == {"energy": 11, "forces": 11, "stress": 6}
    assert str(counts).startswith("12 frames, ")
    assert "energy 11/12, forces 11/12, stress 6/12" in str(counts)
    assert counts.table().splitlines()[3].split() == ["stress", "6", "6"]


@pytest.mark.parametrize(
    ("name", "pbc", "expected"),
    [
        ("", False, True),
        ("", True, False),
        ("isolated_atom", True, True),
        ("IsolatedAtom", True, True),
        ("bulk", True, False),
    ],
)
def test_isolated_atoms_are_known(name, pbc, expected):
    frame = Frame(np.array([6]), np.zeros((1, 3)), np.eye(3) * 20, [pbc] * 3, config_type=name)
    assert frame.is_isolated_atom is expected


# --- units


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (None, (1, 1, 1, 1, 1)),
        ({"energy": "kcal/mol"}, (units.KCAL_PER_MOL, 1, units.KCAL_PER_MOL)),
        ({"energy": "Hartree", "length": "Bohr"}, (27.211386245988, 0.529177210903, 51.4220674763)),
        ({"forces": "Hartree / Bohr"}, (1, 1, 51.4220674763)),
        ({"energy": "Ry", "length": "a0"}, (13.605693122994, 0.529177210903, 25.71103373815)),
        ({"energy": "meV", "length": "nm"}, (1e-3, 10, 1e-4, 1e-6, 1e-3)),
        ({"stress": "GPa"}, (1, 1, 1, 1 / 160.2176634)),
        ({"stress": "kbar"}, (1, 1, 1, 0.1 / 160.2176634)),
        ({"stress": "Ha/Bohr³"}, (1, 1, 1, 29421.015697 / 160.2176634)),
        ({"virial": "Ha"}, (1, 1, 1, 1, 27.211386245988)),
    ],
)
def test_factors_of_declared_units(declared, expected):
    # figures of CODATA 2018: Hartree/Bohr, GPa, Hartree/Bohr³ in eV and Å
    factors = unit_factors(declared)
    found = (factors.energy, factors.length, factors.forces, factors.stress, factors.virial)
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"energie": "eV"}, "no quantity `energie`; it takes energy, length"),
        ({"energy": "kcal"}, "unit `kcal` of `energy` is not known; did you mean kcal/mol"),
        ({"length": "furlong"}, "unit `furlong` of `length` is not known; known are"),
    ],
)
def test_unknown_units_are_refused(declared, message):
    with pytest.raises(ValueError, match=message):
        unit_factors(declared)


# --- readers


@pytest.mark.parametrize(
    "suffix", [".xyz", ".extxyz", ".xyz.xz", ".xyz.gz", ".traj", ".db", ".json"]
)
def test_formats_bring_back_what_was_written(tmp_path, suffix):
    frames = [frame for frame in some_frames()[:10] if frame.energy is not None]
    images = []
    for frame in frames:
        atoms = Atoms(frame.atomic_numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        results = {"energy": frame.energy, "forces": frame.forces}
        if frame.stress is not None:
            results["stress"] = frame.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        atoms.calc = SinglePointCalculator(atoms, **results)
        images.append(atoms)
    path = tmp_path / f"data{suffix}"
    if suffix in (".db", ".json"):
        with ase.db.connect(path) as database:
            for atoms in images:
                database.write(atoms, config_type="bulk")
    elif suffix == ".traj":
        ase.io.write(path, images)
    else:
        ase.io.write(tmp_path / "plain.xyz", images, format="extxyz")
        text = (tmp_path / "plain.xyz").read_bytes()
        packed = {"xz": lzma.compress, "gz": gzip.compress}.get(suffix.split(".")[-1], bytes)(text)
        path.write_bytes(packed)
    reading = read_frames(path)
    # ASE writes extxyz with 8 decimals
    tolerance = 1e-8 if "xyz" in suffix else 1e-14
    assert len(reading.frames) == len(frames)
    for k, (found, frame) in enumerate(zip(reading.frames, frames, strict=True)):
        np.testing.assert_array_equal(found.atomic_numbers, frame.atomic_numbers)
        np.testing.assert_array_equal(found.pbc, frame.pbc)
        np.testing.assert_allclose(found.positions, frame.positions, atol=tolerance)
        np.testing.assert_allclose(found.cell, frame.cell, atol=tolerance)
        np.testing.assert_allclose(found.forces, frame.forces, atol=tolerance)
        assert found.energy == pytest.approx(frame.energy, abs=1e-9)
        assert (found.stress is None) == (frame.stress is None)
        if frame.stress is not None:
            np.testing.assert_allclose(found.stress, frame.stress, atol=tolerance)
        assert found.source == f"{path}, frame {k}"
    assert reading.report.names["energy"] == {"energy": len(frames)}
    assert f"energy from `energy` in {len(frames)} of {len(frames)} frames" in str(reading)


def test_compressed_files_of_other_formats_are_read(tmp_path):
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    ase.io.write(tmp_path / "w.traj", atoms)
    (tmp_path / "w.traj.xz").write_bytes(lzma.compress((tmp_path / "w.traj").read_bytes()))
    (frame,) = read_frames(tmp_path / "w.traj.xz").frames
    assert frame.energy == -1.0
    assert frame.source == f"{tmp_path / 'w.traj.xz'}, frame 0"


@pytest.mark.parametrize(
    "name", ["energy", "free_energy", "REF_energy", "dft_energy", "DFT_energy"]
)
def test_energy_is_found_by_name(tmp_path, name):
    reading = read_frames(extxyz(tmp_path, f"{name}=-3.5"))
    assert reading.frames[0].energy == -3.5
    assert reading.report.names["energy"] == {name: 1}


@pytest.mark.parametrize("name", ["forces", "force", "REF_forces", "dft_forces", "DFT_force"])
def test_forces_are_found_by_name(tmp_path, name):
    path = extxyz(tmp_path, f"Properties=species:S:1:pos:R:3:{name}:R:3", atom="Si 0 0 0 1 2 3")
    assert read_frames(path).frames[0].forces.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("name", ["atom_weight", "atom_weights", "force_weight"])
def test_weights_of_atoms_are_read(tmp_path, name):
    header = f"Properties=species:S:1:pos:R:3:forces:R:3:{name}:R:1 energy=1"
    text = f"2\n{header}\nH 0 0 0 0 0 0 0.0\nH 0 0 1 0 0 0 2.5\n"
    reading = read_frames(written(tmp_path, text))
    assert reading.frames[0].atom_weights.tolist() == [0.0, 2.5]
    assert reading.report.unlabelled_keys == set()
    with pytest.raises(ValueError, match=r"frame 0: `atom_weights` must be .* got -2.5 for atom 1"):
        read_frames(written(tmp_path, text.replace("2.5", "-2.5")))


def test_stress_and_virial_have_ase_signs(tmp_path):
    nine = " ".join(map(str, STRESS.ravel()))
    voigt = " ".join(str(STRESS[i, j]) for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)))
    virial = " ".join(map(str, (-64.0 * STRESS).ravel()))
    for header in (
        f'stress="{nine}"',
        f'stress="{voigt}"',
        f'REF_stress="{nine}"',
        f'virial="{virial}"',
        f'dft_virial="{virial}"',
        f'stress="{nine}" virial="{virial}"',
    ):
        (frame,) = read_frames(extxyz(tmp_path, f"{LATTICE} {header}")).frames
        np.testing.assert_allclose(frame.stress, STRESS, rtol=1e-12)


def test_stress_of_emt_is_read_with_its_sign(tmp_path):
    atoms = bulk("Cu", a=3.8) * 2
    atoms.calc = EMT()
    stress = atoms.get_stress(voigt=False)
    assert np.trace(stress) > 0  # stretched copper pulls back: tension
    ase.io.write(tmp_path / "cu.xyz", atoms, format="extxyz")
    np.testing.assert_allclose(read_frames(tmp_path / "cu.xyz").frames[0].stress, stress, atol=1e-8)


def test_two_values_for_one_label_are_a_question(tmp_path):
    path = extxyz(tmp_path, "energy=-3.5 REF_energy=-4.5")
    message = r"frame 0: `energy` and `REF_energy` differ \(-3.5 and -4.5\); choose.*`energy_key`"
    with pytest.raises(ValueError, match=message):
        read_frames(path)
    assert read_frames(path, energy_key="REF_energy").frames[0].energy == -4.5
    assert read_frames(path, energy_key="energy").frames[0].energy == -3.5
    same = extxyz(tmp_path, "energy=-3.5 free_energy=-3.5")
    assert read_frames(same).report.names["energy"] == {"energy": 1}
    vasp = extxyz(tmp_path, "energy=-3.5 free_energy=-3.6")
    with pytest.raises(ValueError, match="forces are the derivative of `free_energy`"):
        read_frames(vasp)
    virial = extxyz(
        tmp_path, f'{LATTICE} energy=1 stress="1 0 0 0 1 0 0 0 1" virial="64 0 0 0 64 0 0 0 64"'
    )
    with pytest.raises(ValueError, match=r"`stress` and `virial` differ: .* -virial/V"):
        read_frames(virial)
    assert read_frames(virial, virial_key="virial").frames[0].stress[0, 0] == pytest.approx(-1)
    assert read_frames(virial, stress_key="stress").frames[0].stress[0, 0] == 1


def test_declared_units_are_converted(tmp_path):
    path = extxyz(
        tmp_path,
        'Lattice="10 0 0 0 10 0 0 0 10" energy=2 stress="1 0 0 0 1 0 0 0 1" '
        "Properties=species:S:1:pos:R:3:forces:R:3",
        atom="Si 1 0 0 3 0 0",
    )
    declared = {"energy": "Hartree", "length": "Bohr", "stress": "GPa"}
    (frame,) = read_frames(path, units=declared).frames
    assert frame.energy == 2 * units.HARTREE
    assert frame.positions[0, 0] == units.BOHR
    assert frame.cell[2, 2] == 10 * units.BOHR
    assert frame.forces[0, 0] == pytest.approx(3 * units.HARTREE / units.BOHR, rel=1e-15)
    assert frame.stress[1, 1] == units.GPA
    with pytest.raises(ValueError, match="`units` has no quantity"):
        read_frames(path, units={"time": "fs"})


@pytest.mark.parametrize(
    ("header", "pbc"),
    [
        ("energy=1", [0, 0, 0]),
        (f"{LATTICE} energy=1", [1, 1, 1]),
        (f'{LATTICE} energy=1 pbc="F F F"', [0, 0, 0]),
        (f'{LATTICE} energy=1 pbc="T F T"', [1, 0, 1]),
        ('Lattice="0 0 0 0 0 0 0 0 0" energy=1', [0, 0, 0]),
    ],
)
def test_periodicity_of_extxyz(tmp_path, header, pbc):
    assert read_frames(extxyz(tmp_path, header)).frames[0].pbc.tolist() == [bool(p) for p in pbc]


def test_stress_without_volume_is_left_out_and_counted(tmp_path):
    reading = read_frames(
        extxyz(tmp_path, f'{LATTICE} pbc="T T F" energy=1 stress="1 0 0 0 1 0 0 0 1"')
    )
    assert reading.frames[0].stress is None
    assert "stress left out in 1 frame:" in str(reading)


def test_what_else_a_frame_says(tmp_path):
    text = """
    1
    energy=-13.6 config_type=isolated_atom
    H 0 0 0
    2
    energy=-31 config_weight=2.5 config_type=dimer

    H 0 0 0
    H 0 0 1
    """
    path = written(tmp_path, text.replace("dimer\n\n", "dimer\n") + "\n\n")
    reading = read_frames(path)
    assert [frame.config_type for frame in reading.frames] == ["isolated_atom", "dimer"]
    assert reading.frames[1].weight == 2.5
    assert reading.report.n_isolated_atoms == 1
    assert [frame.energy for frame in iter_frames(path)] == [-13.6, -31]


def test_files_without_labels_are_read_on_request(tmp_path):
    path = extxyz(tmp_path, "temperature=300")
    with pytest.raises(
        ValueError, match=r"no energy, forces or stress in any of 1 frames.*`temperature`"
    ):
        read_frames(path)
    (frame,) = read_frames(path, require_labels=False).frames
    assert frame.energy is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\nenergy=1\nH 0 0 0\nH 0 0 1\n", r"frame 0 \(line 1\): .*3 atoms, found 2; .*truncated"),
        (
            "1\nenergy=1\nH 0 0 0\n1000000000\nenergy=1\nH 0 0 0\n",
            r"frame 1 \(line 4\): a frame may have at most 1000000 atoms, got 1000000000",
        ),
        ("1\n", r"frame 0 \(line 1\): .*1 atoms, found 0"),
        (
            "1\nenergy=1\nH 0 0 0\nH 0 0 1\n",
            r"frame 1 \(line 4\): expected the number of atoms, got 'H 0 0 1'",
        ),
        (
            "2\nenergy=1\nH 0 0 0\n1\nenergy=1\n",
            r"frame 0 \(line 1\): atom 1 \(line 4\) has 1 columns, atom 0 has 4",
        ),
        ("0\nenergy=1\n", "at least 1 atom, got 0"),
        ("-5\nenergy=1\n", "at least 1 atom, got -5"),
        ("1\nenergy=1\nQq 0 0 0\n", r"frame 0 \(line 1\): there is no element 'Qq'"),
        ("1\nenergy=1\nX 0 0 0\n", "frame 0: atom 0 has atomic number 0"),
        ("1\nenergy=1\nH 0 zero 0\n", r"frame 0 \(line 1\): could not convert"),
        ("1\nenergy=nan\nH 0 0 0\n", "frame 0: `energy` must be finite, got nan"),
        ("1\nenergy=1\nH 0 inf 0\n", "frame 0: `positions` must be finite"),
        ("1\nenergy=abc\nH 0 0 0\n", "frame 0: `energy` must be numbers, got 'abc'"),
        ('1\nenergy="1 2"\nH 0 0 0\n', "frame 0: `energy` must be one number"),
        (
            f'1\n{LATTICE} energy=1 stress="1 2 3"\nH 0 0 0\n',
            r"frame 0: `stress` must have shape \(3, 3\), \(9,\) or \(6,\)",
        ),
        (
            f'1\n{LATTICE} energy=1 stress="nan 2 3 4 5 6"\nH 0 0 0\n',
            "frame 0: `stress` must be finite",
        ),
        (
            '1\nLattice="0 0 0 0 0 0 0 0 0" pbc="T T T" energy=1\nH 0 0 0\n',
            "frame 0: `cell` row 0 is zero",
        ),
        ('1\nLattice="1 0 0 2 0 0 0 0 1" energy=1\nH 0 0 0\n', "frame 0: `cell` is flat"),
        (
            "2\nenergy=1 config_type=isolated_atom\nH 0 0 0\nH 0 0 1\n",
            "isolated_atom, but the frame has 2 atoms",
        ),
        ("1\nenergy=1 weight=-1\nH 0 0 0\n", "frame 0: `weight` must be above zero"),
        ("", "train.xyz: the file is empty"),
        ("\n\n", "train.xyz: there is no frame in the file"),
    ],
)
def test_unsound_extxyz_is_refused(tmp_path, text, message):
    path = tmp_path / "train.xyz"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_frames(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).count(str(path)) == 1


def test_missing_files_are_named_with_their_neighbours(tmp_path, monkeypatch):
    extxyz(tmp_path, "energy=1", name="train_300K.xyz")
    with pytest.raises(FileNotFoundError, match=r"no such file; did you mean train_300K.xyz\?"):
        read_frames(tmp_path / "train_30K.xyz")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_frames(tmp_path / "nowhere" / "train.xyz")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"start at the working directory, {tmp_path}"):
        read_frames("nowhere/train.xyz")
    with pytest.raises(ValueError, match="is a folder without DeePMD systems"):
        read_frames(tmp_path)


def test_wrong_keys_are_named_with_those_found(tmp_path):
    path = extxyz(tmp_path, "energy=1 my_energy=2")
    with pytest.raises(
        ValueError, match=r"no frame has `mine`, given as `energy_key`.*`my_energy`"
    ):
        read_frames(path, energy_key="mine")
    with pytest.raises(ValueError, match="no frame has `run`, given as `group_key`"):
        read_frames(path, group_key="run")
    with pytest.raises(ValueError, match="not both"):
        read_frames(path, stress_key="a", virial_key="b")


def test_what_may_be_a_label_and_was_not_read_is_told(tmp_path):
    first = extxyz(tmp_path, "energy=1 Dft_forces_x=2 note=a").read_text()
    second = extxyz(tmp_path, 'E_tot=-3 Stress_gpa="1 2 3"').read_text()
    path = written(tmp_path, first + second)
    told = str(read_frames(path))
    assert "not read: `E_tot`; if that is the energy, name it with `energy_key`" in told
    assert "not read: `Dft_forces_x`; if that is the forces" in told
    assert "not read: `Stress_gpa`; if that is the stress, name it with `stress_key` or" in told
    assert "note" not in told
    # a label that all frames have leaves no question
    assert "not read" not in str(read_frames(extxyz(tmp_path, "energy=1 E_tot=-3")))
    same = extxyz(tmp_path, "energy=1 free_energy=1 REF_energy=1").read_text()
    path = written(tmp_path, same + extxyz(tmp_path, "note=a").read_text())
    assert "not read" not in str(read_frames(path))


def test_keys_that_are_no_texts_are_no_labels(tmp_path):
    atoms = Atoms("H", info={"energy": 1.0, 7: "seven"})
    ase.io.write(tmp_path / "set.traj", atoms)
    reading = read_frames(tmp_path / "set.traj")
    assert reading.frames[0].energy == 1.0
    assert "7" in reading.report.unlabelled_keys
    assert "energy 1/1" in str(reading)


def test_names_that_differ_in_capitals_alone_are_a_question(tmp_path):
    for header, names in (
        ("energy=1 Energy=2", "`energy` and `Energy` differ"),
        (f'{LATTICE} stress="1 2 3 0 0 0" STRESS="1 2 4 0 0 0"', "`stress` and `STRESS` differ"),
    ):
        with pytest.raises(ValueError, match=names):
            read_frames(extxyz(tmp_path, header))
    assert read_frames(extxyz(tmp_path, "energy=1 Energy=2"), energy_key="Energy").frames
    assert read_frames(extxyz(tmp_path, "energy=1 Energy=1")).frames[0].energy == 1.0
    arrays = {"z": np.array([1, 1]), "R": np.arange(12.0).reshape(2, 2, 3), "E": np.arange(2.0)}
    units = {"energy": "eV", "length": "Angstrom"}
    path = tmp_path / "set.npz"
    for name, values in (("e", arrays["E"] + 1), ("f", arrays["R"] + 1)):
        np.savez(path, F=arrays["R"], **arrays, **{name: values})
        with pytest.raises(ValueError, match=f"`{name.upper()}` and `{name}` differ"):
            read_frames(path, units=units)
    # what has another shape is something else
    np.savez(path, F=arrays["R"], **arrays, e=np.zeros(3), f=np.zeros((2, 2)))
    assert len(read_frames(path, units=units).frames) == 2


def test_a_label_of_weight_zero_is_a_dummy(tmp_path):
    header = f'{LATTICE} energy=0 stress="1 1 1 0 0 0" {{}}'
    path = extxyz(tmp_path, header.format("config_energy_weight=0.0 config_stress_weight=1"))
    reading = read_frames(path)
    assert reading.frames[0].energy is None
    assert reading.frames[0].stress is not None
    assert "label left out in 1 frame: `config_energy_weight` is 0" in str(reading)
    assert "not read" not in str(reading)
    path = extxyz(tmp_path, header.format("config_stress_weight=0 config_forces_weight=0"))
    reading = read_frames(path)
    assert reading.frames[0].stress is None
    assert reading.frames[0].energy == 0.0
    assert "forces" not in "".join(reading.report.dummies)
    for name in ("energy", "forces", "stress", "virials"):
        path = extxyz(tmp_path, header.format(f"config_{name}_weight=0.5"))
        with pytest.raises(ValueError, match=f"`config_{name}_weight` must be 0 .* got 0.5"):
            read_frames(path)
    units = {"energy": "eV", "length": "Angstrom"}
    np.savez(
        tmp_path / "set.npz",
        z=np.array([1, 1]),
        R=np.arange(12.0).reshape(2, 2, 3),
        E=np.arange(2.0),
        config_energy_weight=np.array([0.0, 1.0]),
    )
    energies = [frame.energy for frame in read_frames(tmp_path / "set.npz", units=units).frames]
    assert energies == [None, 1.0]


@pytest.mark.parametrize("name", ["stress", "virial"])
def test_nine_numbers_are_taken_as_they_are(tmp_path, name):
    numbers = "1 2 3 4 5 6 7 8 9"
    path = extxyz(tmp_path, f'{LATTICE} comment="stress = 5" energy=1 {name} = "{numbers}"')
    frame = read_frames(path).frames[0]
    expected = np.arange(1.0, 10.0).reshape(3, 3)
    if name == "virial":
        expected /= -64.0  # the volume
    np.testing.assert_allclose(frame.stress, expected, rtol=1e-14)
    write_extxyz(tmp_path / "again.xyz", [frame])
    (again,) = read_frames(tmp_path / "again.xyz").frames
    np.testing.assert_array_equal(again.stress, frame.stress)


def test_an_audit_sees_that_a_stress_in_a_file_is_not_symmetric(tmp_path):
    skew = re.sub('stress="[^"]*"', 'stress="1 2 3 4 5 6 7 8 9"', SILICON.read_text())
    assert skew.count("1 2 3 4 5 6 7 8 9") > 10
    (tmp_path / "skew.extxyz").write_text(skew)
    named = {
        path: {finding.cause for finding in audit_files({"train": [path]}).findings}
        for path in (SILICON, tmp_path / "skew.extxyz")
    }
    assert "stress.not_symmetric" not in named[SILICON]
    assert "stress.not_symmetric" in named[tmp_path / "skew.extxyz"]


@pytest.mark.parametrize("value", ["T", "F", '"T T"', "yes", '"_JSON [true]"'])
def test_what_is_no_number_is_no_label(tmp_path, value):
    with pytest.raises(ValueError, match="`energy` must be numbers, got"):
        read_frames(extxyz(tmp_path, f"energy={value}"))


def test_texts_and_flags_of_arrays_are_no_labels(tmp_path):
    units = {"energy": "eV", "length": "Angstrom"}
    for energies in (np.array(["1.0", "2.0"]), np.array([True, False])):
        np.savez(
            tmp_path / "set.npz", z=np.array([1]), R=np.arange(6.0).reshape(2, 1, 3), E=energies
        )
        with pytest.raises(ValueError, match="frame 0: `E` must be numbers, got"):
            read_frames(tmp_path / "set.npz", units=units)


def test_a_mark_of_the_encoding_is_no_text(tmp_path):
    path = extxyz(tmp_path, "energy=1")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_frames(path).frames[0].energy == 1.0


def test_a_stress_left_out_excuses_no_other_key(tmp_path):
    path = extxyz(tmp_path, 'energy=1 forces_of=2 S="1 2 3 4 5 6"')
    for label in ("energy", "forces"):
        with pytest.raises(ValueError, match=f"no frame has `mine`, given as `{label}_key`"):
            read_frames(path, stress_key="S", **{f"{label}_key": "mine"})
    assert read_frames(path, stress_key="S").report.n_stress_dropped == 1


def test_damaged_compression_and_unknown_formats_are_refused(tmp_path):
    packed = lzma.compress(b"1\nenergy=1\nH 0 0 0\n" * 500)
    (tmp_path / "cut.xyz.xz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match=r"cut.xyz.xz, line \d+: cannot be read"):
        read_frames(tmp_path / "cut.xyz.xz")
    (tmp_path / "data.abc").write_text("what is this\n")
    with pytest.raises(ValueError, match=r"data.abc: the format of the file is not known"):
        read_frames(tmp_path / "data.abc")
    (tmp_path / "cut.traj").write_bytes(b"- of UlmASE-Trajectory" + bytes(30))
    with pytest.raises(ValueError, match=r"cut.traj, frame 0: cannot be read as `traj`"):
        read_frames(tmp_path / "cut.traj")


# --- npz

RMD17 = {"nuclear_charges": np.array([8, 1, 1]), "coords": np.ones((4, 3, 3)) * [[[0], [1], [2]]]}
RMD17 |= {"energies": np.arange(4.0), "forces": np.ones((4, 3, 3)), "old_indices": np.arange(4)}
MD17 = {"z": RMD17["nuclear_charges"], "R": RMD17["coords"], "E": np.arange(4.0)[:, None]}
MD17 |= {"F": RMD17["forces"], "name": np.array("water")}
KCAL = {"energy": "kcal/mol", "length": "Angstrom"}


@pytest.mark.parametrize("arrays", [RMD17, MD17])
def test_npz_of_md17_and_rmd17(tmp_path, arrays):
    np.savez(tmp_path / "water.npz", **arrays)
    reading = read_frames(tmp_path / "water.npz", units=KCAL)
    assert len(reading.frames) == 4
    frame = reading.frames[3]
    assert frame.atomic_numbers.tolist() == [8, 1, 1]
    assert frame.energy == 3 * units.KCAL_PER_MOL
    np.testing.assert_array_equal(frame.forces, np.full((3, 3), units.KCAL_PER_MOL))
    np.testing.assert_array_equal(frame.positions, RMD17["coords"][3])
    assert reading.report.counts.present == {"energy": 4, "forces": 4, "stress": 0}


@pytest.mark.parametrize("given_", [None, {}, {"energy": "kcal/mol"}])
def test_npz_needs_units(tmp_path, given_):
    np.savez(tmp_path / "water.npz", **MD17)
    with pytest.raises(ValueError, match=r'an npz file names no units.*"energy": "kcal/mol"'):
        read_frames(tmp_path / "water.npz", units=given_)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coords": np.ones((4, 2, 3))}, r"`coords` must have shape \(n_frames, 3, 3\)"),
        ({"energies": np.ones(3)}, "`energies` must have 4 numbers"),
        ({"forces": np.ones((4, 3, 2))}, r"`forces` must have shape \(4, 3, 3\)"),
        ({"forces": np.array([None])}, "pickled objects"),
        ({"z": np.array([1, 1, 1])}, "holds both `nuclear_charges` and `z`"),
        ({"energies": np.array([0, 1, np.nan, 3])}, "frame 2: `energies` must be finite"),
        ({"nuclear_charges": np.array([8, 1, 0])}, "frame 0: atom 2 has atomic number 0"),
    ],
)
def test_unsound_npz_is_refused(tmp_path, changes, message):
    np.savez(tmp_path / "water.npz", **(RMD17 | changes), allow_pickle=True)
    with pytest.raises(ValueError, match=message) as caught:
        read_frames(tmp_path / "water.npz", units=KCAL)
    assert str(tmp_path / "water.npz") in str(caught.value)


def test_npz_with_a_false_shape_is_refused_before_allocation(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez(path, **RMD17)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    shape, false_shape = b"'shape': (4, 3, 3), ", b"'shape':(99999999,3)"
    assert len(shape) == len(false_shape) and shape in members["coords.npy"]
    members["coords.npy"] = members["coords.npy"].replace(shape, false_shape)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"bomb.npz: `coords.npy` declares shape \(99999999, 3\)"):
        read_frames(path, units=KCAL)
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ValueError, match=r"bomb.npz: File is not a zip file"):
        read_frames(path, units=KCAL)


# --- store


@pytest.fixture
def store_path(tmp_path):
    path = tmp_path / "set.h5"
    write_store(path, some_frames())
    return path


def test_store_brings_back_every_bit(store_path):
    frames = some_frames()
    with FrameStore(store_path) as store:
        assert len(store) == len(frames)
        assert store.n_atoms.tolist() == [len(frame) for frame in frames]
        for found, frame in zip(store, frames, strict=True):
            assert_same_frame(found, frame)
        assert_same_frame(store[-1], frames[-1])
        assert_same_frame(store[3], frames[3])
        with pytest.raises(IndexError, match=f"there is no frame {len(frames)}, the store has"):
            store[len(frames)]
    reading = read_frames(store_path)
    assert reading.report.counts.present == {"energy": 11, "forces": 11, "stress": 6}
    with pytest.raises(ValueError, match="`units` has no use for a store"):
        read_frames(store_path, units={"energy": "Hartree"})


@given(structures(), st.integers(0, 3))
def test_store_brings_back_any_structure(tmp_path_factory, atoms, seed):
    path = tmp_path_factory.getbasetemp() / "any.h5"
    frame = frame_of(atoms, seed, config_type="Größe", source="ä.xyz, frame 0")
    write_store(path, [frame])
    with FrameStore(path) as store:
        assert_same_frame(store[0], frame)


def test_store_is_written_in_portions(tmp_path, monkeypatch):
    monkeypatch.setattr("eqpot.data.store.writing._BUFFER_BYTES", 2000)
    frames = some_frames() * 5
    assert write_store(tmp_path / "set.h5", iter(frames)) == len(frames)
    with FrameStore(tmp_path / "set.h5") as store:
        for found, frame in zip(store, frames, strict=True):
            assert_same_frame(found, frame)


def test_store_remembers_its_sources(tmp_path):
    source = extxyz(tmp_path, "energy=1")
    write_store(tmp_path / "set.h5", iter_frames(source), sources=[source])
    with FrameStore(tmp_path / "set.h5") as store:
        (entry,) = store.provenance["sources"]
    assert entry["name"] == "train.xyz"
    assert len(entry["sha256"]) == 64


def test_stores_of_version_1_are_still_read():
    # numbers that the version which wrote the file was given
    with FrameStore(FILES / "store_v1.h5") as store:
        water, silicon, atom = store
    assert water.energy == -2081.25
    assert water.forces.tolist() == [[0, 0, 0.5], [0.125, 0, -0.25], [-0.125, 0, -0.25]]
    assert (water.config_type, water.weight) == ("water", 2.5)
    assert water.atomic_numbers.tolist() == [8, 1, 1]
    assert (water.stress, water.atom_weights) == (None, None)
    assert silicon.stress.tolist() == np.diag([0.5, -0.25, 0.125]).tolist()
    assert silicon.cell.tolist() == CELL.tolist()
    assert (silicon.forces, silicon.config_type) == (None, "Größe")
    assert atom.is_isolated_atom
    assert atom.source == "atoms.xyz, frame 0"


def test_a_store_is_there_whole_or_not_at_all(store_path):
    before = store_path.read_bytes()

    def breaks_off():
        yield some_frames()[0]
        raise RuntimeError("no more frames")

    with pytest.raises(RuntimeError, match="no more frames"):
        write_store(store_path, breaks_off())
    with pytest.raises(ValueError, match="no frame to store"):
        write_store(store_path, [])
    assert store_path.read_bytes() == before
    assert [path.name for path in store_path.parent.iterdir()] == ["set.h5"]
    # permissions follow the user's mask, as for any other file
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(store_path.stat().st_mode) == 0o666 & ~mask


def read_energy(store):
    return store[0].energy


def test_store_goes_to_workers(store_path):
    with FrameStore(store_path) as store:
        energy = store[0].energy
        assert pickle.loads(pickle.dumps(store))[0].energy == energy
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(read_energy, (store,)) == energy


def test_every_damaged_byte_is_refused(store_path):
    sound = store_path.read_bytes()
    rng = np.random.default_rng(0)
    places = [0, 13, 15, 20, 60, 300, 511, 512, len(sound) - 1, *rng.integers(0, len(sound), 200)]
    for place in places:
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(rng.integers(8))
        store_path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"set\.h5"):
            FrameStore(store_path)
    for length in (0, 1, 100, 512, 513, len(sound) // 2, len(sound) - 1):
        store_path.write_bytes(sound[:length])
        with pytest.raises(ValueError, match=r"set\.h5"):
            FrameStore(store_path)


def test_chunk_checksums_notice_what_was_not_verified(store_path):
    sound = store_path.read_bytes()
    number = np.float64(some_frames()[0].positions[1, 2]).tobytes()
    place = sound.index(number)
    damaged = bytearray(sound)
    damaged[place] ^= 1
    store_path.write_bytes(damaged)
    with FrameStore(store_path, verify=False) as store:
        with pytest.raises(ValueError, match=r"set.h5: frames 0 to 0 are damaged: `positions`"):
            store[0]
        assert len(store) == len(some_frames())


def sealed(path, change):
    """Change a store by HDF5 and write a fitting first line, as a forger would."""
    from eqpot.data.checksums import sha256_of
    from eqpot.data.store.layout import BLOCK

    with h5py.File(path, "r+") as file:
        change(file)
    with path.open("r+b") as file:
        digest = sha256_of(path, BLOCK)
        line = f"eqpot-frames 2 {path.stat().st_size} {digest}\n"
        file.write(line.encode().ljust(BLOCK, b"\0"))


def replaced(name, **settings):
    def change(file):
        data = file[name][:]
        del file[name]
        file.create_dataset(name, **({"data": data, "chunks": True, "fletcher32": True} | settings))

    return change


def external_link(file):
    del file["energy"]
    file["energy"] = h5py.ExternalLink("other.h5", "energy")


def soft_link(file):
    del file["forces"]
    file["forces"] = h5py.SoftLink("/positions")


def virtual(file):
    shape = file["energy"].shape
    del file["energy"]
    layout = h5py.VirtualLayout(shape, dtype="<f8")
    layout[:] = h5py.VirtualSource("other.h5", "energy", shape=shape)
    file.create_virtual_dataset("energy", layout)


def external_storage(file):
    shape = file["energy"].shape
    del file["energy"]
    file.create_dataset("energy", shape, "<f8", external=[("secret.bin", 0, 8 * shape[0])])


def shape_bomb(file):
    chunks = file["positions"].chunks
    del file["positions"]
    settings = {"dtype": "<f8", "chunks": chunks, "fletcher32": True}
    file.create_dataset("positions", (10**12, 3), **settings)


def group(file):
    del file["energy"]
    file.create_group("energy")


def falling_offsets(file):
    file["offsets"][1] = 10**6


def surplus(file):
    file["more"] = np.zeros(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_link, "`energy` is a ExternalLink, which is never followed"),
        (soft_link, "`forces` is a SoftLink"),
        (virtual, "`energy` is virtual"),
        (external_storage, "`energy` is not chunked|`energy` keeps its data in another file"),
        (shape_bomb, r"`positions` declares 24000000000000 bytes .* stores 0 bytes"),
        (group, "`energy` must be a dataset"),
        (falling_offsets, "`offsets` must rise from 0 to"),
        (surplus, r"too many \['more'\]"),
        (lambda file: file.pop("stress"), r"missing \['stress'\]"),
        (replaced("energy", dtype="<f4"), "`energy` must be of type float64, is float32"),
        (replaced("pbc", data=np.zeros((12, 4), "u1")), r"`pbc` must have shape \(n, \*\(3,\)\)"),
        (replaced("weight", fletcher32=False), "`weight` must have the filter Fletcher32 alone"),
        (replaced("weight", compression="gzip"), "`weight` must have the filter Fletcher32 alone"),
        (replaced("weight", data=np.ones(5)), "`weight` must have 12 rows, has 5"),
        (lambda file: file.attrs.modify("version", 9), "must have format .* has .* version 9"),
    ],
)
def test_foreign_structures_are_refused(store_path, change, message):
    sealed(store_path, change)
    with pytest.raises(ValueError, match=message) as caught:
        FrameStore(store_path)
    assert str(store_path) in str(caught.value)


def test_wrong_numbers_within_a_sound_store_are_refused(store_path):
    def change(file):
        file["positions"][0, 0] = np.nan

    sealed(store_path, change)
    with (
        FrameStore(store_path) as store,
        pytest.raises(ValueError, match=r"stored frame 0: .*finite"),
    ):
        store[0]


def test_other_files_and_later_versions_are_no_stores(tmp_path, store_path):
    line = store_path.read_bytes()[:512].replace(b"frames 2 ", b"frames 3 ")
    store_path.write_bytes(line + store_path.read_bytes()[512:])
    with pytest.raises(ValueError, match=r"written as version 3 of the store.*update eqpot"):
        FrameStore(store_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["energy"] = 1.0
    with pytest.raises(ValueError, match=r"other.h5: is not a frame store"):
        FrameStore(tmp_path / "other.h5")
    with pytest.raises(FileNotFoundError, match=r"none.h5: no such file"):
        FrameStore(tmp_path / "none.h5")


# --- graphs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_graph_holds_the_frame(dtype):
    for frame in some_frames():
        graph = frame_to_graph(frame, 4.0, dtype)
        check_graph(graph)
        edge_index, edge_shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, 4.0)
        np.testing.assert_array_equal(graph[keys.EDGE_INDEX].numpy(), edge_index)
        np.testing.assert_array_equal(graph[keys.EDGE_SHIFTS].numpy(), edge_shifts)
        assert torch.equal(graph[keys.POSITIONS], torch.tensor(frame.positions, dtype=dtype))
        assert torch.equal(graph[keys.CELL][0], torch.tensor(frame.cell, dtype=dtype))
        assert graph[keys.PBC].tolist() == [frame.pbc.tolist()]
        assert graph[keys.ATOMIC_NUMBERS].tolist() == frame.atomic_numbers.tolist()
        assert graph[keys.WEIGHT].tolist() == [frame.weight]
        weights = np.ones(len(frame)) if frame.atom_weights is None else frame.atom_weights
        assert graph[keys.ATOM_WEIGHT].dtype == dtype
        assert graph[keys.ATOM_WEIGHT].tolist() == weights.tolist()
        assert graph[keys.ENERGY].dtype == torch.float64
        for name, shape in (
            (keys.ENERGY, (1,)),
            (keys.FORCES, (len(frame), 3)),
            (keys.STRESS, (1, 3, 3)),
        ):
            assert graph[name].shape == shape
            label = getattr(frame, name)
            if label is None:
                assert graph[name].isnan().all()
            else:
                expected = torch.tensor(label, dtype=graph[name].dtype).reshape(shape)
                assert torch.equal(graph[name], expected)


@pytest.mark.parametrize("cache_bytes", [0, 2000, 2**30])
def test_data_set_is_the_same_with_any_cache(store_path, cache_bytes):
    frames = some_frames()
    expected = [frame_to_graph(frame, 4.0) for frame in frames]
    with FrameStore(store_path) as store:
        for source in (frames, store):
            dataset = GraphDataset(source, 4.0, cache_bytes=cache_bytes)
            assert len(dataset) == len(frames)
            for _ in range(2):
                for k, graph in enumerate(expected):
                    found = dataset[k]
                    assert found.keys() == graph.keys()
                    for name, tensor in graph.items():
                        assert found[name].dtype == tensor.dtype
                        torch.testing.assert_close(
                            found[name], tensor, rtol=0, atol=0, equal_nan=True
                        )
            assert dataset.cached_bytes <= cache_bytes
            assert (dataset.cached_bytes > 0) == (cache_bytes > 0)


def test_neighbour_lists_are_computed_once(monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(1)
        return neighbor_list(*arguments)

    monkeypatch.setattr("eqpot.data.graphs.neighbor_list", counted)
    dataset = GraphDataset(some_frames()[:3], 4.0)
    for k in (0, 1, 2, 0, 1, 2, -1):
        dataset[k]
    assert len(calls) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_batches(store_path, workers):
    with FrameStore(store_path) as store:
        dataset = GraphDataset(store, 4.0)
        context = "fork" if workers else None
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=5,
            collate_fn=collate,
            num_workers=workers,
            multiprocessing_context=context,
        )
        batches = list(loader)
    assert [len(batch[keys.ENERGY]) for batch in batches] == [5, 5, 2]
    for batch in batches:
        check_graph(batch)
    joined = torch.cat([batch[keys.POSITIONS] for batch in batches]).numpy()
    np.testing.assert_array_equal(joined, np.concatenate([f.positions for f in some_frames()]))


# --- splits


def numbered(n, isolated=()):
    pair = np.array([[0.0, 0, 0], [0, 0, 1]])
    return [
        Frame(np.array([1]), pair[:1], energy=-13.6)
        if k in isolated
        else Frame(np.array([1, 1]), pair, energy=float(k))
        for k in range(n)
    ]


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_a_split_divides_all_frames(n, fraction, seed):
    isolated = {0, n // 2 + 1}
    frames = numbered(n + 2, isolated)
    split = split_frames(frames, fraction, seed)
    assert sorted([*split.train, *split.validation]) == list(range(n + 2))
    assert (np.diff(split.train) > 0).all()
    assert (np.diff(split.validation) > 0).all()
    assert not isolated & set(split.validation.tolist())
    assert len(split.validation) == min(max(1, round(fraction * n)), n - 1)
    again = split_frames(frames, fraction, seed)
    np.testing.assert_array_equal(split.validation, again.validation)


def test_splits_depend_on_the_seed():
    frames = numbered(50)
    drawn = {tuple(split_frames(frames, 0.2, seed).validation) for seed in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize(
    ("frames", "fraction", "seed", "message"),
    [
        (numbered(3, {0, 1}), 0.5, 0, "at least 2 frames .* got 1 .and 2 isolated atoms"),
        ([], 0.5, 0, "at least 2 frames .* got 0"),
        (numbered(5), 0.0, 0, "`validation_fraction` must lie between 0 and 1, got 0.0"),
        (numbered(5), 1.0, 0, "`validation_fraction`"),
        (numbered(5), float("nan"), 0, "`validation_fraction`"),
        (numbered(5), 0.5, -1, "`seed` must be 0 or above"),
    ],
)
def test_empty_splits_are_refused(frames, fraction, seed, message):
    with pytest.raises(ValueError, match=message):
        split_frames(frames, fraction, seed)


# --- reference energies

E0 = {1: -13.587, 6: -1029.489, 8: -2041.8396}


def composed(formula, extra=0.0, **changes):
    numbers = Atoms(formula).numbers
    energy = sum(E0[z] for z in numbers.tolist()) + extra
    positions = np.arange(3 * len(numbers), dtype=float).reshape(-1, 3)
    return Frame(
        numbers, positions, **({"energy": energy, "source": f"{formula}.xyz, frame 0"} | changes)
    )


def test_symbols_are_those_of_ase():
    assert list(SYMBOLS) == chemical_symbols


def test_reference_energies_in_order_of_preference():
    frames = [
        composed("C"),
        composed("H"),
        composed("CH4", 0.5),
        composed("H2O"),
        composed("CO2", -0.5),
    ]
    found = reference_energies(frames, {"C": -1000.0, "Fe": -3.0})
    assert found.energies.keys() == {1, 6, 8, 26}
    assert found.energies[6] == -1000.0
    assert found.energies[1] == E0[1]
    assert found.origins == {1: "isolated atom", 6: "recipe", 8: "least squares", 26: "recipe"}
    assert "E0(H) = -13.587000 eV from isolated atom" in str(found)
    assert found.undetermined == ()


def test_fit_finds_exact_reference_energies():
    frames = [composed(f) for f in ("CH4", "H2O", "CO2", "C2H6O", "H2O")] * 50
    found = reference_energies(frames)
    for z, energy in E0.items():
        # energies of thousands of eV, known to a part in 1e13
        assert found.energies[z] == pytest.approx(energy, abs=1e-9)


def test_fit_is_least_squares_of_energies_per_atom():
    rng = np.random.default_rng(0)
    formulas = ["CH4", "H2O", "CO2", "C2H6O", "CH4", "H2"] * 5
    frames = [composed(f, e) for f, e in zip(formulas, rng.normal(size=30), strict=True)]
    found = reference_energies(frames)
    matrix = np.array([[(f.atomic_numbers == z).mean() for z in E0] for f in frames])
    target = np.array([f.energy / len(f) for f in frames])
    expected = np.linalg.lstsq(matrix, target, rcond=None)[0]
    np.testing.assert_allclose(list(found.energies.values()), expected, atol=1e-9)


def test_one_composition_shares_its_energy_equally():
    frames = [composed("C2H6O", extra) for extra in (-1.0, 0.0, 1.0)]
    found = reference_energies(frames)
    mean = composed("C2H6O").energy / 9
    np.testing.assert_allclose(list(found.energies.values()), [mean] * 3, rtol=1e-14)
    assert found.undetermined == ((1, 6, 8),)
    assert "cannot tell apart E0 of H, C, O" in str(found)


def test_what_cannot_be_told_apart_is_named():
    # C and O only together, H also alone in H2
    frames = [composed("H2"), composed("CO"), composed("COH2"), composed("C2O2H")]
    found = reference_energies(frames)
    assert found.undetermined == ((6, 8),)
    assert found.energies[1] == pytest.approx(E0[1], abs=1e-9)
    assert found.energies[6] + found.energies[8] == pytest.approx(E0[6] + E0[8], abs=1e-9)


def test_known_elements_are_taken_off_before_the_fit():
    found = reference_energies([composed("C2H6O")], {"C": E0[6], "H": E0[1]})
    assert found.energies[8] == pytest.approx(E0[8], abs=1e-9)
    assert found.undetermined == ()


@pytest.mark.parametrize(
    ("frames", "given_", "message"),
    [
        (
            [composed("CH4", energy=None)],
            None,
            r"element H has no reference energy.*CH4.xyz, frame 0",
        ),
        ([composed("H2"), composed("H2O", energy=None)], None, r"element O .*H2O.xyz, frame 0"),
        ([composed("H"), composed("H", 0.1)], None, "isolated atoms of H have different energies"),
        ([composed("H2")], {"Hh": -1.0}, "`Hh` in the reference energies is no chemical symbol"),
        ([composed("H2")], {"h": -1.0}, "did you mean H"),
        ([composed("H2")], {"H": float("nan")}, "reference energy of `H` must be finite"),
    ],
)
def test_missing_and_wrong_reference_energies_are_refused(frames, given_, message):
    with pytest.raises(ValueError, match=message):
        reference_energies(frames, given_)


def test_provenance_is_json(store_path):
    with h5py.File(store_path) as file:
        assert json.loads(file.attrs["provenance"])["sources"] == []
