"""Latent scaling: how much of each feature is left in the models that seem to lack it."""

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from featdiff.analyses.ownership.result import TailPanel
from featdiff.presentation.style import INK, LINE, TITLE, canvas, fitted, styled


@styled
def scaling_histogram(panel: TailPanel, colour: str) -> Figure:
    """Features of the tail, in colour, on top of all others; grey ground: the middle 95 % of random directions."""
    figure, axes = canvas(3.0)
    widths = [right - left for left, right in zip(panel.edges[:-1], panel.edges[1:], strict=True)]
    cut = f"{panel.lowest.cut:g}"
    if panel.control is not None:
        axes.axvspan(*panel.control, color=LINE, alpha=0.6, linewidth=0, zorder=0, label="random directions, 95 %")
    axes.bar(panel.edges[:-1], panel.beyond, widths, align="edge", color=colour, linewidth=0, label=f"above {cut}")
    axes.step(
        panel.edges, [*panel.others, panel.others[-1]], where="post", color=INK, linewidth=0.9, label="all other alive"
    )
    axes.axvline(panel.max_error, color=INK, linewidth=1, linestyle="--")
    axes.set_yscale("log")
    axes.set_ylim(0.7, 30 * max(10, *panel.beyond, *panel.others))
    axes.set_xlim(0, panel.edges[-1])
    axes.set_xlabel("largest |nu_eps| in another model (0: absent, 1: as strong)")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda features, _: f"{features:,.0f}"))
    axes.set_ylabel("features (log scale)")
    axes.set_title(fitted(f"{panel.model} in {panel.lineup} (n = {sum(panel.beyond):,} above {cut})", TITLE))
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    return figure
