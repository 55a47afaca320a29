"""Settings of what may control generalization, and of its causal test."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import Field, model_validator

from featdiff.config.base import IMMATERIAL, Count, Positive, Settings, Share

ControlName = Literal[
    "activity-matched", "uniform alive", "random directions", "mean difference", "both right", "both wrong"
]

REDRAWN: tuple[ControlName, ...] = ("both right", "both wrong")
"""Items that are not critical, on which features are chosen again and again, as controls."""
NAMED = 1024
"""Features that such a choice names at most."""


class SelectionSettings(Settings):
    """Generalization-controlling features (Sec. 3.2, Eq. 11)."""

    model: str = "rl"
    """The tuned model whose generalization is explained."""
    lineup: str | None = None
    """Crosscoder that supplies the features; unset: the one over all models (Sec. 6)."""
    score: Literal["branch", "swap"] = "swap"
    """`branch` is the paper's; `swap` puts the base's activation in the tuned model's place. Both are stored."""
    rule: Literal["rel_max", "top_n", "t_bh"] = "rel_max"
    """Features that a task retains: above a share of its largest score (the paper's), its `top` largest, or those whose
    paired t over items survives a false discovery rate of `fdr`. What the others retain is stored as well."""
    threshold: Share = 0.2
    """rel_max: share of the task's largest score above which a feature is retained (Sec. 7: 20 %)."""
    top: Count = 50
    """top_n: features that a task retains."""
    fdr: Annotated[float, Gt(0), Lt(1)] = 0.05
    """t_bh: share of false discoveries among a task's features (Benjamini-Hochberg over the alive ones)."""
    at_least: Count = 1
    """Features wanted: where all tasks share fewer, those of as many tasks as share so many are chosen."""
    held_out: Annotated[float, Gt(0), Lt(1)] = 0.5
    """Share of the critical items of each task on which features chosen from the others are tested."""
    null_draws: Count = 1000
    """Random selections, as large and drawn by firing rate, that overlaps between tasks are compared with."""
    redraws: Count = 100
    """Choices from items that both models get right, or both wrong, each from as many items as are critical."""


class EditSettings(Settings):
    """One more edit of the chosen features."""

    model: Literal["tuned", "base"]
    """Which model is edited: the tuned one, which should get worse, or the base, which should get better."""
    kind: Literal["zero", "set", "mean", "quantile", "times_max", "tuned_mean", "patch"]
    """What the features are set to: 0; `by`; their mean over the edited tokens; the quantile `by` of their active
    values; `by` times their maximum; the other model's mean active value; or, token by token, what they would be with
    the other model's activation in this one's place."""
    by: float = 0.0
    """The value, quantile or multiple, for kinds that have one."""

    @model_validator(mode="after")
    def _quantile_is_a_share(self) -> "EditSettings":
        if self.kind == "quantile" and not 0 <= self.by <= 1:
            raise ValueError(f"the quantile {self.by:g} does not lie between 0 and 1; give by = 0.9, for example")
        return self


class InterventionSettings(Settings):
    """Zero in RL, amplify in base, with controls (Sec. 7.1, B.4)."""

    amplify: float = 3.0
    """Value to which features are set in the base (Sec. 7.1), in the gauge of unit summed decoder norm."""
    also: tuple[EditSettings, ...] = (EditSettings(model="base", kind="tuned_mean"),)
    """Further edits that are tested like these two."""
    positions: Literal["all", "prompt", "last_prompt", "generated"] = "all"
    """Which tokens are edited; padding never is."""
    reading: Literal["joint", "branch", "replicate"] = "joint"
    """From what the features that are edited are read: all models on the same tokens, the edited model's branch alone,
    or its activation in every slot."""
    error: Literal["keep", "drop"] = "keep"
    """Whether what the crosscoder does not reconstruct stays, or edited tokens first become their reconstruction."""
    controls: Count = 100
    """Draws of each kind of control that every effect is compared with."""
    draws: dict[ControlName, Annotated[int, Ge(0)]] = Field(default={})
    """Draws of single kinds of control, by name, where other than `controls`; 0 leaves a kind out."""
    generated_controls: Annotated[int, Ge(0)] = 5
    """Sets of features matched by activity that an edit of generated answers is compared with; each takes as long as
    the edit itself, and fewer than 39 cannot support it. 0 edits no generated answers."""
    doses: tuple[float, ...] = (0.0, 0.5, 0.8, 1.0, 1.5)
    """Multiples of each feature's maximum at which accuracy is measured, in both models."""
    dose_controls: Annotated[int, Ge(0)] = 20
    """Sets of features matched by activity that are measured at every dose."""
    neutral_tokens: Annotated[int, Ge(0)] = 20_000
    """Held-out tokens of the corpus on which the side effects of edits are measured; 0 leaves that out."""
    side_controls: Annotated[int, Ge(0)] = 5
    """Sets of features matched by activity whose side effects are measured as well."""
    items: Count | None = None
    """Intervene on at most so many items of a task of choices, drawn at random; unset: all. Generated answers are all
    asked for again; `limit` of a task makes them fewer."""
    bootstrap: Count = 10_000
    """Resamples behind every interval."""
    confidence: Annotated[float, Gt(0.5), Lt(1)] = 0.95
    """Coverage of every interval."""
    batch_size: Annotated[Count, IMMATERIAL] = 64
    """Sequences per forward pass."""

    @model_validator(mode="after")
    def _matched_controls_are_drawn(self) -> "InterventionSettings":
        if self.draws.get("activity-matched") == 0:
            raise ValueError("intervention.draws leaves out activity-matched, which every effect needs; draw some")
        return self

    def drawn(self, kind: ControlName) -> int:
        """Draws of one kind of control."""
        return self.draws.get(kind, self.controls)


class WaysSettings(Settings):
    """Four ways to put the tuned model's behaviour into the base, compared (the companion paper of EMNLP 2025)."""

    compare: bool = True
    """Whether they are compared: crosscoder features, a steering vector, MLP neurons, and tuned weights."""
    items: Count = 200
    """Items of each task on which a way's free choice is made, and as many others on which it is then measured; twice
    as many of an unseen task."""
    strengths: Annotated[tuple[Positive, ...], MinLen(1)] = (0.5, 1.0, 2.0, 4.0, 8.0)
    """Strengths among which one is chosen: multiples of the features' values in the tuned model, and of the mean
    difference between the models by which the base is steered."""
    neuron_shares: Annotated[tuple[Annotated[float, Gt(0), Lt(1)], ...], MinLen(1)] = (0.01, 0.03, 0.1)
    """Shares of all MLP neurons among which it is chosen how many are set to the tuned model's means."""
    controls: Count = 40
    """Random edits beside each way, as large as it: features, directions, neurons. Fewer than 39 decide nothing."""
    tried_controls: Count = 5
    """Random edits beside every strength and number that is tried: chosen is that of the largest lead over them."""
    examined: Count = 3
    """Of the controls, how many are also examined for side effects and for the neurons that they move."""
    moved_share: Annotated[float, Gt(0), Lt(1)] = 0.05
    """Share of the MLP neurons that count as moved by a way: those that it moves most."""
