"""The figures of dynamics: overlaps beside their noise floor, the same divided by it, and rank shifts."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from featdiff.analyses.dynamics.figures import rank_shifts
from featdiff.analyses.dynamics.result import DynamicsPanel
from featdiff.presentation.heatmap import share_heatmap
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.style import BLUE, colour_of
from featdiff.presentation.words import listing, percent, plural, ratio


def dynamics_pictures(panels: Sequence[DynamicsPanel], models: Sequence[str]) -> Iterator[Picture]:
    """For every panel its overlaps, these divided by the floor where there is one, and the rank shifts."""
    for position, panel in enumerate(panels):
        colour = colour_of(panel.paradigm, models) if panel.paradigm in models else BLUE
        yield _overlap(panel, position, colour)
        if panel.relative is not None:
            yield _relative(panel, position, colour)
        if any(panel.rank_shift):
            yield _shifts(panel, position)


def _overlap(panel: DynamicsPanel, position: int, colour: str) -> Picture:
    return Picture(
        name=file_name("overlap", position, panel.alignment, panel.paradigm),
        section=f"overlap {panel.alignment}",
        figure=share_heatmap(
            panel.overlap,
            _short(panel),
            colour,
            f"{panel.paradigm}, {panel.alignment}: overlap of the top {panel.top}",
            "checkpoint",
            beside={} if panel.floors is None else {"floor": panel.floors},
        ),
        title=f"Overlap of the {panel.top} most specific features between checkpoints of {panel.paradigm}",
        finding=overlap_sentence(panel),
        numbers=asdict(panel),
    )


def overlap_sentence(panel: DynamicsPanel) -> str:
    """How much adjacent checkpoints share, beside chance and the noise floor."""
    floor = (
        "; what one checkpoint measured twice would share was not measured"
        if panel.noise_floor is None
        else f"; one checkpoint under two seeds shares {percent(panel.noise_floor)} % with itself"
    )
    return (
        f"{panel.paradigm}: adjacent checkpoints share {listing([percent(share) for share in panel.adjacent])} % "
        f"of the top {panel.top}; random sets would share {percent(panel.chance)} %{floor}. "
        f"Alignment: {panel.alignment}."
    )


def _relative(panel: DynamicsPanel, position: int, colour: str) -> Picture:
    assert panel.relative is not None
    between = "" if panel.alignment == "same_seed_index" else ", both measured with different seeds"
    return Picture(
        name=file_name("overlap-by-floor", position, panel.alignment, panel.paradigm),
        section=f"overlap {panel.alignment}",
        figure=share_heatmap(
            panel.relative,
            _short(panel),
            colour,
            f"{panel.paradigm}, {panel.alignment}: divided by the floor",
            "checkpoint",
        ),
        title=f"Overlap between checkpoints of {panel.paradigm}, divided by the noise floor",
        finding=(
            f"{panel.paradigm}: adjacent checkpoints reach {listing([ratio(r) for r in panel.adjacent_relative])} of "
            f"the agreement that one checkpoint has with itself{between}; the first and the last reach "
            f"{ratio(panel.ends_relative)}. {reliability(panel)}"
        ),
        numbers={"checkpoints": list(panel.checkpoints), "relative": [list(row) for row in panel.relative]},
    )


def reliability(panel: DynamicsPanel) -> str:
    """What a 1 means, or that it means nothing."""
    if panel.noise_floor is not None and panel.noise_floor <= panel.chance:
        return "But one checkpoint agrees with itself no more than random sets do, so these ratios mean nothing."
    return "1 is no change that could be told from noise."


def _shifts(panel: DynamicsPanel, position: int) -> Picture:
    ranked = [len(row) for row in panel.rank_shift]
    k = max(ranked)
    left = [sum(shift is None for shift in row) for row in panel.rank_shift]
    stayed = sorted(abs(shift) for row in panel.rank_shift for shift in row if shift is not None)
    moved = f"; those that stay move by {stayed[len(stayed) // 2]:g} places in the median" if stayed else ""
    known = (
        f" Ranked are {listing([str(number) for number in ranked])} features, those whose score differs from 0.5 by "
        f"more than it varies over {plural(panel.seeds, 'seed')}."
        if panel.seeds > 1
        else ""
    )
    return Picture(
        name=file_name("rank-shift", position, panel.alignment, panel.paradigm),
        section="rank_shift",
        figure=rank_shifts(panel),
        title=f"Rank shifts of the top {k} between checkpoints of {panel.paradigm}",
        finding=(
            f"{panel.paradigm}, {panel.alignment}: {listing([str(number) for number in left])} of "
            f"{k if len(set(ranked)) == 1 else 'these'} leave the top {panel.top} from one checkpoint to the next"
            f"{moved}.{known}"
        ),
        numbers={"checkpoints": list(panel.checkpoints), "rank_shift": [list(row) for row in panel.rank_shift]},
    )


def _short(panel: DynamicsPanel) -> list[str]:
    """The numbers of the checkpoints."""
    return [name.rpartition("-")[2] for name in panel.checkpoints]
