"""The report of a run says what the folders hold, and comes for every smaller study as well."""

import re
import shutil

import pytest
from tiny_study import changed, summary

from featdiff.files import read_json
from featdiff.report.assemble import _beaten, report_data
from featdiff.run.plan import Plan
from featdiff.workflow.registry import stages_of
from featdiff.workflow.runner import run_study


def test_the_page_is_one_file_that_opens_offline(tiny: Plan) -> None:
    page = tiny.run.path("report.html").read_text()
    fetched = re.findall(r'(?:src|<link[^>]*href)="(?!data:)([^"]+)"|url\((?!["\']?(?:data:|#))([^)]+)\)', page)
    assert fetched == [] and "<svg" in page and "<title>" in page


def test_every_figure_has_its_numbers_beside_it(tiny: Plan) -> None:
    files = {path.name for path in tiny.run.path("figures").iterdir()} - {"stage.json"}
    pictures = {name.removesuffix(".svg") for name in files if name.endswith(".svg")}
    assert files == {f"{name}.{ending}" for name in pictures for ending in ("svg", "json")}
    assert {"accuracy", "quality", "selection-overlap"} <= pictures
    assert sum(name.startswith("mas-") for name in pictures) == 2 and "nrn-1-base-rl-rl" in pictures
    assert sum(name.startswith("overlap-") for name in pictures) == 3  # joint twice, swap for rl
    assert sum(name.startswith("rank-shift-") for name in pictures) == 3
    assert sum(name.startswith("effects-") for name in pictures) == 3
    assert sum(name.startswith("doses-") for name in pictures) == 4


def test_the_data_of_the_page_are_those_of_the_summary(tiny: Plan) -> None:
    data, numbers = report_data(tiny, summary(tiny)), read_json(tiny.run.path("summary.json"))
    assert list(data.models) == numbers["models"]
    assert [(row.task, row.model, row.p) for row in data.effects] == [
        (effect["task"], effect["model"], effect["p"]) for effect in numbers["effects"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({"evaluation__tasks": []}, ["train", "attribute", "dynamics", "examples", "report"]),
        (
            {"lineup__checkpoints": {}, "crosscoder__lineups": {}},
            ["evaluate", "train", "attribute", "quality", "drift", "select", "intervene", "ways", "examples", "report"],
        ),
        (
            {"lineup__checkpoints": {}, "crosscoder__lineups": {}, "evaluation__tasks": [], "one": True},
            ["train", "attribute", "examples", "report"],
        ),
    ],
    ids=["without tasks", "without checkpoints", "one tuned model and no tasks"],
)
def test_a_smaller_study_comes_to_its_report(fresh: Plan, settings: dict[str, object], stages: list[str]) -> None:
    settings = dict(settings)
    tuned = dict(fresh.study.lineup.tuned)
    if settings.pop("one", False):
        del tuned["sft"]
    plan = Plan(changed(fresh.study, lineup__tuned=tuned, **settings))
    assert run_study(plan.study).is_file()
    assert [stage.name for stage in stages_of(plan)] == stages
    summary = read_json(plan.run.path("summary.json"))
    assert summary["quality"].keys() == plan.crosscoders.keys()
    assert bool(summary["accuracy"]) == ("evaluate" in stages) and bool(summary["dynamics"]) == ("dynamics" in stages)


def test_a_report_that_fails_leaves_the_old_one(own: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ValueError("broken")

    before = own.run.path("report.html").read_bytes()
    monkeypatch.setattr("featdiff.report.assemble.write_report", broken)
    shutil.rmtree(own.run.path("figures"))
    with pytest.raises(ValueError, match="broken"):
        run_study(own.study)
    assert own.run.path("report.html").read_bytes() == before and not own.run.path("figures").exists()


def test_kinds_drawn_too_rarely_do_not_decide_and_those_that_do_are_beaten_by_their_own_p() -> None:
    controls = {
        "activity-matched": {"draws": 5, "p": 0.5},  # always decides
        "random directions": {"draws": 38, "p": 0.01},  # 2 / (1 + 38) > 0.05
        "uniform alive": {"draws": 39, "p": 0.025},
        "both right": {"draws": 100, "p": 1.0},  # shown only
    }
    assert _beaten(controls, 0.95) == {"activity-matched": False, "uniform alive": True}
