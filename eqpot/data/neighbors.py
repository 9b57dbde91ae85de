"""Neighbour lists: pairs of atoms closer than a cutoff, periodic images included.

This is the only file that knows how other codes order edges. Here, and in all of eqpot, row 0 of
``edge_index`` is the centre i, row 1 the neighbour j, centres do not decrease, and an edge stands
for the vector ``r_j - r_i + S · cell`` with the integer shifts S in ``edge_shifts``. An edge is
there when that vector is shorter than the cutoff; every pair appears in both directions. An atom
is a neighbour of its own images, never of itself.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from matscipy.neighbours import neighbour_list as matscipy_neighbour_list
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from eqpot.data.cells import bounding_cell, check_cell

_MAX_BINS: Final = 2**22
"""Bins that matscipy may allocate; emptier systems go to the sorted cell list."""
_MAX_CANDIDATES: Final = 2**22
"""Candidate pairs (and bins to look into) held in memory at a time: some 100 MiB each."""
_MAX_BINS_PER_AXIS: Final = 2**20
"""Keeps the number of a bin, three axes together, within int64."""


def neighbor_list(
    positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the edges of one structure, on the CPU.

    Parameters
    ----------
    positions
        Shape (n_atoms, 3), Å; atoms may lie outside of the cell.
    cell
        Rows are lattice vectors, shape (3, 3), Å, of either hand. Rows of axes that are not
        periodic are ignored.
    pbc
        Periodic axes, shape (3,), bool.
    cutoff
        Å; may be longer than the cell.

    Returns
    -------
    edge_index : ndarray
        Shape (2, n_edges), int64; row 0 centres, ascending, row 1 neighbours.
    edge_shifts : ndarray
        Integer cell shifts, shape (n_edges, 3), float64.

    Raises
    ------
    ValueError
        If a shape is wrong, a position is not finite, a periodic row of the cell is zero or
        flat, or the cutoff is not a positive number.

    Examples
    --------
    >>> edge_index, _ = neighbor_list([[0, 0, 0], [0, 0, 1]], np.zeros((3, 3)), [False] * 3, 2.0)
    >>> edge_index.tolist()
    [[0, 1], [1, 0]]
    """
    positions = np.asarray(positions, dtype=np.float64)
    cell = np.asarray(cell, dtype=np.float64)
    periodic = np.asarray(pbc, dtype=np.bool_)
    _check_arguments(positions.shape, cell, periodic, cutoff)
    wrong = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(wrong) > 0:
        _refuse_position(int(wrong[0]), positions[wrong[0]].tolist())
    if len(positions) == 0 or (len(positions) == 1 and not periodic.any()):
        return np.zeros((2, 0), dtype=np.int64), np.zeros((0, 3))
    bounding, origin = bounding_cell(positions.min(axis=0), positions.max(axis=0), cell, periodic)
    if np.prod(np.maximum(_heights(bounding) / cutoff, 1.0)) > _MAX_BINS:
        edges, shifts = torch_neighbor_list(
            torch.from_numpy(positions.copy()), torch.from_numpy(cell.copy()), periodic, cutoff
        )
        return edges.numpy(), shifts.numpy()
    centres, neighbours, images = matscipy_neighbour_list(
        "ijS",
        cutoff=cutoff,
        positions=positions,
        cell=bounding,
        pbc=periodic,
        cell_origin=origin,
    )
    edge_index = np.stack([centres, neighbours]).astype(np.int64)
    # matscipy sorts by centre; what reads `edge_index` depends on it, so it is not left to chance
    if (np.diff(edge_index[0]) < 0).any():
        order = np.argsort(edge_index[0], kind="stable")
        edge_index, images = edge_index[:, order], images[order]
    return edge_index, images.astype(np.float64)


def torch_neighbor_list(
    positions: Tensor, cell: Tensor, pbc: Tensor | Sequence[bool] | NDArray[np.bool_], cutoff: float
) -> tuple[Tensor, Tensor]:
    """Return the edges of one structure, on the device where its positions are.

    Atoms are sorted into bins about a cutoff wide, and each atom looks into the bins around its
    own: time grows linearly with the number of atoms at a given density. No grid of bins is
    stored, so empty space costs nothing; pairs are tried in portions of bounded memory. Where the
    cell is shorter than the cutoff, the bins looked into are its images.

    Parameters
    ----------
    positions
        Shape (n_atoms, 3), Å, any floating dtype.
    cell
        Rows are lattice vectors, shape (3, 3), Å. Rows of non-periodic axes are ignored.
    pbc
        Periodic axes, shape (3,), bool.
    cutoff
        Å; may be longer than the cell.

    Returns
    -------
    edge_index : Tensor
        Shape (2, n_edges), int64; row 0 centres, ascending, row 1 neighbours.
    edge_shifts : Tensor
        Integer cell shifts, shape (n_edges, 3), in the dtype of ``positions``.

    Raises
    ------
    ValueError
        As :func:`neighbor_list`.
    """
    device, dtype = positions.device, positions.dtype
    # bins and distances in float64: an atom must not change bins by rounding in float32
    points = positions.detach().to(torch.float64)
    lattice = cell.detach().to("cpu", torch.float64).numpy()
    periodic = (
        pbc.detach().cpu().numpy().astype(np.bool_)
        if isinstance(pbc, Tensor)
        else np.asarray(pbc, dtype=np.bool_)
    )
    _check_arguments(tuple(points.shape), lattice, periodic, cutoff)
    wrong = torch.nonzero(~torch.isfinite(points).all(dim=1))
    if len(wrong) > 0:
        _refuse_position(int(wrong[0]), points[int(wrong[0])].tolist())
    n_atoms = len(points)
    if n_atoms == 0 or (n_atoms == 1 and not periodic.any()):
        return (
            torch.zeros((2, 0), dtype=torch.int64, device=device),
            torch.zeros((0, 3), dtype=dtype, device=device),
        )
    lower, upper = torch.aminmax(points, dim=0)
    bounding, origin = bounding_cell(lower.cpu().numpy(), upper.cpu().numpy(), lattice, periodic)
    heights = _heights(bounding)
    n_bins = np.clip(np.floor(heights / cutoff), 1, _MAX_BINS_PER_AXIS).astype(np.int64)
    # two atoms m bins apart are more than m - 1 bin widths apart
    reach = np.ceil(cutoff * n_bins / heights).astype(np.int64)
    reach = np.where(periodic, reach, np.minimum(reach, n_bins - 1))
    if reach.max() > _MAX_BINS_PER_AXIS:
        raise ValueError(
            f"`cutoff` {cutoff} Å spans {reach.max()} images of a cell only {heights.min():.1e} Å "
            "thick; the cell is flat"
        )

    lattice_t = torch.from_numpy(bounding).to(device)
    fractional = (points - torch.from_numpy(origin).to(device)) @ torch.linalg.inv(lattice_t)
    periodic_t = torch.tensor(periodic, device=device)
    n_bins_t = torch.from_numpy(n_bins).to(device)
    # an atom outside of the cell is looked for at its image inside, `wraps` lattice vectors back
    wraps = torch.where(periodic_t, fractional.floor(), 0.0)
    bins = ((fractional - wraps) * n_bins_t).floor().to(torch.int64)
    bins = torch.minimum(bins.clamp(min=0), n_bins_t - 1)
    wraps = wraps.to(torch.int64)

    bin_of_atom = _bin_number(bins, n_bins_t)
    sorted_bins, order = torch.sort(bin_of_atom, stable=True)
    occupancy = int(torch.unique_consecutive(sorted_bins, return_counts=True)[1].max())
    reach_t = torch.from_numpy(reach).to(device)
    span = 2 * reach + 1
    n_looks = int(span.prod())
    looks_per_portion = max(1, _MAX_CANDIDATES // occupancy)

    found_edges = []
    found_shifts = []
    # one look: one atom into one bin; atoms ascend, hence the centres of the edges do
    for start in range(0, n_atoms * n_looks, looks_per_portion):
        stop = min(start + looks_per_portion, n_atoms * n_looks)
        look = torch.arange(start, stop, device=device)
        centre = look // n_looks
        target = bins[centre] + _unravel(look % n_looks, span) - reach_t
        image = torch.div(target, n_bins_t, rounding_mode="floor")
        inside = (periodic_t | (image == 0)).all(dim=1)
        centre, target, image = centre[inside], target[inside], image[inside]
        number = _bin_number(target - image * n_bins_t, n_bins_t)
        first = torch.searchsorted(sorted_bins, number)
        counts = torch.searchsorted(sorted_bins, number, right=True) - first
        n_candidates = int(counts.sum())
        if n_candidates == 0:
            continue
        centre = centre.repeat_interleave(counts, output_size=n_candidates)
        image = image.repeat_interleave(counts, dim=0, output_size=n_candidates)
        begin = (first - counts.cumsum(0) + counts).repeat_interleave(
            counts, output_size=n_candidates
        )
        neighbour = order[begin + torch.arange(n_candidates, device=device)]
        # the shift is between the atoms where they are, not between their images inside
        shifts = image + wraps[centre] - wraps[neighbour]
        shifts_f = shifts.to(torch.float64)
        vectors = points[neighbour] - points[centre] + shifts_f @ lattice_t
        itself = (centre == neighbour) & (shifts == 0).all(dim=1)
        close = (vectors.square().sum(dim=1) < cutoff * cutoff) & ~itself
        found_edges.append(torch.stack([centre[close], neighbour[close]]))
        found_shifts.append(shifts_f[close].to(dtype))
    if not found_edges:
        return (
            torch.zeros((2, 0), dtype=torch.int64, device=device),
            torch.zeros((0, 3), dtype=dtype, device=device),
        )
    return torch.cat(found_edges, dim=1), torch.cat(found_shifts)


def cluster_neighbor_list(positions: Tensor, batch: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Return the edges of a batch of molecules, found by torch-cluster on any device.

    Parameters
    ----------
    positions
        Shape (n_atoms, 3), Å.
    batch
        Molecule of each atom, shape (n_atoms,), int64, not decreasing. No periodic images.
    cutoff
        Å.

    Returns
    -------
    edge_index : Tensor
        Shape (2, n_edges), int64; row 0 centres, ascending, row 1 neighbours.
    edge_shifts : Tensor
        Zeros, shape (n_edges, 3), in the dtype of ``positions``.

    Raises
    ------
    ImportError
        If torch-cluster is not installed.
    ValueError
        If a shape is wrong, a position is not finite, ``batch`` decreases, or the cutoff is not
        a positive number.
    """
    try:
        from torch_cluster import radius_graph
    except ImportError as error:
        raise ImportError(
            "`cluster_neighbor_list` needs torch-cluster, which has no wheel: install it after "
            "torch with `pip install --no-build-isolation torch-cluster`, or use "
            "`torch_neighbor_list`, which needs nothing"
        ) from error
    points = positions.detach()
    _check_arguments(tuple(points.shape), np.zeros((3, 3)), np.zeros(3, dtype=np.bool_), cutoff)
    if batch.shape != points.shape[:1] or bool((batch.diff() < 0).any()):
        raise ValueError(
            f"`batch` must have shape ({len(points)},) and not decrease, got {tuple(batch.shape)}"
        )
    wrong = torch.nonzero(~torch.isfinite(points).all(dim=1))
    if len(wrong) > 0:
        _refuse_position(int(wrong[0]), points[int(wrong[0])].tolist())
    if len(points) == 0:
        edge_index = torch.zeros((2, 0), dtype=torch.int64, device=points.device)
        return edge_index, points.new_zeros((0, 3))
    # Its default of 32 neighbours drops edges: no atom has more neighbours than its molecule
    # atoms. With "target_to_source" row 0 is the atom asked about, our centre. The search goes a
    # little beyond the cutoff because its comparison (< or <=) differs between devices.
    edge_index = radius_graph(
        points,
        cutoff * (1.0 + 1e-6),
        batch,
        loop=False,
        max_num_neighbors=int(torch.bincount(batch).max()),
        flow="target_to_source",
    )
    vectors = points[edge_index[1]] - points[edge_index[0]]
    edge_index = edge_index[:, vectors.square().sum(dim=1) < cutoff * cutoff]
    edge_index = edge_index[:, torch.argsort(edge_index[0], stable=True)]
    return edge_index, points.new_zeros((edge_index.shape[1], 3))


def check_distances(
    positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, limit: float = 0.1
) -> None:
    """Check that no two atoms, images included, are closer than a limit.

    Parameters
    ----------
    positions, cell, pbc
        As in :func:`neighbor_list`.
    limit
        Smallest distance allowed, Å.

    Raises
    ------
    ValueError
        If two atoms are closer; the message names the closest two.
    """
    positions = np.asarray(positions, dtype=np.float64)
    cell = np.asarray(cell, dtype=np.float64)
    edge_index, edge_shifts = neighbor_list(positions, cell, pbc, limit)
    if edge_index.shape[1] == 0:
        return
    vectors = positions[edge_index[1]] - positions[edge_index[0]] + edge_shifts @ cell
    distances = np.linalg.norm(vectors, axis=1)
    closest = int(distances.argmin())
    centre, neighbour = edge_index[:, closest].tolist()
    shift = edge_shifts[closest].astype(int).tolist()
    image = f" (its image {shift})" if any(shift) else ""
    raise ValueError(
        f"atoms {centre} and {neighbour}{image} are {distances[closest]:.4f} Å apart, "
        f"closer than {limit} Å; is the unit of `positions` Å?"
    )


def _check_arguments(
    shape: tuple[int, ...], cell: NDArray[np.float64], pbc: NDArray[np.bool_], cutoff: float
) -> None:
    if len(shape) != 2 or shape[1] != 3:
        raise ValueError(f"`positions` must have shape (n_atoms, 3), got {shape}")
    if cell.shape != (3, 3):
        raise ValueError(f"`cell` must have shape (3, 3), got {cell.shape}")
    if pbc.shape != (3,):
        raise ValueError(f"`pbc` must have shape (3,), got {pbc.shape}")
    if not (math.isfinite(cutoff) and cutoff > 0.0):
        raise ValueError(f"`cutoff` must be a positive number of Å, got {cutoff}")
    check_cell(cell, pbc)


def _refuse_position(atom: int, position: list[float]) -> None:
    raise ValueError(f"`positions` must be finite, got {position} for atom {atom}")


def _heights(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance between the two faces of a cell, for each axis."""
    heights: NDArray[np.float64] = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    return heights


def _bin_number(bins: Tensor, n_bins: Tensor) -> Tensor:
    return (bins[:, 0] * n_bins[1] + bins[:, 1]) * n_bins[2] + bins[:, 2]


def _unravel(number: Tensor, span: NDArray[np.int64]) -> Tensor:
    y, z = int(span[1]), int(span[2])
    return torch.stack([number // (y * z), number // z % y, number % z], dim=1)
