"""What the report says of drift: how far each model moved, its tail there, and the two tails at equal KL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DriftRow:
    """One model on the way from the base to `tuned`: a checkpoint, the model itself, or an interpolation.

    `kl_task` and `kl_neutral` are KL(base | model) per predicted token, in nats. `tails` counts features of the tuned
    model's pair crosscoder above each cut with this model in the tuned one's place, and under "measured" of how many;
    None where there is no such crosscoder.
    """

    tuned: str
    name: str
    kind: str
    alpha: float | None
    kl_task: float
    kl_neutral: float
    weights: Mapping[str, float]
    """Relative change by group of tensors, and under "all"."""
    activations: Sequence[float]
    """Change as a share of the base's variance, after every block."""
    tails: Mapping[str, int] | None


@dataclass(frozen=True)
class DriftPanel:
    """All rows, and the tuned model that moved least on the tasks: the others are scaled down to its KL."""

    least: str
    rows: Sequence[DriftRow]

    @property
    def cut(self) -> str | None:
        """The lowest cut at which tails were counted."""
        counted = [row.tails for row in self.rows if row.tails is not None]
        return min((cut for cut in counted[0] if cut != "measured"), key=float, default=None) if counted else None

    def of(self, tuned: str, *kinds: str) -> list[DriftRow]:
        """The rows of one tuned model that are of these kinds, by rising KL."""
        found = [row for row in self.rows if row.tuned == tuned and row.kind in kinds]
        return sorted(found, key=lambda row: row.kl_task)


def drift_verdicts(panel: DriftPanel) -> list[str]:
    """At equal drift, does one model still make more specific features? One sentence for each model scaled down."""
    cut = panel.cut
    least = next((row for row in panel.of(panel.least, "model")), None)
    matched = [row for row in panel.rows if row.kind == "matched"]
    if cut is None or least is None or least.tails is None:
        return ["No crosscoder of the base and each tuned model was trained, so tails at equal drift are not known."]
    return [_verdict(panel, row, least, cut) for row in matched if row.tails is not None]


def _verdict(panel: DriftPanel, row: DriftRow, least: DriftRow, cut: str) -> str:
    assert row.tails is not None and least.tails is not None and row.alpha is not None
    here, there = row.tails[cut], least.tails[cut]
    (whole,) = panel.of(row.tuned, "model")
    before = "" if whole.tails is None else f" ({whole.tails[cut]:,} at its own KL of {whole.kl_task:.3g})"
    said = f"still has more features above {cut} than" if here > there else f"has no more features above {cut} than"
    near = min(panel.of(row.tuned, "checkpoint"), key=lambda one: abs(one.kl_task - row.kl_task), default=None)
    beside = "" if near is None or near.tails is None else _beside(near, cut)
    return (
        f"At equal drift (KL {row.kl_task:.3g} nats per token on the tasks), {row.tuned} scaled to {row.alpha:.3g} of "
        f"its change {said} {least.tuned}: {here:,} of {row.tails['measured']:,}{before} against {there:,} of "
        f"{least.tails['measured']:,}{beside}. Each is one model from one run (n = 1) read through one crosscoder, so "
        f"this difference has no interval, and another seed may turn it."
    )


def _beside(near: DriftRow, cut: str) -> str:
    assert near.tails is not None
    return f"; its checkpoint of nearest KL, {near.name} ({near.kl_task:.3g}), has {near.tails[cut]:,}"
