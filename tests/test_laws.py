"""The laws of physics hold for random and for trained weights, at the bars of float64."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings

import laws
from eqpot.export import export_torchscript
from eqpot.files import load_potential
from potentials import ELEMENTS, random_potential
from strategies import ordinary_set, rattled, seeds, structures, with_other_rows

ORDINARY = ordinary_set()


@pytest.fixture(scope="module", params=["plain", "repulsion", "deep", "shallow", "narrow"])
def potential(request):
    return {
        "plain": lambda: random_potential(),
        "repulsion": lambda: random_potential(
            repulsion=True, l_hidden=2, l_along=2, final_gate=False
        ),
        "deep": lambda: random_potential(
            n_layers=3, l_hidden=2, l_along=1, l_max=2, correlation=4, envelope_power=3
        ),
        "shallow": lambda: random_potential(
            n_layers=1, l_hidden=0, l_max=4, correlation=2, envelope_power=2
        ),
        # seven elements told by three learned numbers, products of one density, scalars sent
        "narrow": lambda: random_potential(n_element_channels=3, correlation=1, l_hidden=0),
    }[request.param]()


@pytest.mark.parametrize("name", ORDINARY)
def test_symmetry(potential, name):
    laws.check_symmetry(potential, ORDINARY[name], np.random.default_rng(1))


@pytest.mark.parametrize("name", ORDINARY)
def test_forces_are_the_gradient(potential, name):
    laws.check_forces(potential, ORDINARY[name], np.random.default_rng(2))


@pytest.mark.parametrize("name", [name for name, atoms in ORDINARY.items() if atoms.pbc.all()])
def test_stress_is_the_strain_derivative(potential, name):
    laws.check_stress(potential, ORDINARY[name])


def test_extensivity(potential):
    for atoms in (bulk("Si"), rattled(bulk("Cu", cubic=True), 3)):
        laws.check_extensivity(potential, atoms)


def test_additivity(potential):
    laws.check_additivity(potential, rattled(molecule("CH3CH2OH"), 1), rattled(molecule("H2O"), 2))


def test_batch_equals_members(potential):
    laws.check_batch(potential, list(ORDINARY.values()))


def test_isolated_atoms(potential):
    laws.check_isolated_atoms(potential)


@pytest.mark.parametrize("number", ELEMENTS)
def test_smooth_at_the_cutoff(potential, number):
    laws.check_cutoff(potential, Atoms([8], [[0.0, 0.0, 0.0]]), number)
    laws.check_cutoff(potential, rattled(molecule("CH3CH2OH"), 5), number)


@pytest.mark.parametrize(("l_max", "densest"), [(2, 0.15), (3, 0.2)])
@settings(max_examples=25)
@given(atoms=structures(), seed=seeds)
def test_symmetry_of_any_structure(l_max, densest, atoms, seed):
    # no matter is so close or, with 0.18 atoms/Å³ in diamond, so dense; random weights give
    # hundreds of eV there, with l_max 2 in diamond too, and the bar would measure rounding
    dense = atoms.pbc.all() and len(atoms) / atoms.get_volume() > densest
    if dense or closest(atoms) < 0.5:
        return
    laws.check_symmetry(random_potential(l_max=l_max), atoms, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", ["none", "1 Å", "100 Å", "skewed"])
@pytest.mark.parametrize("pbc", [(1, 1, 0), (0, 1, 0), (0, 0, 0)])
def test_rows_without_period_mean_nothing(pbc, kind):
    potential = random_potential()
    atoms = ORDINARY["triclinic"].copy()
    atoms.pbc = pbc
    energy, forces, _ = laws.predict(potential, atoms)
    other = laws.predict(potential, with_other_rows(atoms, kind))
    laws.assert_same_energy(energy, other[0], len(atoms))
    laws.assert_same_forces(forces, other[1])


def test_other_bases_of_one_crystal():
    potential = random_potential()
    atoms = ORDINARY["triclinic"]
    energy, forces, stress = laws.predict(potential, atoms)
    for basis in ([[1, 2, 0], [0, 1, -1], [0, 0, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]]):
        other = atoms.copy()
        other.set_cell(np.array(basis) @ atoms.cell[:])
        shifts = np.random.default_rng(0).integers(-5, 6, (len(atoms), 3))
        other.positions += shifts @ atoms.cell[:]
        energy_o, forces_o, stress_o = laws.predict(potential, other)
        laws.assert_same_energy(energy, energy_o, len(atoms))
        laws.assert_same_forces(forces, forces_o, bar=1e-10)  # positions of 60 Å lose two digits
        laws.assert_same_stress(stress, stress_o, bar=1e-10)


def test_laws_on_a_given_potential(request, tmp_path):
    """``pytest tests/test_laws.py --potential FILE``: the whole contract on a trained file."""
    path = request.config.getoption("--potential")
    if path is None:
        pytest.skip("no --potential given")
    potential = load_potential(path, dtype="float64")
    known = set(potential.atomic_numbers)
    crystal = rattled(molecule("CH3OH"), 7)
    crystal.set_cell([[5.0, 0.3, 0.1], [0.4, 4.8, -0.2], [-0.3, 0.2, 5.3]])
    crystal.pbc = True
    pool = ordinary_set() | {
        "methanol": rattled(molecule("CH3OH"), 8),
        "acetic acid": rattled(molecule("CH3COOH"), 9),
        "methanol crystal": crystal,
        "diamond": rattled(bulk("C"), 11),
        "silicon": rattled(bulk("Si", cubic=True), 10),
    }
    usable = {name: atoms for name, atoms in pool.items() if known.issuperset(atoms.numbers)}
    assert len(usable) >= 2
    laws.check_potential(potential, usable)
    bodies = [atoms for atoms in usable.values() if not atoms.pbc.any()]
    for atoms in bodies:
        laws.check_additivity(potential, atoms, bodies[0])
        for number in known:
            laws.check_cutoff(potential, atoms, number)
    exported = export_torchscript(path, tmp_path / "exported.pt", "float64")
    assert exported["largest_difference"] <= 1e-12


def closest(atoms):
    """Return the shortest distance between atoms or their images, Å."""
    from eqpot.data import neighbor_list

    index, shifts = neighbor_list(atoms.positions, atoms.cell[:], atoms.pbc, 3.0)
    vectors = atoms.positions[index[1]] - atoms.positions[index[0]] + shifts @ atoms.cell[:]
    return np.linalg.norm(vectors, axis=1).min(initial=np.inf)


def test_an_element_that_the_potential_does_not_know_is_refused():
    with pytest.raises(ValueError, match="does not know"):
        laws.predict(random_potential(), molecule("ClF"))
    told = r"a\.xyz: atom 1 is Cl \(Z = 17\), which the potential does not know; it knows .*Cl in"
    with pytest.raises(ValueError, match=told):
        random_potential().check_elements([6, 17], "a.xyz")
    with pytest.raises(ValueError, match=r"atom 0 is no element \(Z = 0\), .* it knows [\w, ]+$"):
        random_potential().check_elements([0], "a.xyz")
