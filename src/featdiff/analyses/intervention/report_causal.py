"""What the report says on causes, from the folders of the run."""

from collections.abc import Sequence

from featdiff.analyses.intervention.result import (
    CausalPanel,
    ClaimRow,
    DoseCurve,
    EvidenceRow,
    FormChange,
    GeneratedRow,
    KindRow,
    SideEffectRow,
)
from featdiff.files import Record, read_json
from featdiff.run.plan import Plan


def causal_panel(plan: Plan) -> CausalPanel:
    """Everything beside the effects themselves; empty where the stages have not been made."""
    effects = _read(plan, "interventions", "effects.json")
    return CausalPanel(
        claims=[_claim(record) for record in effects.get("claims", [])],
        evidence=[_evidence(record) for record in effects.get("records", []) if "repeats" not in record],
        side_effects=[_side_effect(record) for record in effects.get("side_effects", [])],
        doses=_curves(effects.get("doses", [])),
    )


def generated_row(record: Record) -> GeneratedRow | None:
    """The form of an effect's generated answers; None where answers are choices."""
    if "repeats" not in record:
        return None
    whole = record["sets"]["all"]
    return GeneratedRow(
        repeats=record["repeats"],
        lost=whole["flips"]["lost"],
        gained=whole["flips"]["gained"],
        sign_p=whole["flips"]["p"],
        control=_kind(whole["control"] | {"p": whole["p"]}),
        answer_format=_form(record["answer_format"]),
        answer_length=_form(record["answer_length"]),
    )


def _form(record: Record) -> FormChange:
    return FormChange(record["before"], record["after"], record["interval"], _kind(record["control"]))


def _read(plan: Plan, *path: str) -> Record:
    place = plan.run.path(*path)
    return read_json(place) if place.is_file() else {}


def _kind(record: Record) -> KindRow:
    return KindRow(record["draws"], record["mean"], record["interval"], record.get("p"))


def _claim(record: Record) -> ClaimRow:
    return ClaimRow(
        model=record["model"],
        edit=record["edit"],
        tasks=record["tasks"],
        n=record["n"],
        change=record["change"],
        interval=record["interval"],
        kinds={kind: _kind(one) for kind, one in record["controls"].items()},
        p=record["p"],
        verdict=record["verdict"],
    )


def _evidence(record: Record) -> EvidenceRow:
    held_out = record["sets"]["held_out"]
    return EvidenceRow(
        model=record["model"],
        edit=record["edit"],
        task=record["task"],
        n=held_out["n"],
        lost=held_out["flips"]["lost"],
        gained=held_out["flips"]["gained"],
        mcnemar=held_out["flips"]["p"],
        detectable=held_out["detectable"],
        p=record["p"],
        p_holm=record["p_holm"],
        kinds={kind: _kind(one) for kind, one in record["controls"].items()},
        predictions=record.get("predictions", {}),
        answer_format=record.get("answer_format", {}),
    )


def _side_effect(record: Record) -> SideEffectRow:
    entropy = record["cross_entropy"] or {"before": None, "after": None}
    return SideEffectRow(
        record["model"],
        record["edit"],
        record["kl"],
        entropy["before"],
        entropy["after"],
        record["tokens"],
        record["control"]["kl"],
    )


def _curves(records: list[Record]) -> list[DoseCurve]:
    """The mean over tasks of the change at every dose, for each model on critical and on all items."""
    curves = []
    for model in dict.fromkeys(record["model"] for record in records):
        for name in ("critical", "all"):
            tasks = {
                one["task"]: one["sets"][name] for one in records if one["model"] == model and one["sets"][name]["n"]
            }
            if tasks:
                doses = next(one["doses"] for one in records if one["model"] == model)
                curves.append(_curve(model, name, doses, tasks))
    return curves


def _curve(model: str, name: str, doses: Sequence[float], tasks: dict[str, Record]) -> DoseCurve:
    by_task = {task: [value - one["before"] for value in one["selected"]] for task, one in tasks.items()}
    drawn = all(one["control"] for one in tasks.values())

    def control(key: str) -> list[float]:
        rows = [[point[key] - one["before"] for point in one["control"]] for one in tasks.values()]
        return _means(rows) if drawn else []

    return DoseCurve(
        model=model,
        measured_on=name,
        tasks=len(tasks),
        doses=doses,
        selected=_means(list(by_task.values())),
        control=control("mean"),
        control_low=control("low"),
        control_high=control("high"),
        by_task=by_task,
    )


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]
