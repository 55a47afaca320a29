"""`report`: figures, `summary.json` and `report.html`, from the folders of the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from featdiff.analyses.editing_methods.report_ways import ways_panel
from featdiff.analyses.feature_cards.report_cards import feature_cards
from featdiff.analyses.intervention.report_causal import causal_panel, generated_row
from featdiff.analyses.ownership.report_tails import tail_panels
from featdiff.analyses.sensitivity.report_sensitivity import sensitivity_panel
from featdiff.attribution import Attribution
from featdiff.config.study import BASE, BatchTopKSettings, JumpReLUSettings, ReLUSettings, SparsitySettings, Study
from featdiff.evaluation.outcomes import Outcomes
from featdiff.files import Json, Record, read_json, write_json
from featdiff.intervention.effects import decides
from featdiff.models.loading import depth
from featdiff.presentation.section import Section
from featdiff.report.data import (
    AccuracyCell,
    ChosenStability,
    ControlDraws,
    CorpusCard,
    EffectRow,
    FoundAgain,
    ModelCard,
    QualityRow,
    ReportData,
    SelectionPanel,
    SetChange,
    SpecificityPanel,
)
from featdiff.report.page import write_report
from featdiff.run.evaluation import outcomes_of
from featdiff.run.plan import MADE_BY, Plan
from featdiff.run.scored import attribution_of


def report(plan: Plan, folder: Path, sections: Sequence[Section], summary: Mapping[str, Json]) -> None:
    """Write the figures with their numbers into the stage's folder; the page and the summary at the root of the run."""
    write_json(plan.run.path("summary.json"), summary)
    page = write_report(report_data(plan, dict(summary)), folder, sections)
    page.replace(plan.run.path("report.html"))
    for file in sorted((folder / "figures").iterdir()):
        file.rename(folder / file.name)
    (folder / "figures").rmdir()


def report_data(plan: Plan, numbers: Record) -> ReportData:
    """Everything that the page says, read from the folders of the run."""
    stream = read_json(plan.run.path("crosscoders", "stream.json"))
    specificity = _specificity(plan)
    sparsity = {panel.lineup: _sparsity(plan.crosscoders[panel.lineup].sparsity) for panel in specificity}
    relu = [one.sparsity for one in plan.crosscoders.values() if isinstance(one.sparsity, ReLUSettings)]
    return ReportData(
        study=plan.study.name,
        models=[_card(plan, name) for name in plan.models],
        layer=stream["layers"],
        blocks=depth(plan.paths[BASE], trust_remote_code=plan.study.lineup.trust_remote_code),
        d_model=stream["d_model"],
        corpus=_corpus(plan, stream),
        accuracy={task: _cells(cells) for task, cells in numbers["accuracy"].items()},
        quality=_quality(plan, numbers["quality"]),
        specificity=specificity,
        tails=tail_panels(plan, sparsity),
        cards=feature_cards(plan),
        chosen_stability=_chosen_stability(numbers["selection"]),
        crosscoder_seeds=len(plan.seeds[plan.joint]),
        selection=_selection(plan),
        effects=_effects(plan),
        causal=causal_panel(plan),
        ways=ways_panel(plan),
        sensitivity=sensitivity_panel(plan),
        provenance=_provenance(plan),
        confidence=plan.study.intervention.confidence,
        shrinkage=max((settings.weight for settings in relu), default=None) and max(s.weight for s in relu) / 2,
    )


def _card(plan: Plan, name: str) -> ModelCard:
    study: Study = plan.study
    if name == BASE or study.posttrain is None:
        return ModelCard(name, plan.paths[name], "given")
    settings = study.posttrain
    if MADE_BY[name] == "sft":
        traces = read_json(plan.run.path("posttrain", "sft", "traces.json"))
        facts = {
            "traces": f"{traces['kept']} kept, {traces['wrong']} with a wrong final answer left out",
            "learning rate": f"{settings.sft.lr:g}",
            "batch": f"{settings.sft.batch_size} traces",
        }
        return ModelCard(name, plan.paths[name], "supervised fine-tuning on teacher traces", facts)
    facts = {
        "reward": settings.reward,
        "learning rate": f"{settings.grpo.lr:g}",
        "batch": f"{settings.grpo.prompts_per_generation} prompts x {settings.grpo.rollouts} rollouts",
        "clipping": f"{settings.grpo.clip_low:g} below, {settings.grpo.clip_high:g} above",
        "KL weight": f"{settings.grpo.beta:g}",
    }
    return ModelCard(name, plan.paths[name], "GRPO on the same prompts, outcome reward", facts)


def _corpus(plan: Plan, stream: Record) -> CorpusCard:
    counts = stream["counts"]
    held_out = read_json(plan.run.path("crosscoders", plan.joint, "quality.json"))["tokens"]
    return CorpusCard(
        sources={Path(source.path).name: source.share for source in plan.study.corpus.sources},
        tokens_seen=counts["seen"],
        first_dropped=counts["first_dropped"],
        sinks_dropped=counts["sinks_dropped"],
        tokens_kept=counts["kept"],
        tokens_held_out=held_out,
    )


def _cells(cells: dict[str, Record]) -> dict[str, AccuracyCell]:
    return {
        model: AccuracyCell(
            value=cell["value"],
            n=cell["n"],
            interval=cell["interval"],
            constant_baseline=cell["constant_baseline"],
            role=cell["role"],
            gain_interval=cell["gain"]["interval"] if "gain" in cell else None,
            note=cell["note"],
            churn=cell.get("churn", ""),
        )
        for model, cell in cells.items()
    }


def _quality(plan: Plan, quality: dict[str, Record]) -> list[QualityRow]:
    rows = []
    for name, record in quality.items():
        rows.append(_quality_row(plan, name, "held-out corpus", record))
        if "evaluation_prompts" in record:
            rows.append(_quality_row(plan, name, "evaluation prompts", record["evaluation_prompts"]))
    return rows


def _quality_row(plan: Plan, name: str, measured_on: str, record: Record) -> QualityRow:
    one = plan.crosscoders[name]
    return QualityRow(
        lineup=name,
        measured_on=measured_on,
        tokens=record["tokens"],
        features=one.features,
        sparsity=_sparsity(one.sparsity),
        variance_explained=record["variance_explained"],
        ce_recovered=record["ce_recovered"],
        kl_recovered=record["kl_recovered"],
        l0=record["l0"],
        dead_share=record["dead_share"],
    )


def _sparsity(settings: SparsitySettings) -> str:
    match settings:
        case ReLUSettings(weight=weight):
            return f"L1, beta {weight:g}"
        case BatchTopKSettings(k=k):
            return f"BatchTopK, k {k}"
        case JumpReLUSettings(weight=weight):
            return f"JumpReLU, weight {weight:g}"


def _specificity(plan: Plan) -> list[SpecificityPanel]:
    """Tuned models in their pair with the base (Fig. 1), then all models together (Fig. 3)."""
    panels = []
    for tuned in plan.tuned:
        if (pair := plan.pair(tuned)) is not None and pair != plan.joint:
            panels.append(_panel(plan, attribution_of(plan, pair), pair, tuned))
    joint = attribution_of(plan, plan.joint)
    return panels + [_panel(plan, joint, plan.joint, model) for model in joint.models if model != BASE]


def _panel(plan: Plan, attribution: Attribution, lineup: str, model: str) -> SpecificityPanel:
    return SpecificityPanel.of(attribution, model, lineup=lineup, cuts=plan.study.attribution.tails)


def _selection(plan: Plan) -> SelectionPanel | None:
    path = plan.run.path("selection", "selection.json")
    if not path.is_file():
        return None
    record = read_json(path)
    outcomes: dict[str, Outcomes] = {task: outcomes_of(plan, task) for task in record["tasks"]}
    return SelectionPanel(
        threshold=plan.study.selection.threshold,
        mirror={task: len(one.mirror(BASE, record["model"])) for task, one in outcomes.items()},
        **{
            key: record[key]
            for key in (
                "model",
                "lineup",
                "score",
                "rule",
                "tasks",
                "per_task",
                "critical",
                "chosen",
                "overlap",
                "in_at_least",
            )
        },
    )


def _chosen_stability(selection: Record) -> ChosenStability | None:
    """The selected features under other seeds, where there are any; `selection` is what `select` wrote."""
    if not selection.get("chosen") or not (found := selection.get("stability")):
        return None
    score: Record = found["score"]
    rows = zip(selection["chosen"], found["matched_in"], score["mean"], score["deviation"], strict=True)
    return ChosenStability(
        model=score["model"],
        other_seeds=found["other_seeds"],
        needed=found["needed"],
        features=[FoundAgain(*row) for row in rows],
    )


def _effects(plan: Plan) -> list[EffectRow]:
    path = plan.run.path("interventions", "effects.json")
    roles = {task.name: task.role for task in plan.study.evaluation.tasks}
    confidence = plan.study.intervention.confidence
    records = read_json(path)["records"] if path.is_file() else []
    return [_effect(record, roles[record["task"]], confidence) for record in records]


def _effect(record: Record, role: str, confidence: float) -> EffectRow:
    held_out = record["sets"]["held_out"]
    return EffectRow(
        task=record["task"],
        role=role,
        model=record["model"],
        edit=record["edit"],
        expected=record["expected"],
        features=record["features"],
        sets={
            name: SetChange(one["before"], one["after"], one["n"], one["interval"])
            for name, one in record["sets"].items()
        },
        control=ControlDraws(measured_on="held_out", **held_out["control"]),
        p=held_out["p"],
        verdict=held_out["verdict"],
        beaten={} if "repeats" in record else _beaten(record["controls"], confidence),
        guessing_again=record.get("guessing_again"),
        generated=generated_row(record),
    )


def _beaten(controls: Record, confidence: float) -> dict[str, bool]:
    """Whether the change lies beyond each deciding kind of control, by the empirical p against that kind alone."""
    largest = (1 - confidence) / 2 + 1e-12
    return {kind: one["p"] <= largest for kind, one in controls.items() if decides(kind, one["draws"], confidence)}


def _provenance(plan: Plan) -> dict[str, str]:
    notes = read_json(plan.run.path("provenance.json"))
    last: Record = notes[list(notes)[-1]]
    seconds = sum(note["seconds"] for note in notes.values())
    return {
        "seed": str(plan.study.seed),
        "machine": last["machine"],
        "python": last["python"],
        "commit": last["commit"] or "not in a git repository",
        "time": f"{seconds:.0f} s in all: "
        + ", ".join(f"{name} {note['seconds']:.0f} s" for name, note in notes.items()),
        **{f"{name}": version for name, version in last["versions"].items()},
    }
