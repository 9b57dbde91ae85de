"""Laws of formats: numbers written by hand in each format come back in eV and Å with ASE's signs.

Files are made here from known numbers; ASE's own readers, where they exist, say the same.
"""

import json
import re
import sqlite3
import warnings

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from eqpot import units
from eqpot.data import iter_frames, read_frames

CELL = np.array([[5.0, 0.0, 0.0], [1.0, 6.0, 0.0], [0.0, 0.5, 7.0]])
POSITIONS = np.array([[0.0, 0.0, 0.0], [0.5, 1.0, 1.5], [2.0, 2.5, 3.0]])
FORCES = np.array([[0.5, -1.0, 0.25], [-0.75, 0.5, 0.0], [0.25, 0.5, -0.25]])
STRESS = np.array([[0.010, 0.002, -0.003], [0.002, -0.020, 0.004], [-0.003, 0.004, 0.030]])
KBAR = 0.1 * units.GPA
KCAL = {"energy": "kcal/mol", "length": "Angstrom"}


# --- DeePMD


def deepmd_system(folder, n_sets=2, n_frames=3, *, periodic=True, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "type.raw").write_text("0\n1\n1\n")
    (folder / "type_map.raw").write_text("O\nH\n")
    if not periodic:
        (folder / "nopbc").touch()
    sets = []
    for k in range(n_sets):
        arrays = {
            "coord": rng.normal(size=(n_frames, 9)),
            "energy": rng.normal(size=n_frames),
            "force": rng.normal(size=(n_frames, 9)),
        }
        if periodic:
            arrays["box"] = np.tile(CELL.reshape(9), (n_frames, 1))
            arrays["virial"] = np.tile(-210.0 * STRESS.reshape(9), (n_frames, 1))
        (folder / f"set.{k:03d}").mkdir()
        for name, array in arrays.items():
            np.save(folder / f"set.{k:03d}" / f"{name}.npy", array)
        sets.append(arrays)
    return sets


def test_deepmd_systems_below_a_folder(tmp_path):
    periodic = deepmd_system(tmp_path / "all" / "b")
    isolated = deepmd_system(tmp_path / "all" / "a", 1, periodic=False, seed=1)
    reading = read_frames(tmp_path / "all")
    assert len(reading.frames) == 9
    first, fourth = reading.frames[0], reading.frames[3]
    assert first.atomic_numbers.tolist() == [8, 1, 1]
    assert not first.pbc.any()
    np.testing.assert_array_equal(first.positions.reshape(-1), isolated[0]["coord"][0])
    assert first.source == f"{tmp_path / 'all' / 'a' / 'set.000'}, frame 0"
    assert fourth.pbc.all()
    np.testing.assert_array_equal(fourth.cell, CELL)
    # the volume is 5 · 6 · 7; DeePMD's virial is -V · stress
    np.testing.assert_allclose(fourth.stress, STRESS, rtol=1e-13)
    np.testing.assert_array_equal(fourth.forces.reshape(-1), periodic[0]["force"][0])
    last = reading.frames[-1]
    assert last.energy == periodic[1]["energy"][2]
    assert last.source.endswith("set.001, frame 2")
    assert reading.report.names["stress"] == {"virial": 6}
    assert [frame.energy for frame in iter_frames(tmp_path / "all" / "b")] == [
        *periodic[0]["energy"],
        *periodic[1]["energy"],
    ]


def test_deepmd_arrays_beside_the_sets_are_told(tmp_path):
    deepmd_system(tmp_path / "system", 1)
    assert read_frames(tmp_path / "system").report.remarks == []
    np.save(tmp_path / "system" / "energy.npy", np.zeros(3))
    path = tmp_path / "system" / "type_map.raw"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (remark,) = read_frames(tmp_path / "system").report.remarks
    assert "`energy.npy` beside the folders `set.*` is not read" in remark


def test_deepmd_of_mixed_types_and_weights(tmp_path):
    (arrays,) = deepmd_system(tmp_path / "mixed", 1, 2, periodic=False)
    folder = tmp_path / "mixed" / "set.000"
    np.save(folder / "real_atom_types.npy", np.array([[1, 0, 1], [0, 1, -1]], dtype=np.int32))
    np.save(folder / "atom_pref.npy", np.array([[1.0, 0.0, 2.0], [3.0, 4.0, 0.0]]))
    first, second = read_frames(tmp_path / "mixed").frames
    assert first.atomic_numbers.tolist() == [1, 8, 1]
    assert second.atomic_numbers.tolist() == [8, 1]
    assert first.atom_weights.tolist() == [1, 0, 2]
    assert second.atom_weights.tolist() == [3, 4]
    np.testing.assert_array_equal(second.positions.reshape(-1), arrays["coord"][1, :6])
    np.testing.assert_array_equal(second.forces.reshape(-1), arrays["force"][1, :6])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: (s / "type_map.raw").unlink(), r"has no `type_map.raw`"),
        (lambda s: (s / "type_map.raw").write_text("O\nD\n"), "`D` is no chemical symbol"),
        (lambda s: (s / "type.raw").write_text("0\n1\n2\n"), "types must be .* from 0 to 1"),
        (
            lambda s: (s / "type.raw").write_text("0\n1\n"),
            r"shape \('n', 6\), has \(3, 9",
        ),
        (lambda s: (s / "set.000" / "box.npy").unlink(), "has no `box.npy`; .*`nopbc`"),
        (lambda s: (s / "set.000" / "coord.npy").unlink(), "has no `coord.npy`"),
        (lambda s: np.save(s / "set.000" / "energy.npy", np.zeros(2)), r"must have shape \(3,\)"),
        (
            lambda s: np.save(s / "set.000" / "energy.npy", np.array([0, np.nan, 0])),
            "set.000, frame 1: `energy` must be finite",
        ),
        (
            lambda s: np.save(s / "set.000" / "force.npy", np.full((3, 9), np.nan)),
            "set.000, frame 0: `forces` must be finite",
        ),
        (
            lambda s: np.save(s / "set.000" / "force.npy", np.array([None]), allow_pickle=True),
            "pickled objects",
        ),
    ],
)
def test_unsound_deepmd_is_refused(tmp_path, change, message):
    deepmd_system(tmp_path / "system", 1)
    change(tmp_path / "system")
    with pytest.raises(ValueError, match=message) as caught:
        read_frames(tmp_path / "system")
    assert str(tmp_path / "system") in str(caught.value)


# --- VASP

SCF = """
----------------------------------- Iteration      1(   1)  -----------------------------------
  free energy    TOTEN  =       -99.00000000 eV
------------------------ {ending} ----------------------------------------
"""
OUTCAR_HEAD = """ vasp.6.3.0 18Jan22 (build) complex
 POTCAR:    PAW_PBE Ti_pv 07Sep2000
 POTCAR:    PAW_PBE O 08Apr2002
 POTCAR:    PAW_PBE Ti_pv 07Sep2000
   TITEL  = PAW_PBE Ti_pv 07Sep2000
 POTCAR:    PAW_PBE O 08Apr2002
   TITEL  = PAW_PBE O 08Apr2002
   ions per type =               1   2
   k-points           NKPTS =      1  k-points in BZ NKDIM = 1  number of bands    NBANDS=      1
   ISPIN  =      1    spin polarized calculation?
  k-points in reciprocal lattice and weights: one
   0.00000000  0.00000000  0.00000000       1.000
"""
REACHED = "aborting loop because EDIFF is reached"
NOT_REACHED = "aborting loop EDIFF was not reached (unconverged)"


def outcar_step(free_energy, *, ending=REACHED, glued=False):
    xx, yy, zz, yz, zx, xy = (-STRESS / KBAR)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    rows = "".join(
        " " + "".join(f"{x:13.5f}" for x in r) + "    " + "".join(f"{x:14.6f}" for x in f) + "\n"
        for r, f in zip(POSITIONS, FORCES, strict=True)
    )
    if glued:
        rows = rows.replace("0.500000     -1.000000", "0.500000-1.000000")
    lattice = "".join(
        " " + "".join(f"{x:13.9f}" for x in row) + "     0.0000000  0.0000000  0.0000000\n"
        for row in CELL
    )
    return (
        SCF.format(ending=ending)
        + f"  in kB   {xx:12.5f}{yy:12.5f}{zz:12.5f}{xy:12.5f}{yz:12.5f}{zx:12.5f}\n"
        + "  external pressure =       -1.00 kB  Pullay stress =        0.00 kB\n"
        + "      direct lattice vectors                 reciprocal lattice vectors\n"
        + lattice
        + " POSITION                                       TOTAL-FORCE (eV/Angst)\n"
        + " -----------------------------------------------------------------------------------\n"
        + rows
        + " -----------------------------------------------------------------------------------\n"
        + "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n"
        + "  ---------------------------------------------------\n"
        + f"  free  energy   TOTEN  =      {free_energy:16.8f} eV\n\n"
        + f"  energy  without entropy={free_energy + 0.5:16.8f}  energy(sigma->0) = "
        + f"{free_energy + 0.25:16.8f}\n"
    )


OUTCAR_END = " General timing and accounting informations for this job:\n"


def assert_titania(frame, free_energy):
    assert frame.atomic_numbers.tolist() == [22, 8, 8]
    np.testing.assert_allclose(frame.positions, POSITIONS, atol=1e-12)
    np.testing.assert_allclose(frame.cell, CELL, atol=1e-12)
    np.testing.assert_allclose(frame.forces, FORCES, atol=1e-12)
    np.testing.assert_allclose(frame.stress, STRESS, atol=1e-8)  # printed in 1e-5 kbar
    assert frame.energy == pytest.approx(free_energy, abs=1e-10)
    assert frame.pbc.all()


def test_rows_of_three_frames_are_not_taken_for_one_cell(tmp_path):
    units = {"energy": "eV", "length": "Angstrom"}
    arrays = {"z": np.array([1]), "R": np.arange(9.0).reshape(3, 1, 3), "E": np.arange(3.0)}
    sides = np.array([[5.0, 6.0, 7.0], [5.5, 6.5, 7.5], [6.0, 7.0, 8.0]])
    path = tmp_path / "set.npz"
    for box in (sides, sides[0]):
        np.savez(path, **arrays, box=box)
        with pytest.raises(ValueError, match=r"`box.npy` of shape .* a row for each of the 3"):
            read_frames(path, units=units)
    for box in (np.stack([np.diag(row) for row in sides]), sides.reshape(3, 3)[:2]):
        kept = {name: a if name == "z" else a[: len(box)] for name, a in arrays.items()}
        np.savez(path, **kept, box=box)
        cells = [frame.cell for frame in read_frames(path, units=units).frames]
        np.testing.assert_array_equal(cells, [np.diag(row) for row in sides[: len(box)]])
    np.savez(path, **arrays, box=np.full(3, 5.0))
    assert (read_frames(path, units=units).frames[2].cell == 5 * np.eye(3)).all()
    cells = np.stack([np.diag(row) for row in sides])
    axes = np.array([[True, True, False], [True, True, True], [False, True, True]])
    np.savez(path, **arrays, cell=cells, pbc=axes)
    found = [frame.pbc for frame in read_frames(path, units=units).frames]
    np.testing.assert_array_equal(found, axes)
    np.savez(path, **arrays, cell=cells, pbc=axes[0])
    with pytest.raises(ValueError, match=r"`pbc.npy` of shape \(3,\)"):
        read_frames(path, units=units)
    np.savez(path, **arrays, cell=cells, pbc=np.ones((3, 4), dtype=bool))
    with pytest.raises(ValueError, match=r"`pbc.npy` has shape \(3, 4\), which fits no 3 frames"):
        read_frames(path, units=units)


@pytest.mark.parametrize("name", ["OUTCAR", "OUTCAR.2", "run1.OUTCAR"])
def test_outcar_gives_the_energy_that_belongs_to_its_forces(tmp_path, name):
    path = tmp_path / name
    path.write_text(OUTCAR_HEAD + outcar_step(-25.5) + outcar_step(-26.5, glued=True) + OUTCAR_END)
    reading = read_frames(path)
    assert_titania(reading.frames[0], -25.5)
    assert_titania(reading.frames[1], -26.5)
    assert reading.report.names["energy"] == {"free_energy": 2}
    assert reading.report.remarks == []
    assert [f.energy for f in read_frames(path, energy_key="energy").frames] == [-25.25, -26.25]
    # another program reads the same numbers
    for atoms, frame in zip(ase.io.read(path, ":", format="vasp-out"), reading.frames, strict=True):
        assert atoms.get_potential_energy(force_consistent=True) == frame.energy
        np.testing.assert_allclose(atoms.get_stress(voigt=False), frame.stress, atol=1e-9)
        np.testing.assert_array_equal(atoms.numbers, frame.atomic_numbers)


def test_unconverged_and_cut_runs_of_vasp_are_told(tmp_path):
    path = tmp_path / "OUTCAR"
    whole = OUTCAR_HEAD + outcar_step(-25.5) + outcar_step(-26.5, ending=NOT_REACHED)
    path.write_text(whole + OUTCAR_END)
    (remark,) = read_frames(path).report.remarks
    assert "the electrons of 1 frame did not converge (1)" in remark
    last = outcar_step(-27.5)
    for length in (100, len(last) // 2, last.index("FREE ENERGIE") + 5, len(last) - 8):
        path.write_text(whole + last[:length])
        reading = read_frames(path)
        assert len(reading.frames) == 2
        assert "its last step is not whole and is left out" in reading.report.remarks[1]
        assert "its last step is not whole" in str(reading)


def learned_step(free_energy):
    """Return what VASP's machine-learned force field prints, of another cell, stress and forces."""
    text = outcar_step(free_energy).split("-" * 40 + "\n", 1)[1]
    text = re.sub(r"in kB.*", "in kB  " + 6 * "     1.00000", text)
    text = text.replace(
        "  in kB", "  ML FORCE on cell =-STRESS in cart. coord. units (eV/cell)\n  in kB"
    )
    text = text.replace(f"{CELL[0, 0]:13.9f}", "  9.900000000").replace("Angst)", "Angst) (ML)")
    text = text.replace("FREE ENERGIE", "ML FREE ENERGIE").replace(
        "energy   TOTEN", "energy ML TOTEN"
    )
    text = text.replace("energy  without", "ML energy  without")
    return text.replace("energy(sigma", "ML energy(sigma").replace(" 0.5", " 0.7")


LOOP = "     LOOP+:  cpu time   10.0: real time   10.1\n"


@pytest.mark.parametrize("loop", [LOOP, ""])
@pytest.mark.parametrize("first", [True, False])
def test_steps_of_a_learned_force_field_are_left_out(tmp_path, first, loop):
    """Of four steps, the first and the last were computed; the second and third were not."""
    path = tmp_path / "OUTCAR"
    both = [learned_step(-25.7), outcar_step(-25.5)]
    last = [learned_step(-26.7), outcar_step(-26.5)]
    steps = [both, [learned_step(-30.0)], [learned_step(-31.0)], last]
    if not first:
        steps = [step[::-1] for step in steps]
    text = "".join("".join(step) + loop for step in steps)
    path.write_text(OUTCAR_HEAD + text + OUTCAR_END)
    reading = read_frames(path)
    assert len(reading.frames) == 2
    assert_titania(reading.frames[0], -25.5)
    assert_titania(reading.frames[1], -26.5)
    (remark,) = reading.report.remarks
    assert "2 steps of VASP's machine-learned force field are left out" in remark
    path.write_text(OUTCAR_HEAD + learned_step(-1.0) + loop + learned_step(-2.0) + OUTCAR_END)
    with pytest.raises(ValueError, match=r"there is no frame in the file .* 2 steps of VASP's"):
        read_frames(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1   2\n", "1   999999999\n", r"\(line 8\): 1000000000 atoms"),
        ("1   2\n", "1   -2\n", r"\(line 8\): must hold numbers of atoms"),
        ("1   2\n", "3\n", "names 2 potentials .* has 1 numbers"),
        ("= PAW_PBE O ", "= PAW_PBE Qq ", r"\(line 7\): no element"),
        ("  in kB ", "  in kB   *******", r"expected 6 numbers, got 'in kB"),
    ],
)
def test_unsound_outcar_is_refused(tmp_path, old, new, message):
    path = tmp_path / "OUTCAR"
    path.write_text((OUTCAR_HEAD + outcar_step(-25.5)).replace(old, new))
    with pytest.raises(ValueError, match=message) as caught:
        read_frames(path)
    assert str(caught.value).startswith(str(path))


def varray(name, rows):
    lines = "".join(f"<v> {' '.join(f'{x:.12f}' for x in row)} </v>\n" for row in rows)
    return f'<varray name="{name}">\n{lines}</varray>\n'


def vasprun(free_energies, n_iterations=2, most=60, pressure=0.0):
    steps = ""
    scaled = POSITIONS @ np.linalg.inv(CELL)
    structure = (
        f"<structure><crystal>{varray('basis', CELL)}</crystal>{varray('positions', scaled)}"
        "</structure>\n"
    )
    initial = structure.replace("<structure>", '<structure name="initialpos">')
    for energy in free_energies:
        total = energy + 210.0 * pressure * KBAR
        iteration = (
            f'<scstep><energy><i name="e_fr_energy">{energy}</i><i name="e_wo_entrp">0</i>'
            f'<i name="e_0_energy">{energy + 0.25}</i></energy></scstep>'
        )
        steps += (
            f"<calculation>{iteration * n_iterations}{structure}{varray('forces', FORCES)}"
            f"{varray('stress', -STRESS / KBAR)}<energy><i name='e_fr_energy'>{total}</i>"
            f"<i name='e_wo_entrp'>{total}</i><i name='e_0_energy'>7</i></energy></calculation>\n"
        )
    atoms = "".join(f"<rc><c>{s}</c><c>1</c></rc>" for s in ("Ti", "O ", "O "))
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n'
        f"<kpoints>{varray('kpointlist', [[0, 0, 0]])}{varray('weights', [[1]])}</kpoints>\n"
        f'<parameters><i type="int" name="NELM">{most}</i><i name="PSTRESS">{pressure}</i>'
        f'</parameters>\n<atominfo><atoms>3</atoms><array name="atoms"><set>{atoms}</set></array>'
        f"</atominfo>\n{initial}"
        f"{steps}</modeling>\n"
    )


@pytest.mark.parametrize("pressure", [0.0, 50.0])
def test_vasprun_gives_the_energy_that_belongs_to_its_forces(tmp_path, pressure):
    path = tmp_path / "vasprun.xml"
    path.write_text(vasprun([-25.5, -26.5], pressure=pressure))
    reading = read_frames(path)
    assert_titania(reading.frames[0], -25.5)
    assert_titania(reading.frames[1], -26.5)
    assert reading.report.remarks == []
    zero = [f.energy for f in read_frames(path, energy_key="energy").frames]
    np.testing.assert_allclose(zero, [-25.25, -26.25], atol=1e-9)
    for atoms, frame in zip(ase.io.read(path, ":", format="vasp-xml"), reading.frames, strict=True):
        assert atoms.get_potential_energy(force_consistent=True) == pytest.approx(
            frame.energy, abs=1e-5
        )
        np.testing.assert_allclose(atoms.get_stress(voigt=False), frame.stress, atol=1e-8)


def test_unconverged_and_cut_vasprun_is_told(tmp_path):
    path = tmp_path / "vasprun.xml"
    path.write_text(vasprun([-25.5], n_iterations=60))
    assert "the electrons of 1 frame did not converge (0)" in read_frames(path).report.remarks[0]
    text = vasprun([-25.5, -26.5])
    path.write_text(text[: int(0.9 * len(text))])
    reading = read_frames(path)
    assert len(reading.frames) == 1
    assert "what follows its 1 whole steps is left out" in reading.report.remarks[0]


def test_vasprun_with_entities_is_refused(tmp_path):
    path = tmp_path / "vasprun.xml"
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    path.write_text(vasprun([-25.5]).replace("<modeling>", bomb + "<modeling>", 1))
    with pytest.raises(ValueError, match="holds a DTD, which is not read"):
        read_frames(path)


# --- databases of ASE


def database(path, **changes):
    atoms = Atoms("TiO2", POSITIONS, cell=CELL, pbc=[True, True, False])
    atoms.set_constraint(FixAtoms([0]))
    labels = {"energy": -3.5, "forces": FORCES} | changes
    atoms.calc = SinglePointCalculator(atoms, **labels)
    with ase.db.connect(path) as connection:
        connection.write(atoms, config_type="slab", weight=2.0, data={"ref": FORCES * 2, "n": 3})


@pytest.mark.parametrize("suffix", [".db", ".json"])
def test_rows_are_read_without_making_objects(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"set{suffix}"
    database(path)

    def forbidden(*arguments, **options):
        raise AssertionError("an object was made from what a file names")

    for name in ("ase.io.jsonio.create_ase_object", "ase.constraints.dict2constraint"):
        monkeypatch.setattr(name, forbidden)
    (frame,) = read_frames(path).frames
    assert frame.atomic_numbers.tolist() == [22, 8, 8]
    assert frame.pbc.tolist() == [True, True, False]
    np.testing.assert_array_equal(frame.cell, CELL)
    np.testing.assert_array_equal(frame.forces, FORCES)  # those of fixed atoms too
    assert (frame.energy, frame.weight, frame.config_type) == (-3.5, 2.0, "slab")
    (frame,) = read_frames(path, forces_key="ref").frames
    np.testing.assert_array_equal(frame.forces, FORCES * 2)


def test_two_energies_in_a_database_are_a_question(tmp_path):
    database(tmp_path / "set.db", free_energy=-4.5)
    with pytest.raises(ValueError, match="frame 0: `energy` and `free_energy` differ"):
        read_frames(tmp_path / "set.db")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE systems SET numbers = x'010203'", "frame 0: `numbers` has 3 bytes"),
        ("UPDATE systems SET positions = x''", r"`positions` must have shape \(3, 3\), has 0"),
        ("UPDATE systems SET positions = 'abc'", "`positions` must be numbers, got 'abc'"),
        ("UPDATE systems SET positions = zeroblob(2000000)", "too big"),
        ("UPDATE systems SET key_value_pairs = '[1, 2]'", "must be dictionaries"),
        ("UPDATE systems SET key_value_pairs = '{{{'", "frame 0: Expecting"),
        ("UPDATE systems SET data = x'ffffffffffffff7f00'", "frame 0: "),
        ("DROP TABLE systems", "there is no table `systems`"),
        (
            "ALTER TABLE systems RENAME TO other; CREATE VIEW systems AS WITH RECURSIVE c(x) AS "
            "(SELECT 1 UNION ALL SELECT x FROM c) SELECT x FROM c",
            "there is no table `systems`",
        ),
        (
            "ALTER TABLE systems ADD COLUMN bomb BLOB AS (zeroblob(1000000))",
            "`systems` computes its columns bomb",
        ),
        ("ALTER TABLE systems DROP COLUMN forces", "lacks the columns forces"),
    ],
)
def test_hostile_databases_are_refused(tmp_path, monkeypatch, statement, message):
    monkeypatch.setattr("eqpot.data.readers.ase_database._LARGEST_BLOB", 1_000_000)
    path = tmp_path / "set.db"
    database(path)
    connection = sqlite3.connect(path)
    connection.executescript(statement)
    connection.close()
    with pytest.raises(ValueError, match=message) as caught:
        read_frames(path)
    assert str(caught.value).startswith(str(path))


def test_damaged_databases_are_refused(tmp_path):
    path = tmp_path / "set.db"
    database(path)
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(100):
        damaged = bytearray(sound)
        for place in rng.integers(0, len(sound), 20):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            read_frames(path)
        except ValueError as error:
            messages.append(str(error))
    assert messages
    assert all(message.startswith(str(path)) for message in messages)
    path.write_bytes(b"no database")
    with pytest.raises(ValueError, match="is no SQLite database"):
        read_frames(path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[]", "is no JSON database"),
        ('{"ids": [1]}', "frame 0: there is no row `1`"),
        (
            '{"ids": [1], "1": {"numbers": {"__ndarray__": [[9999], "int64", [1]]}}}',
            "declares",
        ),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_hostile_json_databases_are_refused(tmp_path, document, message):
    path = tmp_path / "set.json"
    path.write_text(document)
    with pytest.raises(ValueError, match=message):
        read_frames(path)


# --- npz

PADDED = {
    "R": np.arange(24.0).reshape(2, 4, 3),
    "Z": np.array([[8, 1, 1, 0], [6, 8, 0, 0]]),
    "E": np.array([-1.0, -2.0]),
    "F": np.arange(24.0).reshape(2, 4, 3) / 8,
    "N": np.array([3, 2]),
}
FLAT = {
    "R": np.concatenate([PADDED["R"][0, :3], PADDED["R"][1, :2]]),
    "Z": np.array([8, 1, 1, 6, 8]),
    "E": PADDED["E"],
    "F": np.concatenate([PADDED["F"][0, :3], PADDED["F"][1, :2]]),
    "N": PADDED["N"],
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("arrays", [PADDED, {k: v for k, v in PADDED.items() if k != "N"}, FLAT])
def test_padded_and_flat_npz(tmp_path, arrays, save):
    path = tmp_path / "set.npz"
    save(path, **arrays)
    first, second = read_frames(path, units=KCAL).frames
    assert first.atomic_numbers.tolist() == [8, 1, 1]
    assert second.atomic_numbers.tolist() == [6, 8]
    np.testing.assert_array_equal(second.positions, PADDED["R"][1, :2])
    np.testing.assert_allclose(second.forces, PADDED["F"][1, :2] * units.KCAL_PER_MOL, rtol=1e-15)
    assert second.energy == -2 * units.KCAL_PER_MOL


def test_npz_with_any_names(tmp_path):
    path = tmp_path / "set.npz"
    arrays = {
        "species": np.array([22, 8, 8]),
        "xyz": np.stack([POSITIONS, POSITIONS]) / units.BOHR,
        "h": CELL / units.BOHR,
        "etot": np.array([1.0, 2.0]),
        "grad": np.zeros((2, 3, 3)),
        "sigma": np.stack([STRESS, STRESS]) / units.GPA,
        "run": np.array(["a", "b"]),
        "E": np.array([9.0, 9.0]),
    }
    np.savez(path, **arrays)
    names = {"atomic_numbers_key": "species", "positions_key": "xyz", "cell_key": "h"}
    names |= {"energy_key": "etot", "stress_key": "sigma", "group_key": "run"}
    declared = {"energy": "Ha", "length": "Bohr", "stress": "GPa"}
    reading = read_frames(path, units=declared, **names)
    first, second = reading.frames
    np.testing.assert_allclose(first.positions, POSITIONS, atol=1e-14)
    np.testing.assert_allclose(first.cell, CELL, atol=1e-14)
    np.testing.assert_allclose(first.stress, STRESS, atol=1e-14)
    assert (first.group, second.group) == ("a", "b")
    assert second.energy == 2 * units.HARTREE
    assert first.forces is None
    assert "grad" in reading.report.unlabelled_keys
    with pytest.raises(ValueError, match="no frame has `none`, given as `energy_key`"):
        read_frames(path, units=declared, **(names | {"energy_key": "none"}))
    with pytest.raises(TypeError, match="there is no argument `enrgy_key`"):
        read_frames(path, units=declared, enrgy_key="etot")


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (PADDED, {"N": np.array([3, 3])}, "frame 1: atom 2 has atomic number 0"),
        (PADDED, {"N": np.array([2, 2])}, "frame 0: atom 2 is there, though .* 2 atoms"),
        (PADDED, {"N": np.array([3, 5])}, "`R` must have shape"),
        (PADDED, {"N": np.array([3.0, 2.0])}, "`N` must hold integers"),
        (PADDED, {"Z": PADDED["Z"].astype(float)}, "`Z` must hold integers"),
        (PADDED, {"F": PADDED["F"] * np.nan}, "frame 0: `forces` must be finite"),
        (FLAT, {"N": np.array([3, 3])}, "2 counts of 6 atoms"),
        (FLAT, {"F": FLAT["F"][:4]}, r"`F` must have shape \(5, 3\)"),
        (PADDED, {"R": np.asfortranarray(PADDED["R"])}, "Fortran's order"),
    ],
)
def test_unsound_padded_and_flat_npz_is_refused(tmp_path, base, changes, message):
    path = tmp_path / "set.npz"
    np.savez(path, **(base | changes))
    with pytest.raises(ValueError, match=message) as caught:
        read_frames(path, units=KCAL)
    assert str(caught.value).startswith(str(path))


def test_groups_and_kinds_of_extxyz(tmp_path):
    path = tmp_path / "set.extxyz"
    path.write_text("1\nenergy=1 run=7\nH 0 0 0\n1\nenergy=1 run=8 config_type=x\nH 0 0 0\n")
    first, second = read_frames(path, group_key="run", config_type="gas").frames
    assert (first.group, second.group) == ("7", "8")
    assert (first.config_type, second.config_type) == ("gas", "x")


def test_no_reader_warns_of_json(tmp_path):
    # what a header calls JSON is data, not a program
    path = tmp_path / "set.extxyz"
    header = json.dumps({"__ase_objtype__": "atoms"})
    path.write_text(f"1\nenergy=1 more='_JSON {header}'\nH 0 0 0\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_frames(path).frames[0].energy == 1
