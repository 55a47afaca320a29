"""The tails of the report: before and after latent scaling, beside BatchTopK."""

from collections.abc import Mapping

from featdiff.analyses.ownership.result import PeerTails, TailPanel
from featdiff.config.study import BASE
from featdiff.run.ownership import scaled_tails_of, scaling_of
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of


def tail_panels(plan: Plan, sparsity: Mapping[str, str]) -> list[TailPanel]:
    """A panel for every tuned model of the crosscoders that `sparsity` puts in words, and of their BatchTopK peers.

    There are none where the stage `attribute` has not been made.
    """
    if not plan.run.path("attribution").is_dir():
        return []
    names = dict.fromkeys([*sparsity, *filter(None, (_peer_name(plan, name) for name in sparsity))])
    return [
        _panel(plan, name, model, sparsity.get(name, "BatchTopK"))
        for name in names
        for model in plan.crosscoders[name].models
        if model != BASE
    ]


def _panel(plan: Plan, name: str, model: str, sparsity: str) -> TailPanel:
    attribution, scaling = attribution_of(plan, name), scaling_of(plan, name)
    settings = plan.study.attribution.scaling
    return TailPanel.of(
        attribution,
        scaling,
        scaled_tails_of(plan, attribution, scaling, model),
        lineup=name,
        sparsity=sparsity,
        peer=_peer(plan, name, model),
        max_error=settings.max_error,
        max_reconstruction=settings.max_reconstruction,
    )


def _peer(plan: Plan, name: str, model: str) -> PeerTails | None:
    other = _peer_name(plan, name)
    if other is None:
        return None
    tails = attribution_of(plan, other).tails(model, plan.study.attribution.tails)
    cuts = {cut: number for cut, number in tails.items() if cut != "alive"}
    return PeerTails(other, plan.crosscoders[other].features, tails["alive"], cuts)


def _peer_name(plan: Plan, name: str) -> str | None:
    """The first BatchTopK crosscoder over the same models, unless `name` is one itself."""
    own = plan.crosscoders[name]
    if own.sparsity.kind == "batchtopk":
        return None
    peers = (other for other, one in plan.crosscoders.items() if one.sparsity.kind == "batchtopk")
    return next((other for other in peers if plan.crosscoders[other].models == own.models), None)
