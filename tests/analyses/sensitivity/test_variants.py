"""What a sensitivity analysis varies: one thing at a time, each at every strength, in groups that train together."""

from pathlib import Path

import pytest

from featdiff.analyses.sensitivity.variants import (
    Group,
    choices_of,
    group_plan,
    groups_of,
    points_of,
    rescorings_of,
    scaled,
)
from featdiff.config.crosscoder import BatchTopK, JumpReLU, ReLU
from featdiff.config.study_file import validated
from featdiff.run.plan import Plan

EVERY = {
    "strengths": [0.5, 1.0, 2.0],
    "seeds": [1, 2],
    "objective": [{"kind": "mse_delta", "weight": -0.25}, {"kind": "cosine"}],
    "sparsity": [{"kind": "batchtopk", "k": 8}, {"kind": "relu", "weight": 1.0}],
    "shared": [{"features": 20}],
    "encoder": [{"kind": "mlp", "width": 7}],
    "align": [{"kind": "procrustes"}],
    "layers": [3],
    "norm_p": [2],
    "space": ["raw"],
}
LABELS = [
    *("reference", "seed 1", "seed 2", "objective mse_delta, weight -0.25", "objective cosine"),
    *("sparsity batchtopk, k 8", "sparsity relu, weight 1", "shared block, features 20", "encoder mlp, width 7"),
    *("align procrustes", "layer 3"),
]


def plan(sensitivity: dict[str, object] = {}, **crosscoder: object) -> Plan:  # noqa: B006
    tree: dict[str, object] = {
        "name": "varied",
        "lineup": {"base": "b", "tuned": {"sft": "s", "rl": "r"}},
        "corpus": {"sources": [{"path": "t.txt", "share": 1.0}]},
        "crosscoder": {"features": 100, **crosscoder},
        "sensitivity": {**EVERY, **sensitivity},
    }
    return Plan(validated(tree, "test"))


def test_every_choice_differs_from_the_studys_own_in_one_thing() -> None:
    own, *others = choices_of(plan())
    assert [choice.label for choice in (own, *others)] == LABELS
    for choice in others:
        values = dict(own.crosscoder), dict(choice.crosscoder)
        changed = sum(values[0][key] != values[1][key] for key in values[0]) + (choice.layer != own.layer)
        assert changed == 1, choice.label
    assert [one.label for one in rescorings_of(plan())] == ["L2 norm", "raw units"]


def test_each_is_trained_at_every_strength_under_a_name_of_its_own() -> None:
    points = points_of(plan())
    assert len({point.name for point in points}) == len(points) == 3 * len(LABELS)
    assert all(set(point.name) <= set("abcdefghijklmnopqrstuvwxyz-.0123456789") for point in points)


def test_a_strength_multiplies_beta_and_divides_k() -> None:
    assert scaled(ReLU(weight=2.0), 0.25) == ReLU(weight=0.5)
    assert scaled(JumpReLU(weight=0.5, c=3.0), 4.0) == JumpReLU(weight=2.0, c=3.0)
    assert scaled(BatchTopK(k=64), 4.0).k == 16 and scaled(BatchTopK(k=64), 0.25).k == 256  # pyright: ignore


def test_what_shares_a_layer_trains_together_unless_memory_is_short() -> None:
    assert [(group.layer, len(group.points)) for group in groups_of(plan())] == [(None, 2), (None, 28), (3, 3)]
    parted = groups_of(plan({"together": 16}))
    assert [(group.name, len(group.points)) for group in parted] == [
        ("study", 2),  # its own, which is also L1 of half the weight at twice the strength
        ("layer-own-1", 16),
        ("layer-own-2", 12),
        ("layer-3-1", 3),
    ]
    found = [point.name for group in parted for point in group.points]
    assert sorted(found) == sorted(point.name for point in points_of(plan()))


def test_crosscoders_that_the_study_has_anyway_are_not_trained_again() -> None:
    (standing, *others) = groups_of(plan({"seeds": [1, 2], "sparsity": []}, seeds=[0, 2]))
    assert standing.standing and not any(group.standing for group in others)
    assert standing.names == ("joint", "joint-seed2")
    assert [point.name for point in standing.points] == ["reference-x1", "seed-2-x1"]
    assert "seed-1-x1" in others[0].names


def test_a_group_is_a_study_of_its_own_whose_crosscoders_lie_elsewhere(tmp_path: Path) -> None:
    made = plan({"controls": 3, "items": 9})
    group: Group = groups_of(made)[-1]
    varied = group_plan(made, group, tmp_path)
    assert list(varied.crosscoders) == [point.name for point in group.points]
    assert list(varied.crosscoders.values()) == [point.crosscoder for point in group.points]
    assert varied.study.lineup.layer == 3 and varied.harvested == ("base", "sft", "rl")
    settings = varied.study.intervention
    assert (settings.drawn("activity-matched"), settings.drawn("uniform alive"), settings.items) == (3, 0, 9)
    assert varied.run.path("crosscoders", "a") == tmp_path / "crosscoders" / group.name / "a"
    assert varied.run.path("evaluation", "b") == made.run.path("evaluation", "b")


@pytest.mark.parametrize(
    ("sensitivity", "message"),
    [
        ({"strengths": [0.5, 2.0]}, "the strengths are 0.5, 2; give each once, and 1, the study's own, among them"),
        ({"seeds": [0]}, "sensitivity gives seed 0, which the study has already; leave it out"),
        ({"objective": [{"kind": "mse"}]}, "sensitivity gives objective mse, which the study has already"),
        ({"objective": [{"kind": "cosine"}] * 2}, "sensitivity gives objective cosine twice; give it once"),
        ({"norm_p": [1]}, "sensitivity gives L1 norm twice, or as the study has it"),
        ({"sparsity": [{"kind": "batchtopk", "k": 1}]}, "the strengths make k 1, 1, 2; give others"),
        ({"sparsity": [{"kind": "batchtopk", "k": 80}]}, "none exceeds 100 features"),
        ({"shared": [{"features": 200}]}, "sensitivity, shared block, features 200: 200 shared and dedicated features"),
        ({"sparsty": []}, "sparsty"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(sensitivity: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        made = plan(sensitivity)
        choices_of(made)
        rescorings_of(made)
    assert "\n" not in str(refused.value)


def test_a_shared_block_has_no_place_under_batchtopk() -> None:
    with pytest.raises(
        ValueError, match="sensitivity, shared block, features 20: 20 shared features want a reduced penalty"
    ):
        choices_of(plan({"sparsity": []}, sparsity={"kind": "batchtopk", "k": 8}))
