"""Models on the way from one to another."""

import pytest
import torch

from featdiff.planted import Group, World, interpolated

PAIR = ("base", "tuned")


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
    world = World.build(("base", "c1", "c2"), 4, [Group(("base", "c1", "c2"), 1)], seed=0)
    with pytest.raises(ValueError, match="models lie between two"):
        interpolated(world, (0.5,))
    with pytest.raises(ValueError, match="give each once"):
        interpolated(world.only(("base", "c1")), (0.5, 0.5))
