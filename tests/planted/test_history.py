"""Checkpoints at which features appear, persist and vanish; models on the way from one to another."""

import pytest
import torch

from featdiff.planted import Group, Life, World, checkpoint_world, interpolated

PAIR = ("base", "tuned")


def test_features_live_from_the_checkpoint_where_they_appear_to_their_last() -> None:
    lives = [Life(2, 0, 4), Life(1, 2, 4, strength=3.0), Life(3, 0, 1), Life(1, 2, 3)]
    world = checkpoint_world(4, 16, lives, seed=0)
    assert world.models == ("base", "c1", "c2", "c3", "c4")
    wanted = [[1, 1, 1, 1, 1]] * 2 + [[0, 0, 3, 3, 3]] + [[1, 1, 0, 0, 0]] * 3 + [[0, 0, 1, 1, 0]]
    assert world.strength.tolist() == wanted
    assert world.group_of.tolist() == [0, 0, 1, 2, 2, 2, 3]


def test_a_feature_keeps_its_direction_over_the_checkpoints() -> None:
    world = checkpoint_world(3, 8, [Life(2, 1, 3), Life(2, 0, 3)], seed=1)
    assert torch.equal(world.direction, world.direction[:, :1].expand_as(world.direction))


@pytest.mark.parametrize(("appears", "last"), [(-1, 2), (3, 2), (0, 5)])
def test_lives_that_do_not_fit_are_refused(appears: int, last: int) -> None:
    with pytest.raises(ValueError, match=r"there are 0 .the base. to 4"):
        checkpoint_world(4, 8, [Life(1, appears, last)], seed=0)


def test_a_model_between_two_shows_the_mix_of_what_they_show() -> None:
    groups = (Group(PAIR, 2, (1.0, 4.0), angle=0.8), Group(("tuned",), 1), Group(PAIR, 1, (2.0, 0.0)))
    ends = World.build(PAIR, 8, groups, seed=0, gain=(1.0, 3.0))
    world = interpolated(ends, (0.25, 0.5))
    assert world.models == ("base", "0.25", "0.5", "tuned")
    codes = torch.rand(20, 4, generator=torch.Generator().manual_seed(1))
    shown = world.render(codes, torch.Generator()).activations
    at_ends = ends.render(codes, torch.Generator()).activations
    for column, alpha in enumerate((0.0, 0.25, 0.5, 1.0)):
        wanted = (1 - alpha) * at_ends[:, 0] + alpha * at_ends[:, 1]
        torch.testing.assert_close(shown[:, column], wanted)


def test_strengths_mix_where_the_direction_is_one() -> None:
    world = interpolated(World.build(PAIR, 4, (Group(PAIR, 1, (2.0, 6.0)), Group(("tuned",), 1)), seed=0), (0.25,))
    torch.testing.assert_close(world.strength, torch.tensor([[2.0, 3.0, 6.0], [0.0, 0.25, 1.0]]))
    torch.testing.assert_close(world.direction.norm(dim=-1), torch.ones(2, 3))


def test_only_two_models_have_models_between_them() -> None:
    world = checkpoint_world(2, 4, [Life(1, 0, 2)], seed=0)
    with pytest.raises(ValueError, match="models lie between two"):
        interpolated(world, (0.5,))
    with pytest.raises(ValueError, match="give each once"):
        interpolated(world.only(("base", "c1")), (0.5, 0.5))
