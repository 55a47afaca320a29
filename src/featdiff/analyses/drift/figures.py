"""The tail against drift: is a larger tail more than a longer way?"""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featdiff.analyses.drift.result import Drift, Kind
from featdiff.files import as_json
from featdiff.presentation.picture import Picture
from featdiff.presentation.style import WIDTH, canvas, colour_of, styled
from featdiff.presentation.words import listing, plural

TRAINED: tuple[Kind, ...] = ("checkpoint", "model")
MIXED: tuple[Kind, ...] = ("interpolation", "matched", "model")


def drift_pictures(drift: Drift, models: Sequence[str]) -> Iterator[Picture]:
    """Tails against KL, where each tuned model has a crosscoder of itself and the base."""
    if drift.cut is None or any(row.tails is None and not row.crossed for row in drift.rows):
        return
    numbers = as_json(drift)
    assert isinstance(numbers, dict)
    yield Picture("drift", "drift", drift_plot(drift, models), "Tail against drift", drift_finding(drift), numbers)


def drift_finding(drift: Drift) -> str:
    """The figure in words."""
    cut, parts = drift.cut, list[str]()
    for place in drift.places:
        for tuned in (place, *drift.controls):
            rows = drift.of(tuned, "checkpoint", *MIXED)
            read = [(row, row.read_in(place)) for row in rows]
            counts = [f"{row.name} {tails[cut]:,} at {row.kl_task:.3g}" for row, tails in read if tails and cut]
            through = "" if tuned == place else f", read in {place}'s place"
            parts.append(f"{plural(len(rows), 'model')} on the way to {tuned}{through}: {listing(counts)}")
    return f"Features above {cut} by KL to the base on the tasks, in nats per token. {'; '.join(parts)}."


@styled
def drift_plot(drift: Drift, models: Sequence[str]) -> Figure:
    """Features above the lowest cut by KL on the tasks: checkpoints as a line, interpolations dashed, models larger.

    With a control, which is read through every crosscoder, each crosscoder has axes of its own.
    """
    coloured = [*models, *drift.controls]
    if not drift.controls:
        figure, axes = canvas(3.2)
        for tuned in drift.places:
            _lines(axes, drift, tuned, tuned, colour_of(tuned, coloured))
        _labelled(axes, drift, "Tail against drift (one model each)")
        return figure
    figure = Figure(figsize=(WIDTH, 2.6 * len(drift.places)), layout="constrained")
    for axes, place in zip(figure.subplots(len(drift.places), sharex=True, sharey=True), drift.places, strict=True):
        for tuned in (place, *drift.controls):
            _lines(axes, drift, tuned, place, colour_of(tuned, coloured))
        _labelled(axes, drift, f"Read through {place}'s crosscoder (one model each)")
        axes.label_outer()
    return figure


def _lines(axes: Axes, drift: Drift, tuned: str, place: str, colour: str) -> None:
    for label, line, marker, kinds in (("training", "-", "o", TRAINED), ("mixed with the base", "--", "x", MIXED)):
        if points := _points(drift, tuned, place, *kinds):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, line, label=f"{tuned}, {label}", marker=marker, color=colour, clip_on=False)
    x, y = zip(*_points(drift, tuned, place, "model"), strict=True)
    axes.plot(x, y, "o", markersize=9, color=colour, clip_on=False)


def _points(drift: Drift, tuned: str, place: str, *kinds: Kind) -> list[tuple[float, int]]:
    cut = drift.cut
    read = ((row.kl_task, row.read_in(place)) for row in drift.of(tuned, *kinds))
    return [(kl, tails[cut]) for kl, tails in read if tails is not None and cut]


def _labelled(axes: Axes, drift: Drift, title: str) -> None:
    axes.set_xlabel("KL to the base on the tasks (nats per token)")
    axes.set_ylabel(f"features above {drift.cut}")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title)
    axes.legend(frameon=False, fontsize=8)
