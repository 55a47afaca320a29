"""The figure of the editing methods: which of them move the same neurons."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from featdiff.analyses.editing_methods.result import NeuronOverlap
from featdiff.presentation.heatmap import share_heatmap
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.style import BLUE
from featdiff.presentation.words import listing, mean, plural, ratio


def called(name: str) -> str:
    """How sentences and figures call a method."""
    return "features as printed" if name == "features_printed" else name


def overlap_pictures(overlaps: Sequence[NeuronOverlap]) -> Iterator[Picture]:
    """One square of overlaps for each part of the models that was compared."""
    for position, one in enumerate(overlaps):
        yield _overlap(position, one)


def _overlap(position: int, one: NeuronOverlap) -> Picture:
    names = [called(name) for name in one.methods]
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
            f"Jaccard; chance {ratio(one.chance.mean)}",
            beside={"two halves": one.halves, "controls": [mean(draws) for draws in one.controls]},
        ),
        title=title,
        finding=(
            f"Jaccard overlap of the {plural(one.size, 'neuron')} of {one.neurons:,} that each way moves most, "
            f"{one.where}: {listing(parts)}. Two random sets of this size share {ratio(one.chance.mean)} on average, "
            f"{ratio(one.chance.high)} at most nearly always. Right of the square: a way on two halves of the items, "
            f"and the overlap of its random edits with {one.target}."
        ),
        numbers=asdict(one),
    )
