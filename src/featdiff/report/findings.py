"""What the numbers show, and what they do not, in sentences made by fixed rules.

A gain over the base counts where its interval excludes 0. An effect counts where its verdict is "supported": the
interval excludes 0 in the expected direction, and every deciding kind of control does it too rarely. No rule looks at
anything but the numbers on the page.
"""

from collections.abc import Iterable, Sequence
from statistics import median

from featdiff.presentation.words import count, edited, listing, percent, plural, points, probability
from featdiff.report.data import TRAIN, UNSEEN, AccuracyCell, EffectRow, QualityRow, ReportData, SpecificityPanel

SUPPORTED, OPPOSITE, UNDERPOWERED = "supported", "opposite", "underpowered"
NOT_SCALED = "latent scaling, which tells the two apart, was not done"
FAITHFUL = 0.9
"""Below this recovered cross-entropy, what holds inside the crosscoder need not hold in the model."""


def headline(data: ReportData) -> list[str]:
    """The study in a few sentences: accuracy, ownership, causal effects, and what follows."""
    return [*_accuracy(data), *_ownership(data), *_causal(data), conclusion(data.effects)]


def conclusion(effects: Sequence[EffectRow]) -> str:
    """What the interventions allow to be said, by the share of them that beat their controls."""
    if not effects:
        return "No intervention was made, so nothing here shows what any feature does."
    supported = sum(effect.verdict == SUPPORTED for effect in effects)
    if supported == 0:
        return (
            f"So this study does not show that the selected features control generalization: {_controls(effects)} do "
            "as much, or there were too few items to tell."
        )
    scope = "most" if 2 * supported > len(effects) else "only some"
    return (
        f"So the selected features do more than all of {_controls(effects)} in {scope} of the tests "
        f"({supported} of {len(effects)}); this does not show that they are the only ones, nor that they make the gain."
    )


def caveats(data: ReportData) -> list[str]:
    """What the study does not show, each tied to a number of this study."""
    return [*_about_items(data), *_about_tests(data), *_about_crosscoders(data)]


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


def groups(effects: Sequence[EffectRow]) -> dict[tuple[str, str, str], list[EffectRow]]:
    """Effects by what was done: (model, edit, expected direction), in order of appearance."""
    found: dict[tuple[str, str, str], list[EffectRow]] = {}
    for effect in effects:
        found.setdefault((effect.model, effect.edit, effect.expected), []).append(effect)
    return found


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


def _causal(data: ReportData) -> Iterable[str]:
    for (model, edit, _), effects in groups(data.effects).items():
        items = "critical" if effects[0].control.measured_on == "critical" else "held-out critical"
        yield (
            f"With {plural(effects[0].features, 'selected feature')} {edited(edit)} in {model}, the change on {items} "
            f"items beats all of {_controls(effects)} on {_tally(effects)}{_on_all_items(effects)}."
        )


def _controls(effects: Sequence[EffectRow]) -> str:
    """The kinds of control that decide, in words."""
    kinds = dict.fromkeys(kind for effect in effects for kind in effect.beaten)
    return f"the deciding controls ({listing(list(kinds))})" if kinds else "the deciding controls"


def _tally(effects: Sequence[EffectRow]) -> str:
    """On how many tasks an edit beats its controls, those unseen or generated apart, and what else was found."""
    verdicts = [effect.verdict for effect in effects]
    choices = [effect for effect in effects if effect.generated is None]
    seen = [effect.verdict for effect in choices if effect.role != UNSEEN]
    unseen = [effect.verdict for effect in choices if effect.role == UNSEEN]
    written = [effect.verdict for effect in effects if effect.generated is not None]
    parts = [f"{seen.count(SUPPORTED)} of {plural(len(seen), 'task')} used for selection"] if seen else []
    parts += [f"{unseen.count(SUPPORTED)} of {plural(len(unseen), 'unseen task')}"] if unseen else []
    parts += [f"{written.count(SUPPORTED)} of {plural(len(written), 'task')} of generated answers"] if written else []
    others = [f"opposite on {verdicts.count(OPPOSITE)}"] if OPPOSITE in verdicts else []
    others += [f"too few items or controls on {verdicts.count(UNDERPOWERED)}"] if UNDERPOWERED in verdicts else []
    others += _unbeaten([effect for effect in effects if effect.verdict not in (SUPPORTED, OPPOSITE, UNDERPOWERED)])
    return listing(parts) + (f" ({'; '.join(others)})" if others else "")


def _unbeaten(failed: Sequence[EffectRow]) -> list[str]:
    """By kind of control, the tasks on which it was not beaten; and those on which the change itself is too small."""
    known = [effect for effect in failed if effect.beaten]
    kinds = dict.fromkeys(kind for effect in known for kind in effect.beaten)
    tasks = {kind: [effect.task for effect in known if not effect.beaten.get(kind, True)] for kind in kinds}
    said = [f"not beyond {kind} on {listing(names)}" for kind, names in tasks.items() if names]
    small = [effect.task for effect in known if all(effect.beaten.values())]
    return said + ([f"no significant change on {listing(small)}"] if small else [])


def _on_all_items(effects: Sequence[EffectRow]) -> str:
    wholes = [whole for effect in effects if (whole := effect.sets.get("all"))]
    changes = [change for whole in wholes if (change := whole.change) is not None]
    if not changes:
        return ""
    spread = f" (from {points(min(changes))} to {points(max(changes))})" if len(changes) > 1 else ""
    return f"; on all items accuracy changes by {points(median(changes))} points in the median{spread}"


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


def _about_tests(data: ReportData) -> Iterable[str]:
    tested, alpha = [effect for effect in data.effects if effect.control.draws], 1 - data.confidence
    if choices := [effect for effect in tested if effect.generated is None]:
        draws, tests = min(effect.control.draws for effect in choices), len(choices)
        yield (
            f"With {plural(draws, 'control draw')} no p can be below {probability(1 / (1 + draws))}, and "
            f"{plural(tests, 'test')} at {100 * alpha:g} % each would give about {tests * alpha:.1f} passes, in either "
            "direction, by chance alone. Holm's correction, and one test over all tasks, stand beside them."
        )
    for (model, edit, expected), effects in groups(data.effects).items():
        if expected == "increase" and (guessed := [pair for effect in effects if (pair := _beside_guessing(effect))]):
            below = sum(change <= guessing for change, guessing in guessed)
            yield (
                f"{model} answers every held-out critical item wrongly. Another choice of each, picked at random, puts "
                f"as many right as features {edited(edit)} do, or more, on {below} of "
                f"{plural(len(guessed), 'task')}."
            )
    if written := [effect.generated for effect in data.effects if effect.generated is not None]:
        yield _about_generation(min(row.control.draws for row in written), alpha)
    if not tested:
        return
    if len({effect.expected for effect in data.effects}) > 1:
        yield (
            "Setting a feature to 0 does nothing where it is silent; setting it to a fixed value acts on every edited "
            "token. So the edits are no mirror images, although the same "
            f"{plural(data.effects[0].features, 'feature')} take part."
        )


def _beside_guessing(effect: EffectRow) -> tuple[float, float] | None:
    """The change on held-out items, and what guessing again among the other choices would give."""
    held_out = effect.sets.get("held_out")
    if held_out is None or held_out.change is None or effect.guessing_again is None:
        return None
    return held_out.change, effect.guessing_again


def _about_generation(draws: int, alpha: float) -> str:
    smallest = 1 / (1 + draws)
    few = ", too few for any verdict but underpowered, whatever the features do" if 2 * smallest > alpha else ""
    return (
        f"Edits of generated answers are compared with {plural(draws, 'set')} of random features, so no p there can be "
        f"below {probability(smallest)}{few}. Sampled answers differ when a model is merely asked again."
    )


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
    if data.specificity or data.effects:
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
