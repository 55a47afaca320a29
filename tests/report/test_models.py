"""Where the models of a run come from, what they read, and how each stage was made."""

import json
import re

from featdiff.report.models import models_section, provenance_section
from featdiff.run.plan import Plan
from featdiff.workflow.registry import stages_of


def test_models_that_are_given_lie_where_the_study_says(tiny: Plan) -> None:
    values = models_section(tiny).values
    assert values["origins"] == dict.fromkeys(("base", "sft", "rl"), ("given", {}))
    assert values["paths"] == {name: tiny.paths[name] for name in tiny.models}
    assert values["sources"] == {"traces.jsonl": 0.5, "prose.txt": 0.5} and values["blocks"] == 4


def test_the_page_counts_what_was_read(tiny: Plan) -> None:
    page = tiny.run.path("report.html").read_text()
    section = page[page.index('<section id="models">') : page.index('<section id="accuracy">')]
    counts = json.loads(tiny.run.path("crosscoders", "stream.json").read_text())["counts"]
    assert f"{counts['kept']:,} kept" in section and "after block 2 of 4 (d_model 32)" in section


def test_every_stage_has_a_row_and_only_changed_versions_are_named_again(own: Plan) -> None:
    path = own.run.path("provenance.json")
    notes = json.loads(path.read_text())
    notes["select"]["versions"]["torch"] = "3.0"
    notes["select"]["method"] = 7
    path.write_text(json.dumps(notes))
    values = provenance_section(own).values
    libraries = values["libraries"]
    assert isinstance(libraries, dict) and list(libraries) == [stage.name for stage in stages_of(own)]
    first = next(iter(libraries))
    assert {"python", "torch", "transformers"} <= libraries[first].keys() and "featdiff" not in libraries[first]
    assert {name: found for name, found in libraries.items() if found and name != first} == {"select": {"torch": "3.0"}}
    assert isinstance(values["notes"], dict) and values["notes"]["select"].method == 7


def test_the_table_has_the_method_of_every_stage(tiny: Plan) -> None:
    page = tiny.run.path("report.html").read_text()
    section = page[page.index('<section id="provenance">') :]
    rows = re.findall(r'<tr><th scope="row">(\w+)</th><td class="number">(.+?)</td>', section)
    assert rows == [(stage.name, str(stage.made_from["method"])) for stage in stages_of(tiny) if stage.name != "report"]
