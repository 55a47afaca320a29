"""Drift as it lies in the run: interpolations are model folders, KL is matched, tails grow with the change."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_study import changed

from featdiff.activations.stream import Activations
from featdiff.analyses.drift.compute import _neutral_texts, _task_texts
from featdiff.analyses.drift.report_drift import drift_panel
from featdiff.attribution.swap import PRESENT, swap_specificity
from featdiff.crosscoder import Crosscoder
from featdiff.files import read_json
from featdiff.models.divergence import mean_divergence
from featdiff.models.loading import load_model
from featdiff.planted import Group, World
from featdiff.run.plan import Plan


@pytest.fixture
def record(tiny: Plan) -> dict[str, Any]:
    return read_json(tiny.run.path("drift", "drift.json"))


def rows(record: dict[str, Any], tuned: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in record["rows"] if row["tuned"] == tuned}


def test_every_model_on_the_way_has_a_row(record: dict[str, Any]) -> None:
    (further,) = {"sft", "rl"} - {record["least"]}
    for tuned in ("sft", "rl"):
        mixed = [f"{tuned} x {alpha}" for alpha in (0.25, 0.5, 0.75)]
        wanted = [f"{tuned}-1", tuned, *mixed, *([f"{tuned} matched"] if tuned == further else [])]
        assert list(rows(record, tuned)) == wanted


def test_drift_rises_along_the_interpolation(record: dict[str, Any]) -> None:
    for tuned in ("sft", "rl"):
        way = [rows(record, tuned)[name] for name in (f"{tuned} x 0.25", f"{tuned} x 0.5", f"{tuned} x 0.75", tuned)]
        for key in ("kl_task", "kl_neutral"):
            assert sorted(row[key] for row in way) == [row[key] for row in way]
        shares = [row["weights"]["all"] / way[3]["weights"]["all"] for row in way]
        assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0], rel=1e-3)
        assert way[0]["activations"][3] < way[3]["activations"][3] and len(way[0]["activations"]) == 4


def test_the_matched_interpolation_has_the_divergence_of_the_other_model(tiny: Plan, record: dict[str, Any]) -> None:
    (further,) = {"sft", "rl"} - {record["least"]}
    matched, other = rows(record, further)[f"{further} matched"], rows(record, record["least"])[record["least"]]
    assert matched["kl_task"] == pytest.approx(other["kl_task"], rel=0.02) and 0 < matched["alpha"] < 1
    folder = tiny.run.path("drift", further, "matched")
    model = load_model(str(folder))
    found = mean_divergence(load_model(tiny.paths["base"]), model, _task_texts(tiny))
    assert found == pytest.approx(matched["kl_task"], rel=1e-5)
    here, there, mixed = (
        load_file(Path(path) / "model.safetensors") for path in (tiny.paths["base"], tiny.paths[further], folder)
    )
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(mixed[name], torch.lerp(here[name], there[name], matched["alpha"]))


def test_tails_are_those_of_the_pair_where_there_is_one(record: dict[str, Any]) -> None:
    assert all(row["tails"] is None for row in rows(record, "sft").values())
    for row in rows(record, "rl").values():
        assert row["tails"].keys() == {"0.8", "0.9", "measured"}
        assert row["crossed"] == {}  # only the control is read in another model's place
        assert 0 <= row["tails"]["0.9"] <= row["tails"]["0.8"] <= row["tails"]["measured"] <= 64


def test_answers_are_what_is_compared_on_the_tasks(tiny: Plan) -> None:
    texts = list(_task_texts(tiny))
    assert sum(len(text.input_ids) for text in texts) == 48  # the task of the role `train`
    for text in texts:
        assert text.attention_mask is not None and text.compared.any(dim=1).all()
        assert not (text.compared & (text.attention_mask == 0)).any()


def test_neutral_text_is_of_the_source_that_the_study_names(tiny: Plan) -> None:
    whole = list(_neutral_texts(tiny))
    named = list(_neutral_texts(Plan(changed(tiny.study, drift={"neutral": tiny.study.corpus.sources[0].path}))))
    assert not torch.equal(whole[0].input_ids, named[0].input_ids)
    with pytest.raises(ValueError, match=r"drift\.neutral is nothing, which is no source"):
        list(_neutral_texts(Plan(changed(tiny.study, drift={"neutral": "nothing"}))))


def test_the_report_shows_it(tiny: Plan, record: dict[str, Any]) -> None:
    panel = drift_panel(tiny)
    assert panel and len(panel.rows) == len(record["rows"]) and panel.least == record["least"]
    assert "How far the models moved" in tiny.run.path("report.html").read_text()


def test_in_a_planted_world_the_tail_grows_with_the_share_of_the_change() -> None:
    """Linear activations: at alpha a feature has base + alpha (tuned - base), so its score is known."""
    ratios = (0.0, 0.02, 0.1, 0.15, 0.2, 0.3, 1.0)
    groups = tuple(Group(("base", "tuned"), 2, (ratio, 1.0), probability=0.2, magnitude="uniform") for ratio in ratios)
    world = World.build(("base", "tuned"), 16, groups, seed=3)
    crosscoder = Crosscoder(world.models, d_model=16, features=len(world.strength))
    with torch.no_grad():
        crosscoder.W_dec.copy_(world.rows)
        crosscoder.W_enc.zero_()
        crosscoder.W_enc[1] = world.direction[:, 1].T
    alphas = (0.05, 0.25, 0.5, 0.75, 1.0)
    values = world.sample(4000, torch.Generator().manual_seed(4)).activations
    mixed = [torch.lerp(values[:, 0], values[:, 1], alpha) for alpha in alphas]
    names = tuple(f"x{alpha}" for alpha in alphas)
    batch = Activations((*world.models, *names), torch.stack([*values.unbind(1), *mixed], 1), torch.zeros(4000).long())
    (found,) = swap_specificity([crosscoder], [batch], names)

    tails = [int((row > 0.8).sum()) for row in found]

    def specific(ratio: float, alpha: float) -> bool:
        here = ratio + alpha * (1 - ratio)
        return here > 0.8 * (ratio + here) and ratio + here > PRESENT * (ratio + 1)

    assert tails == [2 * sum(specific(ratio, alpha) for ratio in ratios) for alpha in alphas] == sorted(tails)
    assert tails[0] < tails[1] < tails[-1]
