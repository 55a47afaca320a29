"""`show` says what exists, from what, and what is stale."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_study import changed

from featdiff.files import read_json, write_json
from featdiff.run.plan import Plan
from featdiff.workflow.registry import stage_of, stages_of
from featdiff.workflow.show import show


def states(text: str) -> dict[str, str]:
    """Stage -> what `show` says of it."""
    lines = [line.split() for line in text.split("\n\n")[-1].splitlines()]
    return {name: state for state, name, *_ in lines}


def test_a_finished_run_is_done_from_beginning_to_end(tiny: Plan) -> None:
    text = show(tiny.run.folder)
    assert states(text) == {stage.name: "done" for stage in stages_of(tiny)}
    assert "attribution/     from train" in text and "evaluation/      from the study's own inputs" in text
    assert f"model sft      {tiny.paths['sft']}" in text
    assert "crosscoder base-rl: base, rl; 64 features, relu" in text


def test_a_study_that_was_never_run_is_missing_from_beginning_to_end(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(states(show(study_file)).values()) == {"missing"}
    assert list(tmp_path.iterdir()) == []


def test_a_change_names_what_changed_at_the_stage_and_the_stages_above_it(own: Plan) -> None:
    write_json(own.run.path("study.json"), changed(own.study, training__lr=1.0).model_dump(mode="json"))
    text = show(own.run.folder)
    assert "from the study's own inputs; changed: training\n" in text
    assert "attribution/     from train; changed: stage train\n" in text
    assert {name for name, state in states(text).items() if state == "done"} == {"evaluate"}


def test_another_text_under_the_same_name_is_noticed(fresh: Plan, study_file: Path, tmp_path: Path) -> None:
    for name in ("prose.txt", "traces.jsonl"):
        shutil.copy(study_file.parent / name, tmp_path / name)
    sources = [{"path": str(tmp_path / "prose.txt"), "share": 1.0}]
    study = changed(fresh.study, corpus__sources=sources)
    stage = stage_of(Plan(study), "train")
    with (tmp_path / "prose.txt").open("a") as file:
        file.write("one more line\n")
    assert stage_of(Plan(study), "train").fingerprint != stage.fingerprint


def test_a_stage_that_was_begun_is_said_to_be(own: Plan) -> None:
    own.run.path("selection").rename(own.run.path("selection.partial"))
    assert states(show(own.run.folder))["select"] == "begun"


def test_a_run_may_be_moved(own: Plan, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    own.run.folder.rename(place)
    assert set(states(show(place)).values()) == {"done"}


def test_as_json_it_is_the_summary(tiny: Plan) -> None:
    assert json.loads(show(tiny.run.folder, as_json=True)) == read_json(tiny.run.path("summary.json"))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no study\.json, so it is no run"):
        show(tmp_path)


def test_numbers_that_are_not_there_yet_are_refused(fresh: Plan) -> None:
    write_json(fresh.run.path("study.json"), fresh.study.model_dump(mode="json"))
    with pytest.raises(ValueError, match=r"holds no summary\.json yet; make it with: featdiff run"):
        show(fresh.run.folder, as_json=True)
