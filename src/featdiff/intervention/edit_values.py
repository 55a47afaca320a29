"""Values that features are set to, measured where the edit applies."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Int
from torch import Tensor

from featdiff.evaluation.batches import Positions
from featdiff.intervention.activity import Activity
from featdiff.intervention.edits import Edit, Patch
from featdiff.stats import Direction

EditValueKind = Literal["zero", "set", "mean", "quantile", "times_max", "tuned_mean", "patch"]


@dataclass(frozen=True)
class EditValue:
    """Rule for the values of edited features: controls are set by the same rule as the chosen features."""

    kind: EditValueKind
    by: float
    """The value, quantile or multiple, for kinds that have one."""
    source: str
    """The model whose values `tuned_mean` and `patch` bring in."""

    @property
    def name(self) -> str:
        """Name of the edit in tables."""
        match self.kind:
            case "zero":
                return "zero"
            case "set":
                return f"set to {self.by:.1f}"
            case "mean":
                return "set to their mean"
            case "quantile":
                return f"set to the {self.by:g} quantile of their active values"
            case "times_max":
                return f"set to {self.by:g} times their maximum"
            case "tuned_mean":
                return f"set to {self.source}'s mean active value"
            case "patch":
                return f"patched from {self.source}"

    def edit(
        self,
        features: Int[Tensor, " n"],
        own: Activity,
        given: Activity,
        positions: Positions,
        goal: Direction,
    ) -> Edit:
        """Set these features by the rule.

        `own` is their activity in the edited model, `given` that of the values which a patch from the source would set.
        """
        return Edit(features, self._value(features, own, given), positions, label=self.name, goal=goal)

    def _value(self, features: Int[Tensor, " n"], own: Activity, given: Activity) -> float | Tensor | Patch:
        match self.kind:
            case "zero":
                return 0.0
            case "set":
                return self.by
            case "mean":
                return own.mean[features]
            case "quantile":
                return own.quantiles[self.by][features]
            case "times_max":
                return self.by * own.maximum[features]
            case "tuned_mean":
                return given.mean_active[features]
            case "patch":
                return Patch(self.source)
