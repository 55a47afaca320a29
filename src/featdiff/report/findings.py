"""What the numbers show, and what they do not, in sentences made by fixed rules.

A gain over the base counts where its interval excludes 0. An effect counts where its verdict is "supported": the
interval excludes 0 in the expected direction, and every deciding kind of control does it too rarely. No rule looks at
anything but the numbers on the page.
"""

from collections.abc import Iterable, Sequence
from statistics import median

from featdiff.presentation.words import edited, listing, percent, plural, points, probability
from featdiff.report.data import UNSEEN, EffectRow, ReportData

SUPPORTED, OPPOSITE, UNDERPOWERED = "supported", "opposite", "underpowered"


def headline(data: ReportData) -> list[str]:
    """The study in a few sentences: accuracy, ownership, causal effects, and what follows."""
    return [*_causal(data), conclusion(data.effects)]


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
    return [*_about_tests(data), *_about_dynamics(data)]


def groups(effects: Sequence[EffectRow]) -> dict[tuple[str, str, str], list[EffectRow]]:
    """Effects by what was done: (model, edit, expected direction), in order of appearance."""
    found: dict[tuple[str, str, str], list[EffectRow]] = {}
    for effect in effects:
        found.setdefault((effect.model, effect.edit, effect.expected), []).append(effect)
    return found


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


def _about_dynamics(data: ReportData) -> Iterable[str]:
    for paradigm in dict.fromkeys(panel.paradigm for panel in data.dynamics):
        unmeasured = [one for one in data.dynamics if one.paradigm == paradigm and one.noise_floor is None]
        if unmeasured:
            yield (
                f"How much the overlap of {paradigm} over checkpoints would be for one checkpoint measured twice is "
                f"not known under {listing([one.alignment for one in unmeasured])}; random sets would share "
                f"{listing([percent(one.chance) for one in unmeasured])} %."
            )
