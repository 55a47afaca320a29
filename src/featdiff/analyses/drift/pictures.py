"""The figure of drift."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from featdiff.analyses.drift.figures import drift_plot
from featdiff.analyses.drift.result import DriftPanel
from featdiff.presentation.picture import Picture
from featdiff.presentation.words import listing, plural


def drift_pictures(panel: DriftPanel | None, models: Sequence[str]) -> Iterator[Picture]:
    """Tails against KL, where each tuned model has a crosscoder of itself and the base."""
    if panel is None or panel.cut is None or any(row.tails is None and not row.crossed for row in panel.rows):
        return
    title = "Tail against drift"
    yield Picture("drift", "drift", drift_plot(panel, models), title, drift_finding(panel), asdict(panel))


def drift_finding(panel: DriftPanel) -> str:
    """The figure in words."""
    cut, parts = panel.cut, []
    for place in panel.places:
        for tuned in (place, *panel.controls):
            rows = panel.of(tuned, "checkpoint", "model", "interpolation", "matched")
            read = [(row, row.read_in(place)) for row in rows]
            counts = [f"{row.name} {tails[cut]:,} at {row.kl_task:.3g}" for row, tails in read if tails and cut]
            through = "" if tuned == place else f", read in {place}'s place"
            parts.append(f"{plural(len(rows), 'model')} on the way to {tuned}{through}: {listing(counts)}")
    return f"Features above {cut} by KL to the base on the tasks, in nats per token. {'; '.join(parts)}."
