"""A study is read as written, and whatever is wrong with it is said in one line."""

from pathlib import Path

import pytest

from featdiff.config.study import Study
from featdiff.config.study_file import is_hub_id, read_study, validated

MINIMAL = """
name = "small"
[lineup]
base = "owner/base"
[lineup.tuned]
zeta = "owner/zeta"
alpha = "owner/alpha"
[corpus]
sources = [{ path = "owner/text", share = 1.0 }]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def problem(folder: Path, text: str) -> str:
    with pytest.raises(ValueError) as error:
        read_study(write(folder, text))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_study_survives_toml_json_and_back_with_the_order_of_its_models(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, MINIMAL))
    again = Study.model_validate_json(study.model_dump_json())
    assert again == study
    assert list(again.lineup.tuned) == ["zeta", "alpha"]


def test_a_float_in_exponent_form_stays_a_float(tmp_path: Path) -> None:
    assert read_study(write(tmp_path, MINIMAL + "[training]\nlr = 1e-4\n")).training.lr == 1e-4


def test_a_misspelt_key_is_refused_with_its_path_and_the_nearest_name(tmp_path: Path) -> None:
    text = problem(tmp_path, MINIMAL + "[training]\nbatchsize = 3\n")
    assert "training.batchsize" in text and "did you mean batch_size?" in text


def test_a_misspelt_key_below_a_union_and_a_mapping_finds_its_neighbours(tmp_path: Path) -> None:
    lineup = '[crosscoder.lineups.all]\nmodels = ["base", "zeta"]\nsparsity = { kind = "batchtopk", kk = 3 }\n'
    assert "did you mean k?" in problem(tmp_path, MINIMAL + lineup)


def test_a_key_that_resembles_nothing_is_answered_with_what_is_known(tmp_path: Path) -> None:
    assert "known here: alignments, " in problem(tmp_path, MINIMAL + "[dynamics]\nxyzzy = 3\n")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("[training]\nlr = 'fast'\n", ["training.lr", "'fast'", "number"]),
        ("[training]\nlr = -1.0\n", ["training.lr", "greater than 0"]),
        ("[crosscoder]\nfeatures = 0\n", ["crosscoder.features", "greater than or equal to 1"]),
        ("[crosscoder]\nsparsity = { kind = 'topk' }\n", ["crosscoder.sparsity", "'relu', 'batchtopk'"]),
        ("[posttrain]\nprompts = 'p.jsonl'\n", ["posttrain", "exactly one of"]),
        ("[intervention]\nconfidence = nan\n", ["intervention.confidence", "finite"]),
        ("[lineup.checkpoints]\nppo = ['a']\n", ["lineup", "ppo"]),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_path(tmp_path: Path, section: str, words: list[str]) -> None:
    text = problem(tmp_path, MINIMAL + section)
    assert all(word in text for word in words), text


def test_shares_that_do_not_sum_to_one_are_refused_with_their_sum(tmp_path: Path) -> None:
    text = problem(tmp_path, MINIMAL.replace("share = 1.0", "share = 0.4"))
    assert "sum to 0.4" in text


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    assert "lineup is missing" in problem(tmp_path, "name = 'x'\n[corpus]\nsources = [{ path = 'a', share = 1.0 }]\n")


def test_text_that_is_not_toml_is_refused_with_the_place(tmp_path: Path) -> None:
    assert "not valid TOML" in problem(tmp_path, "name = \n")


def test_an_absent_study_is_refused_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="featdiff init"):
        read_study(tmp_path / "none.toml")


def test_paths_are_relative_to_the_file_and_hub_ids_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "text.txt").write_text("words")
    text = MINIMAL.replace('zeta = "owner/zeta"', 'zeta = "mine"').replace("owner/text", "text.txt")
    study = read_study(write(tmp_path, text))
    assert study.lineup.tuned == {"zeta": str(tmp_path / "mine"), "alpha": "owner/alpha"}
    assert study.corpus.sources[0].path == str(tmp_path / "text.txt")


def test_a_file_name_or_a_marked_path_is_no_hub_id() -> None:
    assert is_hub_id("Qwen/Qwen2.5-7B") and is_hub_id("gpt2")
    assert not any(map(is_hub_id, ("data/a.jsonl", "./gpt2", "/models/base", "a/b/c")))


def test_batches_of_grpo_that_do_not_divide_are_refused() -> None:
    tree = {
        "name": "x",
        "lineup": {"base": "b"},
        "posttrain": {"prompts": "p", "teacher": "t", "grpo": {"prompts_per_generation": 10, "prompts_per_step": 4}},
        "corpus": {"sources": [{"path": "a", "share": 1.0}]},
    }
    with pytest.raises(ValueError, match="multiple of prompts_per_step 4"):
        validated(tree, "study")
