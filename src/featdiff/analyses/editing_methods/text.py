"""Editing methods in the report: tables, and what they show in sentences made by fixed rules."""

from collections.abc import Mapping

from featdiff.analyses.editing_methods.figures import called, overlap_pictures
from featdiff.analyses.editing_methods.result import ABOVE, Change, Changes, EditingMethods, NeuronOverlap
from featdiff.presentation.section import Section
from featdiff.presentation.words import UNDEFINED, listing, nats, plural, points, ratio

DIRECT, INDIRECT = ("features", "steering"), ("neurons", "sft")
"""The companion paper's two classes: what injects a direction at the hook point, and what acts through neurons or
weights."""


def section_of(found: EditingMethods) -> Section:
    """Sentences, what each method does and costs, and the neurons that they move."""
    compared = bool(found.methods)
    return Section(
        anchor="ways",
        title="Four ways to the same behaviour",
        template="editing_methods/section.html",
        values={"found": found, "verdicts": verdicts(found) if compared else []},
        figures=list(overlap_pictures(found.overlaps)),
    )


def verdicts(found: EditingMethods) -> list[str]:
    """What may be said: who beats random edits, at which cost, and whether the same neurons move."""
    reliability = {method.name: method.reliability for method in found.edits}
    generalization = {method.name: one for method in found.edits if (one := method.generalization)}
    return [
        _beaten(reliability, "held-out critical items of the selecting tasks"),
        _beaten(generalization, "critical items of unseen tasks"),
        _raised(found),
        _cost(found),
        *(_overlapping(one) for one in found.overlaps if one.where == ABOVE),
    ]


def _beaten(measured: Mapping[str, Changes], where: str) -> str:
    known = {name: (one.critical, one.critical.compared) for name, one in measured.items() if one.critical.n}
    beaten, rest = list[str](), list[str]()
    for name, (one, compared) in known.items():
        if compared is not None and compared.verdict == "supported":
            beaten.append(f"{called(name)} ({points(one.change)} points against {points(compared.control.mean)})")
        elif compared is not None:
            rest.append(f"{called(name)} ({compared.short})")
    if not known:
        return f"On {where} nothing was measured: there are none."
    n, verb = next(iter(known.values()))[0].n, "raises" if len(beaten) == 1 else "raise"
    if not beaten:
        return f"On {where} (n = {n:,}), no edit goes beyond random edits as large: {listing(rest)}."
    said = f"{listing(beaten)} {verb} the base beyond random edits as large"
    return f"On {where} (n = {n:,}), {said}{'; not so ' + listing(rest) if rest else ''}."


def _raised(found: EditingMethods) -> str:
    """All items are the honest measure: none was chosen by its outcome."""
    parts = []
    for method in found.methods:
        generalization = method.generalization.all if method.generalization else None
        seen, unseen = (_change(one) for one in (method.reliability.all, generalization))
        parts.append(f"{called(method.name)} {points(seen)} and {points(unseen)}")
    return f"On all items, of the selecting and of unseen tasks, in points: {listing(parts)}."


def _change(one: Change | None) -> float | None:
    return one.change if one is not None and one.n else None


def _cost(found: EditingMethods) -> str:
    known = {method.name: kl for method in found.methods if (kl := method.side_effects.kl) is not None}
    target = known.pop(found.target, None)
    if not known:
        return "Side effects on text were not measured."
    costs = listing([f"{called(name)} {nats(known[name])}" for name in sorted(known, key=lambda name: known[name])])
    return f"On neutral text the ways cost, in nats of KL per token: {costs}; {found.target} itself {nats(target)}."


def _overlapping(one: NeuronOverlap) -> str:
    """The companion paper finds that direct methods share neurons, and indirect ones do."""
    parts = [
        f"{first} and {second} {ratio(value)}"
        for first, second in (DIRECT, INDIRECT)
        if (value := one.pair(first, second)) is not None
    ]
    crossed = [value for first in DIRECT for second in INDIRECT if (value := one.pair(first, second)) is not None]
    across = ratio(sum(crossed) / len(crossed)) if crossed else UNDEFINED
    with_target = [f"{called(name)} {ratio(one.pair(name, one.target))}" for name in one.methods if name != one.target]
    return (
        f"Of the {plural(one.size, 'neuron')} {one.where} that each moves most (Jaccard; chance "
        f"{ratio(one.chance.mean)}): {'; '.join(parts) or 'no pair of one class'}; across the two classes {across} on "
        f"average; with {one.target} {listing(with_target)}."
    )
