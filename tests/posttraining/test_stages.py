"""SFT and GRPO as stages: one base, the same prompts, checkpoints where the other stages look for them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_study import changed, contents, write_posttrained_study

from featdiff.config.study_file import read_study
from featdiff.files import read_json
from featdiff.posttraining.stages import sft
from featdiff.run.plan import Plan
from featdiff.workflow.registry import stages_of
from featdiff.workflow.runner import run_verb

pytest.importorskip("trl")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A study after `sft` and `grpo`."""
    folder = tmp_path_factory.mktemp("made")
    plan = Plan(changed(read_study(write_posttrained_study(folder)), runs=str(folder / "runs")))
    run_verb(plan.study, "sft")
    run_verb(plan.study, "grpo")
    return plan


def test_both_paradigms_leave_their_checkpoints_where_the_plan_looks_for_models(made: Plan) -> None:
    for name in ("sft", "sft-1", "sft-2", "rl", "rl-1", "rl-2"):
        assert sorted(path.name for path in Path(made.paths[name]).iterdir()) >= [
            "config.json",
            "generation_config.json",
        ]
        assert (Path(made.paths[name]) / "tokenizer.json").is_file()
    assert made.paths["rl"] == made.paths["rl-2"]
    assert [stage.name for stage in stages_of(made)][:3] == ["sft", "grpo", "evaluate"]


def test_training_moves_the_weights_from_the_base_and_from_checkpoint_to_checkpoint(made: Plan) -> None:
    weights = {name: load_file(Path(path) / "model.safetensors") for name, path in made.paths.items()}
    for one, other in (("base", "sft-1"), ("sft-1", "sft-2"), ("base", "rl-1"), ("rl-1", "rl-2"), ("sft-2", "rl-2")):
        assert weights[one].keys() == weights[other].keys()
        assert any(not torch.equal(weights[one][key], weights[other][key]) for key in weights[one])


def test_wrong_traces_are_left_out_and_counted(made: Plan) -> None:
    traces = read_json(made.run.path("posttrain", "sft", "traces.json"))
    assert traces == {"prompts": 12, "kept": 10, "wrong": 2, "unmatched": 0}
    assert read_json(made.run.path("posttrain", "sft", "examples.json"))["steps"] == 5


def test_grpo_sees_the_same_prompts_and_logs_its_reward(made: Plan) -> None:
    assert read_json(made.run.path("posttrain", "grpo", "examples.json"))["used"] == 12
    lines = made.run.path("posttrain", "grpo", "log.jsonl").read_text().splitlines()
    rewards = [json.loads(line)["reward"] for line in lines[::2]]  # two steps a generation
    assert len(lines) == 6 and all(0 < reward <= 1 for reward in rewards)


def test_a_finished_folder_holds_no_state_and_no_pickle(made: Plan) -> None:
    names = [path.name for path in made.run.path("posttrain").rglob("*")]
    assert not [
        name for name in names if name.startswith("state") or name.endswith((".bin", ".pt", ".pkl", ".partial"))
    ]


def test_tuning_again_gives_the_same_bytes(made: Plan, tmp_path: Path) -> None:
    sft(made, tmp_path)
    again, before = contents(tmp_path), contents(made.run.path("posttrain", "sft"))
    del before["stage.json"]
    assert again == before


def test_a_teacher_model_writes_the_traces_itself(made: Plan, tmp_path: Path) -> None:
    study = changed(
        made.study,
        posttrain__teacher=None,
        posttrain__teacher_model=made.paths["base"],
        posttrain__teacher_max_tokens=16,
        posttrain__checkpoints=1,
        posttrain__sft__batch_size=1,
        posttrain__sft__micro_batch_size=1,
        crosscoder__lineups={},
    )
    sft(Plan(study), tmp_path)
    counts = read_json(tmp_path / "traces.json")
    assert counts["kept"] + counts["wrong"] == counts["prompts"] == 12 and counts["kept"] > 0
    assert len((tmp_path / "teacher.jsonl").read_text().splitlines()) == 12
