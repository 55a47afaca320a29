"""The command line answers at once, overrides what it is told to, and refuses in one line with exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from featdiff.config.study_file import read_study
from featdiff.workflow.cli import main

STUDY = """
name = "small"
[lineup]
base = "owner/base"
[lineup.tuned]
rl = "owner/rl"
[corpus]
sources = [{ path = "owner/text", share = 1.0 }]
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(STUDY)
    return "small.toml"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr()
    assert end.value.code == 2
    assert said.out == "" and said.err.startswith("featdiff: ") and said.err.count("\n") == 1
    return said.err


def accepted(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_and_show_answer_without_importing_torch(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(STUDY)
    program = (
        "import sys\nfrom featdiff.workflow.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    study = ["train", "small.toml", "--help"]
    for arguments in (["--help"], ["train", "--help"], ["show", "small.toml"], study, ["plan", "--help"]):
        subprocess.run([sys.executable, "-c", program, *arguments], cwd=tmp_path, check=True, capture_output=True)


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    text = accepted(capsys, "--help")
    contract = "demo  sft  grpo  evaluate  train  attribute  dynamics  select  intervene  report  run  show"
    assert all(f"\n  {verb} " in text for verb in contract.split())


def test_the_help_of_a_study_explains_its_settings(capsys: pytest.CaptureFixture[str], study: str) -> None:
    text = accepted(capsys, "train", study, "--help")
    assert "--training.lr 0.0001\n" in text and "Learning rate of Adam (A.1)." in text


def test_an_unknown_verb_is_refused_with_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert "verbs: demo, init, run" in refused(capsys, "trian", "x.toml")


def test_a_misspelt_flag_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str], study: str) -> None:
    assert "--training.lr FLOAT" in refused(capsys, "train", study, "--training.lrr", "3")


def test_a_flag_of_the_wrong_type_is_refused(capsys: pytest.CaptureFixture[str], study: str) -> None:
    assert "'fast'" in refused(capsys, "train", study, "--training.lr", "fast")


def test_a_flag_out_of_range_is_refused(capsys: pytest.CaptureFixture[str], study: str) -> None:
    assert "greater than 0" in refused(capsys, "train", study, "--training.lr", "-3")


def test_a_verb_without_a_study_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train"])
    assert end.value.code == 2 and "usage: featdiff train STUDY" in capsys.readouterr().out


def test_show_lists_models_crosscoders_and_stages(capsys: pytest.CaptureFixture[str], study: str) -> None:
    text = accepted(capsys, "show", study)
    assert "crosscoder joint: base, rl" in text and "missing  train" in text
    assert not Path("runs").exists()


def test_show_of_absent_numbers_says_how_to_make_them(capsys: pytest.CaptureFixture[str], study: str) -> None:
    assert "featdiff run" in refused(capsys, "show", study, "--json")


def test_plan_prints_a_table_and_makes_nothing(capsys: pytest.CaptureFixture[str], study: str) -> None:
    base = ["--lineup.base", "Qwen/Qwen2.5-0.5B"]
    text = accepted(capsys, "plan", study, "--gpus", "2", "--kind", "H200", *base, "--training.epochs", "3")
    assert text.startswith("study small on 2 x H200") and "\ntrain   " in text
    once = accepted(capsys, "plan", study, "--json", *base)
    assert json.loads(once)["stages"][0]["name"] == "train"
    assert not Path("runs").exists()


def test_plan_asks_for_a_shape_that_is_not_known(capsys: pytest.CaptureFixture[str], study: str) -> None:
    assert "hf download" in refused(capsys, "plan", study)
    assert "usage: featdiff plan STUDY" in refused(capsys, "plan", "--gpus", "2")
    assert "--calibrate" in accepted(capsys, "plan", "--help")
    assert "--training.lr FLOAT" in refused(capsys, "plan", study, "--training.lrr", "3")


def test_init_writes_a_study_that_validates_and_keeps_the_models_in_order(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["init", "--base", "o/b", "--tuned", "sft=o/s", "rl=o/r", "--out", "mine.toml"]
    assert accepted(capsys, *arguments) == "mine.toml\n"
    made = read_study(tmp_path / "mine.toml")
    assert made.lineup.base == "o/b" and list(made.lineup.tuned.items()) == [("sft", "o/s"), ("rl", "o/r")]
    assert made.posttrain is None and made.selection.model == "rl"
    assert "[lineup.checkpoints]" in (tmp_path / "mine.toml").read_text()


def test_init_never_overwrites_a_study(capsys: pytest.CaptureFixture[str], study: str) -> None:
    assert "exists" in refused(capsys, "init", "--base", "o/b", "--tuned", "rl=o/r", "--out", study)


def test_init_refuses_a_model_that_is_nowhere(capsys: pytest.CaptureFixture[str], study: str) -> None:
    assert "nothing at ./nowhere" in refused(capsys, "init", "--base", "./nowhere", "--tuned", "rl=o/r")


def test_a_path_that_does_not_exist_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], study: str, tmp_path: Path
) -> None:
    text = (tmp_path / study).read_text()
    (tmp_path / study).write_text(text.replace("owner/text", "./no/such.txt"))
    assert "corpus.sources.0.path" in refused(capsys, "run", study)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("verb", "module", "package", "extra"),
    [
        ("evaluate", "featdiff.evaluation.answers", "math_verify", "eval"),
        ("evaluate", "lm_eval.models.huggingface", "accelerate", "eval"),
        ("grpo", "featdiff.posttraining.rewards", "math_verify", "posttrain"),
        ("sft", "featdiff.posttraining.policy", "trl", "posttrain"),
        ("demo", "featdiff.posttraining.rewards", "math_verify", "demo"),
        ("demo", "featdiff.demo.inputs", "reasoning_gym", "demo"),
    ],
)
def test_a_missing_package_is_refused_with_the_extra_of_what_was_asked(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    study: str,
    verb: str,
    module: str,
    package: str,
    extra: str,
) -> None:
    def run(*_: object) -> None:
        exec(f"raise ModuleNotFoundError(name={package!r})", {"__name__": module})

    monkeypatch.setattr("featdiff.workflow.cli._run_verb", run)
    assert f"pip install 'featdiff[{extra}]'" in refused(capsys, verb, study)
