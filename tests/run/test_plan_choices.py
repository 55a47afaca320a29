"""The choices of a dictionary: what a lineup inherits, what is refused, and what becomes of them."""

import pytest

from featdiff.config.crosscoder import MLP, Cosine, DeltaMSE, Design, Procrustes, Shared
from featdiff.config.study_file import validated
from featdiff.run.plan import Plan
from featdiff.run.train import _new
from featdiff.workflow.registry import stage_of

ALL = {
    "features": 100,
    "objective": {"kind": "mse_delta", "weight": -0.25},
    "encoder": {"kind": "mlp", "width": 7},
    "align": {"kind": "procrustes", "tokens": 99},
    "shared": {"features": 20, "ratio": 0.1},
    "partition": {"rl": 0.1, "base+sft": 0.05},
}


def plan(crosscoder: dict[str, object]) -> Plan:
    tree: dict[str, object] = {
        "name": "chosen",
        "lineup": {"base": "b", "tuned": {"sft": "s", "rl": "r"}},
        "corpus": {"sources": [{"path": "t.txt", "share": 1.0}]},
        "crosscoder": crosscoder,
    }
    return Plan(validated(tree, "test"))


def test_the_paper_is_the_default() -> None:
    made = plan({})
    assert all(_new(made, one, 8).design == Design() for one in made.crosscoders.values())


def test_a_crosscoder_has_what_the_study_chooses_as_far_as_it_concerns_its_models() -> None:
    made = plan(ALL)
    designs = {name: _new(made, one, 8).design for name, one in made.crosscoders.items()}
    common = Design(objective=DeltaMSE(-0.25), encoder=MLP(7), align=Procrustes(99), shared=Shared(20, 0.1))
    assert designs["joint"] == common.model_copy(update={"partition": {"rl": 0.1, "base+sft": 0.05}})
    assert designs["base-rl"] == common.model_copy(update={"partition": {"rl": 0.1}})
    assert designs["base-sft"] == common  # it has all of base+sft, and no rl


def test_a_lineup_chooses_for_itself() -> None:
    own = {
        "models": ["base", "rl"],
        "objective": {"kind": "cosine"},
        "encoder": {"kind": "linear"},
        "align": {"kind": "none"},
        "shared": {"features": 0},
        "partition": {"base": 0.2},
    }
    made = plan({**ALL, "lineups": {"own": own}})
    assert _new(made, made.crosscoders["own"], 8).design == Design(objective=Cosine(), partition={"base": 0.2})


def test_every_choice_makes_training_stale() -> None:
    others: tuple[dict[str, object], ...] = (
        {},
        {"objective": {"kind": "cosine"}},
        {"encoder": {"kind": "linear"}},
        {"align": {"kind": "none"}},
        {"shared": {"features": 20, "ratio": 0.2}},
        {"partition": {"rl": 0.1}},
    )
    assert len({stage_of(plan({**ALL, **other}), "train").fingerprint for other in others}) == len(others)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"sparsity": {"kind": "batchtopk"}},
            "crosscoder joint: 20 shared features want a",
        ),
        ({"partition": {"dpo": 0.1}}, "partition names dpo, which the study does not have; it has base, sft, rl"),
        (
            {"partition": {"rl": 0.9}},
            "joint: 110 shared and dedicated features do not fit",
        ),
        ({"partition": {"rl": 0.001}}, "gives 'rl' no feature of 100"),
        ({"objective": {"kind": "mse_delta", "weight": 0.5}}, "less than or equal to 0"),
        ({"objective": {"kind": "huber"}}, "crosscoder.objective"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(other: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan({**ALL, **other})
