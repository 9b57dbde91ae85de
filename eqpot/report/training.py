"""The report of a training run: one HTML file with everything inside."""

import html
import io
import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from eqpot import keys
from eqpot.durable import write_durably
from eqpot.report.figures import parity_figure
from eqpot.training.progress import format_duration
from eqpot.training.recipe import Recipe, recipe_text
from eqpot.training.run import RunResult

_STYLE = """
:root { color-scheme: light dark;
        --ink: #1c2530; --page: #ffffff; --line: #d5dae0; --soft: #5b6775; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaef; --page: #14181d; --line: #39424d; --soft: #9aa5b1; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; background: #ffffff; border-radius: .4rem; padding: .5rem; }
figure svg { width: 100%; height: auto; display: block; }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; padding: .8rem; }
.soft { color: var(--soft); }
"""

_LABELS = (keys.ENERGY, keys.FORCES, keys.STRESS)


def write_report(result: RunResult, path: Path) -> None:
    """Write the report of a run: errors, learning curves, parity plots, recipe, data and versions.

    The page needs no other file and no network. It appears under its name when it is complete.

    Parameters
    ----------
    result
        What :func:`eqpot.training.run.run` returned.
    path
        The HTML file.
    """
    provenance = result.metrics["provenance"]
    recipe = provenance["recipe"]
    parts = [
        f"<h1>Potential of {html.escape(result.output.name)}</h1>",
        f"<p class=soft>{_summary(result)}</p>",
        "<h2>Errors</h2>",
        _error_table(result),
        "<h2>Learning curves</h2>",
        _figure(learning_curves(result.metrics["history"])),
    ]
    for name, evaluation in result.evaluations.items():
        parts.append(f"<h2>Parity: {html.escape(Path(name).name)}</h2>")
        parts.append(_figure(parity_figure(evaluation)))
    parts += [
        "<h2>Reference energies</h2>",
        _table(
            ["element", "E0 / eV"],
            [[symbol, f"{e0:.6f}"] for symbol, e0 in result.metrics["reference_energies"].items()],
        ),
        "<h2>Data</h2>",
        _table(
            ["file", "SHA-256"],
            [[name, digest] for name, digest in provenance["data_sha256"].items()],
        ),
        "<h2>Recipe</h2>",
        f"<pre>{html.escape(_recipe_text(recipe))}</pre>",
        "<h2>Versions</h2>",
        _table(["package", "version"], [list(item) for item in provenance["versions"].items()]),
    ]
    page = (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>eqpot: {html.escape(result.output.name)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )
    write_durably(path, page.encode())


def learning_curves(history: dict[str, list[float | None]]) -> Figure:
    """Return the validation errors and the training loss over epochs, on logarithmic axes.

    Parameters
    ----------
    history
        Columns of ``metrics.json``'s ``history``.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = (
        ("forces_rmse", "forces RMSE / meV/Å", 1e3),
        ("energy_rmse", "energy RMSE / meV/atom", 1e3),
        ("train_loss", "training loss", 1.0),
    )
    for axes, (name, label, factor) in zip(figure.subplots(1, 3), panels, strict=True):
        values = [math.nan if value is None else factor * value for value in history[name]]
        axes.plot(history["epoch"], values, marker=".", color="#2a6f97")
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3, which="both", linewidth=0.5)
    return figure


def _summary(result: RunResult) -> str:
    provenance = result.metrics["provenance"]
    model = provenance["recipe"]["model"]
    duration = format_duration(result.metrics["training_seconds"])
    return html.escape(
        f"{model['kind']} {model['preset']}, r_max {model['r_max']} Å, "
        f"{result.metrics['statistics']['n_weights']} weights; {provenance['n_steps']} steps "
        f"({provenance['n_epochs']:.1f} epochs) in {duration}"
    )


def _error_table(result: RunResult) -> str:
    rows = []
    for name, errors in result.metrics["errors"].items():
        for label in _LABELS:
            if label in errors:
                entry = errors[label]
                numbers = [f"{entry[key]:.4g}" for key in ("rmse", "mae", "max")]
                rows.append([Path(name).name, label, *numbers, entry["unit"]])
    return _table(["set", "label", "RMSE", "MAE", "largest", "unit"], rows)


def _recipe_text(recipe: dict[str, Any]) -> str:
    return recipe_text(Recipe.model_validate(recipe), documented=False)


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _figure(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}</figure>"
