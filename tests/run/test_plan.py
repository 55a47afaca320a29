"""A plan names models and crosscoders, and makes exactly those stages stale that a change concerns."""

from pathlib import Path

import pytest
from tiny_study import changed

from featdiff.config.study import LineupSettings, Study
from featdiff.config.study_file import validated
from featdiff.run.plan import Plan
from featdiff.workflow.registry import stage_of, stages_of

FROM_CROSSCODERS = ("quality", "attribute", "drift", "dynamics", "select", "intervene", "ways", "examples")
ORDER = ("evaluate", "train", *FROM_CROSSCODERS, "report")
FROM_TRAIN = set(ORDER) - {"evaluate", "report"}


def posttrain_study(**settings: object) -> Study:
    """A study whose models are yet to be made, from the inputs that ship with featdiff."""
    tree: dict[str, object] = {
        "name": "made",
        "lineup": {"base": "demo:base"},
        "posttrain": {"prompts": "demo:prompts.jsonl", "teacher": "demo:teacher.jsonl", "checkpoints": 3},
        "corpus": {"sources": [{"path": "demo:prose.txt", "share": 1.0}]},
        "evaluation": {"tasks": [{"name": "chain_sum"}], "task_folder": "demo:tasks"},
    }
    return validated(tree | settings, "test")


def test_models_that_are_given_lie_where_the_study_says(tiny: Plan, study_file: Path) -> None:
    assert tiny.models == ("base", "sft", "rl") and tiny.tuned == ("sft", "rl")
    names = {"base": "base", "sft": "sft", "sft-1": "sft-1", "sft-2": "sft", "rl": "rl", "rl-1": "rl-1", "rl-2": "rl"}
    assert tiny.paths == {name: str(study_file.parent / folder) for name, folder in names.items()}


def test_models_that_are_made_lie_in_the_run_and_the_last_checkpoint_is_the_model() -> None:
    plan = Plan(posttrain_study())
    assert plan.paths["base"] == "runs/made/inputs/base"
    assert plan.paths["rl"] == plan.paths["rl-3"] == "runs/made/posttrain/grpo/checkpoint-3"
    assert plan.paths["sft-1"] == "runs/made/posttrain/sft/checkpoint-1"


def test_without_lineups_there_is_a_joint_crosscoder_one_per_pair_and_what_dynamics_needs() -> None:
    plan = Plan(posttrain_study())
    joint = {"joint": ("base", "sft", "rl"), "base-sft": ("base", "sft"), "base-rl": ("base", "rl")}
    joint |= {"dynamics-sft": ("base", "sft-1", "sft-2", "sft-3"), "dynamics-rl": ("base", "rl-1", "rl-2", "rl-3")}
    single = {f"base-{name}": ("base", name) for names in plan.checkpoints.values() for name in names}
    assert {name: one.models for name, one in plan.crosscoders.items()} == joint | single
    assert plan.lineups == tuple(joint) and plan.follows == ("sft", "rl")
    assert plan.per_checkpoint("rl") == ("base-rl-1", "base-rl-2", "base-rl-3") and plan.swap("rl") == "base-rl"


@pytest.mark.parametrize(
    ("alignments", "planned"),
    [
        ([], set()),
        (["swap"], set()),
        (["joint"], {"dynamics-sft", "dynamics-rl"}),
        (["matched"], {f"base-{tuned}-{n}" for tuned in ("sft", "rl") for n in (1, 2, 3)}),
        (["same_seed_index"], {f"base-{tuned}-{n}" for tuned in ("sft", "rl") for n in (1, 2, 3)}),
    ],
)
def test_crosscoders_are_planned_as_far_as_the_alignments_need_them(alignments: list[str], planned: set[str]) -> None:
    plan = Plan(posttrain_study(dynamics={"alignments": alignments}))
    assert set(plan.crosscoders) == {"joint", "base-sft", "base-rl"} | planned
    assert plan.follows == (("sft", "rl") if planned else ())  # swapping reads checkpoints that were harvested


def test_seeds_multiply_every_crosscoder_and_the_first_keeps_the_name() -> None:
    plan = Plan(posttrain_study(crosscoder={"seeds": [5, 0, 2]}, dynamics={"alignments": ["joint"]}))
    assert plan.seeds["joint"] == ("joint", "joint-seed0", "joint-seed2") and len(plan.crosscoders) == 15
    assert [plan.crosscoders[name].seed for name in plan.seeds["base-rl"]] == [5, 0, 2]
    assert {plan.crosscoders[name].models for name in plan.seeds["joint"]} == {("base", "sft", "rl")}
    assert plan.joint == "joint" and plan.pair("rl") == "base-rl" and "joint-seed0" not in plan.lineups
    stages = [stage.name for stage in stages_of(plan)]
    assert stages.index("train") < stages.index("stability") < stages.index("select")


def test_a_lineup_may_have_seeds_of_its_own(tiny: Plan) -> None:
    one = {"models": ["base", "rl"], "seeds": [3, 4]}
    two = {"models": ["base", "sft", "rl"], "seed": 7}
    plan = Plan(changed(tiny.study, crosscoder__seeds=[1, 2], crosscoder__lineups={"two": two, "one": one}))
    assert {name: plan.crosscoders[name].seed for name in plan.crosscoders} == {"two": 7, "one": 3, "one-seed4": 4}


def test_swapping_takes_the_crosscoder_of_the_last_checkpoint_where_it_has_more_seeds() -> None:
    lineups = {
        "joint": {"models": ["base", "sft", "rl"]},
        "base-rl": {"models": ["base", "rl"]},
        "last": {"models": ["base", "rl-3"], "seeds": [0, 1]},
        "others": {"models": ["base", "rl-1", "rl-2"]},
    }
    plan = Plan(posttrain_study(crosscoder={"lineups": lineups}))
    assert plan.swap("rl") == "last" and plan.swap("sft") is None and plan.follows == ("rl",)


def test_one_tuned_model_needs_no_pair_beside_the_joint_crosscoder(tiny: Plan) -> None:
    one = changed(tiny.study, lineup__tuned={"rl": "r"}, lineup__checkpoints={}, crosscoder__lineups={})
    plan = Plan(one)
    assert list(plan.crosscoders) == ["joint"] and plan.pair("rl") == "joint" and plan.dynamics("rl") is None


def test_a_crosscoder_takes_what_it_does_not_say_from_the_section(tiny: Plan) -> None:
    assert {one.features for one in tiny.crosscoders.values()} == {64}
    assert (
        tiny.crosscoders["base-rl"].sparsity.kind == "relu" and tiny.crosscoders["joint"].sparsity.kind == "batchtopk"
    )
    assert tiny.joint == "joint" and tiny.pair("rl") == "base-rl" and tiny.pair("sft") is None
    assert tiny.dynamics("sft") == "dynamics-sft"


def test_each_stage_builds_on_earlier_stages_only(tiny: Plan) -> None:
    before: list[str] = []
    for stage in stages_of(tiny):
        built_on = {key.removeprefix("stage ") for key in stage.made_from if key.startswith("stage ")}
        assert built_on <= set(before), stage.name
        before.append(stage.name)
    assert tuple(before) == ORDER


def test_a_study_of_the_shipped_inputs_writes_them_first_and_makes_its_models() -> None:
    stages = [stage.name for stage in stages_of(Plan(posttrain_study()))]
    assert stages[:4] == ["inputs", "sft", "grpo", "evaluate"]


def test_stages_without_anything_to_do_are_left_out(tiny: Plan) -> None:
    bare = Plan(changed(tiny.study, evaluation__tasks=[], lineup__checkpoints={}, crosscoder__lineups={}))
    assert [stage.name for stage in stages_of(bare)] == ["train", "attribute", "examples", "report"]


@pytest.mark.parametrize(
    ("setting", "value", "concerned"),
    [
        ("training__lr", 1e-4, FROM_TRAIN),
        ("corpus__tokens", 7_000, FROM_TRAIN),
        ("lineup__layer", 3, FROM_TRAIN),
        (
            "lineup__attention",
            "eager",
            FROM_TRAIN,
        ),
        ("lineup__dtype", "bfloat16", set(ORDER) - {"report"}),
        ("evaluation__limit", 5, {"evaluate", "quality", "drift", "select", "intervene", "ways", "examples"}),
        ("intervention__confidence", 0.9, {"evaluate", "quality", "drift", "select", "intervene", "ways", "examples"}),
        ("attribution__tails", [0.7], {"attribute", "drift", "examples"}),
        (
            "attribution__min_density",
            0.01,
            {"attribute", "dynamics", "drift", "select", "intervene", "ways", "examples"},
        ),
        ("attribution__scaling", {"tokens": 500}, {"attribute", "drift", "examples"}),
        ("dynamics__top", 5, {"dynamics"}),
        ("dynamics__alignments", ["joint"], {"dynamics"}),
        ("stability__acceptance", 0.8, {"dynamics"}),
        ("drift", {"items": 3}, {"drift"}),
        ("ways", {"items": 3}, {"ways"}),
        ("intervention__doses", [0.5], {"intervene"}),
        ("examples", {"top": 3}, {"examples"}),
        ("selection__threshold", 0.5, {"select", "intervene", "ways", "examples"}),
        ("intervention__amplify", 2.0, {"intervene", "ways"}),
        ("seed", 1, set(ORDER) - {"report"}),
    ],
)
def test_a_change_concerns_exactly_the_stages_that_read_it_and_the_report(
    tiny: Plan, setting: str, value: object, concerned: set[str]
) -> None:
    other = Plan(changed(tiny.study, **{setting: value}))
    assert {stage.name for stage in stages_of(other) if tiny.run.state(stage) == "stale"} == concerned | {"report"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("threads", 2),
        ("lineup__device", "cuda"),
        ("lineup__devices", {"rl": "cuda"}),
        ("lineup__turns", True),
        ("activations__prefetch", "on"),
        ("evaluation__batch_size", 3),
        ("intervention__batch_size", 3),
        ("training__checkpoint_minutes", 1.0),
        ("training__feature_shards", 2),
        ("lineup__spread", True),
        ("training__log_every", 7),
    ],
)
def test_what_decides_no_result_makes_nothing_stale(tiny: Plan, setting: str, value: object) -> None:
    other = Plan(changed(tiny.study, **{setting: value}))
    assert all(tiny.run.state(stage) == "done" for stage in stages_of(other))


def test_post_training_is_not_done_again_for_a_tap_at_another_layer() -> None:
    one, other = (
        {stage.name: stage.fingerprint for stage in stages_of(Plan(study))}
        for study in (posttrain_study(), posttrain_study(lineup={"base": "demo:base", "layer": 1}))
    )
    assert {name for name in one if one[name] == other[name]} == {"inputs", "sft", "grpo", "evaluate"}


def test_checkpoints_that_change_their_names_are_others(tiny: Plan) -> None:
    one = changed(tiny.study, lineup__checkpoints={"sft": ["a", "b"], "rl": ["c", "d"]})
    other = changed(tiny.study, lineup__checkpoints={"rl": ["a", "b"], "sft": ["c", "d"]})
    assert stage_of(Plan(one), "train").fingerprint != stage_of(Plan(other), "train").fingerprint


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lineup__tuned": {}, "lineup__checkpoints": {}, "crosscoder__lineups": {}}, "names no tuned model"),
        ({"crosscoder__lineups": {"x": {"models": ["base", "dpo"]}}}, "crosscoder.lineups.x names dpo"),
        ({"crosscoder__lineups": {"x": {"models": ["sft", "rl"]}}}, "must begin with base"),
        ({"crosscoder__lineups": {"x": {"models": ["base", "rl", "rl"]}}}, "each model once"),
        ({"crosscoder__seeds": [1, 1]}, "the seeds of crosscoder joint are 1, 1; give each of them once"),
        (
            {"crosscoder__lineups": {"x": {"models": ["base", "rl"], "seed": 1, "seeds": [1]}}},
            "crosscoder.lineups.x gives both seed and seeds",
        ),
        (
            {
                "crosscoder__lineups": {
                    "x": {"models": ["base", "sft", "rl"], "seeds": [0, 1]},
                    "x-seed1": {"models": ["base", "rl"]},
                }
            },
            "two crosscoders would be called x-seed1",
        ),
        ({"selection__lineup": "nobody"}, "selection.lineup is nobody; give one of joint"),
        ({"selection__model": "dpo"}, "selection.model is dpo"),
    ],
)
def test_names_that_do_not_fit_are_refused(tiny: Plan, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Plan(changed(tiny.study, **settings))


def test_models_cannot_be_both_given_and_made() -> None:
    study = posttrain_study().model_copy(update={"lineup": LineupSettings(base="b", tuned={"rl": "r"})})
    with pytest.raises(ValueError, match=r"both lineup\.tuned and posttrain"):
        Plan(study)
