"""Choices of the dictionary: a curve over sparsity for each, and their numbers side by side."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from featdiff.analyses.sensitivity.result import OWN, ChoiceCell, QuantityRow, SensitivityPanel
from featdiff.presentation.style import BLUE, GREEN, INK, LINE, MUTED, ORANGE, PURPLE, TITLE, canvas, fitted, styled

LOOKS = [
    (colour, line, marker)
    for line, marker in (("-", "o"), ("--", "s"), (":", "^"))
    for colour in (ORANGE, BLUE, GREEN, PURPLE)
]
READINGS = (("l0", "D", "full", -0.16), ("variance_explained", "o", "none", 0.16))
"""Where a number is read, its marker, whether that is filled, and how far from the middle of its row it stands."""


@styled
def tail_curves(panel: SensitivityPanel, model: str, cut: str) -> Figure:
    """The share of a model's tail by L0, one curve for each choice; the study's own crosscoder at the line."""
    labels = list(dict.fromkeys(point.choice for point in panel.points))
    kinds = {point.choice: point.kind for point in panel.points}
    varied = [label for label in labels if kinds[label] not in OWN]
    figure, axes = canvas(3.4 + 0.2 * len(varied))
    axes.axvline(panel.at["l0"], color=LINE, linewidth=1)
    for label in labels:
        points = [point for point in panel.points if point.choice == label and point.alive]
        shares = [100 * point.tails[model][cut] / point.alive for point in points]
        if kinds[label] == "reference":
            look, width, colour, marker, name = "-", 2.4, INK, "o", "reference"
        elif kinds[label] == "seed":
            first = label == next(other for other in labels if kinds[other] == "seed")
            look, width, colour, marker, name = "-", 1.0, MUTED, ".", "other seeds" if first else "_"
        else:
            colour, look, marker = LOOKS[varied.index(label) % len(LOOKS)]
            width, name = 1.3, label
        xs = [point.l0 for point in points]
        axes.plot(xs, shares, look, marker=marker, markersize=4, linewidth=width, color=colour, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("L0: active features per token")
    axes.set_ylabel(f"alive features above {cut}, %")
    axes.set_ylim(bottom=0)
    axes.set_title(fitted(f"Tail of {model} against sparsity", TITLE))
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    return figure


@styled
def choice_plot(
    panel: SensitivityPanel, quantity: QuantityRow, band: Sequence[str], words: str, scale: float
) -> Figure:
    """A row for each choice: its number at equal L0 and at equal variance explained, with interval or chance; the band
    spans the rows that it names, at equal L0."""
    key = quantity.key
    rows = [row for row in panel.choices if any(key in cells for cells in row.at.values())]
    figure, axes = canvas(1.4 + 0.34 * len(rows))
    own = [row.at["l0"][key].value for row in rows if row.label in band]
    known = [scale * value for value in own if value is not None]
    if known:
        axes.axvspan(min(known), max(known), color=MUTED, alpha=0.18, linewidth=0)
    for position, row in enumerate(rows):
        axes.axhline(position + 0.5, color=LINE, linewidth=0.6)
        for base, marker, fill, shift in READINGS:
            cell = row.at.get(base, {}).get(key)
            if cell is not None and cell.value is not None:
                _draw(axes, cell, position + shift, marker, fill, scale, INK if row.kind in OWN else BLUE)
    axes.set_yticks(range(len(rows)), [fitted(row.label, 26) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.set_xlabel(words)
    axes.set_title(fitted(quantity.label, TITLE))
    _legend(figure, axes, [row.at["l0"].get(key) for row in rows])
    return figure


def _draw(axes: Axes, cell: ChoiceCell, y: float, marker: str, fill: str, scale: float, colour: str) -> None:
    assert cell.value is not None
    bounds = [scale * bound for bound in (cell.low, cell.high) if bound is not None]
    axes.plot(bounds, [y] * len(bounds), color=colour, linewidth=1.4)
    if cell.chance is not None:
        chance = [scale * bound for bound in (cell.chance, cell.chance_high) if bound is not None]
        axes.plot(chance, [y] * len(chance), color=MUTED, linewidth=3, alpha=0.6)
    style = "full" if fill == "full" else "none"
    axes.plot([scale * cell.value], [y], marker, color=colour, fillstyle=style, markersize=5)


def _legend(figure: Figure, axes: Axes, cells: Sequence[ChoiceCell | None]) -> None:
    handles = [
        axes.plot([], [], "D", color=INK, markersize=5, label="at equal L0")[0],
        axes.plot([], [], "o", color=INK, fillstyle="none", markersize=5, label="at equal variance explained")[0],
    ]
    if any(cell is not None and cell.chance is not None for cell in cells):
        handles += axes.plot([], [], color=MUTED, linewidth=3, alpha=0.6, label="chance, to its 97.5 %")
    figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=8)
