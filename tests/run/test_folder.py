"""A stage's folder is complete or absent, and knows what it was made from."""

from pathlib import Path

import pytest

from featdiff.files import content_fingerprint, read_json, write_json
from featdiff.run.folder import Run, StagePlan


def stage(**made_from: str | int) -> StagePlan:
    return StagePlan("train", "crosscoders", dict(made_from))


def make(run: Run, wanted: StagePlan, text: str = "weights") -> None:
    with run.making(wanted) as folder:
        (folder / "result.txt").write_text(text)


def test_a_stage_that_was_made_is_done_until_its_inputs_change(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.state(stage(data="a")) == "missing"
    make(run, stage(data="a"))
    assert run.state(stage(data="a")) == "done"
    assert run.state(stage(data="b")) == "stale"
    assert run.changed(stage(data="b", more="c")) == ["data", "more"]


def test_a_stage_that_fails_leaves_no_folder_in_its_place(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(RuntimeError), run.making(stage(data="a")) as folder:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("killed")
    assert not (tmp_path / "crosscoders").exists()
    assert run.state(stage(data="a")) == "missing"


def test_a_failed_remake_keeps_the_old_result(tmp_path: Path) -> None:
    run = Run(tmp_path)
    make(run, stage(data="a"), "old")
    with pytest.raises(RuntimeError), run.making(stage(data="b")):
        raise RuntimeError("killed")
    assert (tmp_path / "crosscoders" / "result.txt").read_text() == "old"


def test_a_resumable_stage_finds_its_own_remains_but_never_those_of_other_settings(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(RuntimeError), run.making(stage(data="a"), resumable=True) as folder:
        (folder / "checkpoint").write_text("half way")
        raise RuntimeError("killed")
    with run.making(stage(data="a"), resumable=True) as folder:
        assert (folder / "checkpoint").read_text() == "half way"
    with pytest.raises(RuntimeError), run.making(stage(data="b"), resumable=True) as folder:
        (folder / "checkpoint").write_text("other")
        raise RuntimeError("killed")
    with run.making(stage(data="c"), resumable=True) as folder:
        assert not (folder / "checkpoint").exists()


def test_a_stage_that_is_not_resumable_begins_with_an_empty_folder(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(RuntimeError), run.making(stage(data="a")) as folder:
        (folder / "rest").write_text("x")
        raise RuntimeError("killed")
    with run.making(stage(data="a")) as folder:
        assert not (folder / "rest").exists()


def test_provenance_names_versions_and_time_of_every_stage(tmp_path: Path) -> None:
    run = Run(tmp_path)
    make(run, stage(data="a"))
    note = read_json(tmp_path / "provenance.json")["train"]
    assert "torch" in note["versions"] and note["fingerprint"] == stage(data="a").fingerprint
    assert note["method"] is None  # what the stage was made from names none

    make(run, stage(method=3))
    assert read_json(tmp_path / "provenance.json")["train"]["method"] == 3


def test_the_fingerprint_of_a_folder_follows_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    before = content_fingerprint(tmp_path)
    assert content_fingerprint(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = content_fingerprint(tmp_path)
    (tmp_path / "b").write_text("y")
    assert len({before, renamed, content_fingerprint(tmp_path)}) == 3


def test_damaged_json_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"b": 1, "a": [2]})
    assert read_json(path) == {"a": [2], "b": 1}
    path.write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        read_json(path)
