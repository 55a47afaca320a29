"""Figures 1 and 3: how many features belong how much to a model."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from featdiff.presentation.style import INK, LINE, TITLE, canvas, colour_of, fitted, styled

SCORES = {True: "normalized relative norm (NRN)", False: "model attribution score (MAS)"}
"""By whether two models are compared."""


@styled
def score_histogram(
    counts: Sequence[int],
    tails: Mapping[str, int],
    model: str,
    models: Sequence[str],
    alive: int,
    *,
    colour: str | None = None,
    largest: int | None = None,
) -> Figure:
    """Features by their score for one model, on a log axis, with the number beyond each cut.

    `counts` are in equal bins between 0 and 1, `tails` beyond each cut. Panels side by side share their axis through
    the `largest` count.
    """
    figure, axes = canvas(3.0)
    edges = [edge / len(counts) for edge in range(len(counts))]
    colour = colour_of(model, models) if colour is None else colour
    axes.bar(edges, counts, 1 / len(counts), align="edge", color=colour, linewidth=0)
    counted(axes, 8 * max(max(counts) if largest is None else largest, 10))
    axes.set_xlim(0, 1)
    axes.set_xlabel(SCORES[len(models) == 2])
    axes.set_title(fitted(f"{model} (n = {alive:,} alive features)", TITLE))
    axes.axvline(1 / len(models), color=LINE, linewidth=1.4, zorder=0)
    _tails(axes, tails)
    return figure


def counted(axes: Axes, top: float) -> None:
    """Make the vertical axis a log axis of numbers of features, up to `top`."""
    axes.set_yscale("log")
    axes.set_ylim(0.7, top)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylabel("features (log scale)")


def _tails(axes: Axes, tails: Mapping[str, int]) -> None:
    """A line at each cut, and left of the lowest how many features lie beyond each."""
    lowest = min((float(cut) for cut in tails), default=1.0)
    for step, (cut, count) in enumerate(tails.items()):
        axes.axvline(float(cut), color=INK, linewidth=1, linestyle="--")
        corner = (lowest - 0.015, 0.97 - 0.09 * step)
        axes.text(*corner, f"{count:,} above {cut}", ha="right", va="top", transform=axes.get_xaxis_transform())
