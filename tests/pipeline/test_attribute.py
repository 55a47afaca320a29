"""Attribution and dynamics as they lie in the run, against the crosscoder's own weights."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_study import changed
from torch.testing import assert_close

from featdiff.pipeline.attribute import attribute, attribution_of, dynamics
from featdiff.pipeline.plan import Plan
from featdiff.runs import read_json


@pytest.mark.parametrize("name", ["joint", "base-rl", "dynamics-sft", "dynamics-rl"])
def test_scores_are_shares_of_the_summed_decoder_norm(tiny: Plan, name: str) -> None:
    found = load_file(tiny.run.path("attribution", f"{name}.safetensors"))
    W_dec = load_file(tiny.run.path("crosscoders", name, "crosscoder.safetensors"))["W_dec"]
    for p, key in ((1, "mas"), (2, "mas_l2")):
        norms = torch.stack([W_dec[:, m].abs().pow(p).sum(dim=1).pow(1 / p) for m in range(W_dec.shape[1])], dim=1)
        assert_close(found[key], norms / norms.sum(dim=1, keepdim=True))
    assert_close(found["mas"].sum(dim=1), torch.ones(64))
    assert_close(found["cosine"].diagonal(dim1=1, dim2=2), torch.ones(64, W_dec.shape[1]))


def test_alive_features_fire_often_enough_on_held_out_tokens(own: Plan) -> None:
    density = load_file(own.run.path("crosscoders", "joint", "quality.safetensors"))["density"]
    cut = float(density.median())
    attribution = attribution_of(Plan(changed(own.study, attribution__min_density=cut)), "joint")
    assert attribution.alive.tolist() == (density >= cut).tolist()
    assert 0 < attribution.alive.sum() < 64


def test_tails_are_counted_at_the_cuts_of_the_study(own: Plan) -> None:
    plan = Plan(changed(own.study, attribution__tails=[0.3, 0.5]))
    own.run.path("new").mkdir()
    attribute(plan, own.run.path("new"))
    tails = read_json(own.run.path("new", "base-rl.json"))["tails"]
    mas = load_file(own.run.path("attribution", "base-rl.safetensors"))["mas"]
    for model, column in zip(("base", "rl"), mas.T, strict=True):
        assert tails[model] == {"0.3": int((column > 0.3).sum()), "0.5": int((column > 0.5).sum()), "alive": 64}
    assert tails["base"]["0.5"] + tails["rl"]["0.5"] == 64  # of two shares that sum to 1, one is above a half
    assert 0 < tails["rl"]["0.5"] < 64


def test_the_setting_of_the_norm_reaches_the_scores(own: Plan) -> None:
    by_l2 = attribution_of(Plan(changed(own.study, attribution__norm_p=2)), "joint")
    assert_close(by_l2.mas, by_l2.mas_l2)
    raw = attribution_of(Plan(changed(own.study, attribution__space="raw")), "joint")
    scale = load_file(own.run.path("crosscoders", "joint", "crosscoder.safetensors"))["scale"]
    weighted = attribution_of(own, "joint").mas * scale
    assert_close(raw.mas, weighted / weighted.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("tuned", ["sft", "rl"])
def test_dynamics_follow_the_two_model_score_of_each_checkpoint(tiny: Plan, tuned: str) -> None:
    found = read_json(tiny.run.path("dynamics", f"{tuned}.json"))
    specificity = load_file(tiny.run.path("dynamics", f"{tuned}.safetensors"))["specificity"]
    mas = load_file(tiny.run.path("attribution", f"dynamics-{tuned}.safetensors"))["mas"]
    assert_close(specificity, torch.stack([mas[:, c] / (mas[:, 0] + mas[:, c]) for c in (1, 2)]))

    tops = [sorted(range(64), key=lambda k, scores=scores: -scores[k])[:10] for scores in specificity.tolist()]
    assert found["checkpoints"] == [f"{tuned}-1", f"{tuned}-2"] and found["ranked"] == tops
    assert found["overlap"][0][1] == pytest.approx(len(set(tops[0]) & set(tops[1])) / 10)
    assert found["chance"] == pytest.approx(10 / 64) and found["noise_floor"] is None
    climbed = [rank - tops[1].index(k) if k in tops[1] else None for rank, k in enumerate(tops[0])]
    assert found["rank_shift"] == [climbed]


def test_a_tuned_model_without_a_crosscoder_of_its_checkpoints_has_no_dynamics(own: Plan) -> None:
    lineups = own.study.model_dump(mode="json")["crosscoder"]["lineups"]
    del lineups["dynamics-sft"]
    own.run.path("new").mkdir()
    dynamics(Plan(changed(own.study, crosscoder__lineups=lineups)), own.run.path("new"))
    assert sorted(path.name for path in own.run.path("new").iterdir()) == ["rl.json", "rl.safetensors"]
