"""Sensitivity in the report: a sentence for each quantity, and figures of the curves and of their comparison."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from featdiff.analyses.sensitivity.result import BASES, OWN, Cell, ChoiceResult, Quantity, Sensitivity
from featdiff.files import as_json
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.section import Section
from featdiff.presentation.style import BLUE, GREEN, INK, LINE, MUTED, ORANGE, PURPLE, TITLE, canvas, fitted, styled
from featdiff.presentation.words import listing, percent, plural, points, ratio

WRITTEN = {"share": percent, "similarity": ratio, "effect": points}
UNITS = {"share": " %", "similarity": "", "effect": " points"}
SCALES = {"share": 100.0, "similarity": 1.0, "effect": 100.0}
AXES = {
    "share": "alive features, %",
    "similarity": "likeness to the study's own crosscoder",
    "effect": "points beyond matched random features",
}
LOOKS = [
    (colour, line, marker)
    for line, marker in (("-", "o"), ("--", "s"), (":", "^"))
    for colour in (ORANGE, BLUE, GREEN, PURPLE)
]
READINGS = (("l0", "D", "full", -0.16), ("variance_explained", "o", "none", 0.16))
"""Where a number is read, its marker, whether that is filled, and how far from the middle of its row it stands."""


def section_of(found: Sensitivity) -> Section:
    """Rules and sentences, verdicts, figures, the numbers at both readings, and every crosscoder."""
    return Section(
        anchor="sensitivity",
        title="Sensitivity: what is robust and what is not",
        template="sensitivity/section.html",
        values={"found": found, "sentences": sentences(found), "bases": BASES, "own": OWN},
        figures=list(sensitivity_pictures(found)),
    )


def sentences(result: Sensitivity) -> list[str]:
    """One for each quantity."""
    return [_sentence(result, one) for one in result.quantities]


def _sentence(result: Sensitivity, one: Quantity) -> str:
    rows = [row for row in result.choices if row.kind not in OWN]
    by = {
        verdict: [row for row in rows if row.verdict(one.key) == verdict]
        for verdict in ("not robust", "undecided", "robust", "no yardstick", "not measured")
    }
    judged = sum(len(by[verdict]) for verdict in ("not robust", "undecided", "robust"))
    said = [f"robust to {len(by['robust'])} of {plural(judged, 'choice')}"] if judged else []
    if by["not robust"]:
        said.append(f"not robust to {listing([_named(row, one) for row in by['not robust']])}")
    if by["undecided"]:
        said.append(f"undecided: {listing([row.label for row in by['undecided']])}")
    if by["no yardstick"]:
        said.append(_no_yardstick(result, one))
    if by["not measured"]:
        said.append(f"not measured: {listing([row.label for row in by['not measured']])}")
    return f"{one.label}{_seeds(result, one)}: {'; '.join(said) if said else 'touched by no choice'}."


def _no_yardstick(result: Sensitivity, one: Quantity) -> str:
    """Why no choice can be judged."""
    if result.seeds < 2 or one.kind != "similarity":
        return "fewer than two seeds have it, so no choice can be judged"
    return "further seeds are no more like the study's own than chance is, so it is a result of the seed"


def _seeds(result: Sensitivity, one: Quantity) -> str:
    """The number of the study's own crosscoder, and the range of its seeds, at equal L0."""
    read = {row.label: (row.kind, row.at["l0"][one.key].value) for row in result.choices if one.key in row.at["l0"]}
    seeds = [value for kind, value in read.values() if kind == "seed" and value is not None]
    own = [value for kind, value in read.values() if kind == "reference" and value is not None]
    write, unit = WRITTEN[one.kind], UNITS[one.kind]
    said = [f"{write(own[0])}{unit}"] if own and one.kind != "similarity" else []
    if seeds:
        said.append(f"seeds {write(min(seeds))} to {write(max(seeds))}{unit}")
    return f" ({', '.join(said)})" if said else ""


def _named(row: ChoiceResult, one: Quantity) -> str:
    """A choice with the number that is not robust, where it is read."""
    for base, words in BASES.items():
        cell = row.at[base].get(one.key)
        if cell is not None and cell.verdict == "not robust":
            return f"{row.label} ({WRITTEN[one.kind](cell.value)}{UNITS[one.kind]} {words})"
    raise AssertionError("it is not robust at one of the two")


def sensitivity_pictures(result: Sensitivity) -> Iterator[Picture]:
    """Tails against sparsity, one figure for each tuned model; then similarities, and effects on held-out items."""
    tails = result.points[0].tails
    for position, model in enumerate(list(tails)[1:]):
        cut = min(tails[model].above, key=float)
        yield _curves(result, position, model, cut)
    shown = [one for one in result.quantities if one.kind == "similarity" or one.key.endswith("held_out")]
    for position, one in enumerate(shown):
        yield _choices(result, position, one)


def _curves(result: Sensitivity, position: int, model: str, cut: str) -> Picture:
    own = [point for point in result.points if point.strength == 1 and point.alive]
    parts = [f"{point.choice} {point.tails[model].above[cut]} of {point.alive} at L0 {point.l0:.3g}" for point in own]
    return Picture(
        file_name("tail-curve", position, model),
        "sensitivity",
        tail_curves(result, model, cut),
        f"Tail of {model} against sparsity",
        f"Alive features of {model} above {cut}, each choice at its own strength 1: {', '.join(parts)}.",
        {"cut": cut, "points": [as_json(point) for point in result.points]},
    )


def _choices(result: Sensitivity, position: int, one: Quantity) -> Picture:
    write = WRITTEN[one.kind]
    cells = {row.label: row.at["l0"][one.key] for row in result.choices if one.key in row.at["l0"]}
    named = [f"{label} {write(cell.value)}" for label, cell in cells.items()]
    band = [row.label for row in result.choices if row.kind in (OWN if one.kind != "similarity" else ("seed",))]
    return Picture(
        file_name("choices", position, one.label),
        "sensitivity",
        choice_plot(result, one, band, AXES[one.kind], SCALES[one.kind]),
        one.label,
        f"{one.label}, at equal L0: {', '.join(named)}. The band spans {listing(band)}.",
        {
            row.label: {base: as_json(found[one.key]) for base, found in row.at.items() if one.key in found}
            for row in result.choices
        },
    )


@styled
def tail_curves(result: Sensitivity, model: str, cut: str) -> Figure:
    """The share of a model's tail by L0, one curve for each choice; the study's own crosscoder at the line."""
    labels = list(dict.fromkeys(point.choice for point in result.points))
    kinds = {point.choice: point.kind for point in result.points}
    varied = [label for label in labels if kinds[label] not in OWN]
    figure, axes = canvas(3.4 + 0.2 * len(varied))
    axes.axvline(result.at["l0"], color=LINE, linewidth=1)
    for label in labels:
        points = [point for point in result.points if point.choice == label and point.alive]
        shares = [100 * point.tails[model].above[cut] / point.alive for point in points]
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
def choice_plot(result: Sensitivity, quantity: Quantity, band: Sequence[str], words: str, scale: float) -> Figure:
    """A row for each choice: its number at equal L0 and at equal variance explained, with interval or chance; the band
    spans the rows that it names, at equal L0."""
    key = quantity.key
    rows = [row for row in result.choices if any(key in cells for cells in row.at.values())]
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


def _draw(axes: Axes, cell: Cell, y: float, marker: str, fill: str, scale: float, colour: str) -> None:
    assert cell.value is not None
    bounds = [scale * bound for bound in (cell.low, cell.high) if bound is not None]
    axes.plot(bounds, [y] * len(bounds), color=colour, linewidth=1.4)
    if cell.chance is not None:
        chance = [scale * bound for bound in (cell.chance, cell.chance_high) if bound is not None]
        axes.plot(chance, [y] * len(chance), color=MUTED, linewidth=3, alpha=0.6)
    style = "full" if fill == "full" else "none"
    axes.plot([scale * cell.value], [y], marker, color=colour, fillstyle=style, markersize=5)


def _legend(figure: Figure, axes: Axes, cells: Sequence[Cell | None]) -> None:
    handles = [
        axes.plot([], [], "D", color=INK, markersize=5, label="at equal L0")[0],
        axes.plot([], [], "o", color=INK, fillstyle="none", markersize=5, label="at equal variance explained")[0],
    ]
    if any(cell is not None and cell.chance is not None for cell in cells):
        handles += axes.plot([], [], color=MUTED, linewidth=3, alpha=0.6, label="chance, to its 97.5 %")
    figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=8)
