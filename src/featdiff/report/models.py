"""The models, the text that they read, and how each stage of the run was made, in the report."""

from pathlib import Path

from featdiff.config.study import BASE
from featdiff.files import load, load_by_name
from featdiff.models.loading import depth
from featdiff.presentation.section import Section
from featdiff.run.folder import StageNote
from featdiff.run.plan import MADE_BY, Plan
from featdiff.run.results import TraceCounts, fit_of, stream_of

Origin = tuple[str, dict[str, str]]
"""How a model was made, and anything worth a line each."""


def models_section(plan: Plan) -> Section:
    """Where the models come from, and what they read."""
    return Section(
        anchor="models",
        title="Models and training",
        template="models.html",
        values={
            "paths": {name: plan.paths[name] for name in plan.models},
            "origins": {name: _origin(plan, name) for name in plan.models},
            "stream": stream_of(plan),
            "blocks": depth(plan.paths[BASE], trust_remote_code=plan.study.lineup.trust_remote_code),
            "sources": {Path(source.path).name: source.share for source in plan.study.corpus.sources},
            "held_out": fit_of(plan, plan.joint).tokens,
        },
    )


def provenance_section(plan: Plan) -> Section:
    """By which method, version and machine each stage was made, and for how long."""
    notes = load_by_name(StageNote, plan.run.path("provenance.json"))
    return Section(
        anchor="provenance",
        title="Provenance",
        template="provenance.html",
        values={"notes": notes, "seed": plan.study.seed, "libraries": _libraries(notes)},
    )


def _libraries(notes: dict[str, StageNote]) -> dict[str, dict[str, str]]:
    """By stage the versions of Python and of libraries: of the first all, of others what differs from it."""
    known = dict[str, str]()
    found = dict[str, dict[str, str]]()
    for stage, note in notes.items():
        versions = {"python": note.python, **note.versions}
        found[stage] = {
            name: version for name, version in versions.items() if name != "featdiff" and known.get(name) != version
        }
        known = known or versions
    return found


def _origin(plan: Plan, name: str) -> Origin:
    settings = plan.study.posttrain
    if name == BASE or settings is None:
        return "given", {}
    if MADE_BY[name] == "sft":
        traces = load(TraceCounts, plan.run.path("posttrain", "sft", "traces.json"))
        return "supervised fine-tuning on teacher traces", {
            "traces": f"{traces.kept} kept, {traces.wrong} with a wrong final answer left out",
            "learning rate": f"{settings.sft.lr:g}",
            "batch": f"{settings.sft.batch_size} traces",
        }
    return "GRPO on the same prompts, outcome reward", {
        "reward": settings.reward,
        "learning rate": f"{settings.grpo.lr:g}",
        "batch": f"{settings.grpo.prompts_per_generation} prompts x {settings.grpo.rollouts} rollouts",
        "clipping": f"{settings.grpo.clip_low:g} below, {settings.grpo.clip_high:g} above",
        "KL weight": f"{settings.grpo.beta:g}",
    }
