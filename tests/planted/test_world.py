"""Worlds keep their word: equation, directions, firing laws, ownership."""

import math

import pytest
import torch
from torch import Generator

from featdiff.planted import Group, World

PAIR = ("base", "tuned")
TRIO = ("base", "sft", "rl")


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def seven_groups(seed: int) -> World:
    members = [("base",), ("sft",), ("rl",), ("base", "sft"), ("base", "rl"), ("sft", "rl"), TRIO]
    groups = [Group(owners, 6, (6.0,) * len(owners), magnitude="uniform") for owners in members]
    return World.build(TRIO, 64, groups, seed=seed, noise=0.05)


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


def test_shares_by_hand_count_the_gain() -> None:
    groups = (Group(PAIR, 1, (1.0, 3.0)), Group(("tuned",), 1))
    assert World.build(PAIR, 8, groups, seed=0).shares.tolist() == [[0.25, 0.75], [0.0, 1.0]]
    assert World.build(PAIR, 8, groups, seed=0, gain=(3.0, 1.0)).shares.tolist() == [[0.5, 0.5], [0.0, 1.0]]


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
        Group(("base",), 4, probability=0.9),  # dense
    )
    codes = World.build(("base",), 16, groups, seed=0).sample(20_000, generator()).codes
    fired = codes > 0
    rates = fired.double().mean(dim=0).view(4, 4).mean(dim=1)
    assert rates.tolist() == pytest.approx([0.1, 0.3, 0.2, 0.9], abs=0.01)
    means = [float(codes[:, part][fired[:, part]].mean()) for part in (slice(0, 4), slice(4, 8), slice(8, 12))]
    assert means == pytest.approx([1.0, 1.0, 1.0], abs=0.02)
    assert codes[:, 4:8][fired[:, 4:8]].max() <= 1.5


def test_firing_is_correlated_as_planted_and_as_frequent() -> None:
    groups = (Group(PAIR, 3, probability=0.2, correlation=0.6), Group(PAIR, 3, probability=0.2))
    fired = (World.build(PAIR, 8, groups, seed=0).sample(60_000, generator()).codes > 0).double()
    correlation = torch.corrcoef(fired.T)
    within = torch.tensor([correlation[0, 1], correlation[0, 2], correlation[1, 2]])
    assert within.tolist() == pytest.approx([0.6] * 3, abs=0.02)
    assert correlation[:3, 3:].abs().max() < 0.02
    assert fired.mean(dim=0).tolist() == pytest.approx([0.2] * 6, abs=0.01)


def test_features_of_full_correlation_always_fire_together() -> None:
    world = World.build(PAIR, 4, (Group(PAIR, 3, probability=0.5, correlation=1.0),), seed=0)
    codes = world.sample(100, generator()).codes
    assert (codes == codes[:, :1]).all() and 0 < codes.mean() < 1


def test_near_copies_lie_at_their_angle_and_fire_by_themselves() -> None:
    angle = 0.5
    groups = (Group(PAIR, 2, (1.0, 2.0), probability=0.3, copies=3, copy_angle=angle, angle=0.9),)
    world = World.build(PAIR, 12, groups, seed=0)
    cosine = world.direction[:, 1] @ world.direction[:, 1].T
    near, far = math.cos(angle), math.cos(angle) ** 2
    block = torch.tensor([[1.0, near, near], [near, 1.0, far], [near, far, 1.0]])
    torch.testing.assert_close(cosine, torch.block_diag(block, block), atol=1e-6, rtol=0)
    between = (world.direction[:, 0] * world.direction[:, 1]).sum(dim=-1)
    torch.testing.assert_close(between, torch.full((6,), math.cos(0.9)))
    fired = (world.sample(40_000, generator()).codes > 0).double()
    assert (torch.corrcoef(fired.T) - torch.eye(6)).abs().max() < 0.02


def test_exact_copies_take_no_direction_of_their_own() -> None:
    world = World.build(PAIR, 2, (Group(PAIR, 2, copies=4),), seed=0)
    assert torch.equal(world.direction[0], world.direction[3]) and len(world.strength) == 8
    assert world.group_of.tolist() == [0] * 8


def test_features_fire_only_on_tokens_of_their_type() -> None:
    groups = (Group(PAIR, 2, probability=0.5, token_type=1), Group(PAIR, 2, probability=0.5))
    sample = World.build(PAIR, 8, groups, seed=0, type_shares=(0.7, 0.2, 0.1)).sample(20_000, generator())
    fired = (sample.codes > 0).double()
    assert not fired[sample.types != 1, :2].any()
    assert fired[sample.types == 1, :2].mean() == pytest.approx(0.5, abs=0.03)
    assert fired[:, 2:].mean() == pytest.approx(0.5, abs=0.02)
    shares = torch.bincount(sample.types).double() / len(sample.types)
    assert shares.tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.02)


def test_fewer_models_show_what_they_showed_among_all() -> None:
    world = World.build(TRIO, 8, (Group(TRIO, 2, (1.0, 2.0, 3.0), angle=0.3), Group(("sft",), 1)), seed=0)
    part = world.only(("rl", "base"))
    whole, shown = world.sample(50, generator()), part.sample(50, generator())
    assert part.models == ("rl", "base") and torch.equal(whole.codes, shown.codes)
    torch.testing.assert_close(shown.activations, whole.activations[:, [2, 0]])
    with pytest.raises(ValueError, match="no model other"):
        world.only(("base", "other"))


def test_scale_gives_a_mean_norm_of_the_square_root_of_the_width() -> None:
    world = seven_groups(1)
    sample = world.sample(500, generator())
    normalised = sample.activations / world.scale(sample)[:, None]
    torch.testing.assert_close(normalised.norm(dim=-1).mean(dim=0), torch.full((3,), 8.0))


def test_a_seed_gives_the_same_world_and_the_same_tokens() -> None:
    first, again, other = seven_groups(4), seven_groups(4), seven_groups(5)
    assert torch.equal(first.direction, again.direction) and not torch.equal(first.direction, other.direction)
    assert torch.equal(first.sample(9, generator(2)).activations, again.sample(9, generator(2)).activations)


@pytest.mark.parametrize(
    ("group", "said"),
    [
        (Group(PAIR, 5, angle=0.1), "need 10 orthogonal directions; d_model is 8"),
        (Group(PAIR, 3, copies=3, copy_angle=0.2), "need 9 orthogonal directions"),
        (Group(("rl",), 1), "choose from"),
        (Group(PAIR, 1, (1.0,)), "2 members and 1 strengths"),
        (Group(PAIR, 1, probability=1.5), "both lie between 0 and 1"),
        (Group(PAIR, 1, correlation=-0.1), "both lie between 0 and 1"),
        (Group(PAIR, 1, copies=0), "give at least 0 and 1"),
        (Group(PAIR, 1, token_type=1), "the world has types 0 to 0"),
    ],
)
def test_impossible_groups_are_refused_in_one_line(group: Group, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refusal:
        World.build(PAIR, 8, (group,), seed=0)
    assert "\n" not in str(refusal.value)


def test_impossible_worlds_are_refused() -> None:
    with pytest.raises(ValueError, match="1 gains for 2 models"):
        World.build(PAIR, 8, (Group(PAIR, 1),), seed=0, gain=(1.0,))
    with pytest.raises(ValueError, match="give shares that sum to 1"):
        World.build(PAIR, 8, (Group(PAIR, 1),), seed=0, type_shares=(0.5, 0.6))
