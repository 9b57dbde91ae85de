"""The potential: assembly of the energy, and the only place where it becomes forces and stress."""

from typing import Dict, Final, List

import torch
from torch import Tensor, nn

from eqpot import keys
from eqpot.elements import unknown_element
from eqpot.physics.zbl import ZBLRepulsion

N_ELEMENTS: Final = 119
"""Length of a table that is indexed by the atomic number."""


class Potential(nn.Module):
    r"""Energy, forces, stress and virials of structures.

    .. math:: E = \sum_i \left[ E^0_{z_i} + s \, \varepsilon_i + E^\mathrm{ZBL}_i \right], \quad
              F_i = -\frac{\partial E}{\partial r_i}, \quad
              \sigma = \frac1V \sum_{ij} r_{ij} \otimes \frac{\partial E}{\partial r_{ij}}

    All derivatives follow from one backward pass to the edge vectors. Edge vectors and energies are
    float64 if the positions are; the model runs in its own dtype between them.

    Parameters
    ----------
    model
        From a graph to ``node_energy``; zero for an atom without neighbours.
    atomic_numbers
        Elements that the model knows; the position in the list is the species.
    reference_energies
        E0 of each element, eV.
    scale
        Energy in eV of one unit of the model.
    r_max
        Radius of the neighbour list, Å.
    repulsion
        Nuclear repulsion, if wanted.

    Raises
    ------
    ValueError
        If elements repeat, or their number is not that of the reference energies.

    References
    ----------
    Stress from edge derivatives: Thompson, Plimpton and Mattson, J. Chem. Phys. 131, 154107 (2009),
    eq. 27.

    Notes
    -----
    ``node_virial`` gives the part ``-r_ij,a ∂E/∂r_ij,b`` of each edge to its neighbour j. The parts
    sum to the virial. With one layer they are the centroid virials of Surblys et al., Phys. Rev. E
    99, 051301 (2019); with more, where energies of atoms depend on edges further away, they are a
    partition and not fit for heat currents.
    """

    species_of: Tensor
    anchor: Tensor

    def __init__(
        self,
        model: nn.Module,
        atomic_numbers: List[int],
        reference_energies: List[float],
        scale: float,
        r_max: float,
        repulsion: ZBLRepulsion | None = None,
    ) -> None:
        super().__init__()
        if len(atomic_numbers) != len(reference_energies):
            raise ValueError(
                f"`reference_energies` must have one value for each of {len(atomic_numbers)} "
                f"elements, got {len(reference_energies)}"
            )
        if len(set(atomic_numbers)) != len(atomic_numbers):
            raise ValueError(f"`atomic_numbers` must not repeat, got {atomic_numbers}")
        self.model = model
        self.repulsion = repulsion
        self.scale = scale
        self.r_max = r_max
        self.atomic_numbers = list(atomic_numbers)
        self.reference_energies = list(reference_energies)
        self.register_buffer("species_of", species_table(atomic_numbers), persistent=False)
        self.register_buffer("anchor", torch.zeros(()), persistent=False)  # dtype of the model

    @torch.jit.unused
    def check_elements(self, atomic_numbers: List[int], where: str) -> None:
        """Check that the potential knows all elements.

        Raises
        ------
        ValueError
            If it does not; names the first atom, its element and the known ones.
        """
        known = set(self.atomic_numbers)
        for atom, number in enumerate(atomic_numbers):
            if number not in known:
                raise ValueError(f"{where}: {unknown_element(atom, number, known)}")

    @torch.jit.unused
    def scale_energies(self, factor: float) -> None:
        """Multiply the energies of the model, not the E0s, by a factor, in its weights."""
        scale_energies = self.model.scale_energies
        assert callable(scale_energies)
        scale_energies(factor)

    @torch.jit.unused
    def with_model(self, model: nn.Module) -> "Potential":
        """Return a potential that differs in its model alone."""
        numbers, energies = self.atomic_numbers, self.reference_energies
        other = Potential(model, numbers, energies, self.scale, self.r_max, self.repulsion)
        return other.to(self.anchor).train(self.training)

    @torch.jit.export
    def edge_vectors(self, graph: Dict[str, Tensor]) -> Tensor:
        """Return r_j - r_i + S · cell of each edge, shape (n_edges, 3), Å."""
        return edge_vectors(
            graph[keys.POSITIONS],
            graph[keys.CELL],
            graph[keys.EDGE_INDEX],
            graph[keys.EDGE_SHIFTS],
            graph[keys.BATCH],
        )

    @torch.jit.export
    def energies(self, graph: Dict[str, Tensor], edge_vectors: Tensor) -> Dict[str, Tensor]:
        """Return ``energy``, ``node_energy`` and ``node_features`` for given edge vectors.

        Parameters
        ----------
        graph
            As in :meth:`forward`.
        edge_vectors
            Shape (n_edges, 3), Å.
        """
        species = known_species(self.species_of, graph[keys.ATOMIC_NUMBERS])
        edge_index = graph[keys.EDGE_INDEX]
        inputs = {
            keys.SPECIES: species,
            keys.EDGE_INDEX: edge_index,
            keys.EDGE_VECTORS: edge_vectors.to(self.anchor.dtype),
        }
        outputs: Dict[str, Tensor] = self.model(inputs)
        # torch.tensor of a list rounds through float32 in TorchScript; filling is exact
        e0 = torch.zeros(
            len(self.reference_energies), dtype=edge_vectors.dtype, device=edge_vectors.device
        )
        for index, reference_energy in enumerate(self.reference_energies):
            e0[index].fill_(reference_energy)
        node_energy = e0[species] + self.scale * outputs[keys.NODE_ENERGY].to(e0.dtype)
        if self.repulsion is not None:
            repulsion = self.repulsion(edge_index, edge_vectors, species)
            node_energy = node_energy + repulsion.to(e0.dtype)
        n_graphs = graph[keys.CELL].shape[0]
        energy = torch.zeros(n_graphs, dtype=e0.dtype, device=e0.device)
        energy = energy.index_add(0, graph[keys.BATCH], node_energy)
        outputs[keys.NODE_ENERGY] = node_energy
        outputs[keys.ENERGY] = energy
        return outputs

    def forward(self, graph: Dict[str, Tensor], training: bool = False) -> Dict[str, Tensor]:
        """Return all that the potential knows of the structures.

        Parameters
        ----------
        graph
            ``positions``, ``atomic_numbers``, ``cell``, ``batch``, ``edge_index``, ``edge_shifts``
            as in :mod:`eqpot.keys`. Elements must be known to the potential; the doors check that.
        training
            Keep the graph of the derivatives, so that a loss of forces can be differentiated.

        Returns
        -------
        dict
            ``energy``, ``node_energy``, ``forces``, ``stress``, ``virial``, ``node_virial``, as in
            :mod:`eqpot.keys`. The stress refers to the volume of the cell and is zero where the
            cell has none.
        """
        positions = graph[keys.POSITIONS]
        edge_index = graph[keys.EDGE_INDEX]
        batch = graph[keys.BATCH]
        cell = graph[keys.CELL].to(positions.dtype)
        centers = edge_index[0]
        neighbors = edge_index[1]
        if not torch.is_grad_enabled():
            raise RuntimeError("forces need gradients: call the potential outside torch.no_grad()")
        vectors = self.edge_vectors(graph)
        if not vectors.requires_grad:
            vectors.requires_grad_(True)
        outputs = self.energies(graph, vectors)
        gradient = torch.autograd.grad(
            [outputs[keys.ENERGY].sum()], [vectors], create_graph=training
        )[0]
        assert gradient is not None  # TorchScript: the energy depends on the vectors
        forces = torch.zeros_like(positions)
        forces = forces.index_add(0, centers, gradient).index_add(0, neighbors, -gradient)
        edge_virial = -vectors[:, :, None] * gradient[:, None, :]
        node_virial = torch.zeros(
            (positions.shape[0], 3, 3), dtype=positions.dtype, device=positions.device
        ).index_add(0, neighbors, edge_virial)
        virial = virial_of(node_virial, cell, batch)
        outputs[keys.FORCES] = forces
        outputs[keys.VIRIAL] = virial
        outputs[keys.STRESS] = stress_of(virial, cell)
        outputs[keys.NODE_VIRIAL] = node_virial
        if not training:
            for name in list(outputs.keys()):
                outputs[name] = outputs[name].detach()
        return outputs


def species_table(atomic_numbers: List[int]) -> Tensor:
    """Return the species by atomic number, shape (``N_ELEMENTS``,); -1 for unknown elements."""
    species = torch.full((N_ELEMENTS,), -1, dtype=torch.long)
    species[torch.tensor(atomic_numbers)] = torch.arange(len(atomic_numbers))
    return species


def known_species(species_of: Tensor, atomic_numbers: Tensor) -> Tensor:
    """Return the species of atoms by a table of :func:`species_table`.

    Raises
    ------
    ValueError
        If an element is unknown.
    """
    species = species_of[atomic_numbers]
    if bool((species < 0).any()):
        raise ValueError("`atomic_numbers` holds an element that this potential does not know")
    return species


def edge_vectors(
    positions: Tensor, cell: Tensor, edge_index: Tensor, edge_shifts: Tensor, batch: Tensor
) -> Tensor:
    """Return r_j - r_i + S · cell of each edge, shape (n_edges, 3), Å.

    Parameters
    ----------
    positions, cell, edge_index, edge_shifts, batch
        As in :mod:`eqpot.keys`.
    """
    cell = cell.to(positions.dtype)
    shifts = edge_shifts.to(positions.dtype)
    if cell.shape[0] == 1:
        shifts = shifts @ cell[0]
    else:
        shifts = torch.einsum("es,esv->ev", shifts, cell[batch[edge_index[0]]])
    ends = positions.index_select(0, edge_index[1]) - positions.index_select(0, edge_index[0])
    return ends + shifts


def virial_of(node_virial: Tensor, cell: Tensor, batch: Tensor) -> Tensor:
    """Return the symmetric virials of structures, eV, shape (n_graphs, 3, 3).

    Parameters
    ----------
    node_virial
        Parts of the atoms, eV, shape (n_atoms, 3, 3).
    cell
        Shape (n_graphs, 3, 3), Å; only its shape, type and device count.
    batch
        Structure of each atom, shape (n_atoms,).
    """
    virial = torch.zeros_like(cell).index_add(0, batch, node_virial)
    return 0.5 * (virial + virial.transpose(1, 2))


def stress_of(virial: Tensor, cell: Tensor) -> Tensor:
    """Return the stress, eV/Å³, of virials in cells, both of shape (n, 3, 3); 0 without a volume.

    The volume is a triple product: the determinant of torch takes longer than all else here.
    """
    volume = (torch.linalg.cross(cell[:, 0], cell[:, 1]) * cell[:, 2]).sum(dim=1).abs()
    return -virial / torch.where(volume > 0, volume, float("inf"))[:, None, None]
