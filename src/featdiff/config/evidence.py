"""The settings of what is asked of features: of absence, over seeds and checkpoints, of drift, and by examples."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from featdiff.config.base import Count, Positive, Settings

AlignmentName = Literal["joint", "matched", "swap", "same_seed_index"]


class ScalingSettings(Settings):
    """Whether a specific feature is absent from the other models, or only shrunk there (latent scaling)."""

    tokens: Count = 1_000_000
    """Held-out tokens that it is measured on; all of them where fewer are held out."""
    min_active: Count = 100
    """A feature that fired on fewer tokens than this is not measured."""
    max_error: Positive = 0.1
    """nu_eps from which a feature is present in another model, only shrunk. The published cut, 0.2, would still call
    absent what is five times weaker there."""
    max_reconstruction: Positive = 0.5
    """nu_r from which other features rebuild it in another model."""


class ExampleSettings(Settings):
    """Evidence for single features: where they fire most, and which tokens they write."""

    tokens: Count = 200_000
    """Held-out tokens that are searched; all of them where fewer are held out."""
    tail: Count = 8
    """Features of each tail that are shown, the most specific first; the selected features always are."""
    top: Count = 5
    """Contexts for each feature, from all models jointly and from each."""
    before: Annotated[int, Ge(0)] = 16
    """Tokens of context before the one that excites the feature."""
    after: Annotated[int, Ge(0)] = 6
    """Tokens of context after it."""
    nearest: Count = 8
    """Tokens that a feature raises most, read off its decoder through the final norm and the unembedding."""


class DriftSettings(Settings):
    """How far each tuned model has moved from the base, and what its tail is at less of the same change."""

    items: Count = 200
    """Items of each task whose right answers are predicted; tasks of the role `train`, or all where there is none."""
    neutral: str | None = None
    """Source of the corpus, by its path, that counts as neutral text; unset: the last one."""
    neutral_tokens: Count = 20_000
    """Tokens of neutral text."""
    alphas: tuple[Annotated[float, Gt(0), Lt(1)], ...] = (0.25, 0.5, 0.75)
    """Interpolations base + alpha (tuned - base) beside the one of equal KL."""
    tokens: Count = 100_000
    """Held-out tokens on which features are looked for in every model; all of them where fewer are held out."""
    min_active: Count = 100
    """A feature that fired on fewer of these is not counted."""
    accuracy_items: Count | None = None
    """Accuracy at equal drift is that on the first items of every task; unset: on all that are evaluated."""
    batch_size: Count = 4
    """Sequences whose predictions are compared at a time."""


class StabilitySettings(Settings):
    """Which features of two crosscoders are the same one (compared over `crosscoder.seeds`, and in dynamics)."""

    acceptance: Annotated[float, Gt(0), Lt(1)] = 0.7
    """Cosine of the decoders above which two features match; the share that does is shown for 0.5 to 0.9 as well."""


class DynamicsSettings(Settings):
    """How specific features form over checkpoints (Sec. 5.2)."""

    top: Count = 50
    """Features per checkpoint that are compared (Sec. 5.2)."""
    alignments: tuple[AlignmentName, ...] = ("joint", "matched", "swap", "same_seed_index")
    """What makes features of two checkpoints the same: one crosscoder over the base and all of them; a crosscoder each,
    paired by decoder direction; that of base and tuned model, with each checkpoint in the tuned model's place; or a
    crosscoder each, and the same index (the paper's)."""
    tokens: Count = 1_000_000
    """Held-out tokens on which `swap` measures the checkpoints; all of them where fewer are held out."""
    min_active: Count = 100
    """A feature that fired on fewer of these tokens takes no part in `swap`."""
