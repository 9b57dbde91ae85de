"""Pictures of results, as matplotlib figures that no global state knows of."""

from matplotlib.figure import Figure

from eqpot import units
from eqpot.training.evaluation import Evaluation

_LABELS = {
    "energy": ("energy / eV/atom", 1.0),
    "forces": ("force component / eV/Å", 1.0),
    "stress": ("stress component / GPa", 1 / units.GPA),
}
_LARGEST_SCATTER = 4000


def parity_figure(evaluation: Evaluation) -> Figure:
    """Return predictions against references, a panel for each label, with the errors above.

    Beyond some thousand points a panel shows a density of hexagons.

    Parameters
    ----------
    evaluation
        Errors of a potential on a set of frames.
    """
    comparisons = evaluation.comparisons
    figure = Figure(figsize=(3.6 * len(comparisons), 3.6), layout="constrained")
    panels = figure.subplots(1, len(comparisons), squeeze=False)[0]
    errors = evaluation.as_dict()
    for axes, (name, comparison) in zip(panels, comparisons.items(), strict=True):
        label, factor = _LABELS[name]
        reference, predicted = factor * comparison.reference, factor * comparison.predicted
        low = float(min(reference.min(), predicted.min()))
        high = float(max(reference.max(), predicted.max()))
        margin = 0.05 * (high - low) or 1.0
        limits = (low - margin, high + margin)
        if len(reference) > _LARGEST_SCATTER:
            axes.hexbin(reference, predicted, gridsize=90, bins="log", cmap="Blues", mincnt=1)
        else:
            axes.plot(reference, predicted, ".", markersize=3, color="#2a6f97", alpha=0.6)
        axes.plot(limits, limits, color="#b0413e", linewidth=0.8)
        axes.set_xlim(*limits)
        axes.set_ylim(*limits)
        axes.set_aspect("equal")
        axes.set_xlabel(f"reference {label}")
        axes.set_ylabel("predicted")
        axes.locator_params(nbins=5)
        axes.tick_params(axis="x", rotation=30)
        figures = errors[name]
        axes.set_title(
            f"RMSE {figures['rmse']:.3g}, MAE {figures['mae']:.3g} {figures['unit']}", fontsize=9
        )
        axes.ticklabel_format(useOffset=False)
    return figure
