"""An analysis is a folder and one line of the registry: it is then found wherever a stage is."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from featdiff.run.plan import Plan
from featdiff.workflow import registry
from featdiff.workflow.cli import main
from featdiff.workflow.runner import run_study, run_verb
from featdiff.workflow.stage import Stage

TOY = """
from dataclasses import dataclass
from pathlib import Path

from featdiff.files import as_json, load, save
from featdiff.presentation.section import Section


@dataclass(frozen=True)
class Letters:
    count: int


def run(plan, folder):
    save(Letters(len(plan.study.name)), folder / "letters.json")


def summary(plan):
    place = plan.run.path("toy", "letters.json")
    return {"toy": as_json(load(Letters, place))} if place.is_file() else {}


def section(plan):
    place = plan.run.path("toy", "letters.json")
    if not place.is_file():
        return None
    template = Path(__file__).with_name("section.html")
    return Section("toy", "Letters of the name", template, {"found": load(Letters, place)})
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The folder of an analysis, outside the package."""
    folder = tmp_path / "packages" / "toy_analysis"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(TOY)
    (folder / "section.html").write_text("<p>The name has {{ found.count | count }} letters.</p>")
    monkeypatch.syspath_prepend(str(folder.parent))
    import toy_analysis  # pyright: ignore[reportMissingImports]

    yield toy_analysis
    del sys.modules["toy_analysis"]


@pytest.fixture
def registered(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Its line in the registry."""
    stage = Stage(
        name="toy",
        help="Count the letters of the study's name.",
        method=1,
        settings=("drift.items",),
        after=("train",),
        run=toy.run,
        summary=toy.summary,
        section=toy.section,
    )
    monkeypatch.setattr(registry, "STAGES", (*registry.STAGES, stage))
    return stage


def test_a_folder_and_one_line_of_the_registry_add_an_analysis(
    own: Plan, registered: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        assert not ended.value.code
        return capsys.readouterr().out

    study = str(own.run.path("study.json"))
    own.run.path("study.json").write_text(own.study.model_dump_json())
    assert registered.help in said("--help")
    assert "--drift.items" in said("toy", study, "--help") and "--training.lr" not in said("toy", study, "--help")
    assert "missing  toy" in said("show", study)
    assert "toy" in said("plan", study)
    assert run_verb(own.study, "toy") == own.run.path("toy")
    assert json.loads(own.run.path("summary.json").read_text())["toy"] == {"count": len("tiny")}
    run_study(own.study)
    page = own.run.path("report.html").read_text()
    assert "The name has 4 letters." in page and 'href="#toy"' in page
    assert "done     toy" in said("show", study)


def test_without_the_folder_and_the_line_it_is_nowhere(own: Plan) -> None:
    assert "toy" not in {stage.name for stage in registry.every()}
    with pytest.raises(ValueError, match="has no stage toy"):
        run_verb(own.study, "toy")
    shutil.rmtree(own.run.path("figures"))


def test_no_two_stages_share_a_name_or_a_folder_and_each_reads_only_earlier_ones() -> None:
    stages = registry.every()
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names) and len({stage.folder or stage.name for stage in stages}) == len(names)
    for position, stage in enumerate(stages):
        assert set(stage.after) <= set(names[:position])
    assert {"name", "help", "method", "settings", "after", "run", "section"} <= {one.name for one in fields(Stage)}
