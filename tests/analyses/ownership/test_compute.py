"""Attribution as it lies in the run, against the crosscoder's own weights."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_study import changed
from torch import Tensor
from torch.testing import assert_close

from featdiff.activations.stream import collect
from featdiff.analyses.ownership import run as attribute
from featdiff.analyses.ownership.compute import ownership
from featdiff.analyses.ownership.result import Ownership, load_scaling
from featdiff.attribution import LatentScaling, latent_scaling
from featdiff.crosscoder import Crosscoder
from featdiff.data.corpus import build_corpus
from featdiff.files import load
from featdiff.models.loading import Lineup
from featdiff.run.held_out import calibration_of, held_out_corpus
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of


def scaling_of(plan: Plan, name: str) -> LatentScaling:
    return load_scaling(plan.run.path("attribution"), name)


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
    tails = load(Ownership, own.run.path("new", "base-rl.json")).summary()
    mas = load_file(own.run.path("attribution", "base-rl.safetensors"))["mas"]
    for model, column in zip(("base", "rl"), mas.T, strict=True):
        counted = {"0.3": int((column > 0.3).sum()), "0.5": int((column > 0.5).sum()), "alive": 64}
        assert {key: tails[model][key] for key in counted} == counted
        assert load(Ownership, own.run.path("new", "base-rl.json")).of[model].specificity.tails == {
            cut: counted[cut] for cut in ("0.3", "0.5")
        }
    above = [int((column > 0.5).sum()) for column in mas.T]
    assert sum(above) == 64 and 0 < above[1] < 64  # of two shares that sum to 1, one is above a half


@pytest.mark.parametrize("name", ["joint", "base-rl", "dynamics-rl"])
def test_latent_scaling_is_that_of_the_held_out_tokens(tiny: Plan, name: str) -> None:
    """Second road: the text is built again, and each crosscoder measured by itself."""
    lineup = load_lineup(tiny, tiny.harvested)
    _, held_out = build_corpus(tiny.study.corpus, lineup.tokenizer, seed=0)
    batches = list(collect(lineup, held_out, calibration_of(tiny, lineup.names), tiny.study.activations))
    crosscoder = Crosscoder.load(tiny.run.path("crosscoders", name))
    wanted, found = latent_scaling(crosscoder, batches, min_active=100, seed=0), scaling_of(tiny, name)
    assert found.models == crosscoder.models and found.tokens == wanted.tokens and found.uncounted == wanted.uncounted
    for kind in ("feature", "random", "other"):
        one, other = getattr(found, kind), getattr(wanted, kind)
        assert_close(one.error, other.error, equal_nan=True)
        assert_close(one.reconstruction, other.reconstruction, equal_nan=True)
    assert found.feature.error.isfinite().any() and found.min_active == 100


def test_a_scaled_tail_accounts_for_every_feature_of_the_tail(tiny: Plan) -> None:
    plan = Plan(changed(tiny.study, attribution__tails=[0.3, 0.5]))
    for name in plan.crosscoders:
        attribution = attribution_of(plan, name)
        found = ownership(attribution, scaling_of(plan, name), plan.study.attribution)
        for model, one in found.of.items():
            assert [tail.cut for tail in one.scaled] == [0.3, 0.5] and one.lowest.cut == 0.3
            for tail in one.scaled:
                assert tail.before == attribution.tails(model, [tail.cut])[f"{tail.cut:g}"]
                assert tail.before == tail.absent + tail.shrunk + tail.rebuilt + tail.unmeasured


def test_the_cuts_and_tokens_of_latent_scaling_are_those_of_the_study(own: Plan) -> None:
    scaling = {"tokens": 300, "min_active": 5, "max_error": 1e-9, "max_reconstruction": 0.5}
    plan = Plan(changed(own.study, attribution__tails=[0.3], attribution__scaling=scaling))
    own.run.path("new").mkdir()
    attribute(plan, own.run.path("new"))
    found = load(Ownership, own.run.path("new", "joint.json"))
    assert {key: getattr(found.scaling, key) for key in scaling} == scaling and found.scaling.space == "normalised"
    for one in found.of.values():
        (tail,) = one.scaled
        assert tail.absent == 0 == tail.rebuilt  # nothing is below a cut of nothing
        assert tail.shrunk + tail.unmeasured == tail.before > 0


def test_the_models_read_the_held_out_text_once_for_all_crosscoders(own: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    residuals = Lineup.residuals

    def counted(self: Lineup, input_ids: Tensor, **others: Tensor) -> Tensor:
        rows.append(len(input_ids))
        return residuals(self, input_ids, **others)

    monkeypatch.setattr(Lineup, "residuals", counted)
    own.run.path("new").mkdir()
    attribute(own, own.run.path("new"))
    assert sum(rows) == len(held_out_corpus(own).input_ids)


def test_the_setting_of_the_norm_reaches_the_scores(own: Plan) -> None:
    by_l2 = attribution_of(Plan(changed(own.study, attribution__norm_p=2)), "joint")
    assert_close(by_l2.mas, by_l2.mas_l2)
    raw = attribution_of(Plan(changed(own.study, attribution__space="raw")), "joint")
    scale = load_file(own.run.path("crosscoders", "joint", "crosscoder.safetensors"))["scale"]
    weighted = attribution_of(own, "joint").mas * scale
    assert_close(raw.mas, weighted / weighted.sum(dim=1, keepdim=True))
