"""Figures of dynamics: overlaps with their noise floor and divided by it (Fig. 2), and rank shifts (Fig. 8-11)."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import get_args

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from featdiff.analyses.dynamics.result import CheckpointOverlap, Dynamics, Unknown
from featdiff.config.evidence import AlignmentName
from featdiff.files import as_json
from featdiff.presentation.heatmap import share_heatmap
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.style import BLUE, INK, LINE, ORANGE, TITLE, canvas, colour_of, fitted, styled
from featdiff.presentation.words import listing, percent, plural, ratio

FAINTEST = 0.12
"""Opacity of a feature that keeps its rank, so that it differs from a blank."""


def dynamics_pictures(by_model: Mapping[str, Dynamics], models: Sequence[str]) -> Iterator[Picture]:
    """By alignment and tuned model its overlaps, these divided by the floor where there is one, and the rank shifts."""
    for position, (tuned, found) in enumerate(by_alignment(by_model)):
        colour = colour_of(tuned, models) if tuned in models else BLUE
        yield _overlap(found, tuned, position, colour)
        if found.relative is not None:
            yield _relative(found, tuned, position, colour)
        if any(found.rank_shift):
            yield _shifts(found, tuned, position)


def by_alignment(by_model: Mapping[str, Dynamics]) -> list[tuple[str, CheckpointOverlap]]:
    """Tuned model and overlaps, all of the first alignment before those of the next."""
    return [
        (tuned, dynamics.by_alignment[alignment])
        for alignment in get_args(AlignmentName)
        for tuned, dynamics in by_model.items()
        if alignment in dynamics.by_alignment
    ]


def _overlap(found: CheckpointOverlap, tuned: str, position: int, colour: str) -> Picture:
    return Picture(
        name=file_name("overlap", position, found.alignment, tuned),
        section=f"overlap {found.alignment}",
        figure=share_heatmap(
            found.overlap,
            _short(found),
            colour,
            f"{tuned}, {found.alignment}: overlap of the top {found.top}",
            "checkpoint",
            beside={} if found.floors is None else {"floor": found.floors},
        ),
        title=f"Overlap of the {found.top} most specific features between checkpoints of {tuned}",
        finding=overlap_sentence(found, tuned),
        numbers={"tuned": tuned, "found": as_json(found)},
    )


def overlap_sentence(found: CheckpointOverlap, tuned: str) -> str:
    """How much adjacent checkpoints share, next to chance and the noise floor."""
    floor = (
        "; what one checkpoint measured twice would share was not measured"
        if found.noise_floor is None
        else f"; one checkpoint under two seeds shares {percent(found.noise_floor)} % with itself"
    )
    return (
        f"{tuned}: adjacent checkpoints share {listing([percent(share) for share in found.adjacent])} % "
        f"of the top {found.top}; random sets would share {percent(found.chance)} %{floor}. "
        f"Alignment: {found.alignment}."
    )


def _relative(found: CheckpointOverlap, tuned: str, position: int, colour: str) -> Picture:
    assert found.relative is not None
    between = "" if found.alignment == "same_seed_index" else ", both measured with different seeds"
    return Picture(
        name=file_name("overlap-by-floor", position, found.alignment, tuned),
        section=f"overlap {found.alignment}",
        figure=share_heatmap(
            found.relative,
            _short(found),
            colour,
            f"{tuned}, {found.alignment}: divided by the floor",
            "checkpoint",
        ),
        title=f"Overlap between checkpoints of {tuned}, divided by the noise floor",
        finding=(
            f"{tuned}: adjacent checkpoints reach {listing([ratio(r) for r in found.adjacent_relative])} of "
            f"the agreement that one checkpoint has with itself{between}; the first and the last reach "
            f"{ratio(found.ends_relative)}. {reliability(found)}"
        ),
        numbers={"checkpoints": list(found.checkpoints), "relative": [list(row) for row in found.relative]},
    )


def reliability(found: CheckpointOverlap) -> str:
    """What a 1 means, or that it means nothing."""
    if found.noise_floor is not None and found.noise_floor <= found.chance:
        return "But one checkpoint agrees with itself no more than random sets do, so these ratios mean nothing."
    return "1 is no change that could be told from noise."


def _shifts(found: CheckpointOverlap, tuned: str, position: int) -> Picture:
    ranked = [len(row) for row in found.rank_shift]
    k = max(ranked)
    left = [sum(shift is None for shift in row) for row in found.rank_shift]
    stayed = sorted(abs(shift) for row in found.rank_shift for shift in row if shift is not None)
    moved = f"; those that stay move by {stayed[len(stayed) // 2]:g} places in the median" if stayed else ""
    known = (
        f" Ranked are {listing([str(number) for number in ranked])} features, those whose score differs from 0.5 by "
        f"more than it varies over {plural(found.seeds, 'seed')}."
        if found.seeds > 1
        else ""
    )
    return Picture(
        name=file_name("rank-shift", position, found.alignment, tuned),
        section="rank_shift",
        figure=rank_shifts(found, tuned),
        title=f"Rank shifts of the top {k} between checkpoints of {tuned}",
        finding=(
            f"{tuned}, {found.alignment}: {listing([str(number) for number in left])} of "
            f"{k if len(set(ranked)) == 1 else 'these'} leave the top {found.top} from one checkpoint to the next"
            f"{moved}.{known}"
        ),
        numbers={"checkpoints": list(found.checkpoints), "rank_shift": [list(row) for row in found.rank_shift]},
    )


def _short(found: CheckpointOverlap) -> list[str]:
    """The numbers of the checkpoints."""
    return [name.rpartition("-")[2] for name in found.checkpoints]


@styled
def rank_shifts(found: CheckpointOverlap, tuned: str) -> Figure:
    """A row for each two adjacent checkpoints, a cell for each of the earlier one's top k; blank: left the top k."""
    k = max(len(row) for row in found.rank_shift)
    figure, axes = canvas(1.35 + 0.34 * len(found.rank_shift))
    for row, shifts in enumerate(found.rank_shift):
        _row(axes, row, shifts, k)
    axes.set_xlim(0.5, k + 0.5)
    axes.set_ylim(len(found.rank_shift) - 0.5, -0.5)
    axes.set_yticks(range(len(found.rank_shift)), _transitions(found.checkpoints))
    axes.set_xlabel(f"rank at the earlier checkpoint, 1 to {k}")
    axes.set_title(fitted(f"{tuned}, {found.alignment}: rank shifts of the top {k}", TITLE))
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    _legend(figure, k)
    return figure


def _row(axes: Axes, row: int, shifts: Sequence[Unknown], k: int) -> None:
    for column, shift in enumerate(shifts, start=1):
        corner = (column - 0.44, row - 0.4)
        if shift is None:
            axes.add_patch(Rectangle(corner, 0.88, 0.8, facecolor="none", edgecolor=LINE, linewidth=0.6))
        else:
            axes.add_patch(Rectangle(corner, 0.88, 0.8, color=_colour(shift), alpha=_opacity(shift, k), linewidth=0))
    left = sum(shift is None for shift in shifts)
    axes.annotate(f"{left} left", (1.01, row), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)


def _colour(shift: float) -> str:
    if shift == 0:
        return INK
    return BLUE if shift > 0 else ORANGE


def _opacity(shift: float, k: int) -> float:
    """Half the list is far enough for full colour."""
    return min(1.0, FAINTEST + (1 - FAINTEST) * 2 * abs(shift) / k)


def _transitions(checkpoints: Sequence[str]) -> list[str]:
    """ "1 → 2" for sft-1 and sft-2; whole names where they do not end so."""
    short = [name.rpartition("-")[2] for name in checkpoints]
    return [f"{now} → {later}" for now, later in pairwise(short)]


def _legend(figure: Figure, k: int) -> None:
    handles = [
        Rectangle((0, 0), 1, 1, color=BLUE, label="climbed"),
        Rectangle((0, 0), 1, 1, color=ORANGE, label="fell"),
        Rectangle((0, 0), 1, 1, color=INK, alpha=FAINTEST, label="same rank"),
        Rectangle((0, 0), 1, 1, facecolor="none", edgecolor=LINE, label=f"left the top {k}"),
    ]
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=4,
        frameon=False,
        handlelength=1,
        columnspacing=1.2,
        fontsize=8.5,
    )
