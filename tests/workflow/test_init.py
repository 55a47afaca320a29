"""`init` writes a study that reads back as what was asked for, or nothing."""

import os
import shutil
from pathlib import Path

import pytest

from featdiff.config.study_file import read_study
from featdiff.run.plan import Plan
from featdiff.workflow.init import init


def test_the_study_holds_the_models_in_order_and_plans_every_stage(tmp_path: Path) -> None:
    path = init("o/base", {"sft": "o/sft", "rl": "o/rl"}, tmp_path / "mine.toml")
    study = read_study(path)
    assert study.name == "mine" and study.posttrain is None and study.selection.model == "rl"
    assert list(study.lineup.tuned.items()) == [("sft", "o/sft"), ("rl", "o/rl")]
    plan = Plan(study)
    assert plan.crosscoders.keys() == {"joint", "base-sft", "base-rl"}
    assert [stage.name for stage in plan.stages()] == [
        "evaluate", "train", "attribute", "quality", "drift", "select", "intervene", "ways", "examples", "report",
    ]  # fmt: skip


def test_without_a_model_called_rl_the_last_one_is_explained(tmp_path: Path) -> None:
    study = read_study(init("o/b", {"one": "o/1", "two": "o/2"}, tmp_path / "s.toml"))
    assert study.selection.model == "two"


def test_local_models_are_named_by_their_whole_paths(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / 'a "strange" \\ path'
    shutil.copytree(study_file.parent / "rl", odd)
    monkeypatch.chdir(tmp_path)
    study = read_study(init(os.path.relpath(study_file.parent / "base"), {"rl": odd.name}, tmp_path / "s.toml"))
    assert study.lineup.base == str(study_file.parent / "base")
    assert study.lineup.tuned == {"rl": str(odd)}


def test_the_comments_show_how_to_add_checkpoints(tmp_path: Path) -> None:
    text = init("o/b", {"rl": "o/r"}, tmp_path / "s.toml").read_text()
    commented = [line.removeprefix("# ") for line in text.splitlines() if "checkpoint" in line and "=" in line]
    table = "[lineup.checkpoints]\n" + commented[0] + "\n"
    (tmp_path / "more.toml").write_text(text.replace("# ---- Text", table + "\n# ---- Text"))
    assert Plan(read_study(tmp_path / "more.toml")).checkpoints == {"rl": ("rl-1", "rl-2", "rl-3", "rl-4", "rl-5")}


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("precious")
    with pytest.raises(ValueError, match="exists; give another name with --out"):
        init("o/b", {"rl": "o/r"}, tmp_path / "s.toml")
    assert (tmp_path / "s.toml").read_text() == "precious"


@pytest.mark.parametrize(
    ("base", "tuned", "out", "words"),
    [
        ("./nowhere", {"rl": "o/r"}, "s.toml", "nothing at ./nowhere"),
        ("o/b", {"rl": ""}, "s.toml", "empty name or path"),
        ("o/b", {"my model": "o/r"}, "s.toml", "lineup.tuned.my model"),
        ("o/b", {"base": "o/r"}, "s.toml", "cannot be called 'base'"),
        ("o/b", {"rl": "o/r"}, "my study.toml", "name = 'my study'"),
    ],
)
def test_what_would_make_no_study_is_refused_and_nothing_is_written(
    tmp_path: Path, base: str, tuned: dict[str, str], out: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        init(base, tuned, tmp_path / out)
    assert list(tmp_path.iterdir()) == []
