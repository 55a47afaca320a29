"""The figures of latent scaling, one for each tail."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from featdiff.analyses.ownership.figures import scaling_histogram
from featdiff.analyses.ownership.result import TailPanel
from featdiff.attribution import ScaledTail
from featdiff.presentation.picture import Numbers, Picture, file_name
from featdiff.presentation.style import colour_of
from featdiff.presentation.words import count, plural


def tail_pictures(panels: Sequence[TailPanel], models: Sequence[str]) -> Iterator[Picture]:
    """A histogram of nu_eps for every panel whose tail holds a feature that was measured."""
    for position, panel in enumerate(panels):
        if not any(panel.beyond):
            continue
        yield Picture(
            name=file_name("scaling", position, panel.lineup, panel.model),
            section="scaling",
            figure=scaling_histogram(panel, colour_of(panel.model, models)),
            title=f"Latent scaling of the features of {panel.model} in the crosscoder {panel.lineup}",
            finding=tail_sentence(panel),
            numbers=asdict(panel) | {"tails": [_numbers(tail) for tail in panel.tails]},
        )


def _numbers(tail: ScaledTail) -> Numbers:
    """A tail as plain values; an empty one has no share of controls, and JSON no nan."""
    return {key: None if value != value else value for key, value in asdict(tail).items()}


def tail_sentence(panel: TailPanel) -> str:
    """What latent scaling leaves of the tail at the lowest cut, and of truly absent directions, in one sentence."""
    tail = panel.lowest
    kept = "–" if tail.random_absent != tail.random_absent else f"{100 * tail.random_absent:.0f} %"
    return (
        f"{panel.model} in {panel.lineup}: of {plural(tail.before, 'feature')} above {tail.cut:g}, "
        f"{count(tail.absent)} absent elsewhere, {count(tail.shrunk)} only shrunk, "
        f"{count(tail.rebuilt)} rebuilt by others, {count(tail.unmeasured)} too rare to tell. "
        f"Of random directions in their place, {kept} would be called absent."
    )
