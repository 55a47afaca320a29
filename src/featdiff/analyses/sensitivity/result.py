"""What the stage `sensitivity` finds: every crosscoder that was trained for it, and from these every choice of the
dictionary at equal L0 and at equal variance explained, with verdicts by fixed rules."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from featdiff.attribution.robustness import (
    NOT_MEASURED,
    Measurement,
    Robustness,
    interpolate_at,
    robustness_of_similarity,
    robustness_of_value,
)
from featdiff.config.crosscoder import Sparsity
from featdiff.config.study import BASE
from featdiff.intervention.effect_records import PooledRecord
from featdiff.run.results import HeldOutFit, Shares
from featdiff.selection.overlap import Null
from featdiff.stats import wilson_interval

BASES = {"l0": "at equal L0", "variance_explained": "at equal variance explained"}
"""Where choices are compared, in words."""
VERDICTS: tuple[Robustness, ...] = ("not robust", "undecided", "robust", "no yardstick", "not measured")
"""The first of them that either comparison gives is the verdict over both."""
OWN = ("reference", "seed")
"""Kinds of rows that are no choice: the study's own crosscoder, and its further seeds."""


Numbers = dict[str, Measurement]
"""By the key of a quantity."""


@dataclass(frozen=True)
class Tails:
    """Features of one model in one crosscoder: alive ones, and of these the numbers above each cut of the scores."""

    alive: int
    above: dict[str, int]
    absent: dict[str, int]
    """Of those above a cut, the ones that latent scaling finds absent from all other models."""


@dataclass(frozen=True)
class CrosscoderTails:
    """The tails of one crosscoder."""

    of: dict[str, Tails]
    """By model."""


@dataclass(frozen=True)
class SelectedFeatures:
    """What one crosscoder selects, and how similar that is to what the study's own selects."""

    chosen: tuple[int, ...]
    without_held_out: tuple[int, ...]
    """Selected without the held-out critical items."""
    rule: str
    per_task: dict[str, int]
    jaccard: Null | None
    """Of the final sets, features matched between the crosscoders; None where both are empty."""
    rbo: Null | None
    """Rank-biased overlap of the rankings."""
    matched: float | None
    """Share of alive features that match one of the study's own crosscoder."""


@dataclass(frozen=True)
class EditEffects:
    """One edit with one crosscoder's features, pooled over tasks."""

    held_out: PooledRecord
    """On held-out critical items."""
    all: PooledRecord


@dataclass(frozen=True)
class CrosscoderResult:
    """One crosscoder: a choice at one strength of its sparsity."""

    choice: str
    kind: str
    strength: float
    layer: int | None
    """None: the study's own."""
    sparsity: Sparsity
    variance_explained: Shares
    l0: float
    dead_share: float
    tokens: int
    """Held-out tokens on which the fit was measured."""
    ce_recovered: Shares | None
    tails: dict[str, Tails]
    """By model."""
    selection: SelectedFeatures | None
    effects: dict[str, EditEffects]
    """By the model that is edited."""

    @property
    def alive(self) -> int:
        """Features that are alive in any model."""
        return next(iter(self.tails.values())).alive


@dataclass(frozen=True)
class Quantity:
    """Something that is compared between choices: a share of features, a similarity, or an effect in points."""

    key: str
    label: str
    kind: Literal["share", "similarity", "effect"]


@dataclass(frozen=True)
class Cell:
    """A number of one choice, with its interval, its random baseline (mean, 97.5 % quantile), and its verdict."""

    value: float | None
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    chance_high: float | None = None
    verdict: Robustness | None = None


@dataclass(frozen=True)
class ChoiceResult:
    """One choice, further seed, or the study's own crosscoder: its numbers by quantity, read at equal L0 and at equal
    variance explained. A quantity that the choice cannot touch has no cell."""

    label: str
    kind: str
    l0: dict[str, Cell]
    variance_explained: dict[str, Cell]

    @property
    def at(self) -> Mapping[str, Mapping[str, Cell]]:
        """Cells by where they are read (`BASES`) and by quantity."""
        return {"l0": self.l0, "variance_explained": self.variance_explained}

    def verdict(self, key: str) -> Robustness | None:
        """The verdict over both readings: not robust if either says so, robust if whatever was measured is; None where
        the choice cannot touch the quantity."""
        found = [cells[key].verdict for cells in self.at.values() if key in cells]
        return next((one for one in VERDICTS if one in found), None)


@dataclass(frozen=True)
class Sensitivity:
    """The whole analysis."""

    coverage: float
    """Of the prediction interval behind a verdict."""
    rbo_p: float
    acceptance: float
    """Cosine above which two features match."""
    strengths: tuple[float, ...]
    at: dict[str, float]
    """L0 and unexplained share of variance of the study's own crosscoder."""
    quantities: tuple[Quantity, ...]
    choices: tuple[ChoiceResult, ...]
    points: tuple[CrosscoderResult, ...]

    @property
    def seeds(self) -> int:
        """Further seeds of the study's own crosscoder."""
        return sum(row.kind == "seed" for row in self.choices)

    @property
    def tables(self) -> list[tuple[str, list[Quantity]]]:
        """Quantities that fit side by side: those of owners, and those of the selected features."""
        shares = [one for one in self.quantities if one.kind == "share"]
        rest = [one for one in self.quantities if one.kind != "share"]
        named = [("Owners of features, in % of the alive ones", shares), ("Selected features and their effects", rest)]
        return [(title, found) for title, found in named if found]


def compared(
    points: Sequence[CrosscoderResult],
    rescored: Mapping[str, Mapping[str, Tails]],
    quantities: Sequence[Quantity],
    at: Mapping[str, float],
    confidence: float,
) -> tuple[ChoiceResult, ...]:
    """Compare choices with the study's own crosscoder, where they are as sparse and where they explain as much.

    Args:
        points: every crosscoder, those of one choice from the weakest sparsity to the strongest.
        rescored: tails of the study's own crosscoder by other scores and by model, which no curve is needed for.
        quantities: what is compared.
        at: L0 and unexplained share of variance of the study's own crosscoder.
        confidence: of the intervals of shares.
    """
    kinds = {one.choice: one.kind for one in points} | dict.fromkeys(rescored, "score")
    own = next(_numbers(one, confidence) for one in points if one.kind == "reference" and one.strength == 1)
    cells: dict[str, dict[str, dict[str, Cell]]] = {label: {} for label in kinds}
    for base, x in at.items():
        found = {label: _shares(tails, confidence) for label, tails in rescored.items()}
        for label in dict.fromkeys(one.choice for one in points):
            curve = [one for one in points if one.choice == label]
            xs, numbers = [bases_of(one)[base] for one in curve], [_numbers(one, confidence) for one in curve]
            found[label] = {
                key: interpolate_at(xs, [one.get(key, NOT_MEASURED) for one in numbers], x)
                for key in (one.key for one in quantities)
            }
        seeds = [found[label] for label, kind in kinds.items() if kind == "seed"]
        for label, kind in kinds.items():
            judged = {} if kind in OWN else _verdicts(quantities, found[label], own, seeds)
            cells[label][base] = {key: _cell(number, judged.get(key)) for key, number in found[label].items()}
    return tuple(ChoiceResult(label, kind, **cells[label]) for label, kind in kinds.items())


def bases_of(fit: HeldOutFit | CrosscoderResult) -> dict[str, float]:
    """What choices are compared at: L0, and the share of variance that is left over, the mean over models."""
    explained = [share for share in fit.variance_explained.values() if share is not None]
    return {"l0": fit.l0, "variance_explained": 1 - mean(explained)}


def _numbers(point: CrosscoderResult, confidence: float) -> Numbers:
    """All that is known of one crosscoder."""
    found = _shares(point.tails, confidence)
    if point.selection is not None:
        found |= {"jaccard": _similarity(point.selection.jaccard), "rbo": _similarity(point.selection.rbo)}
    for model, effects in point.effects.items():
        found[f"effect {model} held_out"] = _beyond_controls(effects.held_out)
        found[f"effect {model} all"] = _beyond_controls(effects.all)
    return found


def _shares(tails: Mapping[str, Tails], confidence: float) -> Numbers:
    """Shares of the alive features in each tail, and of those that latent scaling finds absent elsewhere."""
    found = Numbers()
    for model, one in tails.items():
        for name, counts in (("tail", one.above), ("absent", one.absent)):
            for cut, count in counts.items() if model != BASE else ():
                share = wilson_interval(count, one.alive, confidence=confidence)
                found[f"{name} {model} {cut}"] = Measurement(share.value, share.low, share.high)
    return found


def _similarity(found: Null | None) -> Measurement:
    if found is None:
        return NOT_MEASURED
    return Measurement(found.found, chance=found.null, chance_high=found.null_high)


def _beyond_controls(effect: PooledRecord) -> Measurement:
    """The change less the mean one under features matched by activity, with the interval of the change."""
    if effect.change is None:
        return NOT_MEASURED
    control, (low, high) = effect.controls["activity-matched"].mean, effect.interval
    assert control is not None, "where there is a change there are controls"
    return Measurement(effect.change - control, low - control, high - control)


def _verdicts(
    quantities: Sequence[Quantity], found: Numbers, own: Numbers, seeds: Sequence[Numbers]
) -> dict[str, Robustness]:
    verdicts = dict[str, Robustness]()
    for one in quantities:
        if one.key in found:
            of_seeds = [numbers[one.key] for numbers in seeds]
            verdicts[one.key] = (
                robustness_of_similarity(found[one.key], of_seeds)
                if one.kind == "similarity"
                else robustness_of_value(found[one.key], own.get(one.key, NOT_MEASURED), of_seeds)
            )
    return verdicts


def _cell(number: Measurement, verdict: Robustness | None) -> Cell:
    values = (number.value, number.low, number.high, number.chance, number.chance_high)
    return Cell(*map(_defined, values), verdict=verdict)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
