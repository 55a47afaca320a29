"""What a study was estimated to cost, beside what it did cost.

    python benchmarks/estimate.py studies/demo.toml

The study must have been run. Seconds are those of provenance.json, of the last attempt at each stage; bytes are those
of its folder. Numbers that `featdiff plan --calibrate` measured on this machine are used.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from featdiff.config.study_file import read_study
from featdiff.costs.assumptions import assumptions_of
from featdiff.costs.estimate import cost_inputs
from featdiff.files import read_json
from featdiff.run.plan import Plan
from featdiff.workflow.estimate_table import duration, priced, size
from featdiff.workflow.registry import stages_of


@dataclass(frozen=True)
class Compared:
    """One stage: estimated and measured, in seconds and in bytes that stay on the disk."""

    stage: str
    seconds: tuple[float, float]
    stays: tuple[float, float]


def compared(plan: Plan) -> list[Compared]:
    """The stages of a run that have an estimate. ValueError where the study was not run."""
    record = plan.run.path("provenance.json")
    if not record.is_file():
        raise ValueError(f"{plan.run.folder} holds no provenance.json; run the study first: featdiff run STUDY")
    notes = read_json(record)
    folders = {stage.name: plan.run.path(stage.folder) for stage in stages_of(plan)}
    return [
        Compared(
            name,
            (cost.work.seconds, float(notes[name]["seconds"])),
            (cost.stays, sum(file.stat().st_size for file in folders[name].rglob("*") if file.is_file())),
        )
        for name, cost in priced(cost_inputs(plan.study, None, 1, assumptions_of(plan.study))).items()
        if name in notes and cost.work.seconds
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    parser.add_argument("--runs", help="folder that holds the run, where it is not the study's own")
    arguments = parser.parse_args()
    study = read_study(arguments.study)
    if arguments.runs:
        study = study.model_copy(update={"runs": arguments.runs})
    print(f"{'stage':<12}{'estimated':>11}{'measured':>11}{'ratio':>8}{'estimated':>13}{'measured':>11}{'ratio':>8}")
    for row in compared(Plan(study)):
        time = f"{duration(row.seconds[0]):>11}{duration(row.seconds[1]):>11}{_ratio(row.seconds):>8}"
        disk = f"{size(row.stays[0]):>13}{size(row.stays[1]):>11}{_ratio(row.stays):>8}"
        print(f"{row.stage:<12}{time}{disk}")


def _ratio(pair: tuple[float, float]) -> str:
    """Measured over estimated."""
    return f"{pair[1] / pair[0]:.2f}" if pair[0] else "-"


if __name__ == "__main__":
    main()
