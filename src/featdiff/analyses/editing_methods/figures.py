"""The figure of the ways: which of them move the same neurons."""

from collections.abc import Iterator
from dataclasses import asdict

from featdiff.analyses.editing_methods.result import WayOverlap, WaysPanel, called
from featdiff.presentation.heatmap import share_heatmap
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.style import BLUE
from featdiff.presentation.words import listing, mean, plural, ratio


def ways_pictures(panel: WaysPanel | None) -> Iterator[Picture]:
    """One square of overlaps for each part of the models that was compared."""
    for position, one in enumerate(panel.overlaps if panel else ()):
        yield _overlap(position, one)


def _overlap(position: int, one: WayOverlap) -> Picture:
    names = [called(name) for name in one.ways]
    title = f"Neurons moved, {one.where}"
    parts = [
        f"{names[a]} and {names[b]} {ratio(one.jaccard[a][b])}"
        for a in range(len(names))
        for b in range(a + 1, len(names))
    ]
    return Picture(
        name=file_name("ways", position, one.where),
        section="ways",
        figure=share_heatmap(
            one.jaccard,
            names,
            BLUE,
            title,
            f"Jaccard; chance {ratio(one.chance)}",
            beside={"two halves": one.halves, "controls": [mean(draws) for draws in one.controls]},
        ),
        title=title,
        finding=(
            f"Jaccard overlap of the {plural(one.size, 'neuron')} of {one.neurons:,} that each way moves most, "
            f"{one.where}: {listing(parts)}. Two random sets of this size share {ratio(one.chance)} on average, "
            f"{ratio(one.chance_high)} at most nearly always. Beside the square: a way on two halves of the items, "
            f"and the overlap of its random edits with {one.target}."
        ),
        numbers=asdict(one),
    )
