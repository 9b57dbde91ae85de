"""Pictures of a run's JSON document."""

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

Values = dict[str, tuple[float, float, float]]
"""Median, minimum and maximum by variant."""


def plot(document: dict[str, Any], path: Path) -> None:
    """Write one picture with a panel for each quantity that the document holds.

    Parameters
    ----------
    document
        As the commands write it.
    path
        PNG, or another format of matplotlib.
    """
    panels = [*_speed(document), *_training(document), *_accuracy(document)]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(3.8 * n_columns, 2.4 * n_rows), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False)
        for place, ax in enumerate(axes.flat):
            if place < len(panels):
                _panel(ax, *panels[place])
            else:
                ax.set_axis_off()
        figure.savefig(path, dpi=150)


def _speed(document: dict[str, Any]) -> list[tuple[str, Values, str]]:
    panels = []
    for system, found in document.get("speed", {}).get("systems", {}).items():
        title, variants = f"{system}, {found['n_atoms']} atoms", found["variants"]
        times = {name: _spread(values["milliseconds"]) for name, values in variants.items()}
        memory = {name: (values["memory_mib"],) * 3 for name, values in variants.items()}
        panels += [(title, times, "ms a call"), (title, memory, "peak memory above import, MiB")]
    return panels


def _training(document: dict[str, Any]) -> list[tuple[str, Values, str]]:
    variants = document.get("training", {}).get("variants", {})
    times = {name: _spread(values["milliseconds"]) for name, values in variants.items()}
    return [("training", times, "ms a step of five structures")]


def _accuracy(document: dict[str, Any]) -> list[tuple[str, Values, str]]:
    errors: dict[str, Values] = {}
    variants = document.get("accuracy", {}).get("variants", {})
    for name, values in variants.items():
        for test, error in values["errors"].items():
            errors.setdefault(test, {})[name] = (error["forces"],) * 3
    minutes = ", ".join({f"{v['budget_seconds'] / 60:g}": None for v in variants.values()})
    label = f"force RMSE after {minutes} min, meV/Å"
    return [(test, values, label) for test, values in errors.items()]


def _short(number: float) -> str:
    """Return the number in three digits or as a whole one, without an exponent."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _spread(values: dict[str, float]) -> tuple[float, float, float]:
    return values["median"], values["min"], values["max"]


def _panel(ax: Axes, title: str, values: Values, label: str) -> None:
    for place, (name, (median, least, most)) in enumerate(values.items()):
        color = "tab:blue" if name.startswith("eqpot") else "tab:gray"
        ax.plot([least, most], [place, place], color=color, alpha=0.5)
        ax.plot(median, place, "o", color=color)
        ax.annotate(
            _short(median), (median, place), (0, 4), textcoords="offset points", ha="center"
        )
    ax.set_yticks(range(len(values)), list(values))
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    # two decades at least, or small differences look large
    middle = statistics.geometric_mean([median for median, _, _ in values.values()])
    least = min(least for _, least, _ in values.values())
    most = max(most for _, _, most in values.values())
    ax.set_xlim(min(least / 2, middle / 10), max(most * 2, middle * 10))
    ax.margins(y=0.2)
    ax.invert_yaxis()
    ax.set_xlabel(label)
    ax.set_title(title)
