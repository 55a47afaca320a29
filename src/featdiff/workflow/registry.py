"""The stages of a study, in the order in which they are made. Nothing else knows the list.

To add an analysis, write its folder under analyses/ and a `Stage` here; docs/add-an-analysis.md shows how. Each `run`
imports what it needs when it is called, so that `featdiff --help` answers without torch.
"""

from dataclasses import replace

from featdiff import demo, posttraining, report, run
from featdiff.analyses import (
    accuracy,
    drift,
    dynamics,
    editing_methods,
    feature_cards,
    intervention,
    ownership,
    quality,
    selection,
    sensitivity,
    stability,
)
from featdiff.analyses.accuracy.cost import cost as accuracy_cost
from featdiff.analyses.drift.cost import cost as drift_cost
from featdiff.analyses.dynamics.cost import cost as dynamics_cost
from featdiff.analyses.editing_methods.cost import cost as editing_methods_cost
from featdiff.analyses.feature_cards.cost import cost as feature_cards_cost
from featdiff.analyses.intervention.cost import cost as intervention_cost
from featdiff.analyses.ownership.cost import cost as ownership_cost
from featdiff.analyses.quality.cost import cost as quality_cost
from featdiff.analyses.selection.cost import cost as selection_cost
from featdiff.analyses.sensitivity.cost import cost as sensitivity_cost
from featdiff.analyses.stability.cost import cost as stability_cost
from featdiff.config import methods
from featdiff.config.fingerprint import outside
from featdiff.costs.estimate import Cost, CostInputs
from featdiff.costs.training import cost as training_cost
from featdiff.files import Json
from featdiff.posttraining import cost as posttraining_cost
from featdiff.presentation.section import Section
from featdiff.run.folder import StagePlan
from featdiff.run.plan import Plan
from featdiff.workflow.stage import Stage

PLACEMENT = ("lineup.device", "lineup.devices", "lineup.turns")
MODELS = ("lineup.base", "lineup.tuned", "lineup.dtype", "lineup.trust_remote_code", *PLACEMENT)
PROMPTS = tuple(f"posttrain.{name}" for name in ("prompts", "prompt_field", "answer_field", "limit"))
POSTTRAINING = (*MODELS[:1], *MODELS[2:5], *PROMPTS, "posttrain.reward", "posttrain.checkpoints")
ALIVE = ("attribution.norm_p", "attribution.space", "attribution.min_density")
EDITING = tuple(
    f"intervention.{name}"
    for name in ("amplify", "positions", "reading", "error", "neutral_tokens", "bootstrap", "confidence", "batch_size")
)
MADE = ("inputs", "sft", "grpo")


def _has_tasks(plan: Plan) -> bool:
    return bool(plan.study.evaluation.tasks)


def _task_data(plan: Plan) -> dict[str, Json]:
    return {"evaluation.data_folder": {path: outside(path) for path in plan.study.evaluation.data_paths}}


def _crosscoders(plan: Plan) -> dict[str, Json]:
    return {"crosscoder": {name: one.model_dump(mode="json") for name, one in plan.crosscoders.items()}}


STAGES: tuple[Stage, ...] = (
    Stage(
        name="inputs",
        help="Write the models, prompts, texts and tasks that ship with featdiff.",
        method=1,
        settings=(),
        after=(),
        run=demo.run,
        in_study=lambda plan: plan.uses_demo,
    ),
    Stage(
        name="sft",
        help="Tune the base on teacher traces that end in the right answer.",
        method=1,
        settings=(
            *POSTTRAINING,
            "posttrain.teacher",
            "posttrain.teacher_model",
            "posttrain.teacher_max_tokens",
            "posttrain.sft",
        ),
        after=("inputs",),
        run=posttraining.run_sft,
        cost=posttraining_cost.sft,
        folder="posttrain/sft",
        in_study=lambda plan: plan.study.posttrain is not None,
        resumable=True,
    ),
    Stage(
        name="grpo",
        help="Tune the base by GRPO on the same prompts, with an outcome reward.",
        method=1,
        settings=(*POSTTRAINING, "posttrain.grpo"),
        after=("inputs",),
        run=posttraining.run_grpo,
        cost=posttraining_cost.grpo,
        folder="posttrain/grpo",
        in_study=lambda plan: plan.study.posttrain is not None,
        resumable=True,
    ),
    Stage(
        name="rft",
        help="Tune the base as sft does, on right answers of the RL model (where posttrain.rejection is given).",
        method=1,
        settings=(*POSTTRAINING, "posttrain.rejection", "posttrain.sft"),
        after=("inputs", "grpo"),
        run=posttraining.run_rft,
        cost=posttraining_cost.rft,
        folder="posttrain/rft",
        in_study=lambda plan: plan.study.posttrain is not None and plan.study.posttrain.rejection is not None,
        resumable=True,
    ),
    Stage(
        name="evaluate",
        help="Measure every model on every task through lm-eval, item by item.",
        method=1,
        settings=(*MODELS, "evaluation", "intervention.confidence"),
        after=MADE,
        run=accuracy.run,
        cost=accuracy_cost,
        summary=accuracy.summary,
        section=accuracy.section,
        folder="evaluation",
        in_study=_has_tasks,
        reads=_task_data,
        resumable=True,
    ),
    Stage(
        name="train",
        help="Learn the crosscoders of the study from one stream of activations.",
        method=methods.TRAINING,
        settings=(
            *MODELS,
            "lineup.layer",
            "lineup.checkpoints",
            "lineup.attention",
            "lineup.spread",
            "corpus",
            "activations",
            "crosscoder",
            "training",
        ),
        after=MADE,
        run=run.train_crosscoders,
        cost=training_cost,
        summary=quality.summary,
        section=quality.section,
        folder="crosscoders",
        reads=lambda plan: _crosscoders(plan) | {"harvest": methods.HARVEST},
        resumable=True,
    ),
    Stage(
        name="quality",
        help="Measure how well the crosscoders explain the models on the evaluation prompts.",
        method=1,
        settings=PLACEMENT,
        after=("evaluate", "train"),
        run=quality.run,
        cost=quality_cost,
        in_study=_has_tasks,
    ),
    Stage(
        name="attribute",
        help="Score which model owns each feature (MAS, NRN).",
        method=1,
        settings=(*PLACEMENT, "attribution"),
        after=("train",),
        run=ownership.run,
        cost=ownership_cost,
        summary=ownership.summary,
        section=ownership.section,
        folder="attribution",
    ),
    Stage(
        name="stability",
        help="Look for the features of one seed in the crosscoders of the others.",
        method=1,
        settings=(*ALIVE, "attribution.tails", "stability", "lineup.device"),
        after=("train",),
        run=stability.run,
        cost=stability_cost,
        summary=stability.summary,
        section=stability.section,
        in_study=lambda plan: any(len(names) > 1 for names in plan.seeds.values()),
    ),
    Stage(
        name="drift",
        help="Measure how far each model moved from the base, and its tail at less of the same change.",
        method=1,
        settings=(*PLACEMENT, "drift", "attribution"),
        after=("rft", "evaluate", "train"),
        run=drift.run,
        cost=drift_cost,
        summary=drift.summary,
        section=drift.section,
        in_study=_has_tasks,
        resumable=True,
    ),
    Stage(
        name="dynamics",
        help="Follow specific features over the checkpoints.",
        method=1,
        settings=(*PLACEMENT, *ALIVE, "dynamics", "stability"),
        after=("train",),
        run=dynamics.run,
        cost=dynamics_cost,
        summary=dynamics.summary,
        section=dynamics.section,
        in_study=lambda plan: bool(plan.follows),
    ),
    Stage(
        name="select",
        help="Find features that differ where the tuned model is right and the base wrong.",
        method=1,
        settings=(*PLACEMENT, *ALIVE, "selection"),
        after=("evaluate", "train", "stability"),
        run=selection.run,
        cost=selection_cost,
        summary=selection.summary,
        section=selection.section,
        folder="selection",
        in_study=_has_tasks,
    ),
    Stage(
        name="intervene",
        help="Zero them in the tuned model, amplify them in the base, compared with matched random features.",
        method=1,
        settings=(*PLACEMENT, "intervention"),
        after=("select",),
        run=intervention.run,
        cost=intervention_cost,
        summary=intervention.summary,
        section=intervention.section,
        folder="interventions",
        in_study=_has_tasks,
        resumable=True,
    ),
    Stage(
        name="ways",
        help="Compare features, steering, neurons and tuned weights as ways to put the behaviour into the base.",
        method=1,
        settings=(*PLACEMENT, "ways", *EDITING),
        after=("select",),
        run=editing_methods.run,
        cost=editing_methods_cost,
        summary=editing_methods.summary,
        section=editing_methods.section,
        in_study=lambda plan: _has_tasks(plan) and plan.study.ways.compare,
        resumable=True,
    ),
    Stage(
        name="sensitivity",
        help="Change one choice of the dictionary at a time: what of the result is robust, and what is not.",
        method=1,
        settings=(*PLACEMENT, "sensitivity", "stability", "attribution", "selection", "intervention"),
        after=("evaluate", "train", "attribute"),
        run=sensitivity.run,
        cost=sensitivity_cost,
        summary=sensitivity.summary,
        section=sensitivity.section,
        in_study=lambda plan: plan.study.sensitivity is not None,
        resumable=True,
    ),
    Stage(
        name="examples",
        help="Find the contexts that excite specific and selected features most, and the tokens that they write.",
        method=1,
        settings=(*PLACEMENT, "examples"),
        after=("train", "attribute", "select"),
        run=feature_cards.run,
        cost=feature_cards_cost,
        section=feature_cards.section,
    ),
)

REPORT = Stage(
    name="report",
    help="Write figures, summary.json and report.html.",
    method=1,
    settings=(),
    after=(),  # every other stage: see `every`
    run=lambda plan, folder: report.run(plan, folder, sections_of(plan), summary(plan)),
    folder="figures",
)


def every() -> tuple[Stage, ...]:
    """All stages in order; the report is made from whatever there is."""
    return (*STAGES, replace(REPORT, after=tuple(stage.name for stage in STAGES)))


def stages_of(plan: Plan) -> list[StagePlan]:
    """The stages of a study in order, each with what it is made from."""
    made: dict[str, StagePlan] = {}
    for stage in every():
        if stage.in_study(plan):
            made[stage.name] = stage.planned(plan, made)
    return list(made.values())


def stage_of(plan: Plan, name: str) -> StagePlan:
    """One stage of a study by name; ValueError where the study has none."""
    found = {stage.name: stage for stage in stages_of(plan)}
    if name in found:
        return found[name]
    if name == "sensitivity":
        raise ValueError("the study has no section [sensitivity]; say there what to vary, or run another study")
    raise ValueError(f"this study has no stage {name}; it has {', '.join(found)}")


def definition(name: str) -> Stage:
    """The stage called `name`."""
    return next(stage for stage in every() if stage.name == name)


def stage_costs(inputs: CostInputs) -> list[tuple[Stage, Cost]]:
    """The stages of a study in order, each with its cost."""
    return [(stage, stage.cost(inputs)) for stage in every() if stage.in_study(inputs.plan)]


def sections_of(plan: Plan) -> list[Section]:
    """The parts of the report, in the order of the stages."""
    stages = [stage for stage in STAGES if stage.in_study(plan)]
    found = (stage.section(plan) for stage in stages if stage.section is not None)
    return [section for section in found if section is not None]


def summary(plan: Plan) -> dict[str, Json]:
    """`summary.json`: the headline numbers of a run under stable keys, from whatever stages have been made.

    What cannot be read is an error, unless some stage is stale: its files may then be those of an earlier version.
    """
    found: dict[str, Json] = {"models": list(plan.models)}
    for stage in STAGES:
        try:
            found |= stage.summary(plan)
        except ValueError:
            if not any(plan.run.state(one) == "stale" for one in stages_of(plan)):
                raise
    return found
