"""The periodic cell: its check, and the cell that stands in for axes without periodicity."""

import numpy as np
from numpy.typing import NDArray

FLAT: float = 1e-6
"""Lattice vectors of unit length that span less than this (area, volume) are called flat."""


def check_cell(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> None:
    """Check that the periodic rows of a cell span as many dimensions as there are rows.

    Rows of axes that are not periodic are not looked at.

    Parameters
    ----------
    cell
        Rows are lattice vectors, shape (3, 3), Å.
    pbc
        Which rows are periodic, shape (3,).

    Raises
    ------
    ValueError
        If a periodic row is not finite, zero, or in the plane or on the line of the others.
    """
    periodic = np.flatnonzero(pbc)
    for row in periodic:
        vector = cell[row]
        if not np.isfinite(vector).all():
            raise ValueError(f"`cell` row {row} must be finite, got {vector.tolist()}")
        if not np.linalg.norm(vector) > 0.0:
            raise ValueError(
                f"`cell` row {row} is zero, but `pbc` says that this axis is periodic; "
                "give the lattice vector or set `pbc` to false there"
            )
    if len(periodic) < 2:
        return
    rows = cell[periodic]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    # the product of singular values is the area or volume that the unit vectors span
    spanned = float(np.prod(np.linalg.svd(unit, compute_uv=False)))
    if spanned < FLAT:
        shape = "a plane" if len(periodic) == 3 else "a line"
        raise ValueError(
            f"`cell` is flat: its periodic rows {periodic.tolist()} lie in {shape} "
            f"(unit vectors span {spanned:.1e}), got {rows.tolist()}"
        )


def bounding_cell(
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    cell: NDArray[np.float64],
    pbc: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a cell whose non-periodic rows bound the atoms, and its origin.

    Rows of periodic axes are kept. Each other row is replaced by a vector at right angles to all
    other rows, long enough for the atoms, so whatever a file wrote there (zero, 1 Å, a skewed
    vacuum) has no influence.

    Parameters
    ----------
    lower, upper
        Corners of a box (along x, y, z) that holds all atoms, shape (3,), Å.
    cell
        Rows are lattice vectors, shape (3, 3), Å; checked by :func:`check_cell`.
    pbc
        Which rows are periodic, shape (3,).

    Returns
    -------
    cell : ndarray
        The bounding cell, shape (3, 3), Å; never singular.
    origin : ndarray
        Its corner, shape (3,), Å; on periodic axes the place of the corner is of no importance.
    """
    periodic = np.flatnonzero(pbc)
    others = np.flatnonzero(~pbc)
    bounding = np.array(cell, dtype=np.float64)
    origin = np.zeros(3)
    if len(others) == 0:
        return bounding, origin
    if len(periodic) == 0:
        normals = np.eye(3)
    else:
        # the last right singular vectors are at right angles to every periodic row
        normals = np.linalg.svd(cell[periodic], full_matrices=True)[2][len(periodic) :]
    for row, normal in zip(others, normals, strict=True):
        low = float(np.minimum(normal * lower, normal * upper).sum())
        high = float(np.maximum(normal * lower, normal * upper).sum())
        # 1 Å on either side keeps rounding from putting an atom outside
        margin = 1.0 + 1e-6 * max(abs(low), abs(high))
        bounding[row] = (high - low + 2.0 * margin) * normal
        origin += (low - margin) * normal
    return bounding, origin
