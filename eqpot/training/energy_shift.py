"""E0s of another level of theory: what must be added to those of a trained potential."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import torch

from eqpot import keys
from eqpot.data import Frame, collate, frame_to_graph
from eqpot.elements import SYMBOLS
from eqpot.graph import graph_to
from eqpot.physics.reference_energies import reference_energies
from eqpot.potential import Potential

KEPT: Final = "the potential"
"""Origin of an E0 that stays as it is in the potential."""

_FRAMES_AT_ONCE: Final = 32


@dataclass(frozen=True)
class EnergyShift:
    """E0 by element for fine-tuning, and how far from those of the potential; ``str()``: a table.

    Attributes
    ----------
    energies
        E0 by atomic number, eV, in the order of the potential.
    shifts
        What was added to the E0 of the potential, eV; for a new element its whole E0.
    origins
        As in :class:`eqpot.physics.reference_energies.ReferenceEnergies`, or :data:`KEPT`.
    undetermined
        Groups of elements whose shifts the frames cannot tell apart.
    """

    energies: dict[int, float]
    shifts: dict[int, float]
    origins: dict[int, str]
    undetermined: tuple[tuple[int, ...], ...] = ()

    def of_frame(self, frame: Frame) -> float:
        """Return the sum of the shifts of a frame's atoms, eV."""
        numbers, counts = np.unique(frame.atomic_numbers, return_counts=True)
        return float(
            sum(self.shifts[z] * n for z, n in zip(numbers.tolist(), counts.tolist(), strict=True))
        )

    def __str__(self) -> str:
        lines = []
        for z, energy in self.energies.items():
            origin = self.origins[z]
            change = "" if origin == KEPT else f", shifted by {self.shifts[z]:+.6f} eV"
            lines.append(f"E0({SYMBOLS[z]}) = {energy:.6f} eV from {origin}{change}")
        for group in self.undetermined:
            names = ", ".join(SYMBOLS[z] for z in group)
            lines.append(
                f"the frames cannot tell apart E0 of {names}: their atoms share the shift equally "
                "where they must; give isolated atoms or E0 to separate them"
            )
        return "\n".join(lines)


def energy_shift(
    potential: Potential,
    frames: Sequence[Frame],
    mode: Literal["refit", "shift", "keep"],
    given: Mapping[str, float] | None = None,
    new_elements: Iterable[int] = (),
) -> EnergyShift:
    r"""Return E0s with which a trained potential fits the total energies of new data.

    Energies of two levels of theory differ, above all, by a sum over atoms. With the potential's
    interaction energy I(x) = E(x) - Σ_z n_z E0_z, the new E0s minimise

    .. math:: \sum_f \left[\frac{E_f - I(x_f) - \sum_z n_{fz} E0_z}{n_f}\right]^2 ,

    which is the fit of :func:`eqpot.physics.reference_energies.reference_energies` to E_f less
    all that the potential predicts, E0s included: its solution is the shift. A smallest norm then
    means the smallest shift. Forces and stress do not depend on E0.

    Parameters
    ----------
    potential
        Knows all elements of the frames; E0 of new ones are zero. In float64, on any device.
    frames
        New data; read twice. Isolated atoms give the shift of their element exactly: the network
        is zero for them.
    mode
        ``refit``: what is given, isolated atoms, then the fit. ``shift``: what is given, then the
        fit, so that molecules and solids begin right where the levels bind differently. ``keep``:
        E0s of the potential; new elements as ``refit``.
    given
        E0 in eV by symbol.
    new_elements
        Those of which the E0 of the potential means nothing.

    Raises
    ------
    ValueError
        As :func:`eqpot.physics.reference_energies.reference_energies`; or if E0s are given of
        elements whose E0 is to be kept.
    """
    new = set(new_elements)
    old = dict(zip(potential.atomic_numbers, potential.reference_energies, strict=True))
    given = dict(given or {})
    known = {SYMBOLS[z] for z in old.keys() - new}
    if mode == "keep" and known & given.keys():
        raise ValueError(
            f"`data.reference_energies` gives E0 of {', '.join(sorted(known & given.keys()))}, and "
            "`fine_tuning.reference_energies: keep` keeps those of the potential: take one out"
        )
    fixed = {
        symbol: energy - old.get(SYMBOLS.index(symbol), 0.0) if symbol in SYMBOLS else energy
        for symbol, energy in given.items()
    }
    with_isolated = mode != "shift"
    fits = mode != "keep" or bool(new)
    seen: set[int] = set()
    if fits:
        for frame in _with_energy(frames, old, with_isolated):
            seen.update(frame.atomic_numbers.tolist())
    kept = {z for z in old.keys() - new if mode == "keep" or z not in seen}
    kept -= {z for z in kept if SYMBOLS[z] in fixed}
    residuals = _residuals(potential, _with_energy(frames, old, with_isolated)) if fits else []
    found = reference_energies(residuals, fixed | {SYMBOLS[z]: 0.0 for z in kept})
    missing = [SYMBOLS[z] for z in new if z not in found.energies]
    if missing:
        raise ValueError(
            f"{', '.join(missing)}: new to the potential, and no frame that holds it has an energy "
            "from which E0 could come; give it in `data.reference_energies`"
        )
    shifts = {z: found.energies[z] for z in old}
    return EnergyShift(
        energies={z: old[z] + shifts[z] for z in old},
        shifts=shifts,
        origins={z: KEPT if z in kept else found.origins[z] for z in old},
        undetermined=found.undetermined,
    )


def _with_energy(
    frames: Iterable[Frame], known: Iterable[int], with_isolated: bool
) -> Iterator[Frame]:
    elements = set(known)
    for frame in frames:
        if frame.energy is None or (frame.is_isolated_atom and not with_isolated):
            continue
        if set(frame.atomic_numbers.tolist()) <= elements:
            yield frame


def _residuals(potential: Potential, frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield frames with what the potential leaves of their energies."""
    known = dict(zip(potential.atomic_numbers, potential.reference_energies, strict=True))
    waiting: list[Frame] = []
    for frame in frames:
        if frame.is_isolated_atom:  # even in a periodic box, where the network sees its images
            assert frame.energy is not None
            yield _labelled(frame, frame.energy - known[int(frame.atomic_numbers[0])])
            continue
        waiting.append(frame)
        if len(waiting) == _FRAMES_AT_ONCE:
            yield from _predicted(potential, waiting)
            waiting = []
    if waiting:
        yield from _predicted(potential, waiting)


def _predicted(potential: Potential, frames: list[Frame]) -> Iterator[Frame]:
    graph = collate([frame_to_graph(frame, potential.r_max) for frame in frames])
    graph = graph_to(graph, next(potential.parameters()).device)
    with torch.no_grad():
        energies = potential.energies(graph, potential.edge_vectors(graph))[keys.ENERGY]
    for frame, energy in zip(frames, energies.tolist(), strict=True):
        assert frame.energy is not None
        yield _labelled(frame, frame.energy - energy)


def _labelled(frame: Frame, energy: float) -> Frame:
    return replace(frame, energy=energy, forces=None, stress=None)
