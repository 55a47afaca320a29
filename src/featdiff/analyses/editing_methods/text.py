"""What the ways to change the base show, in sentences made by fixed rules."""

from featdiff.analyses.editing_methods.result import WayOverlap, WayRow, WaySet, WaysPanel, called
from featdiff.presentation.words import UNDEFINED, listing, nats, plural, points, ratio
from featdiff.report.data import Unknown

DIRECT, INDIRECT = ("features", "steering"), ("neurons", "sft")
"""The companion paper's two classes: what injects a direction at the tap, and what acts through neurons or weights."""


def ways_verdicts(panel: WaysPanel) -> list[str]:
    """What may be said: who beats random edits, at which cost, and whether the same neurons move."""
    return [
        _beaten(panel, "reliability", "held-out critical items of the selecting tasks"),
        _beaten(panel, "generalization", "critical items of unseen tasks"),
        _raised(panel),
        _cost(panel),
        *_neurons(panel),
    ]


def _beaten(panel: WaysPanel, measure: str, where: str) -> str:
    found = {row.name: getattr(row, measure).get("critical") for row in panel.edits}
    known = {name: one for name, one in found.items() if one is not None and one.n}
    if not known:
        return f"On {where} nothing was measured: there are none."
    beaten = [
        f"{called(name)} ({points(one.change)} points against {points(one.control)})"
        for name, one in known.items()
        if one.verdict == "supported"
    ]
    rest = [f"{called(name)} ({one.beside})" for name, one in known.items() if one.verdict != "supported"]
    n, verb = next(iter(known.values())).n, "raises" if len(beaten) == 1 else "raise"
    if not beaten:
        return f"On {where} (n = {n:,}), no edit goes beyond random edits as large: {listing(rest)}."
    said = f"{listing(beaten)} {verb} the base beyond random edits as large"
    return f"On {where} (n = {n:,}), {said}{'; not so ' + listing(rest) if rest else ''}."


def _raised(panel: WaysPanel) -> str:
    """All items are the honest measure: none was chosen by its outcome."""
    parts = []
    for row in panel.rows:
        changes = [one.change if one is not None and one.n else None for one in _all_items(row)]
        parts.append(f"{called(row.name)} {points(changes[0])} and {points(changes[1])}")
    return f"On all items, of the selecting and of unseen tasks, in points: {listing(parts)}."


def _all_items(row: WayRow) -> tuple[WaySet | None, WaySet | None]:
    return row.reliability.get("all"), row.generalization.get("all")


def _cost(panel: WaysPanel) -> str:
    known = [row for row in panel.rows if row.kl is not None and not row.reference]
    if not known:
        return "Side effects on text were not measured."
    ordered = sorted(known, key=lambda row: row.kl or 0.0)
    costs = listing([f"{called(row.name)} {nats(row.kl)}" for row in ordered])
    target = next((row.kl for row in panel.rows if row.reference), None)
    return f"On neutral text the ways cost, in nats of KL per token: {costs}; {panel.target} itself {nats(target)}."


def _neurons(panel: WaysPanel) -> list[str]:
    return [_overlapping(one) for one in panel.overlaps if one.where == "above the tap"]


def _overlapping(one: WayOverlap) -> str:
    """The companion paper finds that direct ways share neurons, and indirect ways do."""
    parts = [
        f"{first} and {second} {ratio(value)}"
        for first, second in (DIRECT, INDIRECT)
        if (value := pair_overlap(one, first, second)) is not None
    ]
    crossed = [
        value for first in DIRECT for second in INDIRECT if (value := pair_overlap(one, first, second)) is not None
    ]
    across = ratio(sum(crossed) / len(crossed)) if crossed else UNDEFINED
    with_target = [
        f"{called(name)} {ratio(row[one.ways.index(one.target)])}"
        for name, row in zip(one.ways, one.jaccard, strict=True)
        if name != one.target
    ]
    return (
        f"Of the {plural(one.size, 'neuron')} {one.where} that each moves most (Jaccard; chance {ratio(one.chance)}): "
        f"{'; '.join(parts) or 'no pair of one class'}; across the two classes {across} on average; "
        f"with {one.target} {listing(with_target)}."
    )


def pair_overlap(one: WayOverlap, first: str, second: str) -> Unknown:
    """The overlap of two ways; None where one of them is not there."""
    if first not in one.ways or second not in one.ways:
        return None
    return one.jaccard[one.ways.index(first)][one.ways.index(second)]
