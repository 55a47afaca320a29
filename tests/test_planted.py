"""Worlds keep their word, and crosscoders that are trained on them find what was planted."""

import math
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import BatchTopK, ReLU, Sparsity
from featdiff.crosscoder.training import train
from featdiff.planted import Group, PlantedState, PlantedStream, Quiz, World
from featdiff.study import TrainingSettings

PAIR = ("base", "tuned")
TRIO = ("base", "sft", "rl")
RATIOS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
PER_RATIO = 4


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def trained(world: World, sparsity: Sparsity, features: int, folder: Path, *, steps: int, seed: int) -> Crosscoder:
    crosscoder = Crosscoder(world.models, world.rows.shape[-1], features, sparsity, seed=seed)
    stream = PlantedStream(world, steps, 512, seed + 1, torch.ones(len(world.models)))
    settings = TrainingSettings(batch_size=512, lr=3e-3, log_every=1000)
    train({"planted": crosscoder}, stream, settings, folder=folder, state_from=PlantedState.from_tensors)
    return crosscoder


def pair_world(seed: int, probability: float) -> World:
    groups = tuple(Group(PAIR, PER_RATIO, (4 * ratio, 4.0), probability=probability) for ratio in RATIOS)
    return World.build(PAIR, 64, groups, seed=seed)


def matched(crosscoder: Crosscoder, world: World) -> tuple[Tensor, Tensor]:
    """The learned feature nearest to every planted one, by cosine of concatenated decoders, and that cosine."""
    planted, learned = world.rows.flatten(1), crosscoder.W_dec.detach().flatten(1)
    norms = planted.norm(dim=1)[:, None] * learned.norm(dim=1).clamp_min(1e-9)
    best = (planted @ learned.T / norms).max(dim=1)
    return best.indices, best.values


def shares(rows: Tensor) -> Tensor:
    """Eq. 8-10, by hand."""
    norms = rows.abs().sum(dim=-1)
    return norms / norms.sum(dim=-1, keepdim=True)


@pytest.mark.parametrize("beta", [2.0, 4.0])
def test_l1_shrinks_every_contribution_by_half_of_beta(tmp_path: Path, beta: float) -> None:
    """Acceptance test T2: max(0, c - beta / 2), and b_dec adds at most probability * c where that is 0."""
    world = pair_world(0, probability=0.015)
    crosscoder = trained(world, ReLU(weight=beta), 96, tmp_path, steps=2000, seed=0)
    alone = world.render(torch.eye(len(world.strength)), generator()).activations
    rebuilt = crosscoder.decode(crosscoder.encode(alone)).detach()
    contribution = (rebuilt * world.direction).sum(dim=-1)
    error = (contribution - (world.strength - beta / 2).clamp_min(0)).abs()
    assert error.view(len(RATIOS), PER_RATIO, 2).mean(dim=1).max() < 0.05


def test_batch_top_k_shrinks_nothing(tmp_path: Path) -> None:
    """Acceptance test T3: NRN is c_T / (c_O + c_T)."""
    world = pair_world(0, probability=1 / 24)
    crosscoder = trained(world, BatchTopK(k=1), 64, tmp_path, steps=2000, seed=0)
    found, cosine = matched(crosscoder, world)
    error = shares(crosscoder.W_dec.detach())[found, 1] - world.strength[:, 1] / world.strength.sum(dim=1)
    assert cosine.min() > 0.95
    assert error.abs().max() < 0.02


def seven_groups(seed: int) -> World:
    members = [("base",), ("sft",), ("rl",), ("base", "sft"), ("base", "rl"), ("sft", "rl"), TRIO]
    # Two of the 42 features fire per token, BatchTopK's k; a k above that leaves room to split features.
    fires = 2 / 42
    groups = tuple(Group(owners, 6, (6.0,) * len(owners), probability=fires, magnitude="uniform") for owners in members)
    return World.build(TRIO, 64, groups, seed=seed, noise=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [ReLU(weight=1.0), BatchTopK(k=2)], ids=["l1", "batchtopk"])
def test_attribution_and_branches_of_seven_groups_are_as_planted(tmp_path: Path, sparsity: Sparsity) -> None:
    """Acceptance tests T5 (MAS 1, 1/2, 1/3) and T7 (branches read about a third, the swap score is the difference)."""
    world = seven_groups(0)
    crosscoder = trained(world, sparsity, 96, tmp_path, steps=2500, seed=0)
    found, cosine = matched(crosscoder, world)
    sure = cosine > 0.8
    assert len(set(found[sure].tolist())) >= 0.9 * len(found)
    planted = world.strength / world.strength.sum(dim=1, keepdim=True)
    assert (shares(crosscoder.W_dec.detach())[found] - planted)[sure].abs().max() < 0.10

    shared, rl_only = range(36, 42), range(12, 18)
    tokens = world.render(torch.eye(42), generator(1)).activations
    joint = crosscoder.encode(tokens).detach()
    for column, model in enumerate(TRIO):
        branch = crosscoder.encode_branch(tokens[:, column], model).detach()
        ratio = torch.stack([branch[k, found[k]] / joint[k, found[k]] for k in shared if sure[k]]).mean()
        assert 0.24 <= ratio <= 0.345

    swapped = tokens.clone()
    swapped[:, 2] = tokens[:, 0]
    score = joint - crosscoder.encode(swapped).detach()
    for k in rl_only:
        if sure[k]:  # all of the feature's activation comes from rl, and so does the score
            torch.testing.assert_close(score[k, found[k]], joint[k, found[k]], rtol=0.05, atol=0.05)
    for k in shared:
        if sure[k]:  # base and rl agree up to the noise
            assert score[k, found[k]].abs() < 0.05 * joint[k, found[k]]


def test_activations_are_the_equation_in_plain_loops() -> None:
    groups = (Group(PAIR, 2, (1.0, 3.0), angle=0.4), Group(("tuned",), 1, (2.0,)))
    world = World.build(PAIR, 8, groups, seed=3, gain=(1.0, 0.5))
    codes = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.5, 0.0]])
    shown = world.render(codes, generator()).activations
    for token in range(2):
        for m, gain in enumerate((1.0, 0.5)):
            wanted = torch.zeros(8)
            for k in range(3):
                wanted += gain * codes[token, k] * world.strength[k, m] * world.direction[k, m]
            torch.testing.assert_close(shown[token, m], wanted)
    assert world.strength.tolist() == [[1.0, 3.0], [1.0, 3.0], [0.0, 2.0]]


def test_directions_are_orthonormal_and_turned_by_the_angle() -> None:
    groups = (Group(PAIR, 3, angle=math.pi / 3), Group(PAIR, 2))
    world = World.build(PAIR, 8, groups, seed=0)
    for m in range(2):
        torch.testing.assert_close(world.direction[:, m] @ world.direction[:, m].T, torch.eye(5), atol=1e-6, rtol=0)
    cosine = (world.direction[:, 0] * world.direction[:, 1]).sum(dim=-1)
    torch.testing.assert_close(cosine, torch.tensor([0.5, 0.5, 0.5, 1.0, 1.0]))


def test_features_fire_as_often_and_as_strongly_as_planted() -> None:
    groups = (
        Group(("base",), 4, probability=0.1),
        Group(("base",), 4, probability=0.3, magnitude="uniform"),
        Group(("base",), 4, probability=0.2, magnitude="exponential"),
    )
    codes = World.build(("base",), 12, groups, seed=0).sample(20_000, generator()).codes
    fired = codes > 0
    rates = fired.double().mean(dim=0).view(3, 4).mean(dim=1)
    assert rates.tolist() == pytest.approx([0.1, 0.3, 0.2], abs=0.01)
    means = [float(codes[:, part][fired[:, part]].mean()) for part in (slice(0, 4), slice(4, 8), slice(8, 12))]
    assert means == pytest.approx([1.0, 1.0, 1.0], abs=0.02)
    assert codes[:, 4:8][fired[:, 4:8]].max() <= 1.5


def test_scale_gives_a_mean_norm_of_the_square_root_of_the_width() -> None:
    world = seven_groups(1)
    sample = world.sample(500, generator())
    normalised = sample.activations / world.scale(sample)[:, None]
    torch.testing.assert_close(normalised.norm(dim=-1).mean(dim=0), torch.full((3,), 8.0))


def test_a_seed_gives_the_same_world_and_the_same_tokens() -> None:
    first, again, other = seven_groups(4), seven_groups(4), seven_groups(5)
    assert torch.equal(first.direction, again.direction) and not torch.equal(first.direction, other.direction)
    assert torch.equal(first.sample(9, generator(2)).activations, again.sample(9, generator(2)).activations)


def test_a_stream_goes_on_from_a_state_with_the_batches_that_would_have_followed() -> None:
    stream = PlantedStream(seven_groups(0), 6, 8, seed=1, scale=torch.ones(3))
    whole = list(stream.batches())
    state = PlantedState.from_tensors({name: tensor.clone() for name, tensor in whole[2][1].tensors().items()})
    rest = list(stream.batches(state))
    assert len(whole) == stream.steps == 6 and len(rest) == 3
    assert all(torch.equal(whole[3 + i][0].values, rest[i][0].values) for i in range(3))


def quiz(noise: float = 0.0) -> Quiz:
    groups = (
        Group(("base", "rl"), 4, (1.0, 3.0)),  # evidence: weak in the base
        Group(("base", "rl"), 4, (2.0, 2.0)),  # decoys
        Group(("base", "rl"), 6, (5.0, 5.0), probability=0.3),  # no cause
    )
    return Quiz(World.build(("base", "rl"), 24, groups, seed=0, noise=noise), (0, 1, 2, 3), (4, 5, 6, 7))


def test_the_base_fails_and_rl_passes_every_item_as_planted() -> None:
    items = quiz().items(200, generator())
    right = quiz().answers(items.activations) == items.target[:, None]
    assert torch.equal(right, quiz().right(items))
    assert not right[:, 0].any() and right[:, 1].all()


def test_taking_the_evidence_away_flips_rl_and_raising_it_saves_the_base() -> None:
    made = quiz()
    items = made.items(200, generator())
    evidence = items.codes[:, :4].clone()
    for factor, outcome in ((0.0, [False, False]), (4.0, [True, True])):
        codes = items.codes.clone()
        codes[:, :4] = factor * evidence
        answers = made.answers(made.world.render(codes, generator()).activations)
        assert (answers == items.target[:, None]).all(dim=0).tolist() == outcome


def test_features_that_are_no_cause_change_no_logit() -> None:
    made = quiz()
    items = made.items(50, generator())
    codes = items.codes.clone()
    codes[:, 8:] = 7.0
    changed = made.world.render(codes, generator()).activations - items.activations
    torch.testing.assert_close(changed @ made.readout.T, torch.zeros(50, 2, 4), atol=1e-4, rtol=0)


def test_impossible_worlds_are_refused() -> None:
    with pytest.raises(ValueError, match="need 10 orthogonal directions; d_model is 8"):
        World.build(PAIR, 8, (Group(PAIR, 5, angle=0.1),), seed=0)
    with pytest.raises(ValueError, match="choose from"):
        World.build(PAIR, 8, (Group(("rl",), 1),), seed=0)
    with pytest.raises(ValueError, match="2 members and 1 strengths"):
        World.build(PAIR, 8, (Group(PAIR, 1, (1.0,)),), seed=0)
    with pytest.raises(ValueError, match="1 gains for 2 models"):
        World.build(PAIR, 8, (Group(PAIR, 1),), seed=0, gain=(1.0,))
