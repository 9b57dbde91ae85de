"""All checks of a potential, each within its share of the time; none can stop the others."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from eqpot.data import Frame
from eqpot.files import dtype_of, load_potential
from eqpot.verification.agreement import Agreement, compare_export, compare_precisions
from eqpot.verification.checks import (
    Check,
    Status,
    judge_derivatives,
    judge_dimers,
    judge_drift,
    judge_export,
    judge_precision,
    judge_symmetry,
)
from eqpot.verification.derivatives import Consistency, check_derivatives
from eqpot.verification.dimers import Dimers, dimer_curves
from eqpot.verification.dynamics import Drift, Speed, largest_frame_speed, run_nve
from eqpot.verification.machine import describe_machine
from eqpot.verification.prediction import representatives, sample
from eqpot.verification.symmetry import Symmetry, check_symmetry

Result = TypeVar("Result")

_N_FRAMES: Final = 6
_SHARES: Final = {
    "symmetry": 0.1,
    "derivatives": 0.15,
    "precision": 0.05,
    "export": 0.15,
    "dimers": 0.2,
    "energy conservation": 0.25,
    "speed": 0.1,
}
"""Parts of the time; a check may begin no frame, pair or step after its own."""


@dataclass
class Verification:
    """What the checks found; ``None`` where a check could not be done.

    Attributes
    ----------
    checks
        Verdicts, in the order of the checks.
    machine
        As :func:`eqpot.verification.machine.describe_machine`.
    seconds
        By check.
    """

    symmetry: Symmetry | None = None
    derivatives: Consistency | None = None
    precision: Agreement | None = None
    export: Agreement | None = None
    dimers: Dimers | None = None
    drift: Drift | None = None
    speed: Speed | None = None
    checks: list[Check] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def verify(
    potential: str | Path,
    train: Sequence[Frame],
    validation: Sequence[Frame],
    *,
    export: str | Path | None = None,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    seconds: float = 16.0,
    tell: Callable[[str], None] | None = None,
) -> Verification:
    """Check a potential that was just written, and measure its speed.

    A check that fails with an error is told as such and does not hinder the others.

    Parameters
    ----------
    potential
        The native file.
    train
        Frames it was trained on: the distances in them.
    validation
        Frames to check and run it on.
    export
        Its TorchScript export, if there is one. **Loading it runs code from it**: give only a file
        that was made here.
    dtype
        In which the potential will be used; symmetry, derivatives and dimers are computed in
        float64.
    device
        Where.
    seconds
        Time for all checks together. Each does at least one frame, so large ones take longer.
    tell
        Called with a line after each check.

    Raises
    ------
    OSError, ValueError
        If the file is refused (see :func:`eqpot.files.load_potential`).
    """
    dtype = dtype_of(dtype)
    name_of_dtype = str(dtype).removeprefix("torch.")
    exact = load_potential(potential, dtype=torch.float64, device=device)
    working = load_potential(potential, dtype=dtype, device=device)
    frames = representatives(validation, _N_FRAMES) or sample(validation)[:1]
    found = Verification()

    def attempt(
        name: str, compute: Callable[[float], Result], judge: Callable[[Result], Check] | None
    ) -> Result | None:
        started = time.monotonic()
        try:
            result = compute(_SHARES[name] * seconds)
            check = judge(result) if judge is not None else None
        # whatever goes wrong in a check is a finding about the potential, not the end of its report
        except Exception as error:
            result = None
            reason = f"{type(error).__name__}: {error}"
            check = Check(name, Status.BAD, f"Could not be checked: {reason}")
        found.seconds[name] = time.monotonic() - started
        if check is not None:
            found.checks.append(check)
        if tell is not None:
            verdict = f" {check.status}." if check is not None else ""
            tell(f"check of {name}:{verdict or ' done.'} {found.seconds[name]:.1f} s")
        return result

    found.symmetry = attempt(
        "symmetry", lambda share: check_symmetry(exact, frames, share), judge_symmetry
    )
    found.derivatives = attempt(
        "derivatives", lambda share: check_derivatives(exact, frames, share), judge_derivatives
    )
    if dtype != torch.float64:
        found.precision = attempt(
            "precision",
            lambda share: compare_precisions(working, exact, frames, share),
            judge_precision,
        )
    if export is not None:
        native = load_potential(potential, dtype=dtype)
        found.export = attempt(
            "export",
            lambda share: compare_export(export, native, frames, share),
            lambda agreement: judge_export(agreement, name_of_dtype),
        )
    found.dimers = attempt(
        "dimers",
        lambda share: dimer_curves(exact, train, share),
        lambda dimers: judge_dimers(dimers, exact.repulsion is not None),
    )
    found.drift = attempt(
        "energy conservation", lambda share: run_nve(working, validation, share), judge_drift
    )
    found.speed = attempt(
        "speed", lambda share: largest_frame_speed(working, validation, share), None
    )
    found.machine = describe_machine(working.species_of.device) | {"dtype": name_of_dtype}
    return found
