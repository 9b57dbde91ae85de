"""The audit of files: what the readers refuse becomes a finding, and the rest is looked at too."""

import bz2
import gzip
import lzma
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

from eqpot.data.audit.audit import audit_frames
from eqpot.data.audit.findings import SEVERITIES, Finding, named
from eqpot.data.audit.result import Audit
from eqpot.data.audit.scan import SAMPLE
from eqpot.data.frames import Frame
from eqpot.data.readers import LabelReport, iter_frames
from eqpot.data.store import FrameStore

_OPENERS: Final[dict[str, Callable[..., IO[Any]]]] = {
    ".xz": lzma.open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
}
_EXTXYZ: Final = (".xyz", ".extxyz")
_STORES: Final = (".h5", ".hdf5")
MOST_REFUSED: Final = 20
"""Frames refused before the rest of a file is given up: by then the file is wrong, not a frame."""
_CAUSES: Final = (
    (re.compile(r"must be finite|\bnan\b|\binf\b", re.IGNORECASE), "labels.not_finite"),
    (re.compile(r"differ|two different values|holds both"), "labels.ambiguous"),
    (re.compile(r"truncated|columns|expected the number of atoms"), "file.damaged"),
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
        XYZ the frames after it are still read, in other formats not.

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
    for name, paths in files.items():
        if len(paths) == 1 and Path(paths[0]).suffix.lower() in _STORES:
            try:
                sets[name] = FrameStore(Path(paths[0]))
            except ValueError as error:
                refusals.append(_refusal(name, [str(error)]))
            continue
        report = LabelReport()
        frames: list[Frame] = []
        messages: list[str] = []
        for path in paths:
            for item in _frames_and_refusals(Path(path), report, reading):
                if isinstance(item, Frame):
                    frames.append(item)
                else:
                    messages.append(item)
        by_cause: dict[str, list[str]] = {}
        for message in messages:
            by_cause.setdefault(_cause(message), []).append(message)
        refusals += [_refusal(name, group) for group in by_cause.values()]
        if frames:
            sets[name] = frames
            reports[name] = report
    if not sets:
        return Audit(refusals, {})
    audit = audit_frames(sets, reports=reports, sample=sample, seed=seed)
    findings = sorted(
        [*refusals, *audit.findings], key=lambda finding: SEVERITIES.index(finding.severity)
    )
    return Audit(findings, audit.sets)


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


def _frames_and_refusals(
    path: Path, report: LabelReport, reading: Mapping[str, Any]
) -> Iterator[Frame | str]:
    """Yield the frames of a file, and a message for each that is refused."""
    packed = path.suffix.lower() in _OPENERS
    suffix = (path.with_suffix("") if packed else path).suffix.lower()
    n_read = 0
    try:
        for item in iter_frames(path, report=report, require_labels=False, **reading):
            yield item
            n_read += 1
        return
    except ValueError as error:
        yield str(error)
        if suffix not in _EXTXYZ:
            return
    refused = {n_read}
    with tempfile.TemporaryDirectory() as folder:
        rest = Path(folder) / "rest.extxyz"
        while len(refused) < MOST_REFUSED:
            first = max(refused) + 1
            if not _copy_from(path, rest, first):
                return
            count = 0
            try:
                for item in iter_frames(rest, report=report, require_labels=False, **reading):
                    yield replace(item, source=f"{path}, frame {first + count}")
                    count += 1
                return
            except ValueError as error:
                message = re.sub(
                    rf"^{re.escape(str(rest))}, frame \d+( \(line \d+\))?",
                    f"{path}, frame {first + count}",
                    str(error),
                )
                yield message.replace(str(rest), str(path))
                refused.add(first + count)
        yield f"{path}: {MOST_REFUSED} frames were refused; the rest of the file was not read"


def _copy_from(path: Path, rest: Path, first: int) -> bool:
    """Write the frames of an extended XYZ file from one on; return whether there is any."""
    opener = _OPENERS.get(path.suffix.lower(), open)
    with opener(path, "rt", encoding="utf-8") as source, rest.open("w", encoding="utf-8") as copy:
        index = 0
        written = False
        for line in source:
            if not line.strip():
                continue
            try:
                n_lines = int(line) + 1
            except ValueError:
                return written
            if index >= first:
                copy.write(line)
                written = True
            for _ in range(n_lines):
                text = source.readline()
                if index >= first:
                    copy.write(text)
            index += 1
    return written
