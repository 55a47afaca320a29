"""Tails of models that no crosscoder was trained on, read through the crosscoder of the base and a tuned model."""

from jaxtyping import Bool, Float
from torch import Tensor

from featdiff.activations.stream import Calibration, collect
from featdiff.attribution.swap import swap_specificity
from featdiff.attribution.tail_comparison import Tail
from featdiff.config.study import BASE
from featdiff.crosscoder import Crosscoder
from featdiff.models.loading import Lineup
from featdiff.run.held_out import calibration_of, held_out_corpus
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of

COMPARED = "compared"
"""Name of the model that takes the tuned model's place."""


class Tails:
    """Specificity with any model in a tuned model's place; what was measured once is kept."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._found = plan, dict[tuple[str, str], Tensor]()
        self.places = tuple(tuned for tuned in plan.tuned if plan.pair(tuned) is not None)
        """Tuned models with a crosscoder of their own and the base."""

    def counts(self, place: str, path: str) -> dict[str, int] | None:
        """Features above each cut, and how many were measured; None where the tuned model has no such crosscoder."""
        if place not in self.places:
            return None
        tails = {f"{cut:g}": self.tail(place, path, cut).specific for cut in self._plan.study.attribution.tails}
        return tails | {"measured": self.tail(place, path, 1.0).measured}

    def tail(self, place: str, path: str, cut: float) -> Tail:
        """Features above one cut, with the model at `path` in the place of a tuned model."""
        return Tail.of(self.specificity(place, path), self.alive(place), cut)

    def alive(self, place: str) -> Bool[Tensor, " features"]:
        """Which features of the tuned model's crosscoder are alive."""
        return attribution_of(self._plan, self._pair(place)).alive.cpu()

    def specificity(self, place: str, path: str) -> Float[Tensor, " features"]:
        """By `attribution.swap`; nan where it cannot be measured."""
        if (place, path) not in self._found:
            self._found[place, path] = self._measured(place, path)
        return self._found[place, path]

    def _measured(self, place: str, path: str) -> Float[Tensor, " features"]:
        study = self._plan.study
        crosscoder = Crosscoder.load(self._plan.run.path("crosscoders", self._pair(place)))
        found = swap_specificity(
            [crosscoder.to(study.lineup.device)],
            _streams(self._plan, place, path),
            [COMPARED],
            p=study.attribution.norm_p,
            space=study.attribution.space,
            min_active=study.drift.min_active,
        )
        return found[0][0]

    def _pair(self, place: str) -> str:
        pair = self._plan.pair(place)
        assert pair is not None, "one of `places`"
        return pair


def _streams(plan: Plan, place: str, path: str):
    """Held-out activations of the base, the tuned model, and the model at `path`, whose sinks are the tuned one's."""
    settings = plan.study.lineup
    lineup = Lineup.load(
        {BASE: plan.paths[BASE], place: plan.paths[place], COMPARED: path},
        layer=settings.layer,
        dtype=settings.dtype,
        device=settings.device,
        turns=settings.turns,
        attention=settings.attention,
        trust_remote_code=settings.trust_remote_code,
    )
    known = calibration_of(plan, (BASE, place))
    columns = [0, 1, 1]
    calibration = Calibration(lineup.names, known.largest_norm[columns], known.scale[columns])
    return collect(lineup, held_out_corpus(plan), calibration, plan.study.activations, plan.study.drift.tokens)
