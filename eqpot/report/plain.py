"""Values as JSON can hold them, bounded in size whatever the data files said."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LONGEST_TEXT: Final = 300
"""Characters; names from data files may be of any length."""


def plain(value: Any) -> Any:
    """Return a value of dicts, lists, texts and numbers: long texts cut, numbers finite or None.

    Raises
    ------
    TypeError
        If something else is among it.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return shorten(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {shorten(str(key)): plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [plain(entry) for entry in value]
    raise TypeError(f"a report holds numbers and texts, got {type(value).__name__}")


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text with its middle left out where it is too long, and nothing UTF-8 cannot hold.

    Examples
    --------
    >>> shorten("configuration", 9)
    'conf…tion'
    """
    # names of files may hold bytes that are no text
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= longest:
        return text
    return f"{text[: (longest - 1) // 2]}…{text[-(longest // 2) :]}"


def significant(values: NDArray[np.float64], digits: int = 5) -> list[float | None]:
    """Return numbers rounded to significant digits, so that they are short as text."""
    return [float(f"{x:.{digits}g}") if math.isfinite(x) else None for x in values.tolist()]


def thinned(n: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` evenly spaced places among ``n``, the first and the last included."""
    return np.unique(np.linspace(0, max(0, n - 1), min(n, most)).round().astype(np.int64))
