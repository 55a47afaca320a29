"""The sensitivity analysis for the report, from the stage `sensitivity`."""

from featdiff.analyses.sensitivity.result import (
    BASES,
    ChoiceCell,
    ChoiceRow,
    EffectCell,
    PointRow,
    QuantityRow,
    SensitivityPanel,
)
from featdiff.files import Record, read_json
from featdiff.run.plan import Plan


def sensitivity_panel(plan: Plan) -> SensitivityPanel | None:
    """All choices and crosscoders of the run; None where the study does not vary them, or has not yet."""
    path = plan.run.path("sensitivity", "sensitivity.json")
    if plan.study.sensitivity is None or not path.is_file():
        return None
    record = read_json(path)
    return SensitivityPanel(
        quantities=[QuantityRow(**one) for one in record["quantities"]],
        choices=[_choice(one) for one in record["choices"]],
        points=[_point(one) for one in record["points"]],
        **{key: record[key] for key in ("at", "strengths", "rbo_p", "acceptance")},
    )


def _choice(record: Record) -> ChoiceRow:
    cells = {base: {key: ChoiceCell(**cell) for key, cell in record[base].items()} for base in BASES}
    return ChoiceRow(record["label"], record["kind"], cells)


def _point(record: Record) -> PointRow:
    tails, selection = record["tails"], record["selection"]
    return PointRow(
        alive=next(iter(tails.values()))["alive"],
        tails={model: _cuts(counts) for model, counts in tails.items()},
        chosen=None if selection is None else len(selection["chosen"]),
        matched=None if selection is None else selection["matched"],
        effects={model: _effect(found["held_out"]) for model, found in record["effects"].items()},
        **{key: record[key] for key in ("choice", "kind", "strength", "l0", "variance_explained", "dead_share")},
    )


def _cuts(counts: Record) -> dict[str, int]:
    return {cut: count for cut, count in counts.items() if cut not in ("alive", "scaled")}


def _effect(claim: Record) -> EffectCell:
    control = claim["controls"].get("activity-matched", {"mean": None, "draws": 0})
    kept = {key: claim[key] for key in ("n", "change", "interval", "p", "verdict")}
    return EffectCell(control=control["mean"], draws=control["draws"], **kept)
