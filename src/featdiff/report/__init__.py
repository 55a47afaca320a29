"""The result of a study on one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from featdiff.files import Json, write_json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path, sections: Sequence[Section], summary: Mapping[str, Json]) -> None:
    """Write the figures with their numbers into the stage's folder; the page and the summary at the root of the run."""
    from featdiff.report.models import models_section, provenance_section
    from featdiff.report.page import Heading, write_report

    write_json(plan.run.path("summary.json"), summary)
    heading = Heading(plan.study.name, plan.models)
    page = write_report(heading, folder, [models_section(plan), *sections], provenance_section(plan))
    page.replace(plan.run.path("report.html"))
    for file in sorted((folder / "figures").iterdir()):
        file.rename(folder / file.name)
    (folder / "figures").rmdir()
