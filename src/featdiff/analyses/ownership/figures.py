"""Figures 1 and 3, how many features belong how much to a model; and how much of them is left in the other models."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from featdiff.analyses.ownership.compute import specificity
from featdiff.analyses.ownership.result import LARGEST_NU, Ownership, Specificity
from featdiff.attribution import Attribution
from featdiff.presentation.style import INK, LINE, TITLE, canvas, colour_of, fitted, styled

SCORES = {True: "normalized relative norm (NRN)", False: "model attribution score (MAS)"}
"""By whether two models are compared."""


def attribution_histogram(attribution: Attribution, model: str, cuts: Sequence[float] = (0.8, 0.9)) -> Figure:
    """Alive features by their score for one model, on a log axis, with the number beyond each cut."""
    found, models = specificity(attribution, model, cuts), attribution.models
    return _specificity(found, model, models, int(attribution.alive.sum()), colour_of(model, models), max(found.counts))


def specificity_histogram(found: Ownership, model: str, colour: str, largest: int) -> Figure:
    """The same of a crosscoder of a run; panels side by side share their log axis through the `largest` count."""
    return _specificity(found.of[model].specificity, model, found.models, found.alive, colour, largest)


@styled
def scaling_histogram(found: Ownership, lineup: str, model: str, colour: str) -> Figure:
    """Features of the tail, in colour, on top of all others; grey ground: the middle 95 % of random directions."""
    figure, axes = canvas(3.0)
    nu, cut = found.of[model].nu, f"{found.of[model].lowest.cut:g}"
    assert nu is not None, "a tail has a histogram"
    edges = _edges(len(nu.beyond), LARGEST_NU)
    if nu.control is not None:
        axes.axvspan(*nu.control, color=LINE, alpha=0.6, linewidth=0, zorder=0, label="random directions, 95 %")
    axes.bar(edges[:-1], nu.beyond, edges[1], align="edge", color=colour, linewidth=0, label=f"above {cut}")
    axes.step(edges, [*nu.others, nu.others[-1]], where="post", color=INK, linewidth=0.9, label="all other alive")
    axes.axvline(found.scaling.max_error, color=INK, linewidth=1, linestyle="--")
    _counted(axes, 30 * max(10, *nu.beyond, *nu.others))
    axes.set_xlim(0, LARGEST_NU)
    axes.set_xlabel("largest |nu_eps| in another model (0: absent, 1: as strong)")
    axes.set_title(fitted(f"{model} in {lineup} (n = {sum(nu.beyond):,} above {cut})", TITLE))
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    return figure


@styled
def _specificity(
    found: Specificity, model: str, models: Sequence[str], alive: int, colour: str, largest: int
) -> Figure:
    figure, axes = canvas(3.0)
    edges = _edges(len(found.counts), 1.0)
    axes.bar(edges[:-1], found.counts, edges[1], align="edge", color=colour, linewidth=0)
    _counted(axes, 8 * max(largest, 10))
    axes.set_xlim(0, 1)
    axes.set_xlabel(SCORES[len(models) == 2])
    axes.set_title(fitted(f"{model} (n = {alive:,} alive features)", TITLE))
    axes.axvline(1 / len(models), color=LINE, linewidth=1.4, zorder=0)
    _tails(axes, found.tails)
    return figure


def _tails(axes: Axes, tails: dict[str, int]) -> None:
    """A line at each cut, and left of the lowest how many features lie beyond each."""
    lowest = min((float(cut) for cut in tails), default=1.0)
    for step, (cut, count) in enumerate(tails.items()):
        axes.axvline(float(cut), color=INK, linewidth=1, linestyle="--")
        corner = (lowest - 0.015, 0.97 - 0.09 * step)
        axes.text(*corner, f"{count:,} above {cut}", ha="right", va="top", transform=axes.get_xaxis_transform())


def _counted(axes: Axes, top: float) -> None:
    """A log axis of numbers of features."""
    axes.set_yscale("log")
    axes.set_ylim(0.7, top)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylabel("features (log scale)")


def _edges(bins: int, right: float) -> list[float]:
    return [right * edge / bins for edge in range(bins + 1)]
