"""What the numbers show, and what they do not, in sentences made by fixed rules.

A gain over the base counts where its interval excludes 0. No rule looks at anything but the numbers on the page.
"""

from collections.abc import Iterable, Sequence

from featdiff.presentation.words import count, listing, percent, plural
from featdiff.report.data import TRAIN, AccuracyCell, QualityRow, ReportData, SpecificityPanel

NOT_SCALED = "latent scaling, which tells the two apart, was not done"
FAITHFUL = 0.9
"""Below this recovered cross-entropy, what holds inside the crosscoder need not hold in the model."""


def headline(data: ReportData) -> list[str]:
    """The study in a few sentences: accuracy and ownership."""
    return [*_accuracy(data), *_ownership(data)]


def caveats(data: ReportData) -> list[str]:
    """What the study does not show, each tied to a number of this study."""
    return [*_about_items(data), *_about_crosscoders(data), *_about_dynamics(data)]


def gains(cell: AccuracyCell, base: AccuracyCell) -> bool:
    """Does the model beat the base, by the paired interval, or else by two intervals that do not touch?"""
    if cell.gain_interval is not None:
        return cell.gain_interval[0] > 0
    return cell.interval[0] > base.interval[1]


def losses(cell: AccuracyCell, base: AccuracyCell) -> bool:
    """Does it fall below the base, by the same rule?"""
    if cell.gain_interval is not None:
        return cell.gain_interval[1] < 0
    return cell.interval[1] < base.interval[0]


def _accuracy(data: ReportData) -> Iterable[str]:
    base = data.models[0].name
    parts = [
        f"{model.name} beats {base} on {sum(gains(*pair) for pair in pairs)} of {plural(len(pairs), 'task')} "
        f"and falls below it on {sum(losses(*pair) for pair in pairs)}"
        for model in data.models[1:]
        if (pairs := _untrained(data, model.name))
    ]
    if parts:
        yield f"On tasks that took no part in training, {listing(parts)} (by {100 * data.confidence:g} % intervals)."


def _untrained(data: ReportData, model: str) -> list[tuple[AccuracyCell, AccuracyCell]]:
    """A model's and the base's accuracy on the tasks that neither paradigm was trained on."""
    base = data.models[0].name
    tasks = [cells for cells in data.accuracy.values() if model in cells and base in cells]
    return [(cells[model], cells[base]) for cells in tasks if cells[base].role != TRAIN]


def _ownership(data: ReportData) -> Iterable[str]:
    base = data.models[0].name
    panels = [panel for panel in data.specificity if panel.score == "NRN" and panel.model != base and panel.tails]
    if panels:
        cut = next(iter(panels[0].tails))
        tails = [f"{count(panel.tails[cut])} of {count(panel.alive)} for {panel.model}" for panel in panels]
        yield f"Alive features that belong to the tuned model by more than {cut} of their norm: {listing(tails)}."


def _about_items(data: ReportData) -> Iterable[str]:
    if data.selection and (critical := sum(data.selection.critical.values())):
        tuned, mirror = data.selection.model, sum(data.selection.mirror.values())
        yield (
            f"The {count(critical)} critical items were chosen because the base fails and {tuned} succeeds. On such "
            f"items any disturbance lowers {tuned} and raises the base, so the change by itself proves nothing; only "
            f"its distance from that by random features does. The mirror set (base right, {tuned} wrong) holds "
            f"{plural(mirror, 'item')}; the closer the two numbers, the more of the critical set is chance."
        )
    if constant := [task for task, cells in data.accuracy.items() if _no_better_than_constant(cells.values())]:
        yield f"No model is clearly better than one constant answer on {listing(constant)}: little to be learned there."


def _no_better_than_constant(cells: Iterable[AccuracyCell]) -> bool:
    return all(cell.interval[0] <= cell.constant_baseline for cell in cells)


def _about_crosscoders(data: ReportData) -> Iterable[str]:
    if data.quality:
        yield _worst_fit(data.quality)
    if data.shrinkage is not None:
        yield (
            f"An L1 penalty erases contributions below {data.shrinkage:g} (where activations have mean norm "
            f"sqrt(d_model)) from a model, and so makes features look more specific than they are; {_scaled(data)}."
        )
    if moved := [text for panel in data.specificity if (text := _moved_by_norm(panel))]:
        yield f"L1 norms depend on the basis of the residual stream: {listing(moved)}."
    if data.specificity:
        unknown = "was not measured" if data.crosscoder_seeds == 1 else "is known for the crosscoder only"
        seeds = plural(data.crosscoder_seeds, "crosscoder seed")
        yield f"{seeds} and one run of each model: how much of this another seed would repeat {unknown}."


def _scaled(data: ReportData) -> str:
    """What latent scaling leaves of all tails at the lowest cut."""
    lowest = [panel.lowest for panel in data.tails]
    if not sum(tail.before for tail in lowest):
        return "latent scaling, which tells the two apart, found no tail to test" if lowest else NOT_SCALED
    left, before = sum(tail.absent for tail in lowest), sum(tail.before for tail in lowest)
    return f"latent scaling leaves {count(left)} of {plural(before, 'feature')} in the tails above {lowest[0].cut:g}"


def _moved_by_norm(panel: SpecificityPanel) -> str:
    """How the first tail differs between the two norms; nothing where it does not."""
    for cut, tail in panel.tails.items():
        l2 = panel.tails_l2.get(cut, tail)
        return f"{tail} by L1 but {l2} by L2 above {cut} for {panel.model} in {panel.lineup}" if l2 != tail else ""
    return ""


def _worst_fit(quality: Sequence[QualityRow]) -> str:
    explained = [share for row in quality for share in row.variance_explained.values() if share is not None]
    lost = f", up to {percent(1 - min(explained))} % of a model's variance," if explained else ""
    sentence = f"What the crosscoders leave unexplained{lost} is not seen"
    measured = [(share, model, row) for row in quality for model, share in row.ce_recovered.items()]
    recovered = [(share, model, row) for share, model, row in measured if share is not None]
    if not recovered:
        return f"{sentence}; how much of the models' cross-entropy they recover was not measured."
    share, model, row = min(recovered, key=lambda found: found[0])
    enough = ", too little for causal claims there" if share < FAITHFUL else ""
    place = f"{model} in {row.lineup}, {row.measured_on}"
    return f"{sentence}; they recover at least {percent(share)} % of the cross-entropy ({place}){enough}."


def _about_dynamics(data: ReportData) -> Iterable[str]:
    for paradigm in dict.fromkeys(panel.paradigm for panel in data.dynamics):
        unmeasured = [one for one in data.dynamics if one.paradigm == paradigm and one.noise_floor is None]
        if unmeasured:
            yield (
                f"How much the overlap of {paradigm} over checkpoints would be for one checkpoint measured twice is "
                f"not known under {listing([one.alignment for one in unmeasured])}; random sets would share "
                f"{listing([percent(one.chance) for one in unmeasured])} %."
            )
