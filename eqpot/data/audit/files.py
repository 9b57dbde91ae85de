"""The audit of files: what the readers refuse becomes a finding, and the rest is looked at too."""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, Final

from eqpot.data.audit.audit import audit_frames
from eqpot.data.audit.findings import SEVERITIES, Finding, named
from eqpot.data.audit.refused import frames_and_refusals
from eqpot.data.audit.result import Audit
from eqpot.data.audit.scan import SAMPLE
from eqpot.data.frames import Frame
from eqpot.data.readers import LabelReport
from eqpot.data.store import FrameStore, write_store
from eqpot.data.suffixes import STORES

_CAUSES: Final = (
    (re.compile(r"must be finite|\bnan\b|\binf\b", re.IGNORECASE), "labels.not_finite"),
    (re.compile(r"differ|two different values|holds both"), "labels.ambiguous"),
    (
        re.compile(r"truncated|columns|number of atoms|at (least|most) \d+ atom|cannot be read"),
        "file.damaged",
    ),
    (re.compile(r"`cell`"), "file.cell"),
    (re.compile(r"no frame has|no energy, forces or stress"), "labels.none"),
)


def audit_files(
    files: Mapping[str, Sequence[str | Path]],
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    **reading: Any,
) -> Audit:
    """Return the audit of files, with every refusal of the readers among its errors.

    Frames are read once and kept in a temporary store, so memory holds one at a time; the folder
    of temporary files (``TMPDIR``) must have room for some 60 bytes an atom. A store is read where
    it is.

    Parameters
    ----------
    files
        Files by the name of the set.
    sample, seed
        As in :func:`audit_frames`.
    **reading
        Names of labels and units, as :func:`~eqpot.data.readers.iter_frames` takes them.

    Returns
    -------
    Audit
        Findings and tables. A frame that is refused is left out of the other checks; in extended
        XYZ the frames after it are still read, in other formats not, and the message says so.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If no file is given.
    """
    if not any(files.values()):
        raise ValueError("an audit needs at least one file")
    refusals: list[Finding] = []
    sets: dict[str, Sequence[Frame]] = {}
    reports: dict[str, LabelReport] = {}
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        for number, (name, paths) in enumerate(files.items()):
            if len(paths) == 1 and Path(paths[0]).suffix.lower() in STORES:
                try:
                    sets[name] = opened.enter_context(FrameStore(Path(paths[0])))
                except ValueError as error:
                    refusals.append(_refusal(name, [str(error)]))
                continue
            report = LabelReport()
            messages: list[str] = []
            frames = _frames(paths, report, messages, reading)
            first = next(frames, None)
            if first is not None:
                store = folder / f"{number}.h5"
                write_store(store, chain([first], frames))
                sets[name] = opened.enter_context(FrameStore(store, verify=False))
                reports[name] = report
            by_cause: dict[str, list[str]] = {}
            for message in messages:
                by_cause.setdefault(_cause(message), []).append(message)
            refusals += [_refusal(name, group) for group in by_cause.values()]
        if not sets:
            return Audit(refusals, {})
        audit = audit_frames(sets, reports=reports, sample=sample, seed=seed)
    findings = sorted(
        [*refusals, *audit.findings], key=lambda finding: SEVERITIES.index(finding.severity)
    )
    return Audit(findings, audit.sets)


def _frames(
    paths: Sequence[str | Path],
    report: LabelReport,
    messages: list[str],
    reading: Mapping[str, Any],
) -> Iterator[Frame]:
    """Yield the frames of files, and keep what is refused."""
    for path in paths:
        for item in frames_and_refusals(Path(path), report, reading):
            if isinstance(item, Frame):
                yield item
            else:
                messages.append(item)


def _cause(message: str) -> str:
    for pattern, cause in _CAUSES:
        if pattern.search(message):
            return cause
    return "file.refused"


def _refusal(name: str, messages: Sequence[str]) -> Finding:
    cause = _cause(messages[0])
    more = "" if len(messages) == 1 else f" (and {len(messages) - 1} more)"
    remedies = {
        "labels.not_finite": "leave the label out where it was not computed, or remove the frame",
        "labels.ambiguous": "choose one with `energy_key`, `forces_key`, `stress_key` or "
        "`virial_key`",
    }
    found = [re.match(r"(.*?, frame \d+)", message) for message in messages]
    sources = [match[1] for match in found if match]
    return Finding(
        "error",
        "reading",
        cause,
        f"{name}: {messages[0]}{more}",
        remedies.get(cause, "correct the file; the message says where"),
        (name,),
        len(messages),
        named(sources),
    )
