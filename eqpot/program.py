"""An exported potential as a program: what it takes and returns, and its likeness to the original.

Whoever writes one compares it here with the potential that it came from.
"""

from collections.abc import Callable
from typing import Dict, Final, List, Tuple

import torch
from torch import Tensor, nn

from eqpot import keys
from eqpot.potential import Potential

INPUTS: Final = (
    keys.POSITIONS,
    keys.CELL,
    keys.ATOMIC_NUMBERS,
    keys.EDGE_INDEX,
    keys.EDGE_SHIFTS,
    keys.BATCH,
)
"""What an exported potential takes, in this order."""
OUTPUTS: Final = (keys.ENERGY, keys.NODE_ENERGY, keys.FORCES, keys.STRESS, keys.NODE_VIRIAL)
"""What an exported potential returns, in this order."""

_TOLERANCE: Final = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Of the verification, relative to the largest value or 1: rounding, with room for other orders."""
_STRETCHES: Final = (1.0, 1.3, 1.7, 2.2)
_CALLS: Final = 3  # the profiling executor of TorchScript compiles anew at the second and third

Program = Callable[..., Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]


class ExportError(RuntimeError):
    """An exported program differs from its potential, or cannot be compared with it."""


class ExplicitPotential(nn.Module):
    """A potential whose arguments and results are plain tensors, as engines call it.

    Parameters
    ----------
    potential
        A :class:`eqpot.potential.Potential`, or what is called like one.
    """

    def __init__(self, potential: nn.Module) -> None:
        super().__init__()
        self.potential = potential

    def forward(
        self,
        positions: Tensor,
        cell: Tensor,
        atomic_numbers: Tensor,
        edge_index: Tensor,
        edge_shifts: Tensor,
        batch: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return ``energy``, ``node_energy``, ``forces``, ``stress`` and ``node_virial``.

        Parameters
        ----------
        positions, cell, atomic_numbers, edge_index, edge_shifts, batch
            As in :mod:`eqpot.keys`, the edges in any order; the number of graphs is the length of
            ``cell``. Positions in float64 give energies and forces in float64, whatever the model
            runs in.

        Returns
        -------
        tuple of Tensor
            In the shapes and units of :mod:`eqpot.keys`.
        """
        if bool((edge_index[0].diff() < 0).any()):
            order = torch.argsort(edge_index[0], stable=True)
            edge_index = edge_index[:, order]
            edge_shifts = edge_shifts[order]
        graph: Dict[str, Tensor] = {
            keys.POSITIONS: positions,
            keys.CELL: cell,
            keys.ATOMIC_NUMBERS: atomic_numbers,
            keys.EDGE_INDEX: edge_index,
            keys.EDGE_SHIFTS: edge_shifts,
            keys.BATCH: batch,
        }
        outputs: Dict[str, Tensor] = self.potential(graph)
        return (
            outputs[keys.ENERGY],
            outputs[keys.NODE_ENERGY],
            outputs[keys.FORCES],
            outputs[keys.STRESS],
            outputs[keys.NODE_VIRIAL],
        )


def verify(program: Program, potential: Potential) -> float:
    """Return the largest difference between a program and its potential, relative, or to 1.

    Both run on random structures of changing size, three times each. These are dense, and energies
    of many layers grow with a high power of the density: a structure whose energies come near to
    overflow is drawn wider.

    Raises
    ------
    ExportError
        If they differ by more than rounding, or the potential overflows wherever it is drawn.
    """
    eager = ExplicitPotential(potential)
    dtype = next(potential.parameters()).dtype
    device = potential.species_of.device
    generator = torch.Generator().manual_seed(0)
    zero = torch.zeros((), dtype=torch.float64, device=device)
    e0 = torch.tensor(potential.reference_energies, dtype=torch.float64, device=device)
    largest, largest_sound = 0.0, torch.finfo(dtype).max ** 0.5
    for n_atoms in (6, 3, 11, 1, 8):
        for stretch in _STRETCHES:
            drawn = _random_inputs(
                n_atoms, potential.atomic_numbers, potential.r_max, generator, stretch
            )
            inputs = [tensor.to(device) for tensor in drawn]
            expected = eager(*inputs)
            # products of two numbers below the root of the largest do not overflow
            if all(bool((tensor.abs() < largest_sound).all()) for tensor in expected):
                break
        else:
            raise ExportError(
                f"the potential overflows {dtype} for {n_atoms} atoms at random places, so no "
                "export can be compared with it; nothing was written"
            )
        # E0s are thousands of eV and exact in both: an error must not look small beside them
        isolated = e0[potential.species_of[inputs[2]]]
        offsets = {
            keys.NODE_ENERGY: isolated,
            keys.ENERGY: torch.zeros_like(expected[0]).index_add(0, inputs[5], isolated),
        }
        for _ in range(_CALLS):
            for name, result, reference in zip(OUTPUTS, program(*inputs), expected, strict=True):
                difference = (result - reference).abs().max().item()
                difference /= max(1.0, (reference - offsets.get(name, zero)).abs().max().item())
                if not difference <= _TOLERANCE[dtype]:
                    raise ExportError(
                        f"the exported program differs from the potential: `{name}` by "
                        f"{difference:.1e} (relative) for {n_atoms} atoms; nothing was written"
                    )
                largest = max(largest, difference)
    return largest


def _random_inputs(
    n_atoms: int,
    atomic_numbers: List[int],
    r_max: float,
    generator: torch.Generator,
    stretch: float = 1.0,
) -> List[Tensor]:
    """Return two random periodic structures in one batch, with every pair of atoms within r_max.

    With ``stretch`` all lengths are longer, and some pairs are not.
    """
    numbers = torch.tensor(atomic_numbers)
    spread = r_max / 3.0**0.5
    positions, cells, species, edges, shifts, batch = [], [], [], [], [], []
    for index in range(2):
        cell = torch.eye(3, dtype=torch.float64) * r_max
        cell = cell + 0.2 * r_max * torch.rand(3, 3, dtype=torch.float64, generator=generator)
        points = spread * torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator)
        cell, points = stretch * cell, stretch * points
        steps = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3)
        vectors = points[None, :, None] - points[:, None, None] + (steps @ cell)[None, None]
        distances = torch.linalg.vector_norm(vectors, dim=-1)
        i, j, s = torch.where((distances < r_max) & (distances > 0.4))
        positions.append(points)
        cells.append(cell)
        chosen = torch.randint(len(numbers), (n_atoms,), generator=generator)
        species.append(numbers[chosen])
        edges.append(torch.stack([i, j]) + index * n_atoms)
        shifts.append(steps[s])
        batch.append(torch.full((n_atoms,), index))
    return [
        torch.cat(positions),
        torch.stack(cells),
        torch.cat(species),
        torch.cat(edges, dim=1),
        torch.cat(shifts),
        torch.cat(batch),
    ]
