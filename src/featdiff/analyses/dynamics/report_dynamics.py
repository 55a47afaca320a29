"""What the report says of checkpoints and seeds, read from the folders of the run."""

from featdiff.analyses.dynamics.result import DynamicsPanel
from featdiff.files import Record, read_json
from featdiff.run.plan import Plan

KEPT = ("alignment", "checkpoints", "overlap", "chance", "noise_floor", "seeds", "floors", "relative")


def dynamics_panels(plan: Plan) -> list[DynamicsPanel]:
    """A panel for each alignment and tuned model, by alignment in the order of the study."""
    records = _records(plan)
    return [
        _panel(tuned, record["by_alignment"][alignment])
        for alignment in plan.study.dynamics.alignments
        for tuned, record in records.items()
        if alignment in record["by_alignment"]
    ]


def missing_alignments(plan: Plan) -> dict[str, dict[str, str]]:
    """By tuned model and alignment, why there is no trajectory."""
    return {tuned: record["missing"] for tuned, record in _records(plan).items() if record["missing"]}


def _records(plan: Plan) -> dict[str, Record]:
    paths = {tuned: plan.run.path("dynamics", f"{tuned}.json") for tuned in plan.follows}
    return {tuned: read_json(path) for tuned, path in paths.items() if path.is_file()}


def _panel(tuned: str, record: Record) -> DynamicsPanel:
    shifts = [row[:ranked] for row, ranked in zip(record["rank_shift"], record["counted"], strict=False)]
    kept = {key: record[key] for key in KEPT}
    return DynamicsPanel(paradigm=tuned, rank_shift=shifts, top=len(record["ranked"][0]), **kept)
