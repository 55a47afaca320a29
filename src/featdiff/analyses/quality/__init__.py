"""How well the crosscoders explain the models, on held-out text and on the evaluation prompts."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write `<lineup>.json` for every lineup that aligns tuned models with the base (not the checkpoints)."""
    from featdiff.analyses.quality.compute import fit, prompt_parts
    from featdiff.crosscoder import Crosscoder
    from featdiff.files import save
    from featdiff.run.evaluation import choice_tasks, longest_read, requests_of
    from featdiff.run.held_out import calibration_of
    from featdiff.run.models import load_lineup, load_whole
    from featdiff.run.scored import held_out_statistics
    from featdiff.run.splice import harvest

    names = tuple(name for name in plan.lineups if set(plan.crosscoders[name].models) <= set(plan.models))
    lineup = load_lineup(plan, tuple(model for model in plan.models if model in plan.models_of(names)))
    longest, batch_size = longest_read(lineup), plan.study.intervention.batch_size
    parts = [
        part
        for task in choice_tasks(plan)
        for part in prompt_parts(requests_of(plan, task.name, lineup), longest, batch_size)
    ]
    harvested = harvest(lineup, calibration_of(plan, lineup.names), parts, plan.study.activations.buffer_mib)
    for name in names:
        crosscoder = Crosscoder.load(plan.run.path("crosscoders", name)).to(plan.study.lineup.device)
        mean = held_out_statistics(plan, name)["mean"]
        found = fit(crosscoder, lineup, harvested, mean, lambda model: load_whole(plan, plan.paths[model]))
        save(found, folder / f"{name}.json")


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    from featdiff.analyses.quality.text import section_of

    return section_of(plan)


def summary(plan: Plan) -> dict[str, Json]:
    """Variance explained, recovered cross-entropy, L0 and dead features of every lineup's first seed."""
    from featdiff.analyses.quality.text import headline_numbers

    return {"quality": headline_numbers(plan)}
