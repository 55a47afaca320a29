"""The result of a study on one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path, sections: Sequence[Section], summary: Mapping[str, Json]) -> None:
    """Write the figures into `folder`, and report.html and summary.json at the root of the run."""
    from featdiff.report.assemble import report

    report(plan, folder, sections, summary)
