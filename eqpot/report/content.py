"""The content of a report: one JSON document with every number and every plotted point."""

import datetime
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from eqpot.report.head import (
    headline,
    held_out,
    judge_accuracy,
    judge_audit,
    judge_generalization,
    judge_training,
)
from eqpot.report.plain import plain, shorten, significant, thinned
from eqpot.report.points import Groups, parity
from eqpot.report.worst import elements_of, worst_frames
from eqpot.training.recipe import Recipe
from eqpot.training.recipe_file import recipe_text
from eqpot.training.result import RunResult
from eqpot.verification import Verification
from eqpot.verification.dimers import Dimers
from eqpot.verification.dynamics import Drift

FORMAT: Final = "eqpot-report"
VERSION: Final = 1

# What a report holds at most, so that its size does not grow with that of the data.
_MOST_SETS = 12
_MOST_POINTS = 4000
_MOST_GROUPS = 60
_MOST_FRAMES = 32
_MOST_VALIDATIONS = 400
_MOST_TIMES = 300
_MOST_DIMERS = 120
_MOST_LINES = 200
_LONGEST_RECIPE = 40_000
_LONGEST_MESSAGE = 600  # advice stands at the end of a check's message


def report_content(
    result: RunResult,
    verification: Verification | None,
    failure: str = "",
    *,
    n_points: int = 40_000,
) -> dict[str, Any]:
    """Return all that a report shows, as JSON can hold it.

    Parameters
    ----------
    result
        What :func:`eqpot.training.run.run` returned.
    verification
        What :func:`eqpot.verification.verify` returned, or nothing where it failed.
    failure
        Why it failed.
    n_points
        Points of all parity plots together, more or less.
    """
    metrics = result.metrics
    provenance = metrics["provenance"]
    evaluations = dict(list(result.evaluations.items())[:_MOST_SETS])
    main = held_out(evaluations)
    events = metrics.get("events") or []
    audit = metrics.get("audit")
    checks = [
        judge_accuracy(evaluations),
        judge_generalization(evaluations),
        judge_audit(audit),
        judge_training(events),
        *(verification.checks if verification is not None else ()),
    ]
    elements = list(metrics["reference_energies"])
    groups = Groups.of(evaluations)
    n_panels = sum(len(evaluation.comparisons) for evaluation in evaluations.values())
    share = max(0, min(_MOST_POINTS, n_points // n_panels))
    n_worst = max(1, min(3, _MOST_FRAMES // (2 * len(evaluations))))
    worst = [
        frame
        for name in [main, *(other for other in reversed(evaluations) if other != main)]
        for frame in worst_frames(name, evaluations[name], n_worst)
    ]
    recipe = recipe_text(Recipe.model_validate(provenance["recipe"]), documented=False)
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": shorten(result.output.name),
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "elements": elements,
        "headline": plain(headline(elements, evaluations, _model(metrics))),
        "main_set": plain(main),
        "checks": [
            plain(asdict(check)) | {"message": shorten(check.message, _LONGEST_MESSAGE)}
            for check in checks
        ],
        "failure": plain(failure),
        "errors": _errors(metrics["errors"]),
        "n_sets": len(metrics["errors"]),
        "history": _history(metrics["history"]),
        "events": plain(events[:_MOST_LINES]),
        "n_events": len(events),
        "groups": groups.as_dict(),
        "parity": [
            parity(name, evaluation, label, groups, share)
            for name, evaluation in evaluations.items()
            for label in evaluation.comparisons
        ],
        "worst": plain(worst),
        "atoms": elements_of(worst),
        "verification": _verification(verification) if verification is not None else None,
        "audit": _audit(audit) if audit is not None else None,
        "statistics": plain(metrics["statistics"]),
        "reference_energies": plain(metrics["reference_energies"]),
        "training": {
            "n_steps": provenance["n_steps"],
            "n_epochs": provenance["n_epochs"],
            "seconds": result.metrics["training_seconds"],
            "total_seconds": metrics["total_seconds"],
        },
        "fine_tuning": plain(metrics.get("fine_tuning")),
        "data": plain(dict(list(provenance["data_sha256"].items())[:_MOST_LINES])),
        "versions": plain(provenance["versions"]),
        "recipe": shorten(recipe, _LONGEST_RECIPE),
        "potential": shorten(str(result.output / "potential.eqpot")),
    }


def _model(metrics: Mapping[str, Any]) -> str:
    model = metrics["provenance"]["recipe"]["model"]
    # thousands set apart by a narrow space
    n_weights = f"{metrics['statistics']['n_weights']:,}".replace(",", "\u202f")
    return (
        f"{model['kind']} {model['preset']} with {n_weights} weights, neighbours up to "
        f"{model['r_max']:g} Å"
    )


def _errors(errors: Mapping[str, Any]) -> dict[str, Any]:
    """Return all errors, but of many kinds of structure only those with most components."""

    def bounded(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            key: _largest_groups(entry) if str(key).startswith("by_") else bounded(entry)
            for key, entry in value.items()
        }

    return {
        shorten(name): plain(bounded(entry))
        for name, entry in list(errors.items())[: 2 * _MOST_SETS]
    }


def _largest_groups(groups: Mapping[str, Any]) -> dict[str, Any]:
    largest = sorted(groups.items(), key=lambda item: -item[1]["n"])
    return dict(largest[:_MOST_GROUPS])


def _history(history: Mapping[str, list[float | None]]) -> dict[str, Any]:
    length = max((len(column) for column in history.values()), default=0)
    kept = thinned(length, _MOST_VALIDATIONS).tolist()
    return {name: [plain(column[index]) for index in kept] for name, column in history.items()}


def _audit(audit: Mapping[str, Any]) -> dict[str, Any]:
    findings = audit.get("findings", [])
    order = {"error": 0, "warning": 1}
    first = sorted(findings, key=lambda finding: order.get(finding.get("severity"), 2))
    return {
        "sets": plain(dict(list(audit.get("sets", {}).items())[: 2 * _MOST_SETS])),
        "n_findings": len(findings),
        "findings": [
            plain({**finding, "frames": list(finding.get("frames", []))[:10]})
            for finding in first[:_MOST_LINES]
        ],
    }


def _verification(verification: Verification) -> dict[str, Any]:
    speed = verification.speed
    content: dict[str, Any] = {
        name: asdict(part) if part is not None else None
        for name, part in (
            ("symmetry", verification.symmetry),
            ("derivatives", verification.derivatives),
            ("precision", verification.precision),
            ("export", verification.export),
            ("speed", speed),
        )
    }
    if speed is not None:
        content["speed"]["atom_steps_per_second"] = speed.atom_steps_per_second
    content["dimers"] = _dimers(verification.dimers) if verification.dimers is not None else None
    content["drift"] = _drift(verification.drift) if verification.drift is not None else None
    content["machine"] = verification.machine
    content["seconds"] = verification.seconds
    bounded: dict[str, Any] = plain(content)
    return bounded


def _dimers(dimers: Dimers) -> dict[str, Any]:
    return {
        "n_left_out": dimers.n_left_out + max(0, len(dimers.curves) - _MOST_DIMERS),
        "n_frames_read": dimers.n_frames_read,
        "curves": [
            {
                "symbols": curve.symbols,
                "bond_length": curve.bond_length,
                "shortest_in_data": curve.shortest_in_data,
                "n_sign_changes": curve.n_sign_changes,
                "hole_distance": curve.hole_distance,
                "hole_barrier": curve.hole_barrier,
                "distances": significant(curve.distances, 4),
                "energies": significant(curve.energies, 5),
                "forces": significant(curve.forces, 4),
            }
            for curve in dimers.curves[:_MOST_DIMERS]
        ],
    }


def _drift(drift: Drift) -> dict[str, Any]:
    kept = thinned(len(drift.times), _MOST_TIMES)
    return {
        "source": drift.source,
        "n_atoms": drift.n_atoms,
        "n_steps": drift.n_steps,
        "timestep": drift.timestep,
        "temperature": drift.temperature,
        "drift": drift.drift,
        "drift_error": drift.drift_error,
        "fluctuation_ratio": drift.fluctuation_ratio,
        "steps_per_second": drift.steps_per_second,
        "ended_by": drift.ended_by,
        "times": significant(drift.times[kept], 6),
        "total": significant(drift.total[kept], 5),
        "kinetic": significant(drift.kinetic[kept], 5),
    }
