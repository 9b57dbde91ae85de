"""The ASE calculator: laws 8, 9, 10, 12, 13 and 37, per-atom sums, stress by finite strain."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import full_3x3_to_voigt_6_stress

from eqpot.calculators import ASECalculator
from eqpot.export import export_torchscript
from potentials import soft_potential
from strategies import ordinary_set, rattled, with_other_rows

STRUCTURES = {
    name: atoms for name, atoms in ordinary_set().items() if set(atoms.numbers) <= {1, 6, 8, 14}
}


@pytest.fixture(scope="module")
def potential():
    return soft_potential()


@pytest.fixture
def calculator(potential):
    return ASECalculator(potential)


def results(calculator, atoms):
    calculator.reset()
    calculator.calculate(atoms)
    return calculator.results


def same(one, other, tolerance=1e-11):
    for name in ("energy", "energies", "forces"):
        assert np.allclose(one[name], other[name], rtol=0, atol=tolerance * 100), name


@pytest.mark.parametrize("z", [1, 6, 8, 14])
def test_isolated_atom_has_its_reference_energy(calculator, potential, z):
    free = results(calculator, Atoms([z], [[0.1, 0.2, 0.3]]))
    boxed = results(calculator, Atoms([z], [[0.1, 0.2, 0.3]], cell=[80, 80, 80], pbc=True))
    expected = potential.reference_energies[potential.atomic_numbers.index(z)]
    assert free["energy"] == boxed["energy"] == expected
    assert not free["forces"].any() and not boxed["forces"].any()


def test_same_crystal_in_other_bases(calculator):
    atoms = STRUCTURES["triclinic"]
    expected = results(calculator, atoms)
    rng = np.random.default_rng(0)
    for basis in ([[1, 0, 0], [2, 1, 0], [-1, 1, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]]):
        other = atoms.copy()
        other.set_cell(np.array(basis) @ atoms.cell[:])
        other.positions += rng.integers(-5, 6, (len(atoms), 3)) @ atoms.cell[:]
        found = results(calculator, other)
        same(found, expected)
        assert np.allclose(found["stress"], expected["stress"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["none", "1 Å", "100 Å", "skewed"])
def test_rows_of_open_axes_have_no_influence(calculator, kind):
    atoms = STRUCTURES["slab"]
    same(results(calculator, with_other_rows(atoms, kind)), results(calculator, atoms))


def test_per_atom_values_sum_to_totals(calculator):
    for name, atoms in STRUCTURES.items():
        found = results(calculator, atoms)
        assert found["energies"].sum() == pytest.approx(found["energy"], abs=1e-9), name
        assert found["free_energy"] == found["energy"]
        if atoms.pbc.all():
            assert found["stresses"].shape == (len(atoms), 6)
            assert np.allclose(found["stresses"].sum(axis=0), found["stress"], atol=1e-13), name


@pytest.mark.parametrize("name", ["bulk", "triclinic", "left_handed", "needle"])
def test_stress_is_the_strain_derivative(name):
    # without E0s: thousands of eV would leave rounding of 1e-11 eV in the differences
    potential = soft_potential()
    potential.reference_energies = [0.0] * len(potential.reference_energies)
    calculator = ASECalculator(potential)
    atoms = STRUCTURES[name]
    expected = results(calculator, atoms)["stress"]
    derivative = np.zeros((3, 3))
    step = 1e-5  # the repulsion is steep: at 1e-4 truncation is 1e-7, here 3e-11
    for a in range(3):
        for b in range(3):
            energies = []
            for factor in (-2, -1, 1, 2):
                strain = np.eye(3)
                strain[a, b] += 0.5 * factor * step
                strain[b, a] += 0.5 * factor * step
                strained = atoms.copy()
                strained.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
                energies.append(results(calculator, strained)["energy"])
            low2, low, high, high2 = energies
            derivative[a, b] = (low2 - 8 * low + 8 * high - high2) / (12 * step)
    derivative /= atoms.get_volume()
    found = full_3x3_to_voigt_6_stress(derivative)
    assert np.allclose(found, expected, rtol=0, atol=1e-8 * max(1, np.abs(expected).max()))


def test_skin_changes_no_bit(potential):
    atoms = rattled(bulk("Si", cubic=True), 3)
    with_skin, without = ASECalculator(potential, skin=0.8), ASECalculator(potential, skin=0.0)
    rng = np.random.default_rng(1)
    built = set()
    for step in range(30):
        atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
        if step == 17:
            atoms.wrap()
        one, other = results(with_skin, atoms), results(without, atoms)
        built.add(id(with_skin._list))
        for name in one:
            assert np.array_equal(one[name], other[name]), (step, name)
    assert 1 < len(built) < 30  # kept for some steps, made anew after others


def test_answer_does_not_depend_on_history(potential):
    used = ASECalculator(potential)
    for atoms in STRUCTURES.values():
        before = atoms.positions.copy()
        found = results(used, atoms)
        fresh = results(ASECalculator(potential), atoms)
        assert all(np.array_equal(found[name], fresh[name]) for name in fresh)
        assert np.array_equal(atoms.positions, before)


def test_the_least_change_is_computed_anew_and_nothing_twice(calculator, monkeypatch):
    computed = []
    run = calculator.calculate
    monkeypatch.setattr(calculator, "calculate", lambda *a: (computed.append(a[2]), run(*a)))
    atoms = STRUCTURES["triclinic"].copy()
    atoms.calc = calculator
    atoms.get_forces()
    for name in ("positions", "cell"):
        atoms.get_potential_energy()
        array = getattr(atoms, name)
        array[0, 0] = np.nextafter(array[0, 0], np.inf)
        atoms.get_forces()
    atoms.set_initial_charges(np.ones(len(atoms)))  # no potential depends on them
    atoms.get_stress()
    atoms.pbc = (True, True, False)
    atoms.get_forces()
    atoms.numbers[0] = 14
    atoms.get_forces()
    assert computed[1:] == [["positions"], ["cell"], ["pbc"], ["numbers"]]


def test_changed_species_or_cell_make_a_new_list(calculator):
    atoms = bulk("Si", cubic=True)
    atoms.calc = calculator
    first = atoms.get_potential_energy()
    atoms.numbers[0] = 6
    second = atoms.get_potential_energy()
    atoms.set_cell(atoms.cell[:] * 1.01)
    assert len({first, second, atoms.get_potential_energy()}) == 3


def test_no_atom_and_no_neighbour(calculator):
    empty = results(calculator, Atoms())
    assert empty["energy"] == 0.0 and empty["forces"].shape == (0, 3)
    assert np.isfinite(results(calculator, Atoms("Si", cell=[9, 9, 9], pbc=True))["stress"]).all()


def test_no_stress_without_a_volume(calculator):
    atoms = molecule("H2O")
    atoms.calc = calculator
    assert atoms.get_forces().shape == (3, 3)
    with pytest.raises(PropertyNotImplementedError, match="periodic along no axis"):
        atoms.get_stress()
    slab = with_other_rows(STRUCTURES["slab"], "none")
    slab.calc = calculator
    with pytest.raises(PropertyNotImplementedError, match="no volume"):
        slab.get_stress()
    slab = STRUCTURES["slab"].copy()
    slab.calc = calculator
    assert slab.get_stress().shape == (6,)


def broken(change):
    atoms = bulk("Si", cubic=True)
    change(atoms)
    return atoms


def set_position(atoms, value):
    atoms.positions[3, 1] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: set_position(a, np.nan), "atom 3"),
        (lambda a: set_position(a, np.inf), "atom 3"),
        (lambda a: a.numbers.__setitem__(2, 79), r"atom 2 is Au .*knows H, C, O, Si"),
        (lambda a: a.numbers.__setitem__(2, 0), r"atom 2 .*Z = 0"),
        (lambda a: a.set_cell(np.zeros((3, 3))), "row 0 is zero"),
        (lambda a: a.set_cell([[5, 0, 0], [0, 5, 0], [5, 5, 0]]), "flat"),
        (lambda a: a.set_cell(np.diag([5, np.nan, 5])), "row 1"),
        (lambda a: a.positions.__setitem__(5, a.positions[1] + 1e-5), "atoms 1 and 5"),
        (lambda a: a.positions.__setitem__(5, a.positions[1] + a.cell[0]), "atoms 1 and 5"),
    ],
)
def test_refuses_by_name(calculator, change, message):
    with pytest.raises(ValueError, match=message):
        results(calculator, broken(change))


def test_close_atoms_are_finite(calculator):
    atoms = broken(lambda a: a.positions.__setitem__(5, a.positions[1] + [0.05, 0, 0]))
    assert np.isfinite(results(calculator, atoms)["forces"]).all()


def test_negative_skin_is_refused(potential):
    with pytest.raises(ValueError, match="`skin`"):
        ASECalculator(potential, skin=-0.1)


def test_exported_program_computes_the_same(potential, tmp_path):
    export_torchscript(potential, tmp_path / "p.pt", "float64")
    program = ASECalculator.from_torchscript(tmp_path / "p.pt", trust=True)
    eager = ASECalculator(potential)
    for atoms in STRUCTURES.values():
        for _ in range(3):
            same(results(program, atoms), results(eager, atoms))
