"""Interventions in the report: what each edit does to each task against its controls, in sentences made by fixed rules.

An effect counts where its verdict is "supported": the interval excludes 0 in the expected direction, and every deciding
kind of control does it too rarely.
"""

from collections.abc import Iterator, Sequence
from statistics import median

from featdiff.analyses.intervention.figures import pictures
from featdiff.analyses.intervention.result import Interventions, TaskEffect, by_edit, dose_curves
from featdiff.presentation.section import Section
from featdiff.presentation.words import edited, listing, plural, points, probability

SUPPORTED, OPPOSITE, UNDERPOWERED = "supported", "opposite", "underpowered"
UNSEEN = "unseen"
"""Role of a task that is kept out of the selection of features."""


def section_of(found: Interventions, confidence: float) -> Section:
    """Tables 2-5 with their controls, claims over all tasks, doses, side effects, and what stands behind verdicts."""
    curves = dose_curves(found.doses)
    return Section(
        anchor="effects",
        title="What the selected features do",
        template="intervention/section.html",
        values={
            "found": found,
            "groups": by_edit(found.effects),
            "curves": curves,
            "unseen_role": UNSEEN,
            "confidence": confidence,
        },
        figures=list(pictures(found.effects, curves)),
        findings=[*findings(found.effects, confidence), conclusion(found.effects, confidence)],
        caveats=list(caveats(found.effects, confidence)),
    )


def conclusion(effects: Sequence[TaskEffect], confidence: float) -> str:
    """What the interventions allow to be said, by the share of them that beat their controls."""
    if not effects:
        return "No intervention was made, so nothing here shows what any feature does."
    supported = sum(effect.verdict == SUPPORTED for effect in effects)
    controls = _controls(effects, confidence)
    if supported == 0:
        return (
            f"So this study does not show that the selected features control generalization: {controls} do "
            "as much, or there were too few items to tell."
        )
    scope = "most" if 2 * supported > len(effects) else "only some"
    return (
        f"So the selected features do more than all of {controls} in {scope} of the tests "
        f"({supported} of {len(effects)}); this does not show that they are the only ones, nor that they make the gain."
    )


def findings(effects: Sequence[TaskEffect], confidence: float) -> Iterator[str]:
    """Of each edit, on how many tasks it beats its controls, and what it does on all items."""
    for (model, edit, _), group in by_edit(effects).items():
        yield (
            f"With {plural(group[0].features, 'selected feature')} {edited(edit)} in {model}, the change on held-out "
            f"critical items beats all of {_controls(group, confidence)} on {_tally(group, confidence)}"
            f"{_on_all_items(group)}."
        )


def _controls(effects: Sequence[TaskEffect], confidence: float) -> str:
    """The kinds of control that decide, in words."""
    kinds = dict.fromkeys(kind for effect in effects for kind in effect.beaten(confidence))
    return f"the deciding controls ({listing(list(kinds))})" if kinds else "the deciding controls"


def _tally(effects: Sequence[TaskEffect], confidence: float) -> str:
    """On how many tasks an edit beats its controls, those unseen or generated apart, and what else was found."""
    generated = [effect for effect in effects if effect.generated]
    choices = [effect for effect in effects if not effect.generated]
    kinds = {
        "task used for selection": [effect for effect in choices if effect.role != UNSEEN],
        "unseen task": [effect for effect in choices if effect.role == UNSEEN],
        "task of generated answers": generated,
    }
    parts = [f"{_count(some, SUPPORTED)} of {_counted(len(some), kind)}" for kind, some in kinds.items() if some]
    opposite, underpowered = (_count(effects, verdict) for verdict in (OPPOSITE, UNDERPOWERED))
    others = [f"opposite on {opposite}"] if opposite else []
    others += [f"too few items or controls on {underpowered}"] if underpowered else []
    failed = [effect for effect in effects if effect.verdict not in (SUPPORTED, OPPOSITE, UNDERPOWERED)]
    others += _unbeaten(failed, confidence)
    return listing(parts) + (f" ({'; '.join(others)})" if others else "")


def _count(effects: Sequence[TaskEffect], verdict: str) -> int:
    return sum(effect.verdict == verdict for effect in effects)


def _counted(number: int, kind: str) -> str:
    """2 tasks of generated answers."""
    return plural(number, kind) if kind == "unseen task" else plural(number, "task") + kind.removeprefix("task")


def _unbeaten(failed: Sequence[TaskEffect], confidence: float) -> list[str]:
    """By kind of control, the number of tasks on which it was not beaten; and of those whose change is too small.

    The tables name the tasks."""
    known = {effect.task: beaten for effect in failed if (beaten := effect.beaten(confidence))}
    kinds = dict.fromkeys(kind for beaten in known.values() for kind in beaten)
    counts = {kind: sum(not beaten.get(kind, True) for beaten in known.values()) for kind in kinds}
    said = [f"not beyond {kind} on {number}" for kind, number in counts.items() if number]
    small = sum(all(beaten.values()) for beaten in known.values())
    return said + ([f"no significant change on {small}"] if small else [])


def _on_all_items(effects: Sequence[TaskEffect]) -> str:
    changes = [change for effect in effects if (change := effect.sets["all"].change) is not None]
    if not changes:
        return ""
    spread = f" (from {points(min(changes))} to {points(max(changes))})" if len(changes) > 1 else ""
    return f"; on all items accuracy changes by {points(median(changes))} points in the median{spread}"


def caveats(effects: Sequence[TaskEffect], confidence: float) -> Iterator[str]:
    """How small a p can be, how many tests pass by chance, and what guessing again would do."""
    tested, alpha = [effect for effect in effects if effect.control.draws], 1 - confidence
    if choices := [effect for effect in tested if not effect.generated]:
        draws, tests = min(effect.control.draws for effect in choices), len(choices)
        yield (
            f"With {plural(draws, 'control draw')} no p can be below {probability(1 / (1 + draws))}, and "
            f"{plural(tests, 'test')} at {100 * alpha:g} % each would give about {tests * alpha:.1f} passes, in either "
            "direction, by chance alone. Holm's correction and one test over all tasks are given as well."
        )
    for (model, edit, expected), group in by_edit(effects).items():
        if expected == "increase" and (guessed := [pair for effect in group if (pair := _guessed(effect))]):
            below = sum(change <= guessing for change, guessing in guessed)
            yield (
                f"{model} answers every held-out critical item wrongly. Another choice of each, picked at random, puts "
                f"as many right as features {edited(edit)} do, or more, on {below} of "
                f"{plural(len(guessed), 'task')}."
            )
    if generated := [effect for effect in effects if effect.generated]:
        yield _about_generation(min(effect.sets["all"].control.draws for effect in generated), alpha)
    if tested and len({effect.expected for effect in effects}) > 1:
        yield (
            "Setting a feature to 0 does nothing where it is silent; setting it to a fixed value acts on every edited "
            "token. So the edits are no mirror images, although the same "
            f"{plural(effects[0].features, 'feature')} take part."
        )


def _guessed(effect: TaskEffect) -> tuple[float, float] | None:
    """The change on held-out items, and what guessing again among the other choices would give."""
    change, choices = effect.sets["held_out"].change, effect.choices
    return None if change is None or choices is None else (change, choices.guessing_again)


def _about_generation(draws: int, alpha: float) -> str:
    smallest = 1 / (1 + draws)
    few = ", too few for any verdict but underpowered, whatever the features do" if 2 * smallest > alpha else ""
    return (
        f"Edits of generated answers are compared with {plural(draws, 'set')} of random features, so no p there can be "
        f"below {probability(smallest)}{few}. Sampled answers differ when a model is merely asked again."
    )
