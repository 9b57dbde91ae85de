"""Screened nuclear repulsion at close contact."""

from typing import Final

import torch
from torch import Tensor, nn

from eqpot.nn.radial import polynomial_envelope

_COULOMB: Final = 14.399645478425668
"""e² / (4π ε0) in eV Å."""

# fmt: off
_COVALENT_RADII: Final = (
    0.2, 0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07,
    1.05, 1.02, 1.06, 2.03, 1.76, 1.7, 1.6, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22,
    1.2, 1.19, 1.2, 1.2, 1.16, 2.2, 1.95, 1.9, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45,
    1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.4, 2.44, 2.15, 2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98,
    1.96, 1.94, 1.92, 1.92, 1.89, 1.9, 1.87, 1.87, 1.75, 1.7, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36,
    1.32, 1.45, 1.46, 1.48, 1.4, 1.5, 1.5, 2.6, 2.21, 2.15, 2.06, 2.0, 1.96, 1.9, 1.87, 1.8,
    1.69,
)
# fmt: on
"""Covalent radii by atomic number, Å: Cordero et al., Dalton Trans. 2832 (2008); index 0 unused."""


class ZBLRepulsion(nn.Module):
    r"""Ziegler-Biersack-Littmark repulsion between close atoms, smoothly cut.

    .. math:: E_i = \tfrac12 \sum_j \frac{e^2}{4\pi\varepsilon_0} \frac{Z_i Z_j}{r_{ij}}
              \phi(r_{ij} / a_{ij}) \, u(r_{ij} / r_{\mathrm{cut},ij}), \quad
              a_{ij} = \frac{0.8854 \, a_0}{Z_i^{0.23} + Z_j^{0.23}}

    with the universal screening function φ and u of :func:`eqpot.nn.radial.polynomial_envelope`
    with the exponent 6. The cut of a pair is 0.7 of the sum of its covalent radii: below the
    shortest bonds (1.10 Å of N2 against 0.99 Å).

    Parameters
    ----------
    atomic_numbers
        Z of each species, shape (n_species,).
    covalent_radii
        Of each species, shape (n_species,), Å.

    References
    ----------
    Ziegler, Biersack and Littmark, The stopping and range of ions in solids, Pergamon 1985.
    """

    charges: Tensor
    radii: Tensor

    def __init__(self, atomic_numbers: Tensor, covalent_radii: Tensor) -> None:
        super().__init__()
        self.coulomb = _COULOMB  # TorchScript reads attributes, no globals of a module
        self.register_buffer("charges", atomic_numbers.to(torch.float64))
        self.register_buffer("radii", covalent_radii.to(torch.float64))

    @classmethod
    def of_elements(cls, atomic_numbers: list[int]) -> "ZBLRepulsion":
        """Return the repulsion between elements, cut by their covalent radii.

        Raises
        ------
        ValueError
            If an element has no radius in the table, which ends at curium.
        """
        unknown = [number for number in atomic_numbers if number >= len(_COVALENT_RADII)]
        if unknown:
            raise ValueError(f"no covalent radius is known for Z={unknown}: leave `repulsion` out")
        radii = [_COVALENT_RADII[number] for number in atomic_numbers]
        return cls(torch.tensor(atomic_numbers), torch.tensor(radii, dtype=torch.float64))

    def forward(self, edge_index: Tensor, edge_vectors: Tensor, species: Tensor) -> Tensor:
        """Return the repulsion energy of each atom, shape (n_atoms,), eV.

        Parameters
        ----------
        edge_index, edge_vectors, species
            As in :mod:`eqpot.keys`.
        """
        pair = self.pair_energies(species[edge_index[0]], species[edge_index[1]], edge_vectors)
        energies = torch.zeros(species.shape[0], dtype=pair.dtype, device=pair.device)
        return energies.index_add(0, edge_index[0], pair)

    @torch.jit.export
    def pair_energies(self, centers: Tensor, neighbors: Tensor, vectors: Tensor) -> Tensor:
        """Return the half of each edge's repulsion that its centre has, eV.

        Parameters
        ----------
        centers, neighbors
            Species of the ends, shape (...).
        vectors
            Shape (..., 3), Å.
        """
        charge_i, charge_j = self.charges[centers], self.charges[neighbors]
        cut = 0.7 * (self.radii[centers] + self.radii[neighbors])
        distances = torch.linalg.vector_norm(vectors.to(self.charges.dtype), dim=-1)
        length = 0.8854 * 0.529177210903 / (charge_i.pow(0.23) + charge_j.pow(0.23))
        x = distances / length
        screening = (
            0.18175 * torch.exp(-3.19980 * x)
            + 0.50986 * torch.exp(-0.94229 * x)
            + 0.28022 * torch.exp(-0.40290 * x)
            + 0.02817 * torch.exp(-0.20162 * x)
        )
        pair = self.coulomb * charge_i * charge_j / distances * screening
        halves: Tensor = 0.5 * pair * polynomial_envelope(distances / cut, 1.0, power=6)
        return halves
