"""The report of a training run: ``report.html`` to read, ``report.json`` with the same numbers."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from eqpot.durable import write_durably
from eqpot.report.content import FORMAT, VERSION, report_content
from eqpot.report.page import json_text, render
from eqpot.training.result import RunResult
from eqpot.verification import Verification
from eqpot.verification.checks import Status

LARGEST_PAGE: Final = 4_500_000
"""Bytes; a page is made with fewer points until it is smaller."""

PAGE: Final = "report.html"
NUMBERS: Final = "report.json"


def write_report(
    result: RunResult,
    verification: Verification | None,
    failure: str = "",
    *,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Write the report of a run into its folder and return the path of the page.

    Parameters
    ----------
    result
        What :func:`eqpot.training.run.run` returned.
    verification
        What :func:`eqpot.verification.verify` returned, or nothing where it failed.
    failure
        Why it failed.
    tell
        Told of every verdict that is not good, in the words of the page.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    n_points = 40_000
    while True:
        content = report_content(result, verification, failure, n_points=n_points)
        page = render(content)
        if len(page.encode()) <= LARGEST_PAGE or n_points == 0:
            break
        n_points //= 4
    write_durably(result.output / NUMBERS, (json_text(content) + "\n").encode())
    write_durably(result.output / PAGE, page.encode())
    for check in content["checks"]:
        if tell is not None and check["status"] in (Status.WARNING, Status.BAD):
            tell(f"{check['status']}: {check['name']}: {check['message']}")
    return result.output / PAGE


def rebuild_page(folder: Path) -> Path:
    """Write ``report.html`` anew from ``report.json`` and return its path.

    Raises
    ------
    FileNotFoundError
        If the folder holds no ``report.json``.
    ValueError
        If that is not a report of this version.
    OSError
        If the page cannot be written.
    """
    path = folder / NUMBERS
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; `folder` must be the output of a run of train-potential"
        )
    write_durably(folder / PAGE, render(_read(path)).encode())
    return folder / PAGE


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: is no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: is no report of eqpot: `format` must be {FORMAT!r}")
    if content.get("version") != VERSION:
        raise ValueError(
            f"{path}: `version` must be {VERSION}, got {content.get('version')!r}; use the eqpot "
            "that wrote it"
        )
    return content
