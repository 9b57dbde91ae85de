"""The quick potential fitted to a sample, and what it says of the labels it never saw.

Half of the frames predict the other half and the reverse. The same normal equations serve for every
way in which forces may have been written in a wrong order: only the right-hand side differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eqpot.data.audit.linear_model import LinearModel
from eqpot.data.frames import Frame

Array = NDArray[np.float64]

MOST_ATOMS: Final = 6000
MOST_FRAMES: Final = 300
_RIDGES: Final = (1e-8, 1e-6, 1e-4, 1e-2, 1e-1)
_FLOOR: Final = 1e-3
"""Functions with less weight than this part of the largest are not blown up by scaling."""

AS_READ: Final = "as read"


@dataclass(frozen=True)
class Fit:
    """A fit of the forces of some frames, by halves.

    Attributes
    ----------
    frames
        The frames used.
    half
        0 or 1: the half each frame belongs to. Each is predicted by the parameters of the other.
    explained
        Part of the squared forces that is predicted, by order of the forces; ``"as read"`` is
        that of the labels as they are.
    energy
        Predicted energies, eV, up to a constant for each half and composition.
    energy_again
        The same by the parameters of the frame's own half: where the two differ, forces do not
        determine the energies.
    strain
        Predicted V·stress, eV, shape (n_frames, 3, 3).
    stiffness
        Mean curvature of the fitted surface per degree of freedom, eV/Å²; its sign is that of the
        forces, as atoms sit in wells.
    """

    frames: list[Frame]
    half: NDArray[np.int64]
    explained: dict[str, float]
    energy: Array
    energy_again: Array
    strain: Array
    stiffness: float


def reorderings(frame: Frame) -> dict[str, Array]:
    """Return forces of a frame put right, by the way in which they may be wrong."""
    forces = frame.forces
    assert forces is not None
    n_atoms = len(frame)
    by_number = np.argsort(frame.atomic_numbers, kind="stable")
    by_falling = np.argsort(-frame.atomic_numbers, kind="stable")
    rising, falling = np.empty_like(forces), np.empty_like(forces)
    rising[by_number] = forces
    falling[by_falling] = forces
    return {
        AS_READ: forces,
        "transposed": forces.reshape(3, n_atoms).T,
        "transposed back": forces.T.reshape(n_atoms, 3),
        "atoms.reversed": forces[::-1],
        "atoms.sorted": rising,
        "atoms.sorted down": falling,
        "axes.yzx": forces[:, [1, 2, 0]],
        "axes.zxy": forces[:, [2, 0, 1]],
        "axes.yxz": forces[:, [1, 0, 2]],
        "axes.zyx": forces[:, [2, 1, 0]],
        "axes.xzy": forces[:, [0, 2, 1]],
    }


def fit_forces(frames: Sequence[Frame]) -> Fit | None:
    """Return the fit, or None where there is too little to fit.

    Parameters
    ----------
    frames
        The sample; frames without forces, or with one atom, are passed over.
    """
    chosen: list[Frame] = []
    n_atoms = 0
    usable = [f for f in frames if f.forces is not None and len(f) > 1 and f.forces.any()]
    order = np.random.default_rng(0).permutation(len(usable) // 2 + 1)
    # in runs of two, as they were drawn: neighbours in a trajectory stay in one half
    for k in (2 * order[:, None] + np.arange(2)).ravel().tolist():
        if k >= len(usable):
            continue
        if len(chosen) >= MOST_FRAMES or (len(chosen) >= 20 and n_atoms > MOST_ATOMS):
            break
        chosen.append(usable[k])
        n_atoms += len(usable[k])
    if len(chosen) < 4 or n_atoms < 20:
        return None
    model = LinearModel(chosen)
    size = model.n_parameters
    names = list(reorderings(chosen[0]))
    half = (np.arange(len(chosen)) // 2) % 2
    gram = np.zeros((2, size, size))
    moment = np.zeros((2, size, len(names)))
    total = np.zeros(2)
    energies = np.zeros((len(chosen), size))
    strains = np.zeros((len(chosen), 9, size))
    stiffness: list[tuple[Array, Array]] = []
    generator = np.random.default_rng(0)
    for k, frame in enumerate(chosen):
        response = model.respond(frame)
        matrix = response.forces.reshape(-1, size)
        labels = reorderings(frame)
        side = half[k]
        gram[side] += matrix.T @ matrix
        moment[side] += matrix.T @ np.stack([labels[name].ravel() for name in names], axis=1)
        assert frame.forces is not None
        total[side] += float((frame.forces**2).sum())
        energies[k] = response.energy
        strains[k] = response.strain.reshape(9, size)
        if k < 20:
            push = generator.normal(scale=0.01, size=frame.positions.shape)
            moved = [
                model.respond(_at(frame, frame.positions + s * push)).forces.reshape(-1, size)
                for s in (1.0, -1.0)
            ]
            stiffness.append((-(push.ravel() @ (moved[0] - moved[1])) / 2, (push**2).sum()))
    explained, parameters = _best(gram, moment, total, names)
    other = parameters[1 - half]
    push_squares = sum(float(s) for _, s in stiffness)
    mean_parameters = parameters.mean(axis=0)
    return Fit(
        frames=chosen,
        half=half,
        explained=explained,
        energy=np.einsum("kp,kp->k", energies, other),
        energy_again=np.einsum("kp,kp->k", energies, parameters[half]),
        strain=np.einsum("ksp,kp->ks", strains, other).reshape(-1, 3, 3),
        stiffness=sum(float(a @ mean_parameters) for a, _ in stiffness) / push_squares,
    )


def _at(frame: Frame, positions: Array) -> Frame:
    return Frame(frame.atomic_numbers, positions, cell=frame.cell, pbc=frame.pbc)


def _best(
    gram: Array, moment: Array, total: Array, names: Sequence[str]
) -> tuple[dict[str, float], Array]:
    """Return how much of the forces each order explains, and the parameters of those as read."""
    explained = dict.fromkeys(names, -np.inf)
    chosen = np.zeros((2, gram.shape[1]))
    decomposed = []
    for side in range(2):
        diagonal = np.diag(gram[side])
        scale = np.sqrt(np.maximum(diagonal, _FLOOR**2 * diagonal.max()))
        values, vectors = np.linalg.eigh(gram[side] / scale[:, None] / scale)
        decomposed.append((scale, values, vectors))
    for ridge in _RIDGES:
        answers = []
        for side, (scale, values, vectors) in enumerate(decomposed):
            right = vectors.T @ (moment[side] / scale[:, None])
            lifted = np.maximum(values, 0.0) + ridge * values.max()
            answers.append((vectors @ (right / lifted[:, None])) / scale[:, None])
        missed = np.zeros(len(names))
        for side in range(2):
            theta = answers[1 - side]
            missed += (
                np.einsum("ph,ph->h", theta, gram[side] @ theta)
                - 2.0 * np.einsum("ph,ph->h", theta, moment[side])
                + total[side]
            )
        for column, name in enumerate(names):
            value = 1.0 - float(missed[column]) / max(float(total.sum()), 1e-300)
            if value > explained[name]:
                explained[name] = value
                if name == AS_READ:
                    chosen = np.stack([answer[:, column] for answer in answers])
    return explained, chosen
