"""A quick potential, linear in its parameters, against which labels are held.

Labels in foreign units or of the wrong sign cannot be seen in the numbers themselves; they show
where two labels are compared that physics ties together. The potential here is fitted to forces
alone, and its energies and stresses, which it never saw, are compared with the labels. It is no
potential to work with: some hundred parameters, a second to fit.

Its energy is ``E = Σ_edges φ_ab(r) + Σ_i Σ_l A_i,α,l · A_i,β,l`` with free pair functions φ of each
frequent pair of elements, and with products of densities ``A_i,α,l = Σ_j g_α(r_ij) r̂_ij^(⊗l)`` of
l = 0, 1, 2, which know of angles.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse
from ase.data import covalent_radii
from numpy.typing import NDArray

from eqpot.data.frames import Frame
from eqpot.data.neighbors import neighbor_list

Array = NDArray[np.float64]

CUTOFF: Final = 5.0
"""Å: bonds, angles and the second shell of metals."""
_PAIR_CENTRES: Final = np.concatenate([np.arange(0.7, 2.2, 0.2), np.arange(2.3, 5.1, 0.4)])
_PAIR_WIDTHS: Final = np.where(_PAIR_CENTRES < 2.2, 0.2, 0.4)
_DENSITY_CENTRES: Final = np.array([1.2, 2.2, 3.2])
_DENSITY_WIDTH: Final = 0.6
_MOST_PAIR_TYPES: Final = 15
_MOST_ELEMENTS: Final = 4
"""With more elements the densities do not tell neighbours apart."""


@dataclass(frozen=True)
class Response:
    """What unit parameters give for one frame; each array ends in the parameters.

    Attributes
    ----------
    energy
        Shape (n_parameters,), eV.
    forces
        Shape (n_atoms, 3, n_parameters), eV/Å.
    strain
        ∂E/∂ε = V·stress, shape (3, 3, n_parameters), eV.
    """

    energy: Array
    forces: Array
    strain: Array


class LinearModel:
    """The functions of the potential, chosen by the elements of the frames.

    Parameters
    ----------
    frames
        Frames that the potential will be fitted to.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        pairs: Counter[tuple[int, int]] = Counter()
        elements: set[int] = set()
        for frame in frames:
            numbers, counts = np.unique(frame.atomic_numbers, return_counts=True)
            elements.update(numbers.tolist())
            for a, n_a in zip(numbers.tolist(), counts.tolist(), strict=True):
                for b, n_b in zip(numbers.tolist(), counts.tolist(), strict=True):
                    if a <= b:
                        pairs[a, b] += n_a * n_b
        self.elements = sorted(elements)
        own = [pair for pair, _ in pairs.most_common(_MOST_PAIR_TYPES)]
        # the last type is that of all rarer pairs
        self._pair_type = np.full((119, 119), len(own), dtype=np.int64)
        for index, (a, b) in enumerate(own):
            self._pair_type[a, b] = self._pair_type[b, a] = index
        self.n_pair_types = len(own) + (len(pairs) > len(own))
        self.tells_elements = len(self.elements) <= _MOST_ELEMENTS
        self._element = np.zeros(119, dtype=np.int64)
        if self.tells_elements:
            self._element[self.elements] = np.arange(len(self.elements))
        self.n_classes = len(self.elements) if self.tells_elements else 1
        self.n_channels = self.n_classes * len(_DENSITY_CENTRES)
        upper = np.triu_indices(self.n_channels)
        self._product = np.zeros((self.n_channels, self.n_channels), dtype=np.int64)
        self._product[upper] = np.arange(len(upper[0]))
        self._product = np.maximum(self._product, self._product.T)
        self.n_products = len(upper[0])
        self.n_pair = self.n_pair_types * len(_PAIR_CENTRES)
        self.n_parameters = self.n_pair + self.n_classes * 3 * self.n_products

    def respond(self, frame: Frame) -> Response:
        """Return energy, forces and strain derivative of a frame for unit parameters."""
        n_atoms = len(frame)
        edges, shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, CUTOFF)
        cell = np.where(frame.pbc[:, None], frame.cell, 0.0)
        i, j = edges
        vectors = frame.positions[j] - frame.positions[i] + shifts @ cell
        r = np.linalg.norm(vectors, axis=1)
        kept = r > 0.1
        i, j, vectors, r = i[kept], j[kept], vectors[kept], r[kept]
        unit = vectors / r[:, None]
        # gradients ∂E/∂(edge vector), gathered per edge and parameter: sparse by type, so each
        # type adds into its own slice
        energy = np.zeros(self.n_parameters)
        forces = np.zeros((n_atoms, 3, self.n_parameters))
        strain = np.zeros((3, 3, self.n_parameters))
        numbers = frame.atomic_numbers
        rarest = self.n_pair_types - 1
        kind = np.minimum(self._pair_type[numbers[i], numbers[j]], rarest)
        scaled = np.ones(len(r))
        if self.n_pair_types > _MOST_PAIR_TYPES:
            # rare pairs share functions of the distance over that of a bond, set to 2 Å
            bond = covalent_radii[numbers[i]] + covalent_radii[numbers[j]]
            scaled = np.where(kind == rarest, 2.0 / bond, 1.0)
        value, slope = _functions(r, _PAIR_CENTRES, _PAIR_WIDTHS, scaled)
        size = len(_PAIR_CENTRES)
        for t in np.unique(kind).tolist():
            of = kind == t
            part = slice(t * size, (t + 1) * size)
            energy[part] += 0.5 * value[of].sum(axis=0)
            gradient = 0.5 * slope[of][:, None, :] * unit[of][:, :, None]
            _Edges(i[of], j[of], vectors[of], n_atoms).gather(gradient, part, forces, strain)
        self._respond_products(numbers, i, j, vectors, r, energy, forces, strain)
        return Response(energy, forces, strain)

    def _respond_products(
        self,
        numbers: NDArray[np.int64],
        i: NDArray[np.int64],
        j: NDArray[np.int64],
        vectors: Array,
        r: Array,
        energy: Array,
        forces: Array,
        strain: Array,
    ) -> None:
        # letters: e edge, n radial function, q channel, a b c axes, m flattened axes of l
        n_atoms, n_radial = len(numbers), len(_DENSITY_CENTRES)
        unit = vectors / r[:, None]
        value, slope = _functions(r, _DENSITY_CENTRES, np.full(n_radial, _DENSITY_WIDTH))
        of_centre, of_neighbor = self._element[numbers], self._element[numbers[j]]
        eye = np.eye(3)
        # ∂r̂_a/∂r_b
        turn = (eye - unit[:, :, None] * unit[:, None, :]) / r[:, None, None]
        tensors = [
            (np.ones((len(r), 1)), np.zeros((len(r), 1, 3))),
            (unit, turn),
            (
                np.einsum("ea,eb->eab", unit, unit).reshape(-1, 9),
                (
                    np.einsum("eac,eb->eabc", turn, unit) + np.einsum("ebc,ea->eabc", turn, unit)
                ).reshape(-1, 9, 3),
            ),
        ]
        channel = of_neighbor[:, None] * n_radial + np.arange(n_radial)
        blocks = {}
        for centre, neighbor in itertools.product(range(self.n_classes), repeat=2):
            on = np.flatnonzero((of_centre[i] == centre) & (of_neighbor == neighbor))
            if len(on):
                blocks[centre, neighbor] = on, _Edges(i[on], j[on], vectors[on], n_atoms)
        for l, (tensor, tensor_turn) in enumerate(tensors):  # noqa: E741
            n_m = tensor.shape[1]
            density = np.zeros((n_atoms * self.n_channels, n_m))
            flat = (i[:, None] * self.n_channels + channel).ravel()
            terms = (value[:, :, None] * tensor[:, None, :]).reshape(-1, n_m)
            for m in range(n_m):
                density[:, m] = np.bincount(flat, terms[:, m], minlength=len(density))
            density = density.reshape(n_atoms, self.n_channels, n_m)
            # A_α·A_β for α < β, half of it for α = β, so that every edge enters alike
            products = np.einsum("iqm,ipm->iqp", density, density)
            upper = np.triu_indices(self.n_channels)
            half = np.where(upper[0] == upper[1], 0.5, 1.0)
            for centre in range(self.n_classes):
                start = self.n_pair + (centre * 3 + l) * self.n_products
                of = of_centre == centre
                energy[start : start + self.n_products] += half * products[of][
                    :, upper[0], upper[1]
                ].sum(axis=0)
                for neighbor in range(self.n_classes):
                    if (centre, neighbor) not in blocks:
                        continue
                    on, block = blocks[centre, neighbor]
                    change = (
                        slope[on][:, :, None, None]
                        * tensor[on][:, None, :, None]
                        * unit[on][:, None, None, :]
                        + value[on][:, :, None, None] * tensor_turn[on][:, None, :, :]
                    )  # e n m c
                    gradient = np.matmul(
                        density[i[on]][:, None, :, :], change
                    )  # (e 1 q m) (e n m c) -> e n q c
                    for n in range(n_radial):
                        columns = start + self._product[neighbor * n_radial + n]
                        block.gather(gradient[:, n].transpose(0, 2, 1), columns, forces, strain)


def _functions(
    r: Array, centres: Array, widths: Array, scaled: Array | None = None
) -> tuple[Array, Array]:
    """Return Gaussians that vanish smoothly at the cutoff, and their slopes; edges × functions."""
    x = r if scaled is None else r * scaled
    u = (x[:, None] - centres) / widths
    bump = np.exp(-0.5 * u * u)
    bump_slope = -u / widths * bump
    if scaled is not None:
        bump_slope = bump_slope * scaled[:, None]
    fade = (1.0 - (r / CUTOFF) ** 2) ** 2
    fade_slope = -4.0 * r / CUTOFF**2 * (1.0 - (r / CUTOFF) ** 2)
    return bump * fade[:, None], bump_slope * fade[:, None] + bump * fade_slope[:, None]


class _Edges:
    """Some edges of a frame, and the matrix that hands gradients by edge vector to their atoms."""

    def __init__(
        self, i: NDArray[np.int64], j: NDArray[np.int64], vectors: Array, n_atoms: int
    ) -> None:
        n = len(i)
        ends = np.stack([i, j], axis=1).ravel()
        # E grows with r_j - r_i, so the force on i is +∂E/∂(edge vector), on j its opposite
        signs = np.tile([1.0, -1.0], n)
        by_edge = scipy.sparse.csr_matrix(
            (signs, ends, np.arange(0, 2 * n + 1, 2)), shape=(n, n_atoms)
        )
        self._to_atoms = by_edge.T
        self._vectors = vectors

    def gather(
        self, gradient: Array, columns: slice | NDArray[np.int64], forces: Array, strain: Array
    ) -> None:
        """Add gradients by edge vector, shape (n_edges, 3, n_columns), to forces and strain."""
        flat = gradient.reshape(len(gradient), -1)
        forces[:, :, columns] += (self._to_atoms @ flat).reshape(len(forces), 3, -1)
        strain[:, :, columns] += (self._vectors.T @ flat).reshape(3, 3, -1)
