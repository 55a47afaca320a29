"""What a report needs to know: plain values, filled from the files of a run.

Accuracies, shares and changes are fractions (0.25 is 25 %, or 25 points of change); an interval is [low, high].
Sequences may be lists or tuples, so that JSON goes straight in. A part that a study does not have is empty or None, and
the page says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from featdiff.analyses.editing_methods.result import WaysPanel
from featdiff.analyses.feature_cards.result import FeatureCard
from featdiff.analyses.intervention.result import CausalPanel, GeneratedRow
from featdiff.analyses.ownership.result import TailPanel
from featdiff.analyses.sensitivity.result import SensitivityPanel
from featdiff.attribution import Attribution
from featdiff.presentation.words import Interval, Number, Unknown

TRAIN, UNSEEN = "train", "unseen"
"""Roles of a task: trained on; kept out of the selection of features."""


@dataclass(frozen=True)
class ModelCard:
    """One model of the lineup: where it lies, how it was made, and anything worth a line each."""

    name: str
    path: str
    origin: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CorpusCard:
    """The text that every model read: sources with their shares, and how many tokens were kept."""

    sources: Mapping[str, Number]
    tokens_seen: int
    first_dropped: int
    sinks_dropped: int
    tokens_kept: int
    tokens_held_out: int


@dataclass(frozen=True)
class AccuracyCell:
    """Accuracy of one model on one task (Table 1).

    `constant_baseline` is what always giving one answer would score. `gain_interval` is the paired interval of the
    difference to the base; where it is absent, a gain counts only if the two intervals do not touch.
    """

    value: Number
    n: int
    interval: Interval
    constant_baseline: Number
    role: str
    gain_interval: Interval | None = None
    note: str = ""
    """What a reader must know about the task's questions."""
    churn: str = ""
    """Of a tuned model: whether the items that it gained are more than churn, in one sentence."""


@dataclass(frozen=True)
class QualityRow:
    """How well one crosscoder fits, on one kind of text ("held-out corpus", "evaluation prompts")."""

    lineup: str
    measured_on: str
    tokens: int
    features: int
    sparsity: str
    variance_explained: Mapping[str, Unknown]
    ce_recovered: Mapping[str, Unknown]
    kl_recovered: Mapping[str, Unknown]
    l0: Number
    dead_share: Number


@dataclass(frozen=True)
class SpecificityPanel:
    """The scores of one model's features in one crosscoder, as a histogram over the alive ones (Fig. 1, 3)."""

    lineup: str
    model: str
    score: str
    """"NRN" in a crosscoder of two models, "MAS" in one of more."""
    aligned: Sequence[str]
    """All models of that crosscoder, base first; a feature that they share equally scores 1 / len(aligned)."""
    features: int
    alive: int
    edges: Sequence[Number]
    counts: Sequence[int]
    tails: Mapping[str, int]
    """Alive features above each cut, by the cut, for example "0.8"."""
    tails_l2: Mapping[str, int] = field(default_factory=dict)
    """The same under the L2 norm."""

    @staticmethod
    def of(
        attribution: Attribution, model: str, *, lineup: str, cuts: Sequence[float] = (0.8, 0.9), bins: int = 50
    ) -> "SpecificityPanel":
        """Count one model's alive features in equal bins between 0 and 1."""
        scores = attribution[model][attribution.alive].float().cpu()
        l2 = attribution.mas_l2[:, attribution.models.index(model)][attribution.alive]
        tails = attribution.tails(model, cuts)
        return SpecificityPanel(
            lineup=lineup,
            model=model,
            score="NRN" if len(attribution.models) == 2 else "MAS",
            aligned=attribution.models,
            features=len(attribution.alive),
            alive=tails["alive"],
            edges=torch.linspace(0, 1, bins + 1, dtype=torch.float64).tolist(),
            counts=torch.histc(scores, bins=bins, min=0, max=1).long().tolist(),
            tails={f"{cut:g}": tails[f"{cut:g}"] for cut in cuts},
            tails_l2={f"{cut:g}": int((l2 > cut).sum()) for cut in cuts},
        )


@dataclass(frozen=True)
class SelectionPanel:
    """Which features were selected, by which rule, from how many critical items of each task (Fig. 4)."""

    model: str
    lineup: str
    score: str
    threshold: Number
    rule: str
    tasks: Sequence[str]
    per_task: Mapping[str, int]
    critical: Mapping[str, int]
    """Items that the base gets wrong and the model right, by task."""
    mirror: Mapping[str, int]
    """Items that the base gets right and the model wrong, by task."""
    chosen: Sequence[int]
    overlap: Sequence[Sequence[Number]]
    """Jaccard overlap of the features of each two tasks."""
    in_at_least: Sequence[int] = ()
    """Number of features selected in at least 1, 2, ... tasks."""


@dataclass(frozen=True)
class FoundAgain:
    """One selected feature under other seeds."""

    feature: int
    matched_in: int
    mean: Unknown
    deviation: Unknown


@dataclass(frozen=True)
class ChosenStability:
    """The selected features under `other_seeds` other seeds; a stable one is matched in at least `needed` of them."""

    model: str
    other_seeds: int
    needed: int
    features: Sequence[FoundAgain]

    @property
    def stable(self) -> int | None:
        """How many are; None where there are too few seeds to tell."""
        if self.other_seeds < self.needed:
            return None
        return sum(one.matched_in >= self.needed for one in self.features)


@dataclass(frozen=True)
class SetChange:
    """Accuracy on one set of n items before and after an edit; `interval` is that of the change.

    `before` and `after` are None where there are no items.
    """

    before: Unknown
    after: Unknown
    n: int
    interval: Sequence[Unknown]

    @property
    def change(self) -> Unknown:
        """After less before."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class ControlDraws:
    """The change that random features of matched activity make on the set called `measured_on`, draw by draw."""

    draws: int
    mean: Unknown
    interval: Sequence[Unknown]
    values: Sequence[Number] = ()
    measured_on: str = "critical"


@dataclass(frozen=True)
class EffectRow:
    """What one edit of the selected features does to one model on one task (Tables 2-5)."""

    task: str
    role: str
    model: str
    edit: str
    """"zero", or in words what is done to the features, for example "set to 3.0"."""
    expected: str
    """"decrease" or "increase": what a feature that controls generalization would do."""
    features: int
    sets: Mapping[str, SetChange]
    """By name: critical, mirror, all, held_out."""
    control: ControlDraws
    p: Number
    """Empirical p in the expected direction, against the deciding kind of control that does most."""
    verdict: str
    beaten: Mapping[str, bool] = field(default_factory=dict)
    """By deciding kind of control: whether the change lies beyond it. Empty where kinds were not taken apart."""
    guessing_again: Number | None = None
    """Share of wrong answers that another choice, picked at random, would put right; of choices only."""
    generated: GeneratedRow | None = None
    """Where answers are generated rather than chosen; no features are selected on such a task, whatever its role."""


@dataclass(frozen=True)
class ReportData:
    """Everything that the page says."""

    study: str
    models: Sequence[ModelCard]
    """Base first."""
    layer: int
    blocks: int
    d_model: int
    corpus: CorpusCard
    accuracy: Mapping[str, Mapping[str, AccuracyCell]]
    """By task, then by model."""
    quality: Sequence[QualityRow]
    specificity: Sequence[SpecificityPanel]
    selection: SelectionPanel | None
    effects: Sequence[EffectRow]
    provenance: Mapping[str, str]
    confidence: Number = 0.95
    crosscoder_seeds: int = 1
    """Crosscoders of each kind that were trained from different seeds."""
    tails: Sequence[TailPanel] = ()
    """Tails before and after latent scaling."""
    cards: Sequence[FeatureCard] = ()
    """Evidence for single features."""
    chosen_stability: ChosenStability | None = None
    """The selected features under other seeds."""
    sensitivity: SensitivityPanel | None = None
    """What hangs on choices of the dictionary; None where they are not varied."""
    causal: CausalPanel = field(default_factory=CausalPanel)
    """Claims, controls, doses, side effects, and where the selected features come from."""
    ways: WaysPanel | None = None
    """Features beside other ways to change the base."""
    shrinkage: Unknown = None
    """beta / 2 where an L1 penalty was used: contributions below it vanish from a model."""
