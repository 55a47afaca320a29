"""Sensitivity in sentences: for each quantity what changes it by more than another seed does, with the numbers."""

from featdiff.analyses.sensitivity.result import BASES, OWN, ChoiceRow, QuantityRow, SensitivityPanel, overall
from featdiff.presentation.words import listing, percent, plural, points, ratio

WRITTEN = {"share": percent, "similarity": ratio, "effect": points}
UNITS = {"share": " %", "similarity": "", "effect": " points"}


def sensitivity_sentences(panel: SensitivityPanel) -> list[str]:
    """One for each quantity."""
    return [_sentence(panel, one) for one in panel.quantities]


def _sentence(panel: SensitivityPanel, one: QuantityRow) -> str:
    rows = [row for row in panel.choices if row.kind not in OWN]
    by = {
        verdict: [row for row in rows if overall(row, one.key) == verdict]
        for verdict in ("not robust", "undecided", "robust", "no yardstick", "not measured")
    }
    judged = sum(len(by[verdict]) for verdict in ("not robust", "undecided", "robust"))
    said = [f"robust to {len(by['robust'])} of {plural(judged, 'choice')}"] if judged else []
    if by["not robust"]:
        said.append(f"not robust to {listing([_named(row, one) for row in by['not robust']])}")
    if by["undecided"]:
        said.append(f"undecided: {listing([row.label for row in by['undecided']])}")
    if by["no yardstick"]:
        said.append(_no_yardstick(panel, one))
    if by["not measured"]:
        said.append(f"not measured: {listing([row.label for row in by['not measured']])}")
    return f"{one.label}{_seeds(panel, one)}: {'; '.join(said) if said else 'touched by no choice'}."


def _no_yardstick(panel: SensitivityPanel, one: QuantityRow) -> str:
    """Why no choice can be judged."""
    if panel.seeds < 2 or one.kind != "similarity":
        return "fewer than two seeds have it, so no choice can be judged"
    return "further seeds are no more like the study's own than chance is, so it is a result of the seed"


def _seeds(panel: SensitivityPanel, one: QuantityRow) -> str:
    """The number of the study's own crosscoder, and the range of its seeds, at equal L0."""
    read = {row.label: (row.kind, row.at["l0"][one.key].value) for row in panel.choices if one.key in row.at["l0"]}
    seeds = [value for kind, value in read.values() if kind == "seed" and value is not None]
    own = [value for kind, value in read.values() if kind == "reference" and value is not None]
    write, unit = WRITTEN[one.kind], UNITS[one.kind]
    said = [f"{write(own[0])}{unit}"] if own and one.kind != "similarity" else []
    if seeds:
        said.append(f"seeds {write(min(seeds))} to {write(max(seeds))}{unit}")
    return f" ({', '.join(said)})" if said else ""


def _named(row: ChoiceRow, one: QuantityRow) -> str:
    """A choice with the number that is not robust, where it is read."""
    for base, words in BASES.items():
        cell = row.at[base].get(one.key)
        if cell is not None and cell.verdict == "not robust":
            return f"{row.label} ({WRITTEN[one.kind](cell.value)}{UNITS[one.kind]} {words})"
    raise AssertionError("it is not robust at one of the two")
