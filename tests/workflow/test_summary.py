"""summary.json holds the numbers of the run under the keys that scripts rely on."""

import json
from itertools import combinations
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny_study import summary

from featdiff.evaluation.results import TaskResult
from featdiff.files import read_json
from featdiff.run.plan import Plan


@pytest.fixture
def numbers(tiny: Plan) -> dict[str, Any]:
    return read_json(tiny.run.path("summary.json"))


def test_the_file_is_the_summary_of_the_folders(tiny: Plan, numbers: dict[str, Any]) -> None:
    assert json.loads(json.dumps(summary(tiny))) == numbers


def test_the_keys_are_those_that_scripts_rely_on(tiny: Plan, numbers: dict[str, Any]) -> None:
    agreed = {"models", "accuracy", "quality", "tails", "drift", "dynamics", "selection", "effects"}
    assert numbers.keys() == agreed | {"claims", "equal_drift", "side_effects", "ways"}
    assert numbers["models"] == ["base", "sft", "rl"]
    assert numbers["accuracy"].keys() == {"colours", "animals", "numbers"}
    for models in numbers["accuracy"].values():
        assert models.keys() == {"base", "sft", "rl"}
        assert all(cell.keys() >= {"value", "n", "interval", "constant_baseline", "role"} for cell in models.values())
    for lineup, quality in numbers["quality"].items():
        wanted = {"variance_explained", "ce_recovered", "l0", "dead_share", "tokens"}
        assert quality.keys() >= wanted and tuple(quality["ce_recovered"]) == tiny.crosscoders[lineup].models
    assert numbers["quality"].keys() == numbers["tails"].keys() == tiny.crosscoders.keys()
    for tail in (tail for tails in numbers["tails"].values() for tail in tails.values()):
        assert tail.keys() == {"0.8", "0.9", "alive", "scaled"} and tail["scaled"].keys() >= {"0.8", "0.9", "shrunk"}
    assert numbers["dynamics"].keys() == {"sft", "rl"}
    assert all(one.keys() >= {"alignment", "overlap", "noise_floor"} for one in numbers["dynamics"].values())
    assert numbers["selection"].keys() >= {"tasks", "per_task", "chosen", "rule"}
    assert len(numbers["effects"]) == 3 * 3 and len(numbers["claims"]) == 3


def test_an_effect_has_every_set_its_interval_its_controls_and_a_verdict(numbers: dict[str, Any]) -> None:
    for effect in numbers["effects"]:
        agreed = {"task", "model", "edit", "features", "sets", "control", "p", "verdict"}
        assert effect.keys() == agreed | {"controls", "p_holm", "predictions", "answer_format", "guessing_again"}
        assert effect["sets"].keys() == {"critical", "mirror", "all", "held_out"}
        assert all(one.keys() == {"before", "after", "n", "interval"} for one in effect["sets"].values())
        assert effect["control"].keys() == {"draws", "mean", "interval"} and effect["control"]["draws"] == 6
        assert 1 / 7 <= effect["p"] <= 1  # (1 + k) / (1 + 6)


def test_an_accuracy_is_the_mean_of_the_records_within_its_interval(tiny: Plan, numbers: dict[str, Any]) -> None:
    for task, models in numbers["accuracy"].items():
        for model, cell in models.items():
            right = TaskResult.load(tiny.run.path("evaluation", model, f"{task}.parquet")).correct
            assert cell["value"] == pytest.approx(float(right.double().mean())) and cell["n"] == len(right) == 48
            assert cell["interval"][0] < cell["value"] < cell["interval"][1]


def test_tails_are_those_of_the_decoder_counted_by_hand(tiny: Plan, numbers: dict[str, Any]) -> None:
    for name, models in numbers["tails"].items():
        W_dec = load_file(tiny.run.path("crosscoders", name, "crosscoder.safetensors"))["W_dec"]
        density = load_file(tiny.run.path("crosscoders", name, "quality.safetensors"))["density"]
        norms = W_dec.abs().sum(dim=2)
        alive = (density >= 1e-5) & (norms.sum(dim=1) > 0)
        for index, model in enumerate(tiny.crosscoders[name].models):
            share = norms[alive, index] / norms[alive].sum(dim=1)
            counted = {cut: int((share > float(cut)).sum()) for cut in ("0.8", "0.9")}
            counted |= {"alive": int(alive.sum())}
            assert {key: models[model][key] for key in counted} == counted


def test_overlaps_are_symmetric_shares_of_one_with_itself(numbers: dict[str, Any]) -> None:
    for paradigm in numbers["dynamics"].values():
        overlap = paradigm["overlap"]
        assert [overlap[i][i] for i in range(2)] == [1.0, 1.0]
        assert all(overlap[i][j] == overlap[j][i] for i, j in combinations(range(2), 2))
        assert paradigm["alignment"] == "joint" and paradigm["checkpoints"][0].endswith("-1")


def test_parts_whose_stage_was_not_made_are_empty(fresh: Plan) -> None:
    found = summary(fresh)
    assert found.pop("models") == ["base", "sft", "rl"]
    assert not any(found.values())
