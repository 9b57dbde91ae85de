"""The page: one HTML file that draws itself from the JSON inside it and asks nothing of a network.

Style and program are files of their own beside this one. Texts of data files reach the page only as
text of the JSON, which the program sets as text; the page's policy lets nothing else run or load.
"""

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

PROGRAM: Final = (
    "format.js",
    "plots.js",
    "viewer.js",
    "sections.js",
    "predictions.js",
    "frames.js",
    "physics.js",
    "page.js",
)
"""Files of the program, in the order in which they stand in the page."""


def render(content: Mapping[str, Any]) -> str:
    """Return the page of a report.

    Parameters
    ----------
    content
        As :func:`eqpot.report.content.report_content`.
    """
    folder = files("eqpot.report").joinpath("page")
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    parts = [folder.joinpath(name).read_text(encoding="utf-8") for name in PROGRAM]
    program = '"use strict";\n' + "\n".join(parts)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(program)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = html.escape(f"{content['name']}: report of an eqpot potential")
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        "<noscript>This page draws itself from the numbers inside it, for which it needs "
        "JavaScript. The same numbers are in report.json beside it.</noscript>\n"
        '<main id="page"></main>\n'
        f'<script type="application/json" id="report">{embedded(content)}</script>\n'
        f"<script>{program}</script>\n</body>\n</html>\n"
    )


def embedded(content: Mapping[str, Any]) -> str:
    """Return JSON that can stand in a script element: nothing in it can end or open one."""
    text = json_text(content)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def json_text(content: Mapping[str, Any]) -> str:
    """Return the content as compact JSON."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
