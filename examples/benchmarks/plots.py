"""Pictures of a run's JSON document."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def plot(document: dict[str, Any], path: Path) -> None:
    """Write one picture with a row of bars for all that the document holds."""
    panels: list[tuple[str, dict[str, float], str]] = []
    for system, found in document.get("speed", {}).get("systems", {}).items():
        values = found["variants"]
        times = {name: v["milliseconds"]["median"] for name, v in values.items()}
        memory = {name: v["memory_mib"] for name, v in values.items()}
        panels.append((f"{system}, {found['n_atoms']} atoms", times, "ms a call"))
        if system == "silicon-1000":
            panels.append((f"{system}, {found['n_atoms']} atoms", memory, "peak memory, MiB"))
    if "training" in document:
        values = document["training"]["variants"]
        rates = {name: v["structures_per_second"] for name, v in values.items()}
        panels.append(("training", rates, "structures a second"))
    errors: dict[str, dict[str, float]] = {}
    for name, v in document.get("accuracy", {}).get("variants", {}).items():
        for test, error in v["errors"].items():
            errors.setdefault(test, {})[name] = error["forces"]
    panels += [(test, values, "force RMSE, meV/Å") for test, values in errors.items()]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(3.6 * n_columns, 2.4 * n_rows), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False)
        for place, ax in enumerate(axes.flat):
            if place < len(panels):
                _bars(ax, *panels[place])
            else:
                ax.set_axis_off()
        figure.savefig(path, dpi=150)


def _bars(ax: Axes, title: str, values: dict[str, float], label: str) -> None:
    colors = ["tab:blue" if name.startswith("eqpot") else "tab:gray" for name in values]
    bars = ax.barh(list(values), list(values.values()), color=colors)
    ax.bar_label(bars, fmt="%.3g", padding=2)
    ax.set_xscale("log")
    ax.margins(x=0.2)
    ax.invert_yaxis()
    ax.set_xlabel(label)
    ax.set_title(title)
