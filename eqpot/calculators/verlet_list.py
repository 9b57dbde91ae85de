"""A neighbour list that is kept while atoms move, and what of it is near at each step."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eqpot.data.neighbors import neighbor_list

CLOSEST: Final = 1e-3
"""Atoms closer than this, in Å, are at one place: a mistake, not a structure."""

_MARGIN: Final = 1e-6  # Å; edges at a radius exactly are chosen here, whatever the list rounds


@dataclass(frozen=True)
class Blocks:
    """Edges in blocks, one block of slots an atom, as compiled potentials take them.

    Attributes
    ----------
    vectors, neighbors
        As of :func:`eqpot.nn.neighbors.pad_edges`, shapes (n_atoms, 3, n_slots), Å, and (n_atoms,
        n_slots). In an empty slot each component is twice the radius, and the neighbour 0.
    incoming
        For each slot that of the opposite edge, for an empty one itself, shape (n_slots, n_atoms):
        for each atom those of :func:`eqpot.nn.neighbors.incoming_slots`, in the order of its own.
    """

    vectors: NDArray[np.float64]
    neighbors: NDArray[np.int64]
    incoming: NDArray[np.int64]


class VerletList:
    """Edges up to the radius and a skin, in one order, and the structure that they belong to.

    Parameters
    ----------
    positions, numbers, cell, pbc
        The structure: shapes (n_atoms, 3), (n_atoms,), (3, 3) and (3,), lengths in Å.
    r_max, skin
        Å.

    Raises
    ------
    ValueError
        As :func:`eqpot.data.neighbors.neighbor_list`.

    Notes
    -----
    The vectors of an edge and of its opposite differ in sign alone, to the last bit, so any radius
    takes both or neither.
    """

    def __init__(
        self,
        positions: NDArray[np.float64],
        numbers: NDArray[np.int64],
        cell: NDArray[np.float64],
        pbc: NDArray[np.bool_],
        r_max: float,
        skin: float,
    ) -> None:
        self._positions = positions.copy()
        self._numbers = numbers.copy()
        self._cell = cell.copy()
        self._pbc = pbc.copy()
        self._r_max, self._skin = r_max, skin
        reach = r_max + skin + _MARGIN
        edge_index, edge_shifts = neighbor_list(positions, cell, pbc, reach + _MARGIN)
        # One order, by centre, neighbour and shift: sums then round alike with any skin, and at a
        # restart as in an uninterrupted run.
        order = edge_order(edge_index, edge_shifts, len(positions))
        self._centers, self._neighbors = (ends.take(order) for ends in edge_index)
        self._shifts = edge_shifts.take(order, axis=0)
        # summed by hand: a library's product of matrices does not promise to round alike for both
        # directions
        x, y, z = self._shifts.T
        self._offsets = np.stack([x * a + y * b + z * c for a, b, c in cell.T])
        _, squares = self._vectors(positions)
        within = np.flatnonzero(squares < reach**2)
        self._centers, self._neighbors = self._centers.take(within), self._neighbors.take(within)
        self._shifts = self._shifts.take(within, axis=0)
        self._offsets = self._offsets.take(within, axis=1)
        self._first_edges = np.searchsorted(self._centers, np.arange(len(positions) + 1))
        self._opposites: NDArray[np.intp] | None = None

    def is_of(
        self, numbers: NDArray[np.int64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
    ) -> bool:
        """Return whether the structure of the list had these elements in this cell."""
        return (
            np.array_equal(numbers, self._numbers)
            and np.array_equal(cell, self._cell)
            and np.array_equal(pbc, self._pbc)
        )

    def holds(self, positions: NDArray[np.float64]) -> bool:
        """Return whether no edge can be missing from the list now that atoms are here."""
        moved = np.linalg.norm(positions - self._positions, axis=1).max(initial=0.0)
        return bool(2.0 * moved < self._skin)

    def edges(
        self, positions: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the edges shorter than the radius at the present positions.

        As :func:`eqpot.data.neighbors.neighbor_list` does: index and shifts.

        Raises
        ------
        ValueError
            If two atoms are at one place.
        """
        _, near = self._near(positions)
        index = np.stack([self._centers.take(near), self._neighbors.take(near)])
        return index, self._shifts.take(near, axis=0)

    def blocks(self, positions: NDArray[np.float64], multiple: int) -> Blocks:
        """Return the edges shorter than the radius at the present positions, in blocks.

        The opposite of each edge is found once for a list, so nothing is sorted at a step.

        Parameters
        ----------
        positions
            Shape (n_atoms, 3), Å.
        multiple
            Of which the number of slots is a multiple.

        Raises
        ------
        ValueError
            If two atoms are at one place.
        RuntimeError
            If the list lacks one direction of an edge, which would be a fault of the program.
        """
        vectors, near = self._near(positions)
        n_atoms = len(positions)
        starts = np.searchsorted(near, self._first_edges)
        most = int(np.diff(starts).max(initial=1))
        n_slots = multiple * -(-most // multiple)
        n_all = n_atoms * n_slots
        centers = self._centers.take(near)
        # edges of an atom follow each other: a slot is the number of its edge and an offset
        slots = (np.arange(0, n_all, n_slots, dtype=np.int64) - starts[:-1]).take(centers)
        slots += np.arange(len(near), dtype=np.int64)
        neighbors = np.zeros(n_all, dtype=np.int64)
        neighbors[slots] = self._neighbors.take(near)
        if self._opposites is None:
            self._opposites = self._find_opposites(n_atoms)
        slot_of = np.empty(len(self._centers), dtype=np.int64)
        slot_of[near] = slots
        incoming = np.arange(n_all, dtype=np.int64)
        incoming[slots] = slot_of.take(self._opposites.take(near))
        # an empty slot lies beyond the radius
        padded = np.full(3 * n_all, 2.0 * self._r_max)
        places = 2 * n_slots * centers + slots
        for component in vectors:
            padded[places] = component.take(near)
            places += n_slots
        return Blocks(
            padded.reshape(n_atoms, 3, n_slots),
            neighbors.reshape(n_atoms, n_slots),
            np.ascontiguousarray(incoming.reshape(n_atoms, n_slots).T),
        )

    def _find_opposites(self, n_atoms: int) -> NDArray[np.intp]:
        """Return for each edge the number of the one in the other direction.

        Compiled code reads where these numbers point, so they are checked.
        """
        # sorted, the edges and their opposites are the same
        found = edge_order(np.stack([self._neighbors, self._centers]), -self._shifts, n_atoms)
        if not (
            np.array_equal(self._neighbors.take(found), self._centers)
            and np.array_equal(self._centers.take(found), self._neighbors)
            and np.array_equal(self._shifts.take(found, axis=0), -self._shifts)
        ):
            raise RuntimeError("the neighbour list lacks one direction of an edge")
        return found

    def _vectors(
        self, positions: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the vectors of all edges, shape (3, n_edges), and their squared lengths."""
        columns = np.ascontiguousarray(positions.T)  # three times as fast to pick from as rows
        vectors = columns.take(self._neighbors, axis=1)
        vectors -= columns.take(self._centers, axis=1)
        vectors += self._offsets
        squares = vectors[0] * vectors[0]
        squares += vectors[1] * vectors[1]
        squares += vectors[2] * vectors[2]
        return vectors, squares

    def _near(self, positions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Return all vectors, shape (3, n_edges), and which edges are shorter than the radius."""
        vectors, squares = self._vectors(positions)
        if squares.size and squares.min() < CLOSEST**2:
            closest = int(squares.argmin())
            raise ValueError(
                f"atoms {self._centers[closest]} and {self._neighbors[closest]} are at one place: "
                f"{squares[closest] ** 0.5:.1e} Å apart, must be {CLOSEST} Å or more"
            )
        return vectors, np.flatnonzero(squares < self._r_max**2)


def edge_order(
    edge_index: NDArray[np.int64], edge_shifts: NDArray[np.float64], n_atoms: int
) -> NDArray[np.intp]:
    """Return the order of edges by centre, neighbour and shift.

    Parameters
    ----------
    edge_index
        Shape (2, n_edges).
    edge_shifts
        Whole numbers, shape (n_edges, 3).
    n_atoms
        Number of atoms.
    """
    shifts = edge_shifts.astype(np.int64)
    lowest = shifts.min(axis=0, initial=0)
    spans = shifts.max(axis=0, initial=0) - lowest + 1
    if float(n_atoms) ** 2 * float(np.prod(spans, dtype=np.float64)) >= 2.0**62:
        return np.lexsort((*shifts.T[::-1], edge_index[1], edge_index[0]))
    # one whole number for each edge: sorted four times as fast as five
    key = edge_index[0] * n_atoms + edge_index[1]
    for axis in range(3):
        key = key * spans[axis] + (shifts[:, axis] - lowest[axis])
    return np.argsort(key)
