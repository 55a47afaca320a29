"""Which model owns each feature (Eq. 4, 8-10), and whether it is absent from the others or only shrunk there."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write `<crosscoder>.safetensors` (scores, nu) and `<crosscoder>.json` (tails) for every crosscoder.

    One pass of the models over held-out tokens serves the latent scaling of all crosscoders.
    """
    from featdiff.analyses.ownership.compute import write_ownership
    from featdiff.attribution import latent_scalings
    from featdiff.crosscoder import Crosscoder
    from featdiff.run.held_out import held_out_activations
    from featdiff.run.models import load_lineup
    from featdiff.run.scored import attribution_of

    settings, device = plan.study.attribution, plan.study.lineup.device
    scalings = latent_scalings(
        [Crosscoder.load(plan.run.path("crosscoders", name)).to(device) for name in plan.crosscoders],
        held_out_activations(plan, load_lineup(plan, plan.harvested), settings.scaling.tokens),
        space=settings.space,
        min_active=settings.scaling.min_active,
        seed=plan.study.seed,
    )
    for name, scaling in zip(plan.crosscoders, scalings, strict=True):
        write_ownership(attribution_of(plan, name), scaling, settings, folder / name)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    from featdiff.analyses.ownership.text import section_of

    return section_of(plan)


def summary(plan: Plan) -> dict[str, Json]:
    """Alive features above each cut, by crosscoder and model."""
    from featdiff.analyses.ownership.result import Ownership
    from featdiff.files import load

    places = {name: plan.run.path("attribution", f"{name}.json") for name in plan.crosscoders}
    return {"tails": {name: load(Ownership, path).summary() for name, path in places.items() if path.is_file()}}
