"""Structures for the laws: hypothesis strategies, and the ordinary set of rattled structures."""

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import strategies as st

MOLECULES = ("H2O", "CH3CH2OH", "NH3", "C6H6", "CH3SH", "CO2", "SiH4")
CRYSTALS = (
    ("Si", "diamond", 5.43),
    ("Cu", "fcc", 3.61),
    ("Fe", "bcc", 2.87),
    ("NaCl", "rocksalt", 5.64),
)


def lattice(lengths, angles, left_handed=False):
    """Return rows of a cell with these edges (Å) and angles (degrees), or None where flat."""
    alpha, beta, gamma = np.cos(np.radians(angles))
    sin_gamma = np.sqrt(1 - gamma**2)
    y = (alpha - beta * gamma) / sin_gamma
    z2 = 1 - beta**2 - y**2
    if z2 < 1e-3:
        return None
    cell = np.array([[1, 0, 0], [gamma, sin_gamma, 0], [beta, y, np.sqrt(z2)]])
    cell *= np.asarray(lengths, dtype=float)[:, None]
    return cell[[1, 0, 2]] if left_handed else cell


def random_rotation(rng):
    """Return a proper rotation, uniform over all."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def fill(cell, n_atoms, pbc, rng, numbers=(1, 6, 8, 14), outside=0):
    """Return random atoms in a cell, moved up to ``outside`` lattice vectors out of it."""
    fractional = rng.random((n_atoms, 3)) + rng.integers(-outside, outside + 1, (n_atoms, 3))
    return Atoms(rng.choice(numbers, n_atoms), fractional @ cell, cell=cell, pbc=pbc)


seeds = st.integers(0, 2**32 - 1)


@st.composite
def molecules(draw):
    """Return a rattled, rotated molecule without a cell."""
    atoms = molecule(draw(st.sampled_from(MOLECULES)))
    rng = np.random.default_rng(draw(seeds))
    positions = atoms.positions @ random_rotation(rng) + rng.normal(
        scale=0.05, size=(len(atoms), 3)
    )
    atoms.positions = positions + rng.uniform(-20, 20, 3)
    return atoms


@st.composite
def cells(draw, shortest=0.5, longest=20.0, narrowest=20.0, widest=160.0, left_handed=None):
    """Return a triclinic cell: edges in Å, angles in degrees, of either hand."""
    edge = st.floats(shortest, longest)
    angle = st.floats(narrowest, widest)
    if left_handed is None:
        left_handed = draw(st.booleans())
    shape = st.tuples(st.tuples(edge, edge, edge), st.tuples(angle, angle, angle))
    made = shape.map(lambda drawn: lattice(*drawn, left_handed)).filter(lambda c: c is not None)
    return draw(made)


@st.composite
def triclinic(draw, pbc=(True, True, True), max_atoms=12, **cell_settings):
    """Return random atoms in a triclinic cell, some of them outside of it."""
    cell = draw(
        cells(**{"shortest": 2.0, "longest": 12.0, "narrowest": 40, "widest": 130} | cell_settings)
    )
    rng = np.random.default_rng(draw(seeds))
    n_atoms = draw(st.integers(1, max_atoms))
    return fill(cell, n_atoms, pbc, rng, outside=draw(st.sampled_from([0, 5])))


def small_cells(max_atoms=3):
    """Return atoms in cells shorter than any usual cutoff."""
    return triclinic(shortest=1.5, longest=3.5, narrowest=60, widest=120, max_atoms=max_atoms)


def left_handed_cells():
    """Return atoms in cells with negative determinant."""
    return triclinic(left_handed=True)


@st.composite
def slabs_and_wires(draw):
    """Return structures periodic along one or two axes, turned, the other rows arbitrary."""
    pbc = draw(st.sampled_from([p for p in np.ndindex(2, 2, 2) if 0 < sum(p) < 3]))
    atoms = draw(triclinic(pbc=[bool(p) for p in pbc]))
    rng = np.random.default_rng(draw(seeds))
    turn = random_rotation(rng)
    atoms.set_cell(atoms.cell[:] @ turn)
    atoms.positions = atoms.positions @ turn + rng.uniform(-30, 30, 3)
    return with_other_rows(atoms, draw(st.sampled_from(["none", "1 Å", "100 Å", "skewed", "same"])))


def with_other_rows(atoms, kind):
    """Return a copy whose rows of non-periodic axes are rewritten; nothing else may change."""
    atoms = atoms.copy()
    cell = atoms.cell[:].copy()
    for row in np.flatnonzero(~atoms.pbc):
        cell[row] = {
            "none": np.zeros(3),
            "1 Å": np.eye(3)[row],
            "100 Å": 100 * np.eye(3)[row],
            "skewed": cell.sum(axis=0) * 0.7 + [0.1, -0.2, 0.3],
            "same": cell[row],
        }[kind]
    atoms.set_cell(cell)
    return atoms


@st.composite
def lone_atoms(draw):
    """Return one atom, without a cell or in a periodic one."""
    pbc = draw(st.booleans())
    cell = draw(cells(shortest=2.0, narrowest=60, widest=120)) if pbc else np.zeros((3, 3))
    rng = np.random.default_rng(draw(seeds))
    return Atoms(
        [draw(st.sampled_from([1, 6, 8, 14]))], rng.uniform(-9, 9, (1, 3)), cell=cell, pbc=pbc
    )


def structures():
    """Return any of the above."""
    return st.one_of(
        molecules(),
        triclinic(),
        small_cells(),
        left_handed_cells(),
        slabs_and_wires(),
        lone_atoms(),
    )


def rattled(atoms, seed, scale=0.08):
    """Return a copy with every atom moved by a normal random step, in Å."""
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(scale=scale, size=atoms.positions.shape)
    return atoms


def ordinary_set():
    """Return the structures on which every law is tried, by name; the same in every run.

    Rattled molecule, cluster, bulk, needle cell, one atom (free and periodic), triclinic and
    left-handed cells.
    """
    cluster = bulk("Cu", cubic=True) * (2, 2, 1)
    cluster = Atoms(cluster.numbers, cluster.positions)
    needle = Atoms("Si2", [[0.1, 0, 0], [1.2, 1.1, 11.0]], cell=[2.4, 2.5, 22.0], pbc=True)
    skew = lattice([5.1, 6.2, 5.6], [62, 71, 113])
    rng = np.random.default_rng(7)
    # well separated: the corners of a 2×2×2 grid, then rattled
    grid = np.array(list(np.ndindex(2, 2, 2)), dtype=float) / 2
    species = rng.permutation([1, 6, 8, 14, 1, 6, 8, 14])
    crystal = Atoms(species, grid @ skew, cell=skew, pbc=True)
    hand = crystal.copy()
    hand.set_cell(crystal.cell[:][[1, 0, 2]])
    return {
        "molecule": rattled(molecule("CH3CH2OH"), 1),
        "cluster": rattled(cluster, 2),
        "bulk": rattled(bulk("Si", cubic=True), 3),
        "primitive": rattled(bulk("Si"), 4),
        "needle": rattled(needle, 5),
        "one_atom": Atoms("Si", [[0.3, -0.2, 0.1]]),
        "one_periodic_atom": Atoms("Si", [[0.3, -0.2, 0.1]], cell=[2.5, 2.6, 2.7], pbc=True),
        "triclinic": rattled(crystal, 6),
        "left_handed": rattled(hand, 7),
        "slab": rattled(Atoms(crystal.numbers, crystal.positions, cell=skew, pbc=[1, 1, 0]), 8),
    }
