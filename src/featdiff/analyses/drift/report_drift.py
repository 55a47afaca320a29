"""Drift for the report, from the stage `drift`."""

from featdiff.analyses.drift.matched_kl_result import EqualDrift, EqualModel, Estimate, MeanAccuracy, Question, Reading
from featdiff.analyses.drift.result import DriftPanel, DriftRow
from featdiff.files import Record, read_json
from featdiff.run.plan import REJECTION, Plan


def drift_panel(plan: Plan) -> DriftPanel | None:
    """All rows of the run; None where the stage has not been made."""
    path = plan.run.path("drift", "drift.json")
    if not path.is_file():
        return None
    record = read_json(path)
    rows = [DriftRow(**row) for row in record["rows"]]
    traces = plan.run.path("posttrain", REJECTION, "traces.json")
    samples = read_json(traces) if REJECTION in plan.drifting else {}
    return DriftPanel(record["least"], rows, _equal(record["equal"]), samples)


def _equal(record: Record) -> EqualDrift:
    return EqualDrift(
        base=_accuracy(record["base"]),
        models=[EqualModel(**{**model, "accuracy": _accuracy(model["accuracy"])}) for model in record["models"]],
        questions=[_question(question) for question in record["questions"]],
    )


def _accuracy(record: Record) -> MeanAccuracy:
    return MeanAccuracy(**{**record, "gain": Estimate(**record["gain"])})


def _question(record: Record) -> Question:
    readings = [Reading(**{**one, "difference": Estimate(**one["difference"])}) for one in record["readings"]]
    return Question(**{**record, "readings": readings, "gain": Estimate(**record["gain"])})
