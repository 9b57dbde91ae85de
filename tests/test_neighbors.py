"""Law: every neighbour list equals the brute force over all pairs and images.

Pairs within 1e-9 Å of the cutoff may go either way: rounding decides there.
"""

import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from eqpot.data.cells import bounding_cell
from eqpot.data.neighbors import (
    check_distances,
    cluster_neighbor_list,
    neighbor_list,
    torch_neighbor_list,
)
from eqpot.nn.neighbors import incoming_slots, incoming_sums, neighbor_rows, pad_edges
from strategies import fill, lattice, molecules, seeds, structures, with_other_rows

TIE = 1e-9
CUBE = np.eye(3) * 4.0


def brute_force_neighbor_list(positions, cell, pbc, cutoff):
    """Return all edges closer than the cutoff as rows (i, j, S) in any order.

    Every pair is tried with every image that can come within the cutoff: along axis k the shift
    that brings j to i is -(s_j - s_i) in fractional coordinates, give or take cutoff / height.
    """
    positions = np.asarray(positions, dtype=float)
    n_atoms = len(positions)
    if n_atoms == 0:
        return np.zeros((0, 5), dtype=int)
    rows = np.array(cell, dtype=float)
    # rows of axes without images only have to make the matrix invertible
    periodic = np.flatnonzero(pbc)
    if len(periodic) < 3:
        normals = np.linalg.svd(rows[periodic].reshape(-1, 3))[2][len(periodic) :]
        rows[~np.asarray(pbc, dtype=bool)] = normals
    inverse = np.linalg.inv(rows)
    heights = 1 / np.linalg.norm(inverse, axis=0)
    fractional = positions @ inverse
    reach = [int(np.ceil(cutoff / heights[k])) + 1 if pbc[k] else 0 for k in range(3)]
    grid = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), axis=-1)
    grid = grid.reshape(-1, 3)
    found = []
    for i in range(n_atoms):
        nearest = np.where(pbc, np.rint(fractional[i] - fractional), 0).astype(int)
        shifts = nearest[:, None] + grid
        vectors = (positions - positions[i])[:, None] + shifts @ rows
        close = np.einsum("jgx,jgx->jg", vectors, vectors) < cutoff * cutoff
        close[i] &= shifts[i].any(axis=1)
        j, image = np.nonzero(close)
        found.append(np.column_stack([np.full_like(j, i), j, shifts[j, image]]))
    return np.concatenate(found)


def as_set(edge_index, edge_shifts):
    edge_shifts = np.asarray(edge_shifts)
    assert (edge_shifts == np.rint(edge_shifts)).all()
    rows = np.hstack([np.asarray(edge_index).T, edge_shifts.astype(int)])
    edges = set(map(tuple, rows.tolist()))
    assert len(edges) == len(rows), "an edge is there twice"
    return edges


def edge_length(edge, positions, cell):
    i, j, *shift = edge
    return np.linalg.norm(positions[j] - positions[i] + np.array(shift) @ cell)


def assert_same_edges(found, positions, cell, pbc, cutoff):
    edge_index, edge_shifts = (np.asarray(part) for part in found)
    assert edge_index.dtype == np.int64
    assert edge_index.shape == (2, len(edge_shifts))
    assert edge_shifts.shape[1] == 3
    assert (np.diff(edge_index[0]) >= 0).all(), "centres must ascend"
    expected = brute_force_neighbor_list(positions, cell, pbc, cutoff)
    found = np.column_stack([edge_index.T, edge_shifts.astype(int)])
    both = np.concatenate([found, expected])
    # one number an edge, so that a million edges compare in little time
    low = both.min(axis=0, initial=0)
    numbers = np.ravel_multi_index(tuple((both - low).T), both.max(axis=0, initial=0) - low + 1)
    ours, theirs = numbers[: len(found)], numbers[len(found) :]
    assert len(np.unique(ours)) == len(ours), "an edge is there twice"
    differing = both[np.isin(numbers, np.setxor1d(ours, theirs))]
    real = [e for e in differing.tolist() if abs(edge_length(e, positions, cell) - cutoff) > TIE]
    assert not real, f"{len(real)} edges differ, such as {real[:3]}"


def check_both(atoms, cutoff):
    positions, cell, pbc = atoms.positions, atoms.cell[:], atoms.pbc
    assert_same_edges(neighbor_list(positions, cell, pbc, cutoff), positions, cell, pbc, cutoff)
    found = torch_neighbor_list(torch.tensor(positions), torch.tensor(cell), pbc, cutoff)
    assert_same_edges(found, positions, cell, pbc, cutoff)


def law_11_case(rng):
    """Return a random case of law 11; the number of edges is held to what a computer can list."""
    while True:
        cell = lattice(
            np.exp(rng.uniform(np.log(0.5), np.log(200), 3)),
            rng.uniform(20, 160, 3),
            left_handed=bool(rng.integers(2)),
        )
        if cell is None:
            continue
        cutoff = np.exp(rng.uniform(np.log(0.5), np.log(30)))
        n_atoms = int(rng.integers(0, 65))
        pbc = rng.integers(0, 2, 3).astype(bool)
        heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        images = np.prod(
            [2 * np.ceil(cutoff / h) + 3 if p else 1 for h, p in zip(heights, pbc, strict=True)]
        )
        if n_atoms**2 * images < 1e6:
            break
        n_atoms = int(np.sqrt(1e6 / images))
        if n_atoms > 0:
            break
    atoms = fill(cell, n_atoms, pbc, rng, outside=int(rng.choice([0, 0, 1, 5])))
    kind = rng.choice(["none", "1 Å", "100 Å", "skewed", "same"])
    return with_other_rows(atoms, kind), float(cutoff)


@given(structures(), st.floats(0.5, 7.0))
def test_lists_equal_brute_force(atoms, cutoff):
    check_both(atoms, cutoff)


@given(seeds)
def test_lists_equal_brute_force_in_the_range_of_the_law(seed):
    check_both(*law_11_case(np.random.default_rng(seed)))


@pytest.mark.slow
def test_lists_equal_brute_force_in_ten_thousand_cells():
    rng = np.random.default_rng(11)
    for _ in range(10_000):
        check_both(*law_11_case(rng))


@given(structures())
def test_bounding_cell_holds_all_atoms(atoms):
    lower, upper = atoms.positions.min(axis=0), atoms.positions.max(axis=0)
    cell, origin = bounding_cell(lower, upper, atoms.cell[:], atoms.pbc)
    fractional = (atoms.positions - origin) @ np.linalg.inv(cell)
    assert (fractional[:, ~atoms.pbc] > 0).all()
    assert (fractional[:, ~atoms.pbc] < 1).all()
    np.testing.assert_array_equal(cell[atoms.pbc], atoms.cell[:][atoms.pbc])


@pytest.mark.parametrize("kind", ["none", "1 Å", "100 Å", "skewed"])
def test_rows_of_other_axes_are_ignored(kind):
    rng = np.random.default_rng(3)
    cell = lattice([4.0, 5.0, 6.0], [80, 70, 110])
    for pbc in np.ndindex(2, 2, 2):
        atoms = fill(cell, 9, [bool(p) for p in pbc], rng, outside=2)
        other = with_other_rows(atoms, kind)
        found = as_set(*neighbor_list(other.positions, other.cell[:], other.pbc, 4.1))
        assert found == as_set(*neighbor_list(atoms.positions, cell, atoms.pbc, 4.1))


@pytest.mark.parametrize(
    ("n_atoms", "pbc", "cutoff", "n_edges"),
    [
        (0, False, 5.0, 0),
        (0, True, 5.0, 0),
        (1, False, 30.0, 0),
        (1, True, 3.9, 0),
        (1, True, 4.1, 6),
    ],
)
def test_no_atom_and_one_atom(n_atoms, pbc, cutoff, n_edges):
    positions = np.full((n_atoms, 3), 0.3)
    edge_index, edge_shifts = neighbor_list(positions, CUBE, [pbc] * 3, cutoff)
    assert edge_index.shape == (2, n_edges)
    assert edge_shifts.shape == (n_edges, 3)
    found = torch_neighbor_list(torch.tensor(positions), torch.tensor(CUBE), [pbc] * 3, cutoff)
    assert as_set(*found) == as_set(edge_index, edge_shifts)


def test_a_pair_at_the_cutoff_is_no_edge():
    positions = np.array([[0.0, 0, 0], [0, 0, 2.0]])
    for shorter, n_edges in ((2.0, 0), (np.nextafter(2.0, 3.0), 2)):
        assert neighbor_list(positions, CUBE, [False] * 3, shorter)[0].shape == (2, n_edges)
        found = torch_neighbor_list(
            torch.tensor(positions), torch.tensor(CUBE), [False] * 3, shorter
        )
        assert found[0].shape == (2, n_edges)


def test_two_atoms_far_apart_need_no_grid():
    positions = np.array([[0.0, 0, 0], [1e6, -1e6, 1e6], [1e6, -1e6, 1e6 + 0.7]])
    edge_index, _ = neighbor_list(positions, np.zeros((3, 3)), [False] * 3, 1.0)
    assert edge_index.tolist() == [[1, 2], [2, 1]]


def test_cell_list_works_in_portions(monkeypatch):
    rng = np.random.default_rng(5)
    atoms = fill(lattice([7, 8, 9], [75, 95, 100]), 40, True, rng, outside=1)
    arguments = torch.tensor(atoms.positions), torch.tensor(atoms.cell[:]), atoms.pbc, 4.3
    whole = torch_neighbor_list(*arguments)
    monkeypatch.setattr("eqpot.data.neighbors._MAX_CANDIDATES", 100)
    parts = torch_neighbor_list(*arguments)
    assert torch.equal(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])


def test_cell_list_keeps_the_dtype():
    positions = torch.tensor([[0.0, 0, 0], [0, 0, 1.0]], dtype=torch.float32, requires_grad=True)
    edge_index, edge_shifts = torch_neighbor_list(
        positions, torch.eye(3) * 3, torch.tensor([True, True, False]), 2.0
    )
    assert edge_shifts.dtype == torch.float32
    assert edge_index.dtype == torch.int64
    assert not edge_shifts.requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cell_list_is_the_same_on_a_gpu():
    rng = np.random.default_rng(6)
    for _ in range(20):
        atoms, cutoff = law_11_case(rng)
        found = torch_neighbor_list(
            torch.tensor(atoms.positions).cuda(),
            torch.tensor(atoms.cell[:]).cuda(),
            atoms.pbc,
            cutoff,
        )
        found = tuple(part.cpu() for part in found)
        assert_same_edges(found, atoms.positions, atoms.cell[:], atoms.pbc, cutoff)


@given(st.lists(molecules(), min_size=1, max_size=4), st.floats(0.5, 6.0))
def test_torch_cluster_equals_brute_force(batch, cutoff):
    pytest.importorskip("torch_cluster", reason="the extra `cluster` is not installed")
    positions = np.concatenate([atoms.positions for atoms in batch])
    graph = np.repeat(np.arange(len(batch)), [len(atoms) for atoms in batch])
    found = cluster_neighbor_list(torch.tensor(positions), torch.tensor(graph), cutoff)
    expected = set()
    for number in range(len(batch)):
        first = np.flatnonzero(graph == number)[0]
        own = brute_force_neighbor_list(batch[number].positions, CUBE, [False] * 3, cutoff)
        expected |= {(i + first, j + first, 0, 0, 0) for i, j, *_ in own.tolist()}
    assert (found[0][0].diff() >= 0).all()
    real = [
        e for e in as_set(*found) ^ expected if abs(edge_length(e, positions, CUBE) - cutoff) > TIE
    ]
    assert not real


def test_torch_cluster_keeps_more_than_32_neighbours():
    pytest.importorskip("torch_cluster", reason="the extra `cluster` is not installed")
    positions = torch.tensor(np.random.default_rng(0).random((60, 3)))
    edge_index, _ = cluster_neighbor_list(positions, torch.zeros(60, dtype=torch.int64), 5.0)
    assert edge_index.shape == (2, 60 * 59)


def test_missing_torch_cluster_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_cluster", None)
    with pytest.raises(ImportError, match="--no-build-isolation torch-cluster"):
        cluster_neighbor_list(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), 3.0)


NAN = [[0.0, 0, 0], [0, float("nan"), 0]]
TWO = [[0.0, 0, 0], [0, 0, 1.5]]
FLAT_CELL = [[3.0, 0, 0], [0, 3.0, 0], [1.0, 2.0, 0]]


@pytest.mark.parametrize(
    ("positions", "cell", "pbc", "cutoff", "message"),
    [
        (NAN, CUBE, True, 3.0, "`positions` must be finite, got .* for atom 1"),
        ([[0.0, 0, float("inf")]], CUBE, False, 3.0, "for atom 0"),
        (TWO, np.zeros((3, 3)), True, 3.0, "`cell` row 0 is zero"),
        (TWO, [[3.0, 0, 0], [0, 3.0, 0], [0, 0, 0]], True, 3.0, "`cell` row 2 is zero"),
        (TWO, FLAT_CELL, True, 3.0, r"`cell` is flat: its periodic rows \[0, 1, 2\]"),
        (
            TWO,
            [[1.0, 1, 0], [2.0, 2, 0], [0, 0, 9]],
            [1, 1, 0],
            3.0,
            r"rows \[0, 1\] lie in a line",
        ),
        (TWO, CUBE * np.nan, True, 3.0, "`cell` row 0 must be finite"),
        (TWO, CUBE, True, 0.0, "`cutoff` must be a positive"),
        (TWO, CUBE, True, float("nan"), "`cutoff` must be a positive"),
        ([[0.0, 0]], CUBE, True, 3.0, r"`positions` must have shape \(n_atoms, 3\), got \(1, 2\)"),
        (TWO, [3.0, 3.0, 3.0], True, 3.0, r"`cell` must have shape \(3, 3\)"),
    ],
)
def test_what_cannot_be_searched_is_refused(positions, cell, pbc, cutoff, message):
    pbc = np.broadcast_to(np.asarray(pbc, dtype=bool), 3)
    with pytest.raises(ValueError, match=message):
        neighbor_list(positions, cell, pbc, cutoff)
    with pytest.raises(ValueError, match=message):
        torch_neighbor_list(
            torch.tensor(positions), torch.tensor(np.asarray(cell, dtype=float)), pbc.copy(), cutoff
        )


def test_close_atoms_are_named():
    atoms = Atoms("H3", [[0, 0, 0.02], [2, 2, 2], [0, 0, 3.97]], cell=CUBE, pbc=True)
    check_distances(atoms.positions, CUBE, [False] * 3, 0.1)
    with pytest.raises(ValueError, match=r"atoms 0 and 2 \(its image \[0, 0, -1\]\) are 0.0500 Å"):
        check_distances(atoms.positions, CUBE, atoms.pbc, 0.1)
    with pytest.raises(ValueError, match=r"atoms 0 and 1 are 0.0000 Å apart"):
        check_distances(np.zeros((2, 3)), CUBE, [False] * 3)


@pytest.mark.parametrize("counts", [[2, 0, 5, 1, 0], [0, 0], [0, 3], []])
@pytest.mark.parametrize("multiple", [2, 16])
@pytest.mark.parametrize("scripted", [False, True])
def test_edges_in_blocks_are_those_of_the_list(scripted, multiple, counts):
    function = torch.jit.script(pad_edges) if scripted else pad_edges
    centers = [center for center, count in enumerate(counts) for _ in range(count)]
    generator = torch.Generator().manual_seed(0)
    others = torch.randint(max(1, len(counts)), (len(centers),), generator=generator)
    vectors = torch.rand(len(centers), 3, dtype=torch.float64, generator=generator)
    edge_index = torch.stack([torch.tensor(centers, dtype=torch.long), others])
    neighbors, blocks, slots = function(edge_index, vectors, len(counts), 4.0, multiple)
    n_slots = neighbors.shape[1]
    assert n_slots == multiple * max(1, -(-max(counts, default=0) // multiple))
    assert neighbors.shape == (len(counts), n_slots) and blocks.shape == (len(counts), 3, n_slots)
    edge = 0
    for atom, count in enumerate(counts):
        for slot in range(n_slots):
            vector = blocks[atom, :, slot]
            if slot < count:
                assert neighbors[atom, slot] == others[edge] and torch.equal(vector, vectors[edge])
                assert slots[edge] == atom * n_slots + slot
                edge += 1
            else:
                assert neighbors[atom, slot] == 0 and vector.tolist() == [8.0] * 3


@pytest.fixture
def both_ways():
    """Return edges in both directions, one atom without, one with an image of itself."""
    pairs = [(0, 1), (1, 3), (0, 3), (3, 4), (3, 3)]
    edges = sorted({(i, j) for i, j in pairs} | {(j, i) for i, j in pairs})
    return torch.tensor(edges).T.contiguous()


def test_incoming_slots_are_those_where_an_atom_is_the_neighbour(both_ways):
    neighbors, _, slots = pad_edges(both_ways, torch.zeros(both_ways.shape[1], 3), 5, 4.0)
    incoming = incoming_slots(both_ways, slots, neighbors)
    n_slots = neighbors.shape[1]
    assert incoming.shape == (n_slots, 5) and incoming.is_contiguous()
    assert incoming.flatten().sort().values.tolist() == list(range(5 * n_slots))
    for atom in range(5):
        found = incoming[:, atom].tolist()
        expected = slots[both_ways[1] == atom].tolist()
        assert found[: len(expected)] == expected
        assert found[len(expected) :] == [n_slots * atom + s for s in range(len(expected), n_slots)]
    with pytest.raises(ValueError, match="both directions, got 1 from and 2 to atom 0"):
        incoming_slots(both_ways[:, 1:], slots[1:], neighbors)
    with pytest.raises(ValueError, match="must not decrease; sort the edges"):
        incoming_slots(both_ways.flip(1), slots, neighbors)


def test_rows_of_neighbors_and_sums_of_what_comes_in_are_each_others_gradient(both_ways):
    neighbors, _, slots = pad_edges(both_ways, torch.zeros(both_ways.shape[1], 3), 5, 4.0)
    incoming = incoming_slots(both_ways, slots, neighbors)
    filled = torch.zeros(neighbors.numel(), 1, dtype=torch.float64).index_fill(0, slots, 1.0)
    filled = filled.view(*neighbors.shape, 1)
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(5, 2, dtype=torch.float64, generator=generator, requires_grad=True)

    def plain(table):
        """Return sums over edges of a function of both rows, by the list of edges."""
        rows = table[both_ways[1]].square() * table[both_ways[0]]
        return torch.zeros_like(table).index_add(0, both_ways[1], rows)

    def in_blocks(table):
        rows = neighbor_rows(table, neighbors, incoming).square() * table[:, None]
        return incoming_sums(rows * filled, neighbors, incoming)

    expected, found = plain(table), in_blocks(table)
    assert (found - expected).abs().max() <= 1e-14
    for _ in range(2):  # of the first and of the second order
        weights = torch.rand(5, 2, dtype=torch.float64, generator=generator)
        (expected,) = torch.autograd.grad([expected], [table], [weights], create_graph=True)
        (found,) = torch.autograd.grad([found], [table], [weights], create_graph=True)
        assert (found - expected).abs().max() <= 1e-13
