"""Figures 1 and 3: how many features belong how much to a model."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from featdiff.presentation.style import INK, LINE, TITLE, canvas, fitted, styled
from featdiff.report.data import SpecificityPanel

SCORES = {"NRN": "normalized relative norm (NRN)", "MAS": "model attribution score (MAS)"}


@styled
def specificity_histogram(panel: SpecificityPanel, colour: str, largest: int) -> Figure:
    """Alive features per bin, on a log axis that panels side by side share through `largest`; tails beyond each cut."""
    figure, axes = canvas(3.0)
    widths = [right - left for left, right in zip(panel.edges[:-1], panel.edges[1:], strict=True)]
    axes.bar(panel.edges[:-1], panel.counts, widths, align="edge", color=colour, linewidth=0)
    axes.set_yscale("log")
    axes.set_ylim(0.7, 8 * max(largest, 10))
    axes.set_xlim(0, 1)
    axes.set_xlabel(SCORES[panel.score])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda features, _: f"{features:,.0f}"))
    axes.set_ylabel("features (log scale)")
    axes.set_title(fitted(f"{panel.model} (n = {panel.alive:,} alive features)", TITLE))
    axes.axvline(1 / len(panel.aligned), color=LINE, linewidth=1.4, zorder=0)
    _tails(axes, panel)
    return figure


def _tails(axes: Axes, panel: SpecificityPanel) -> None:
    """A line at each cut, and left of the lowest how many features lie beyond each."""
    lowest = min((float(cut) for cut in panel.tails), default=1.0)
    for step, (cut, count) in enumerate(panel.tails.items()):
        axes.axvline(float(cut), color=INK, linewidth=1, linestyle="--")
        corner = (lowest - 0.015, 0.97 - 0.09 * step)
        axes.text(*corner, f"{count:,} above {cut}", ha="right", va="top", transform=axes.get_xaxis_transform())
