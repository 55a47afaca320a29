"""Settings of what is followed over checkpoints, and of what is compared over seeds."""

from typing import Annotated, Literal

from annotated_types import Gt, Lt

from featdiff.config.base import Count, Settings

AlignmentName = Literal["joint", "matched", "swap", "same_seed_index"]


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
