"""Whatever a user can get wrong is said in one line with exit code 2, and nothing half written is left."""

import fcntl
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_study import POSTTRAIN, moved, random_model, save_model, write_posttrained_study, write_tiny_study
from transformers import AutoTokenizer

from featdiff.workflow.cli import main

RUN = Path("runs/tiny")
FOLDERS = {"evaluate": "evaluation", "train": "crosscoders", "attribute": "attribution", "quality": "quality"}
FOLDERS |= {"sft": "posttrain/sft", "grpo": "posttrain/grpo", "select": "selection", "report": "figures"}
SMALL = ["--crosscoder.features", "16", "--corpus.tokens", "2000", "--corpus.held-out-tokens", "500"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, texts, tasks and a study with nothing wrong, and one that post-trains its own models."""
    folder = tmp_path_factory.mktemp("inputs")
    write_posttrained_study(folder).rename(folder / "made.toml")
    write_tiny_study(folder)
    return folder


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the study after `evaluate`, `train` and `attribute`."""
    folder = tmp_path_factory.mktemp("finished") / "runs"
    for verb in ("evaluate", "train", "attribute"):
        with pytest.raises(SystemExit) as end:
            main([verb, str(inputs / "tiny.toml"), "--runs", str(folder), *SMALL])
        assert end.value.code == 0
    return folder / "tiny"


@pytest.fixture
def here(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the inputs to spoil, as the current folder."""
    shutil.copytree(inputs, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def run(here: Path, finished: Path) -> Path:
    """A copy of the run to spoil, where `small` looks for it."""
    shutil.copytree(finished, here / RUN)
    return here / RUN


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Calls the command line; returns its one line. The stage that it was to make must not be there."""

    def refused(verb: str, *arguments: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([verb, *arguments])
        said = capsys.readouterr()
        *stages, line = said.err.splitlines()
        assert end.value.code == 2 and said.out == "" and line.startswith("featdiff: ") and len(line) < 600
        known = r"(\[\d/\d\] )?[a-z]+(: up to date)?|memory: .*"
        assert all(re.fullmatch(known, announced) for announced in stages), said.err
        if verb in FOLDERS:
            assert not (RUN / FOLDERS[verb]).exists()
        return line

    return refused


def edit(path: str, old: str, new: str) -> None:
    """Replace text in a file that holds it."""
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def small(verb: str) -> tuple[str, ...]:
    """A verb on the study that `finished` was made from, in its copied folder."""
    return verb, "tiny.toml", *SMALL


# ------------------------------------------------------------------ the study and the flags


def test_a_study_that_is_not_there(here: Path, refused: Callable[..., str]) -> None:
    assert "no study at nothing.toml; give a TOML file, or make one" in refused("run", "nothing.toml")


def test_a_folder_where_a_study_is_wanted(here: Path, refused: Callable[..., str]) -> None:
    assert "no study at tasks" in refused("run", "tasks")


def test_text_that_is_no_toml(here: Path, refused: Callable[..., str]) -> None:
    edit("tiny.toml", "seed = 0", "seed = = 0")
    assert "tiny.toml is not valid TOML" in refused("run", "tiny.toml")
    assert not RUN.exists()


def test_a_misspelt_key(here: Path, refused: Callable[..., str]) -> None:
    edit("tiny.toml", "held_out_tokens", "heldout_tokens")
    line = refused("run", "tiny.toml")
    assert "unknown setting corpus.heldout_tokens; did you mean held_out_tokens?" in line and not RUN.exists()


def test_a_misspelt_flag(here: Path, refused: Callable[..., str]) -> None:
    assert "--training.lr" in refused("run", "tiny.toml", "--training.lrr", "1e-4") and not RUN.exists()


def test_a_value_of_the_wrong_type(here: Path, refused: Callable[..., str]) -> None:
    edit("tiny.toml", "layer = 2", 'layer = "two"')
    assert "lineup.layer = 'two'" in refused("run", "tiny.toml") and not RUN.exists()


def test_shares_that_do_not_sum_to_one(here: Path, refused: Callable[..., str]) -> None:
    edit("tiny.toml", '"prose.txt", share = 0.5', '"prose.txt", share = 0.4')
    assert "sum to 0.9; they must sum to 1" in refused("run", "tiny.toml") and not RUN.exists()


def test_a_device_that_is_not_there(here: Path, refused: Callable[..., str]) -> None:
    line = refused("run", "tiny.toml", "--lineup.device", "teapot")
    assert "lineup.device = teapot cannot be used here" in line and not RUN.exists()


def test_a_crosscoder_over_a_model_that_the_study_does_not_have(here: Path, refused: Callable[..., str]) -> None:
    edit("tiny.toml", '["base", "sft", "rl"]', '["base", "dpo", "rl"]')
    assert "crosscoder.lineups.joint names dpo" in refused("run", "tiny.toml") and not RUN.exists()


def test_a_selection_for_a_model_that_the_study_does_not_have(here: Path, refused: Callable[..., str]) -> None:
    line = refused("run", "tiny.toml", "--selection.model", "dpo")
    assert "selection.model is dpo" in line and not RUN.exists()


def test_a_file_where_the_folder_of_runs_is_wanted(here: Path, refused: Callable[..., str]) -> None:
    Path("runs").write_text("")
    assert "runs" in refused("run", "tiny.toml")
    assert Path("runs").is_file()


def test_init_over_a_study(here: Path, refused: Callable[..., str]) -> None:
    before = Path("tiny.toml").read_text()
    assert "tiny.toml exists" in refused("init", "--base", "base", "--tuned", "rl=rl", "--out", "tiny.toml")
    assert Path("tiny.toml").read_text() == before


# ------------------------------------------------------------------ the models


def test_a_model_folder_that_is_not_there(here: Path, refused: Callable[..., str]) -> None:
    edit("tiny.toml", 'rl = "rl"', 'rl = "./nowhere"')
    line = refused("run", "tiny.toml")
    assert "lineup.tuned.rl: nothing at" in line and "nowhere" in line and not RUN.exists()


def test_a_folder_without_a_config(here: Path, refused: Callable[..., str]) -> None:
    Path("rl/config.json").unlink()
    assert "rl holds no config.json; give a model folder" in refused("run", "tiny.toml") and not RUN.exists()


def test_a_config_that_is_no_json(here: Path, refused: Callable[..., str]) -> None:
    Path("rl/config.json").write_text("{")
    assert "rl" in refused("train", "tiny.toml")


def test_a_folder_without_a_tokenizer(here: Path, refused: Callable[..., str]) -> None:
    Path("rl/tokenizer.json").unlink()
    assert "rl holds no tokenizer (tokenizer.json)" in refused("train", "tiny.toml")


def test_a_folder_without_weights(here: Path, refused: Callable[..., str]) -> None:
    Path("rl/model.safetensors").unlink()
    assert "cannot load the model" in refused("train", "tiny.toml")


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_weights_that_are_corrupted(here: Path, refused: Callable[..., str], verb: str) -> None:
    Path("rl/model.safetensors").write_bytes(b"\xff" * 10_000)
    assert "rl/model.safetensors is not a whole safetensors file" in refused(verb, "tiny.toml")


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_weights_that_are_cut_short(here: Path, refused: Callable[..., str], verb: str) -> None:
    whole = Path("base/model.safetensors").read_bytes()
    Path("base/model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "base/model.safetensors is not a whole safetensors file" in refused(verb, "tiny.toml")


def test_weights_of_another_shape_than_the_config_says(here: Path, refused: Callable[..., str]) -> None:
    edit("rl/config.json", '"intermediate_size": 64', '"intermediate_size": 96')
    assert "do not match its config.json" in refused("train", "tiny.toml")


@pytest.mark.parametrize(("verb", "words"), [("train", "NaN or infinity"), ("evaluate", "not numbers")])
def test_weights_that_are_no_numbers(here: Path, refused: Callable[..., str], verb: str, words: str) -> None:
    weights = load_file("rl/model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][:] = torch.nan
    save_file(weights, "rl/model.safetensors", metadata={"format": "pt"})
    line = refused(verb, "tiny.toml")
    assert words in line and "rl" in line and "sft" not in line


def test_two_tokenizers(here: Path, refused: Callable[..., str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained("rl")
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained("rl")
    assert "the tokenizers of 'base' and 'rl' differ" in refused("train", "tiny.toml")


def test_two_widths(here: Path, refused: Callable[..., str]) -> None:
    save_model(random_model(0, hidden_size=64), Path("rl"))
    assert "hidden_size of 'rl' is 64, of 'base' 32" in refused("train", "tiny.toml")


def test_a_layer_that_no_block_has(here: Path, refused: Callable[..., str]) -> None:
    line = refused("train", "tiny.toml", "--lineup.layer", "5")
    assert "lineup.layer is 5, but base has 4 blocks; choose 1..4" in line


def test_a_tuned_model_with_fewer_blocks_than_the_tap(here: Path, refused: Callable[..., str]) -> None:
    save_model(moved(random_model(0, num_hidden_layers=1), 1.0, 1), Path("rl"))
    assert "lineup.layer is 2, but rl has 1 blocks" in refused("train", "tiny.toml")


# ------------------------------------------------------------------ the text


def test_a_text_that_is_not_there(here: Path, refused: Callable[..., str]) -> None:
    Path("prose.txt").unlink()
    assert "corpus.sources.1.path: nothing at" in refused("run", "tiny.toml") and not RUN.exists()


@pytest.mark.parametrize("text", ["", " \n\n \n"])
def test_a_text_without_words(here: Path, refused: Callable[..., str], text: str) -> None:
    Path("prose.txt").write_text(text)
    line = refused("train", "tiny.toml")
    assert "prose.txt holds no text; give another, or take it out" in line


def test_a_text_in_no_known_encoding(here: Path, refused: Callable[..., str]) -> None:
    Path("prose.txt").write_bytes(b"\xff\xfe\x00 not text \x80" * 100)
    assert "prose.txt" in refused("train", "tiny.toml")


def test_lines_without_the_column_of_the_text(here: Path, refused: Callable[..., str]) -> None:
    edit("tiny.toml", '"traces.jsonl", share', '"traces.jsonl", field = "body", share')
    line = refused("train", "tiny.toml")
    assert "traces.jsonl" in line and "'body'" in line and "text" in line


def test_a_line_that_is_no_json(here: Path, refused: Callable[..., str]) -> None:
    lines = Path("traces.jsonl").read_text().splitlines()
    Path("traces.jsonl").write_text("\n".join([*lines[:2], "{broken", *lines[2:]]))
    line = refused("train", "tiny.toml")
    assert "traces.jsonl" in line and "3" in line


def test_a_table_that_is_no_parquet(here: Path, refused: Callable[..., str]) -> None:
    Path("table.parquet").write_text("no table")
    edit("tiny.toml", '"prose.txt"', '"table.parquet"')
    assert "table.parquet" in refused("train", "tiny.toml")


def test_rows_longer_than_the_models_can_read(here: Path, refused: Callable[..., str]) -> None:
    line = refused("train", "tiny.toml", "--corpus.context", "256")
    assert "sequences of 256 tokens exceed the 128 positions" in line and "corpus.context" in line


def test_a_corpus_smaller_than_a_row(here: Path, refused: Callable[..., str]) -> None:
    assert "each corpus needs a row at least" in refused("train", "tiny.toml", "--corpus.tokens", "60")


# ------------------------------------------------------------------ the tasks


def test_a_task_that_nobody_knows(here: Path, refused: Callable[..., str]) -> None:
    edit("tiny.toml", '"colours", role', '"colors", role')
    line = refused("evaluate", "tiny.toml")
    assert "no task is called 'colors'; nearest: colours" in line


def test_a_task_whose_data_are_not_there(here: Path, refused: Callable[..., str]) -> None:
    Path("tasks/colours.jsonl").unlink()
    line = refused("evaluate", "tiny.toml")
    assert "colours" in line and "No such file" in line


def test_a_task_without_items(here: Path, refused: Callable[..., str]) -> None:
    Path("tasks/colours.jsonl").write_text("")
    assert "colours" in refused("evaluate", "tiny.toml")


def test_a_task_file_that_is_no_yaml(here: Path, refused: Callable[..., str]) -> None:
    Path("tasks/colours.yaml").write_text("task: [colours")
    assert "colours" in refused("evaluate", "tiny.toml")


def test_a_task_whose_columns_are_called_otherwise(here: Path, refused: Callable[..., str]) -> None:
    edit("tasks/colours.yaml", "doc_to_text: question", 'doc_to_text: "{{query}}"')
    assert "colours" in refused("evaluate", "tiny.toml")


def test_an_answer_beyond_the_choices(here: Path, refused: Callable[..., str]) -> None:
    edit("tasks/colours.jsonl", '"answer": 3', '"answer": 7')
    assert "colours" in refused("evaluate", "tiny.toml")


def test_a_folder_of_tasks_that_is_not_there(here: Path, refused: Callable[..., str]) -> None:
    shutil.rmtree("tasks")
    assert "evaluation.task_folder: nothing at" in refused("run", "tiny.toml") and not RUN.exists()


def test_a_file_where_the_folder_of_tasks_is_wanted(here: Path, refused: Callable[..., str]) -> None:
    shutil.rmtree("tasks")
    Path("tasks").write_text("")
    assert "tasks" in refused("evaluate", "tiny.toml")


# ------------------------------------------------------------------ post-training


def test_prompts_that_are_not_there(here: Path, refused: Callable[..., str]) -> None:
    Path("prompts.jsonl").unlink()
    assert "posttrain.prompts: nothing at" in refused("run", "made.toml") and not RUN.exists()


@pytest.mark.parametrize("verb", ["sft", "grpo"])
def test_prompts_without_answers(here: Path, refused: Callable[..., str], verb: str) -> None:
    edit("prompts.jsonl", '"answer"', '"solution"')
    line = refused(verb, "made.toml")
    assert "row 0 has no column 'answer'; it has id, prompt, solution" in line


def test_a_teacher_that_is_never_right(here: Path, refused: Callable[..., str]) -> None:
    edit("teacher.jsonl", " yes", " no")
    line = refused("sft", "made.toml")
    assert "none of the 12 traces" in line and "12 end wrongly by the reward contains" in line


@pytest.mark.parametrize("reward", ["nice", "no_such_module:reward"])
def test_a_reward_that_nobody_knows(here: Path, refused: Callable[..., str], reward: str) -> None:
    edit("made.toml", 'reward = "contains"', f'reward = "{reward}"')
    line = refused("grpo", "made.toml")
    assert "posttrain.reward" in line and reward.split(":")[0] in line


def test_fewer_steps_than_checkpoints(here: Path, refused: Callable[..., str]) -> None:
    edit("made.toml", "checkpoints = 2", "checkpoints = 9")
    assert "too few for 9 checkpoints" in refused("sft", "made.toml")
    assert "too few for 9 checkpoints" in refused("grpo", "made.toml")


def test_models_that_are_both_given_and_made(here: Path, refused: Callable[..., str]) -> None:
    edit("tiny.toml", "[evaluation]", POSTTRAIN + "\n[evaluation]")
    assert "both lineup.tuned and posttrain" in refused("run", "tiny.toml") and not RUN.exists()


# ------------------------------------------------------------------ the run


def test_a_run_that_someone_works_on(run: Path, refused: Callable[..., str]) -> None:
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another featdiff works on runs/tiny" in refused(*small("select"))


def test_a_record_of_a_stage_that_is_damaged(run: Path, refused: Callable[..., str]) -> None:
    (run / "crosscoders" / "stage.json").write_text('{"stage": "tr')
    line = refused(*small("select"))
    assert "crosscoders/stage.json is damaged" in line and "delete its folder and run again" in line


def test_a_record_of_a_stage_without_a_fingerprint(run: Path, refused: Callable[..., str]) -> None:
    (run / "crosscoders" / "stage.json").write_text("{}")
    assert "crosscoders/stage.json is damaged" in refused(*small("select"))


def test_a_study_of_a_run_that_is_damaged(run: Path, refused: Callable[..., str]) -> None:
    (run / "study.json").write_text("[")
    assert "study.json is not valid JSON" in refused("show", str(run))


def test_a_crosscoder_that_is_damaged(run: Path, refused: Callable[..., str]) -> None:
    shutil.rmtree(run / "attribution")
    (run / "crosscoders" / "joint" / "crosscoder.safetensors").write_bytes(b"\x00" * 100)
    line = refused(*small("attribute"))
    assert "joint/crosscoder.safetensors is damaged" in line and "retrain it" in line


def test_a_crosscoder_that_is_gone(run: Path, refused: Callable[..., str]) -> None:
    shutil.rmtree(run / "attribution")
    shutil.rmtree(run / "crosscoders" / "joint")
    assert "joint" in refused(*small("attribute"))


def test_densities_that_are_damaged(run: Path, refused: Callable[..., str]) -> None:
    shutil.rmtree(run / "attribution")
    (run / "crosscoders" / "joint" / "quality.safetensors").write_bytes(b"\x00" * 100)
    line = refused(*small("attribute"))
    assert "joint/quality.safetensors is damaged" in line and "retrain it" in line


def test_records_of_an_evaluation_that_are_damaged(run: Path, refused: Callable[..., str]) -> None:
    (run / "evaluation" / "rl" / "animals.parquet").write_bytes(b"PAR1 no more")
    line = refused(*small("select"))
    assert "rl/animals.parquet cannot be read" in line and "evaluate the model again" in line


def test_a_stage_below_that_is_missing(here: Path, refused: Callable[..., str]) -> None:
    assert "select builds on evaluate, which is missing; make it first" in refused("select", "tiny.toml")


def test_a_stage_below_that_is_stale(run: Path, refused: Callable[..., str]) -> None:
    line = refused(*small("select"), "--training.lr", "0.5")
    assert "select builds on train, which is stale (training changed)" in line


def test_a_stage_that_the_study_does_not_have(here: Path, refused: Callable[..., str]) -> None:
    assert "this study has no stage sft" in refused("sft", "tiny.toml")


def test_the_study_that_these_tests_spoil_is_whole(run: Path) -> None:
    """Else all of the above might be refused for another reason."""
    with pytest.raises(SystemExit) as end:
        main([*small("select")])
    assert end.value.code == 0 and json.loads((run / "selection" / "selection.json").read_text())["tasks"]
