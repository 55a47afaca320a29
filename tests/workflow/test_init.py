"""`init` writes a study that reads back as what was asked for, or nothing."""

import os
import shutil
from pathlib import Path

import pytest
from transformers import Qwen3Config

from featdiff.config.crosscoder import BatchTopK
from featdiff.config.study import Study
from featdiff.config.study_file import read_study
from featdiff.run.plan import Plan
from featdiff.workflow.init import init
from featdiff.workflow.registry import stages_of


def test_the_study_holds_the_models_in_order_and_plans_every_stage(tmp_path: Path) -> None:
    path = init("o/base", {"sft": "o/sft", "rl": "o/rl"}, tmp_path / "mine.toml")
    study = read_study(path)
    assert study.name == "mine" and study.posttrain is None and study.selection.model == "rl"
    assert list(study.lineup.tuned.items()) == [("sft", "o/sft"), ("rl", "o/rl")]
    plan = Plan(study)
    assert plan.crosscoders.keys() == {"joint", "base-sft", "base-rl"}
    assert [stage.name for stage in stages_of(plan)] == [
        "evaluate", "train", "quality", "attribute", "drift", "select", "intervene", "ways", "examples", "report",
    ]  # fmt: skip


def test_without_a_model_called_rl_the_last_one_is_explained(tmp_path: Path) -> None:
    study = read_study(init("o/b", {"one": "o/1", "two": "o/2"}, tmp_path / "s.toml"))
    assert study.selection.model == "two"


@pytest.mark.parametrize(
    ("width", "blocks", "features", "k"),
    [(32, 5, 256, 8), (96, 7, 1024, 32), (1024, 2, 8192, 64), (4096, 3, 16_384, 64)],
)
def test_layer_and_features_are_those_of_the_base(
    tmp_path: Path, width: int, blocks: int, features: int, k: int
) -> None:
    study, text = made_for(tmp_path, width, blocks)
    assert isinstance(study.crosscoder.sparsity, BatchTopK)
    assert (study.crosscoder.features, study.crosscoder.sparsity.k) == (features, k)
    assert f"# layer = {blocks // 2}  # blocks below the tap, of {blocks}" in text
    assert 10 * study.crosscoder.sparsity.dead_after_tokens == study.corpus.tokens
    assert [task.role for task in study.evaluation.tasks] == ["far"] * 5 + ["unseen"] * 2
    assert text.count('role = "far"') == 5


@pytest.mark.parametrize(
    ("gpu", "saved", "placed"),
    [
        (True, "bfloat16", ("cuda", "bfloat16")),
        (True, "float16", ("cuda", "float16")),
        (True, "float32", ("cuda", "float32")),
        (False, "bfloat16", ("cpu", "float32")),
    ],
)
def test_device_and_precision_are_written_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, saved: str, placed: tuple[str, str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    study, text = made_for(tmp_path, 64, 4, dtype=saved)
    assert (study.lineup.device, study.lineup.dtype) == placed
    assert f'\ndevice = "{placed[0]}"' in text and f'\ndtype = "{placed[1]}"' in text


def test_of_a_base_that_is_not_read_this_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    (tmp_path / "broken").mkdir()
    for number, base in enumerate(("o/base", str(tmp_path / "broken"))):
        text = init(base, {"rl": "o/rl"}, tmp_path / f"s{number}.toml").read_text()
        assert "config.json was not read" in text and '\n# dtype = "bfloat16"' in text
        assert read_study(tmp_path / f"s{number}.toml").crosscoder.features == 16_384


def test_a_large_model_without_a_gpu_is_said_to_take_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(gpu: bool, base: str, name: str) -> str:
        monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
        init(base, {"rl": "o/rl"}, tmp_path / name)
        return capsys.readouterr().err

    assert "494 M parameters" in (line := said(False, "Qwen/Qwen2.5-0.5B", "a.toml")) and line.count("\n") == 1
    assert said(True, "Qwen/Qwen2.5-0.5B", "b.toml") == said(False, "o/unknown", "c.toml") == ""


def made_for(folder: Path, width: int, blocks: int, dtype: str = "float32") -> tuple[Study, str]:
    """The study for a base of this width and depth, of which there is only the configuration; and its text."""
    config = Qwen3Config(hidden_size=width, num_hidden_layers=blocks, dtype=dtype)
    config.save_pretrained(folder / "base")
    path = init(str(folder / "base"), {"rl": "o/rl"}, folder / "s.toml")
    return read_study(path), path.read_text()


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
