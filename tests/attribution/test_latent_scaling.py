"""Latent scaling: absent elsewhere, or only shrunk? Against least squares, planted shrinkage (T4), and its laws."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from largest_tensor import LargestTensor
from torch import Tensor

from featdiff.activations.stream import Activations
from featdiff.attribution.latent_scaling import LatentScaling, Ratios, latent_scaling, latent_scalings, scaled_tails
from featdiff.attribution.scores import Attribution
from featdiff.config.study import TrainingSettings
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU
from featdiff.crosscoder.trainer import train
from featdiff.planted import Group, PlantedStream, World

PAIR = ("base", "tuned")
TRIO = ("base", "sft", "rl")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batches(values: Tensor, models: tuple[str, ...], size: int | None = None) -> list[Activations]:
    parts = values.split(size or len(values))
    return [Activations(models, part, torch.zeros(len(part), dtype=torch.int64)) for part in parts]


def reading(W_dec: Tensor, models: tuple[str, ...] = PAIR, reader: str = "tuned") -> Crosscoder:
    """A crosscoder whose features read one model, along orthogonal decoders: f_k = <a, d_k> / |d_k|^2."""
    made = Crosscoder(models, d_model=W_dec.shape[2], features=len(W_dec))
    index = models.index(reader)
    with torch.no_grad():
        made.W_dec.copy_(W_dec)
        made.W_enc.zero_()
        made.W_enc[index] = W_dec[:, index].T / W_dec[:, index].square().sum(dim=1).clamp_min(1e-9)
    return made


def random_crosscoder(seed: int = 0) -> tuple[Crosscoder, Tensor]:
    """Untrained, with biases and unequal scales, and tokens that it rebuilds badly."""
    made = Crosscoder(TRIO, d_model=4, features=6, seed=seed, decoder_init_norm=0.7)
    with torch.no_grad():
        made.W_dec.mul_(draw(6, 3, 1, seed=seed + 1).abs() + 0.2)
        made.b_dec.copy_(0.3 * draw(3, 4, seed=seed + 2))
        made.scale.copy_(torch.tensor([0.5, 1.0, 3.0]))
    return made, draw(80, 3, 4, seed=seed + 3) * made.scale[:, None]


def test_nu_of_two_tokens_by_hand() -> None:
    """d = (2, 0) in the tuned model only; f = 2, 4. beta(y_eps, base) = (2 x 2 + 4 x 4) / (4 x 20), in tuned 1."""
    crosscoder = reading(torch.tensor([[[0.0, 0.0], [2.0, 0.0]]]))
    values = torch.tensor([[[1.0, 1.0], [4.0, 0.0]], [[2.0, -3.0], [8.0, 0.0]], [[5.0, 5.0], [-1.0, 0.0]]])
    scaling = latent_scaling(crosscoder, batches(values, PAIR), min_active=2)

    assert scaling.nu_error("base", "tuned").item() == pytest.approx(0.25)
    assert scaling.nu_error("tuned", "tuned").item() == 1
    assert scaling.nu_reconstruction("base", "tuned").item() == 0
    assert scaling.beta_error[0, 1].item() == pytest.approx(1)
    assert scaling.nu_error("tuned", "base").isnan().all()  # no direction in the base
    assert scaling.active.tolist() == [2] and scaling.tokens == 3


def test_nu_is_what_least_squares_finds_feature_by_feature() -> None:
    """Second road: numpy solves for b in  y_i = b f_i d  over all tokens and coordinates, one pair at a time."""
    crosscoder, values = random_crosscoder()
    scaling = latent_scaling(crosscoder, batches(values, TRIO, 30), min_active=1)
    codes = crosscoder.encode(values).detach().double()
    rebuilt = crosscoder.decode(codes.float()).detach()
    a, a_hat = ((tensor / crosscoder.scale[:, None]).double().numpy() for tensor in (values, rebuilt))
    f, W = codes.numpy(), crosscoder.W_dec.detach().double().numpy()

    def beta(k: int, y: np.ndarray, t: int) -> float:
        column = (f[:, k, None] * W[k, t]).reshape(-1, 1)
        return float(np.linalg.lstsq(column, y.reshape(-1), rcond=None)[0][0])

    compared = 0
    for k in range(6):
        for t in range(3):
            y_eps = [a[:, m] - (a_hat[:, m] - f[:, k, None] * W[k, m]) for m in range(3)]
            error, rebuilt_t = beta(k, y_eps[t], t), beta(k, a_hat[:, t], t)
            assert scaling.beta_error[k, t].item() == pytest.approx(error, rel=1e-4)
            for m in range(3):
                wanted = beta(k, y_eps[m], t) / error if error > 0 else math.nan
                found = scaling.feature.error[k, m, t].item()
                assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4, nan_ok=True)
                wanted = beta(k, a_hat[:, m], t) / rebuilt_t if rebuilt_t > 0 else math.nan
                found = scaling.feature.reconstruction[k, m, t].item()
                assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4, nan_ok=True)
                compared += not math.isnan(wanted)
    assert compared > 30


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**20), size=st.integers(1, 79))
def test_how_tokens_are_cut_into_batches_does_not_matter(seed: int, size: int) -> None:
    crosscoder, values = random_crosscoder(seed)
    whole = latent_scaling(crosscoder, batches(values, TRIO), min_active=1, seed=seed)
    cut = latent_scaling(crosscoder, batches(values, TRIO, size), min_active=1, seed=seed)

    for one, other in ((whole.feature, cut.feature), (whole.random, cut.random), (whole.other, cut.other)):
        torch.testing.assert_close(one.error, other.error, rtol=1e-4, atol=1e-4, equal_nan=True)
        torch.testing.assert_close(one.reconstruction, other.reconstruction, rtol=1e-4, atol=1e-4, equal_nan=True)
    assert torch.equal(whole.active, cut.active)


def test_several_crosscoders_in_one_pass_are_measured_as_each_alone() -> None:
    one, values = random_crosscoder()
    parts = batches(values, TRIO, 30)
    pair = Crosscoder(("base", "rl"), d_model=4, features=9, seed=5)
    together = latent_scalings([one, pair], iter(parts), min_active=1)
    for crosscoder, found in zip((one, pair), together, strict=True):
        alone = latent_scaling(crosscoder, parts, min_active=1)
        assert found.models == crosscoder.models and found.tokens == 80
        assert torch.equal(found.feature.error.nan_to_num(), alone.feature.error.nan_to_num())
        assert torch.equal(found.other.reconstruction.nan_to_num(), alone.other.reconstruction.nan_to_num())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**20), gain=st.floats(0.1, 10))
def test_nu_is_free_of_gauge_and_units_and_raw_nu_follows_the_scales(seed: int, gain: float) -> None:
    crosscoder, values = random_crosscoder(seed)
    before = latent_scaling(crosscoder, batches(values, TRIO), min_active=1)
    values[:, 2] *= gain
    crosscoder.scale[2] *= gain
    after = latent_scaling(crosscoder.canonicalise(), batches(values, TRIO), min_active=1)
    raw = latent_scaling(crosscoder, batches(values, TRIO), min_active=1, space="raw")

    def close(one: Tensor, other: Tensor) -> None:
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3, equal_nan=True)

    close(after.feature.error, before.feature.error)
    close(after.feature.reconstruction, before.feature.reconstruction)
    close(raw.nu_error("rl", "sft"), after.nu_error("rl", "sft") * 3 * gain)
    close(raw.nu_error("sft", "sft"), after.nu_error("sft", "sft"))


def test_a_feature_held_at_an_angle_counts_its_cosine() -> None:
    for degrees in (0, 60, 90):
        angle = math.radians(degrees)
        W_dec = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
        codes = torch.tensor([1.0, 2.0, 5.0])
        shown = torch.stack(
            [
                codes[:, None] * torch.tensor([math.sin(angle), math.cos(angle), 0.0]),
                codes[:, None] * torch.tensor([0.0, 2.0, 0.0]),
            ],
            dim=1,
        )
        scaling = latent_scaling(reading(W_dec), batches(shown, PAIR), min_active=1)
        assert scaling.nu_error("base", "tuned").item() == pytest.approx(math.cos(angle) / 2, abs=1e-6)


def test_a_concept_split_into_one_feature_a_model_is_found_rebuilt() -> None:
    """Latent decoupling: both features read one concept; each looks specific, nothing is left in any error."""
    direction = torch.tensor([0.0, 1.0, 0.0])
    W_dec = torch.zeros(2, 2, 3)
    W_dec[0, 0], W_dec[1, 1] = direction, direction
    crosscoder = Crosscoder(PAIR, 3, 2)
    with torch.no_grad():
        crosscoder.W_dec.copy_(W_dec)
        crosscoder.W_enc.zero_()
        crosscoder.W_enc[0, :, 0], crosscoder.W_enc[1, :, 1] = direction, direction
    values = torch.tensor([1.0, 3.0, 2.0])[:, None, None] * direction.expand(2, 3)
    scaling = latent_scaling(crosscoder, batches(values, PAIR), min_active=1)

    assert scaling.nu_error("base", "tuned")[1].item() == pytest.approx(0)
    assert scaling.nu_reconstruction("base", "tuned")[1].item() == pytest.approx(1)
    tail = scaled_tails(Attribution.of(crosscoder), scaling, "tuned", (0.8,))[0]
    assert (tail.before, tail.absent, tail.shrunk, tail.rebuilt, tail.unmeasured) == (1, 0, 0, 1, 0)


def test_controls_keep_the_denominator_of_their_feature() -> None:
    """Two orthogonal features, rebuilt exactly. Nothing is left for a random direction to find; the other feature's
    direction finds it where both fire: |d_1| sum f_0 f_1 / (|d_0| sum f_0^2) of beta_r = 1."""
    W_dec = torch.zeros(2, 2, 6)
    W_dec[0, :, 0], W_dec[1, :, 1] = 2.0, 3.0
    codes = torch.tensor([[1.0, 0.0], [2.0, 1.0], [1.0, 4.0]])
    values = torch.einsum("tk,kmd->tmd", codes, W_dec)
    scaling = latent_scaling(reading(W_dec), batches(values, PAIR), min_active=1)

    together, squares = 1 * 0 + 2 * 1 + 1 * 4, torch.tensor([6.0, 17.0])
    wanted = together / squares * torch.tensor([3 / 2, 2 / 3])
    torch.testing.assert_close(scaling.other.reconstruction[:, 0, 1], wanted)
    torch.testing.assert_close(scaling.other.error, torch.zeros(2, 2, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(scaling.random.error, torch.zeros(2, 2, 2), atol=1e-6, rtol=0)
    assert scaling.random.reconstruction.abs().max() > 0.01


def test_a_random_direction_holds_nothing_of_its_own_feature() -> None:
    W_dec = draw(1, 2, 3, seed=4)
    codes = torch.tensor([1.0, 2.0, 5.0])
    alone = latent_scaling(reading(W_dec), batches(codes[:, None, None] * W_dec, PAIR), min_active=1)
    torch.testing.assert_close(alone.random.reconstruction, torch.zeros(1, 2, 2), atol=1e-6, rtol=0)
    assert alone.other.error.isnan().all()  # there is no other feature
    flat = W_dec[:, :, :2].contiguous()  # two rows span the plane: no direction is left
    none = latent_scaling(reading(flat), batches(codes[:, None, None] * flat, PAIR), min_active=1)
    assert none.random.error.isnan().all() and not none.feature.error.isnan().all()


def test_controls_are_drawn_by_the_seed() -> None:
    crosscoder, values = random_crosscoder()
    first, again, other = (latent_scaling(crosscoder, batches(values, TRIO), min_active=1, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.random.error, again.random.error)
    assert not torch.equal(first.random.error, other.random.error)
    assert torch.equal(first.feature.error, other.feature.error)


def test_random_directions_score_as_often_above_as_below_zero_and_spread_as_computed() -> None:
    """Pure noise of variance s^2 in the base: beta(r) is normal with standard deviation s / (|d| sqrt(sum f^2))."""
    features, d_model = 400, 402
    W_dec = torch.zeros(features, 2, d_model)
    W_dec[torch.arange(features), 1, torch.arange(features)] = 2.0
    codes = draw(200, features, seed=1).relu()
    values = torch.stack([0.5 * draw(200, d_model, seed=2), codes @ W_dec[:, 1]], dim=1)
    scaling = latent_scaling(reading(W_dec), batches(values, PAIR), min_active=1)

    standard = scaling.random.error[:, 0, 1] * 2 * codes.square().sum(dim=0).sqrt() / 0.5
    assert standard.mean().abs() < 0.15
    assert standard.std().item() == pytest.approx(1, abs=0.12)


def test_features_that_fire_too_rarely_are_not_measured_but_counted() -> None:
    W_dec = torch.zeros(3, 2, 4)
    W_dec[torch.arange(3), :, torch.arange(3)] = 1.0
    codes = torch.tensor([[1.0, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 1]])
    values = torch.einsum("tk,kmd->tmd", codes, W_dec)
    scaling = latent_scaling(reading(W_dec), batches(values, PAIR), min_active=3)

    assert scaling.active.tolist() == [4, 0, 2] and scaling.uncounted == 2
    assert scaling.feature.error[0].eq(1).all() and scaling.feature.error[1:].isnan().all()
    assert scaling.random.error[1:].isnan().all() and scaling.other.error.isnan().all()  # no counted partner


def by_hand(error: list[list[float]], reconstruction: list[list[float]]) -> LatentScaling:
    """Features x models, with rl as the reference."""
    feature = Ratios(*(torch.tensor(nu)[:, :, None].expand(-1, 3, 3).contiguous() for nu in (error, reconstruction)))
    count = len(error)
    halves = torch.where(torch.arange(count) % 2 == 0, 0.0, 0.3)[:, None, None].expand(count, 3, 3).contiguous()
    unknown = torch.where(torch.arange(count) == 3, math.nan, 0.0)[:, None, None].expand(count, 3, 3).contiguous()
    control = Ratios(halves, unknown)
    one = torch.ones(count, 3)
    active = torch.full((count,), 1000)
    return LatentScaling(TRIO, "normalised", feature, control, control, one, one, active, 5000, 100)


def test_each_feature_of_a_tail_is_absent_shrunk_rebuilt_or_unmeasured() -> None:
    nan = math.nan
    scaling = by_hand(
        error=[[0.01, 0.02, 1], [0.01, -0.3, 1], [0.05, 0.0, 1], [nan, nan, nan], [0.0, 0.0, 1], [0.0, 0.0, 1]],
        reconstruction=[[0.1, 0.1, 1], [0.9, 0.1, 1], [0.6, 0.1, 1], [nan, nan, nan], [0.1, 0.1, 1], [0.1, 0.1, 1]],
    )
    rl = torch.tensor([0.95, 0.95, 0.85, 0.95, 0.7, 0.99])
    mas = torch.stack([(1 - rl) / 2, (1 - rl) / 2, rl], dim=1)
    alive = torch.tensor([True] * 5 + [False])
    attribution = Attribution(TRIO, "normalised", mas, mas, torch.ones(6, 3, 3), torch.ones(6), alive)

    lower, upper = scaled_tails(attribution, scaling, "rl")
    assert (lower.before, lower.absent, lower.shrunk, lower.rebuilt, lower.unmeasured) == (4, 1, 1, 1, 1)
    assert (upper.before, upper.absent, upper.shrunk, upper.rebuilt, upper.unmeasured) == (3, 1, 1, 0, 1)
    assert lower.cut == 0.8 and lower.random_absent == lower.other_absent == pytest.approx(2 / 3)
    assert upper.random_absent == pytest.approx(1 / 2)
    wide = scaled_tails(attribution, scaling, "rl", (0.8,), max_error=0.4, max_reconstruction=0.7)[0]
    assert (wide.absent, wide.shrunk, wide.rebuilt) == (2, 0, 1) and wide.random_absent == 1


def test_no_tensor_holds_tokens_by_features_by_width() -> None:
    crosscoder = Crosscoder(PAIR, d_model=8, features=700)
    values = draw(300, 2, 8)
    with LargestTensor() as seen:
        latent_scaling(crosscoder, batches(values, PAIR), min_active=1)
    codes, targets, decoder = 300 * 700, 300 * 2 * 2 * 8, 700 * 2 * 8
    assert seen.largest <= max(codes, targets, 2 * decoder)


def test_models_are_read_by_name() -> None:
    crosscoder, values = random_crosscoder()
    straight = latent_scaling(crosscoder, batches(values, TRIO), min_active=1)
    more = torch.cat([draw(80, 1, 4, seed=50), values.flip(1)], dim=1)
    shuffled = latent_scaling(crosscoder, batches(more, ("other", "rl", "sft", "base")), min_active=1)
    torch.testing.assert_close(straight.feature.error, shuffled.feature.error, equal_nan=True)


def test_what_cannot_be_measured_is_refused() -> None:
    crosscoder, values = random_crosscoder()
    with pytest.raises(ValueError, match="at least one batch"):
        latent_scaling(crosscoder, [])
    with pytest.raises(ValueError, match="min_active=0"):
        latent_scaling(crosscoder, batches(values, TRIO), min_active=0)
    with pytest.raises(ValueError, match="compares models"):
        latent_scaling(Crosscoder(("base",), 4, 6), batches(values[:, :1], ("base",)))
    scaling = latent_scaling(crosscoder, batches(values, TRIO), min_active=1)
    with pytest.raises(ValueError, match="no model 'tuned'"):
        scaling.nu_error("tuned", "base")
    with pytest.raises(ValueError, match="measure both on one crosscoder"):
        scaled_tails(Attribution.of(Crosscoder(PAIR, 4, 6)), scaling, "rl")


RATIOS = (0.1, 0.2, 0.3)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_complete_shrinkage_is_seen_through(tmp_path: Path, seed: int) -> None:
    """Acceptance test T4: at beta = 2 L1 makes ratios of .1 to .3 look specific; nu_eps is the ratio within .02.

    L1 does not mind splitting a planted feature over several parallel ones. A part k of a split feature has a larger
    nu_eps: its base error holds the whole concept, its own activation only a part. nu_eps x beta_error x (what k adds
    in the tuned model) is the strength in the base for parts and wholes alike, less what other parts rebuild there, at
    most max(0, c - beta / 2); the plain ratio holds for wholes. The four features that are tuned-only have nu_eps 0,
    split or not.
    """
    groups = tuple(Group(PAIR, 4, (4 * ratio, 4.0), probability=0.03) for ratio in RATIOS)
    world = World.build(PAIR, 32, (*groups, Group(("tuned",), 4, (4.0,), probability=0.03)), seed=seed)
    crosscoder = Crosscoder(PAIR, 32, 24, ReLU(weight=2.0), seed=seed)
    stream = PlantedStream(world, 400, 256, seed + 1, torch.ones(2))
    plan = TrainingSettings(batch_size=256, lr=5e-3, log_every=1000)
    train({"planted": crosscoder}, stream, plan, folder=tmp_path)
    held_out = PlantedStream(world, 20, 1000, seed + 2, torch.ones(2))
    scaling = latent_scaling(crosscoder, (batch for batch, _ in held_out.batches()))

    learned = crosscoder.W_dec.detach()[:, 1]
    cosine = world.direction[:, 1] @ learned.T / learned.norm(dim=1)
    parallel = (cosine > 0.95) & (scaling.active >= scaling.min_active)
    whole = parallel.sum(dim=1) == 1
    assert parallel.any(dim=1).sum() >= 14 and whole[:12].sum() >= 3

    nu, rebuilt = scaling.nu_error("base", "tuned"), scaling.nu_reconstruction("base", "tuned")
    nrn = Attribution.of(crosscoder)["tuned"]
    alone = world.render(torch.eye(16), torch.Generator()).activations
    added = crosscoder.encode(alone).detach() * learned.norm(dim=1)
    for planted, k in parallel.nonzero().tolist():
        strength = nu[k] * scaling.beta_error[k, 1] * added[planted, k]
        in_base = world.strength[planted, 0].item()
        assert in_base - max(0, in_base - 1) - 0.08 < strength < in_base + 0.08
        assert nrn[k] > 0.93 and rebuilt[k] < 0.1
        if whole[planted]:
            ratio = (world.strength[planted, 0] / world.strength[planted, 1]).item()
            assert nu[k].item() == pytest.approx(ratio, abs=0.02)

    for control in (scaling.random, scaling.other):
        assert control.error[:, 0, 1].nanmedian().abs() < 0.02
    tail = scaled_tails(Attribution.of(crosscoder), scaling, "tuned", (0.9,))[0]
    assert tail.absent >= int(parallel[12:].sum()) and tail.shrunk >= 8 and tail.rebuilt == 0
