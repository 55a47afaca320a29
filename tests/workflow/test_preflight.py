"""What does not exist is named before the first byte is written."""

from pathlib import Path

import pytest
from tiny_study import changed

from featdiff.run.plan import Plan
from featdiff.workflow.preflight import check_inputs

TRAINED = {"prompts": "prompts.jsonl", "teacher": "teacher.jsonl"}


def test_a_study_whose_inputs_exist_passes(fresh: Plan) -> None:
    check_inputs(fresh)
    assert not fresh.run.folder.exists()


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("lineup__base", "/no/where", "lineup.base"),
        ("lineup__tuned", {"sft": "/no/where", "rl": "owner/rl"}, "lineup.tuned.sft"),
        ("lineup__checkpoints", {"rl": ["owner/a", "/no/where"]}, "lineup.checkpoints.rl.1"),
        ("corpus__sources", [{"path": "/no/where.txt", "share": 1.0}], "corpus.sources.0.path"),
        ("evaluation__task_folder", "/no/where", "evaluation.task_folder"),
    ],
)
def test_a_path_that_leads_nowhere_is_named_with_its_setting(
    fresh: Plan, setting: str, value: object, named: str
) -> None:
    with pytest.raises(ValueError, match=rf"{named}: nothing at /no/where"):
        check_inputs(Plan(changed(fresh.study, crosscoder__lineups={}, **{setting: value})))


@pytest.mark.parametrize(("given", "named"), [("prompts", "posttrain.prompts"), ("teacher", "posttrain.teacher")])
def test_missing_files_of_post_training_are_named(fresh: Plan, tmp_path: Path, given: str, named: str) -> None:
    for name in TRAINED.values():
        (tmp_path / name).write_text("{}\n")
    files = {key: str(tmp_path / name) for key, name in TRAINED.items()} | {given: "/no/where"}
    study = changed(fresh.study, lineup__tuned={}, lineup__checkpoints={}, crosscoder__lineups={}, posttrain=files)
    with pytest.raises(ValueError, match=f"{named}: nothing at /no/where"):
        check_inputs(Plan(study))


def test_hub_ids_are_left_to_the_hub(fresh: Plan) -> None:
    sources = [{"path": "owner/text", "share": 0.5}, {"path": "/not/a/path", "kind": "hub", "share": 0.5}]
    check_inputs(Plan(changed(fresh.study, lineup__base="owner/base", corpus__sources=sources)))


def test_a_folder_that_is_no_model_is_refused(fresh: Plan, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        check_inputs(Plan(changed(fresh.study, lineup__base=str(tmp_path))))


def test_a_file_where_a_model_folder_is_wanted_is_refused(fresh: Plan, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(ValueError, match="is a file; give a model folder"):
        check_inputs(Plan(changed(fresh.study, lineup__base=str(tmp_path / "model"))))


@pytest.mark.parametrize("device", ["teapot", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_in_one_line(fresh: Plan, device: str) -> None:
    with pytest.raises(ValueError, match=f"lineup.device = {device} cannot be used here") as error:
        check_inputs(Plan(changed(fresh.study, lineup__device=device)))
    assert "\n" not in str(error.value)


def test_devices_of_single_models_are_checked_by_name(fresh: Plan) -> None:
    check_inputs(Plan(changed(fresh.study, lineup__devices={"base": "cpu", "rl-1": "cpu"})))
    with pytest.raises(ValueError, match=r"^lineup\.devices names ri; the models are base, sft, sft-1, sft-2, rl, "):
        check_inputs(Plan(changed(fresh.study, lineup__devices={"ri": "cpu"})))
    with pytest.raises(ValueError, match=r"^lineup\.devices\.rl = teapot cannot be used here"):
        check_inputs(Plan(changed(fresh.study, lineup__devices={"rl": "teapot"})))


def test_models_cannot_take_turns_on_devices_of_their_own(fresh: Plan) -> None:
    with pytest.raises(
        ValueError, match=r"lineup\.turns runs every model on lineup\.device; leave lineup\.devices out"
    ):
        changed(fresh.study, lineup__turns=True, lineup__devices={"rl": "cpu"})
