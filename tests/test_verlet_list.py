"""The neighbour list that calculators keep."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from eqpot.calculators.verlet_list import VerletList, edge_order
from eqpot.data.neighbors import neighbor_list
from eqpot.nn.neighbors import incoming_slots, pad_edges

R_MAX = 4.0


def triclinic():
    """Return three atoms in so small a cell that they see many images of themselves."""
    cell = [[3.1, 0.2, -0.1], [0.7, 2.9, 0.4], [-0.3, 0.6, 4.4]]
    positions = [[0.0, 0.1, 0.0], [1.3, 0.2, 2.1], [0.4, 1.6, 3.0]]
    return Atoms("Si3", positions, cell=cell, pbc=True)


STRUCTURES = {
    "triclinic": triclinic(),
    "edges at the radius": bulk("Al", "fcc", a=4.0, cubic=True) * (2, 1, 1),
    "chain": Atoms("Si2", [[0, 0, 0], [1.5, 0.3, 0]], cell=[3.3, 0, 0], pbc=[True, False, False]),
    "one far away": Atoms("Si3", [[0, 0, 0], [9, 9, 9], [0, 2, 1]]),
    "no edge": Atoms("Si2", [[0, 0, 0], [9, 9, 9]]),
    "one atom": Atoms("Si"),
    "none": Atoms(),
}


def listed(atoms, skin=0.5):
    cell, pbc = atoms.cell[:].copy(), atoms.pbc.copy()
    return VerletList(atoms.positions, atoms.numbers, cell, pbc, R_MAX, skin)


@pytest.mark.parametrize("name", STRUCTURES)
def test_near_edges_are_those_of_a_list_without_skin(name):
    atoms = STRUCTURES[name]
    expected, shifts = neighbor_list(atoms.positions, atoms.cell[:], atoms.pbc, R_MAX)
    kept = listed(atoms)
    for seed in range(3):
        found, found_shifts = kept.edges(atoms.positions)
        rows = np.column_stack([*found, found_shifts]).tolist()
        assert rows == sorted(np.column_stack([*expected, shifts]).tolist())
        atoms = atoms.copy()
        atoms.rattle(0.02, seed=seed)
        assert kept.holds(atoms.positions)
        expected, shifts = neighbor_list(atoms.positions, atoms.cell[:], atoms.pbc, R_MAX)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("multiple", [2, 16])
def test_blocks_are_those_of_the_near_edges(name, multiple):
    atoms = STRUCTURES[name].copy()
    kept = listed(atoms)
    for seed in range(3):
        found = kept.blocks(atoms.positions, multiple)
        index, shifts = (torch.from_numpy(part) for part in kept.edges(atoms.positions))
        positions, cell = torch.from_numpy(atoms.positions), torch.from_numpy(atoms.cell[:])
        vectors = positions[index[1]] - positions[index[0]] + shifts @ cell
        neighbors, blocks, slots = pad_edges(index, vectors, len(atoms), R_MAX, multiple)
        assert np.array_equal(found.neighbors, neighbors)
        assert np.allclose(found.vectors, blocks, rtol=0, atol=1e-14)
        # per atom the same slots; from images of one atom they come in another order
        incoming = incoming_slots(index, slots, neighbors)
        assert np.array_equal(np.sort(found.incoming, axis=0), incoming.sort(dim=0).values)
        # each brings the opposite of what the slot beside it holds
        columns = found.vectors.transpose(1, 0, 2).reshape(3, -1)
        filled = np.zeros(columns.shape[1], dtype=bool)
        filled[slots] = True
        own = np.arange(len(filled)).reshape(found.neighbors.shape).T
        assert np.array_equal(filled[own], filled[found.incoming])
        sums = columns[:, own] + columns[:, found.incoming]
        assert (sums[:, filled[own]] == 0).all()
        for part in (found.vectors, found.neighbors, found.incoming):
            assert part.flags.c_contiguous
        atoms.rattle(0.02, seed=seed)


def test_skin_changes_no_bit_of_blocks():
    atoms = STRUCTURES["triclinic"].copy()
    kept = listed(atoms)
    for seed in range(5):
        atoms.rattle(0.02, seed=seed)
        one, other = (
            kept.blocks(atoms.positions, 16),
            listed(atoms, 0.0).blocks(atoms.positions, 16),
        )
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))


def test_edges_exactly_at_a_radius_go_both_ways_or_none():
    """Cells without symmetry; the radius, and then that with the skin, is the length of an edge."""
    rng = np.random.default_rng(0)
    n_tried = 0
    for _ in range(20):
        cell = rng.normal(scale=1.0, size=(3, 3)) + 4 * np.eye(3)
        atoms = Atoms("Si5", rng.random((5, 3)) @ cell, cell=cell, pbc=True)
        edges, shifts = neighbor_list(atoms.positions, cell, atoms.pbc, R_MAX)
        vectors = atoms.positions[edges[1]] - atoms.positions[edges[0]] + shifts @ cell
        lengths = np.linalg.norm(vectors, axis=1)
        for length in lengths[lengths > 1.0][:20]:
            for r_max, skin in ((length, 0.5), (0.7 * length, length - 0.7 * length)):
                pbc = atoms.pbc.copy()
                kept = VerletList(atoms.positions, atoms.numbers, cell, pbc, float(r_max), skin)
                (centers, neighbors), found = kept.edges(atoms.positions)
                there = set(zip(centers, neighbors, map(tuple, found), strict=True))
                back = set(zip(neighbors, centers, map(tuple, -found), strict=True))
                assert there == back
                kept.blocks(atoms.positions, 2)  # finds all opposites
                n_tried += 1
    assert n_tried > 400


def test_a_list_that_lacks_a_direction_never_reaches_compiled_code(monkeypatch):
    def one_sided(*arguments):
        edge_index, shifts = neighbor_list(*arguments)
        return edge_index[:, 1:], shifts[1:]

    monkeypatch.setattr("eqpot.calculators.verlet_list.neighbor_list", one_sided)
    atoms = STRUCTURES["triclinic"]
    with pytest.raises(RuntimeError, match="lacks one direction of an edge"):
        listed(atoms).blocks(atoms.positions, 2)


def test_atoms_at_one_place_are_named():
    atoms = Atoms("Si3", [[0, 0, 0], [2, 0, 0], [2, 0, 1e-5]])
    for function in (listed(atoms).edges, lambda positions: listed(atoms).blocks(positions, 2)):
        with pytest.raises(ValueError, match=r"atoms 1 and 2 are at one place: 1\.0e-05 Å"):
            function(atoms.positions)


@pytest.mark.parametrize("largest", [3, 10**7])  # the second does not fit into one number
def test_edges_are_ordered_by_centre_neighbour_and_shift(largest):
    rng = np.random.default_rng(0)
    edge_index = rng.integers(0, 9, (2, 300))
    shifts = rng.integers(-largest, largest + 1, (300, 3)).astype(np.float64)
    rows = np.column_stack([*edge_index, shifts])
    found = rows[edge_order(edge_index, shifts, 9)]
    assert found.tolist() == sorted(rows.tolist())
