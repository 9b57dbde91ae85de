"""Fine-tuning: a trained potential made ready to learn from new data, without a step yet taken."""

import copy
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from eqpot import keys
from eqpot.data import Frame, collate, frame_to_graph
from eqpot.elements import SYMBOLS, symbols
from eqpot.models import GauntModel
from eqpot.potential import Potential
from eqpot.training.base_potential import BasePotential, with_elements
from eqpot.training.energy_shift import EnergyShift, energy_shift
from eqpot.training.evaluation import Evaluation, evaluate
from eqpot.training.low_rank import add_low_rank_updates
from eqpot.training.progress import RunLog
from eqpot.training.recipe import Recipe

_FRAMES_COMPARED: Final = 8
_EQUAL: Final = 1e-8
"""Largest difference from the base, in float64, eV/atom, eV/Å and eV/Å³: rounding is far below."""


@dataclass(frozen=True)
class FineTuning:
    """The start of a fine-tuning.

    Attributes
    ----------
    base
        Where it starts.
    potential
        To train: new elements and E0s, in the dtype of the recipe, gradients wanted of what learns.
    shift
        E0s and their shifts.
    copied_from
        Known element as which each new one begins.
    replay
        Old frames to train on besides the new ones, their energies shifted to the new E0s.
    step0_differences
        Largest difference from the base before the first step, in float64 and at equal E0s:
        ``energy`` in eV/atom, ``forces`` in eV/Å, ``stress`` in eV/Å³.
    step0_errors
        Errors on the validation frames before the first step.
    """

    base: BasePotential
    potential: Potential
    shift: EnergyShift
    copied_from: dict[int, int]
    replay: list[Frame]
    step0_differences: dict[str, float]
    step0_errors: Evaluation

    def provenance(self) -> dict[str, Any]:
        """Return where the potential comes from, back to the first training, for its file."""
        return {
            "potential": self.base.path,
            "file_sha256": self.base.sha256,
            "eqpot_version": self.base.header["eqpot_version"],
            "reference_energy_shifts": {SYMBOLS[z]: v for z, v in self.shift.shifts.items()},
            "copied_elements": {SYMBOLS[z]: SYMBOLS[o] for z, o in self.copied_from.items()},
            "n_replay_frames": len(self.replay),
            "provenance": self.base.header["provenance"],
        }

    def metrics(self) -> dict[str, Any]:
        """Return the same less the past, with what was seen before the first step."""
        record = self.provenance()
        del record["provenance"]
        return record | {
            "reference_energy_origins": {SYMBOLS[z]: o for z, o in self.shift.origins.items()},
            "n_weights_that_learn": sum(p.numel() for p in trainable_parameters(self.potential)),
            "step0_max_differences": self.step0_differences,
            "step0_errors": self.step0_errors.as_dict(),
        }


def start_fine_tuning(
    recipe: Recipe,
    base: BasePotential,
    frames: Sequence[Frame],
    replay: Sequence[Frame],
    validation: Sequence[Frame],
    log: RunLog,
    device: torch.device | str = "cpu",
) -> FineTuning:
    """Return a trained potential made ready for new data; before the first step it is the base.

    Scale and mean number of neighbours stay those of the base: they are part of what its weights
    mean. The unit of forces in the loss is not, and comes from the new data as in every training.

    Parameters
    ----------
    recipe
        With the section ``model`` of the base: of
        :func:`eqpot.training.base_potential.recipe_with_base`.
    base
        Where to start.
    frames
        New frames that train, with isolated atoms if there are any.
    replay
        Frames of the base's own training, at its level of theory.
    validation
        New frames that validate.
    log
        Told what was found.
    device
        Where energies and errors are computed, and where the potential ends up.

    Raises
    ------
    RuntimeError
        If the start differs from the base by more than rounding.
    ValueError
        If an element or an E0 is missing, the heads alone should learn a new element, or an old
        frame holds an element that the base does not know.
    """
    section = recipe.fine_tuning
    log.line(str(base))
    known = set(base.potential.atomic_numbers)
    new = sorted({int(z) for f in frames if not f.is_isolated_atom for z in f.atomic_numbers})
    new = [z for z in new if z not in known]
    if new and section.train == "heads":
        raise ValueError(
            f"{base.path} does not know {symbols(new)}, and `fine_tuning.train: heads` cannot "
            "teach it: the readouts are the same for all elements; use `all` or `low_rank`"
        )
    for frame in replay:
        base.potential.check_elements(frame.atomic_numbers.tolist(), frame.source or "replay frame")

    potential, copied_from = with_elements(base.potential, new)
    for z, origin in copied_from.items():
        log.line(f"{SYMBOLS[z]} is new: it begins as a copy of {SYMBOLS[origin]}")
    potential = potential.to(device)
    shift = energy_shift(
        potential, frames, section.reference_energies, recipe.data.reference_energies, new
    )
    log.line(str(shift))
    potential.reference_energies = [shift.energies[z] for z in potential.atomic_numbers]
    potential = potential.to("cpu")
    choose_what_learns(potential, section.train, section.rank, recipe.training.seed, bool(new))
    n_learn = sum(parameter.numel() for parameter in trainable_parameters(potential))
    n_all = sum(parameter.numel() for parameter in base.potential.parameters())
    log.line(f"{section.train}: {n_learn} weights learn; the potential has {n_all}")

    differences = _differences(base.potential, potential, frames, copied_from)
    if any(not value < _EQUAL for value in differences.values()):
        raise RuntimeError(f"before the first step the potential differs: {differences}")
    log.line(
        "step 0 equals the potential: largest difference "
        f"{differences[keys.ENERGY]:.1e} eV/atom, {differences[keys.FORCES]:.1e} eV/Å, "
        f"{differences[keys.STRESS]:.1e} eV/Å³, in float64, less the shift of E0"
    )
    dtype = torch.float32 if recipe.training.dtype == "float32" else torch.float64
    potential = potential.to(device=device, dtype=dtype)
    errors = evaluate(potential, validation)
    log.line(f"step 0, validation: {errors}")

    n_new = sum(not frame.is_isolated_atom for frame in frames)
    old = _drawn(replay, n_new, section.replay_fraction, recipe.training.seed)
    if old:
        log.line(
            f"replay: {len(old)} of {len(replay)} old frames, "
            f"{100 * len(old) / (len(old) + n_new):.0f} % of those that train"
        )
    return FineTuning(
        base, potential, shift, copied_from, shifted_to(old, shift), differences, errors
    )


def choose_what_learns(
    potential: Potential, train: str, rank: int, seed: int, new_elements: bool = False
) -> None:
    """Ask for gradients of what learns, and of nothing else.

    Parameters
    ----------
    potential
        Changed in place, on the CPU.
    train
        ``all``: all that learns in a fresh training; ``heads``: the readouts; ``low_rank``: updates
        of the linear maps, see :mod:`eqpot.training.low_rank`.
    rank, seed
        Of the updates.
    new_elements
        Let ``low_rank`` learn the parameters of the elements too, which no linear map holds.
    """
    model = potential.model
    assert isinstance(model, GauntModel)
    if train == "all":
        potential.requires_grad_(True)
        model.first.elements.requires_grad_(not model.first.is_one_hot())
    elif train == "heads":
        potential.requires_grad_(False)
        for head in model.heads():
            head.requires_grad_(True)
    elif train == "low_rank":
        add_low_rank_updates(potential, rank, seed)
        if new_elements:
            for parameter in model.species_parameters():
                parameter.requires_grad_(True)
    else:
        raise ValueError(f'`train` must be "all", "heads" or "low_rank", got {train!r}')


def trainable_parameters(potential: Potential) -> list[nn.Parameter]:
    """Return the parameters that learn: what an optimizer may see."""
    return [parameter for parameter in potential.parameters() if parameter.requires_grad]


def shifted_to(frames: Iterable[Frame], shift: EnergyShift) -> list[Frame]:
    r"""Return old frames with energies that fit new E0s.

    Old labels are E = Σ_z n_z E0_z + I with E0s of the old level of theory, and the potential that
    learns predicts Σ_z n_z E0'_z + I_θ with those of the new one. It keeps what it knew, I_θ = I,
    where the label is

    .. math:: E' = E + \sum_z n_z (E0'_z - E0_z) .

    The errors of the base on old frames are the same before and after; forces and stress have no
    part in it.

    Parameters
    ----------
    frames
        At the level of theory of the base.
    shift
        E0' - E0 by element.
    """
    return [
        frame
        if frame.energy is None
        else replace(frame, energy=frame.energy + shift.of_frame(frame))
        for frame in frames
    ]


def _drawn(replay: Sequence[Frame], n_new: int, fraction: float, seed: int) -> list[Frame]:
    """Return old frames drawn at random so that they are a fraction of all, if there are enough."""
    candidates = [frame for frame in replay if not frame.is_isolated_atom]
    n = min(len(candidates), max(1, round(n_new * fraction / (1 - fraction))))
    chosen = np.random.default_rng(seed).permutation(len(candidates))[:n]
    return [candidates[index] for index in sorted(chosen.tolist())]


def _differences(
    base: Potential, start: Potential, frames: Sequence[Frame], copied_from: dict[int, int]
) -> dict[str, float]:
    """Return the largest differences between two potentials with the same E0s, by quantity.

    An atom of a new element stands as the known one of which it is a copy. Differences of labels
    beyond 1 (eV/atom, eV/Å, eV/Å³) are relative, as rounding is.
    """
    candidates = (frame for frame in frames if not frame.is_isolated_atom)
    chosen = list(itertools.islice(candidates, _FRAMES_COMPARED))
    graph = collate([frame_to_graph(frame, base.r_max) for frame in chosen])
    for z, origin in copied_from.items():
        graph[keys.ATOMIC_NUMBERS][graph[keys.ATOMIC_NUMBERS] == z] = origin
    outputs = []
    for potential in (base, start):
        bare = copy.deepcopy(potential)
        bare.reference_energies = [0.0] * len(bare.atomic_numbers)
        outputs.append(bare(graph))
        outputs[-1][keys.ENERGY] /= torch.bincount(graph[keys.BATCH])
    one, other = outputs
    return {
        name: float(((one[name] - other[name]).abs() / one[name].abs().clamp(min=1.0)).max())
        for name in (keys.ENERGY, keys.FORCES, keys.STRESS)
    }
