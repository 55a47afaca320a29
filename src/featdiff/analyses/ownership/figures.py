"""Figures 1 and 3, how many features belong how much to a model; and how much of them is left in the other models."""

from matplotlib.figure import Figure

from featdiff.analyses.ownership.result import LARGEST_NU, Ownership
from featdiff.presentation.score_histogram import counted, score_histogram
from featdiff.presentation.style import INK, LINE, TITLE, canvas, fitted, styled


def specificity_histogram(found: Ownership, model: str, colour: str, largest: int) -> Figure:
    """Alive features of one crosscoder by their score; panels side by side share their axis through `largest`."""
    one = found.of[model].specificity
    return score_histogram(one.counts, one.tails, model, found.models, found.alive, colour=colour, largest=largest)


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
    counted(axes, 30 * max(10, *nu.beyond, *nu.others))
    axes.set_xlim(0, LARGEST_NU)
    axes.set_xlabel("largest |nu_eps| in another model (0: absent, 1: as strong)")
    axes.set_title(fitted(f"{model} in {lineup} (n = {sum(nu.beyond):,} above {cut})", TITLE))
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    return figure


def _edges(bins: int, right: float) -> list[float]:
    return [right * edge / bins for edge in range(bins + 1)]
