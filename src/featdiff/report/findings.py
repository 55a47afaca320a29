"""What the numbers do not show, in sentences made by fixed rules that look at nothing but the numbers on the page."""

from collections.abc import Iterable

from featdiff.presentation.words import count, listing, percent, plural
from featdiff.report.data import ReportData


def caveats(data: ReportData) -> list[str]:
    """What the study does not show, each tied to a number of this study."""
    return [*_about_items(data), *_about_dynamics(data)]


def _about_items(data: ReportData) -> Iterable[str]:
    if data.selection and (critical := sum(data.selection.critical.values())):
        tuned, mirror = data.selection.model, sum(data.selection.mirror.values())
        yield (
            f"The {count(critical)} critical items were chosen because the base fails and {tuned} succeeds. On such "
            f"items any disturbance lowers {tuned} and raises the base, so the change by itself proves nothing; only "
            f"its distance from that by random features does. The mirror set (base right, {tuned} wrong) holds "
            f"{plural(mirror, 'item')}; the closer the two numbers, the more of the critical set is chance."
        )


def _about_dynamics(data: ReportData) -> Iterable[str]:
    for paradigm in dict.fromkeys(panel.paradigm for panel in data.dynamics):
        unmeasured = [one for one in data.dynamics if one.paradigm == paradigm and one.noise_floor is None]
        if unmeasured:
            yield (
                f"How much the overlap of {paradigm} over checkpoints would be for one checkpoint measured twice is "
                f"not known under {listing([one.alignment for one in unmeasured])}; random sets would share "
                f"{listing([percent(one.chance) for one in unmeasured])} %."
            )
