"""The models of a study: up to the tap, or whole."""

from featdiff.models.loading import Lineup, PreTrainedModel, load_model
from featdiff.run.plan import Plan


def load_lineup(plan: Plan, names: tuple[str, ...], held: tuple[str, ...] | None = None) -> Lineup:
    """Models of the study up to the tap; of `names`, which must fit each other, those that are `held`, or all."""
    settings = plan.study.lineup
    return Lineup.load(
        {name: plan.paths[name] for name in names},
        layer=settings.layer,
        dtype=settings.dtype,
        device=settings.device,
        devices=settings.devices,
        turns=settings.turns,
        held=held,
        attention=settings.attention,
        trust_remote_code=settings.trust_remote_code,
    )


def load_whole(plan: Plan, path: str) -> PreTrainedModel:
    """A whole model, with the study's precision and device."""
    settings = plan.study.lineup
    return load_model(path, dtype=settings.dtype, device=settings.device, trust_remote_code=settings.trust_remote_code)
