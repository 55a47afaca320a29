"""What every experiment rests on: the crosscoder without fault, and who finds what."""

import torch

from featdiff.planted import Group, World
from featdiff.verify.training import alone, found, held_out, perfect, scored

TRIO = ("base", "sft", "rl")


def world(noise: float = 0.0) -> World:
    groups = (Group(TRIO, 3, (1.0, 2.0, 3.0), angle=0.5), Group(("rl",), 2, (4.0,)), Group(("base", "sft"), 2))
    return World.build(TRIO, 16, groups, seed=1, noise=noise)


def test_the_perfect_crosscoder_reads_the_codes_and_rebuilds_the_models() -> None:
    sample = world().sample(200, torch.Generator().manual_seed(2))
    made = perfect(world())
    torch.testing.assert_close(made.encode(sample.activations).detach(), sample.codes, atol=1e-5, rtol=0)
    torch.testing.assert_close(made.decode(sample.codes).detach(), sample.activations, atol=1e-5, rtol=0)


def test_the_perfect_crosscoder_is_found_feature_by_feature_and_owned_as_planted() -> None:
    made = perfect(world())
    assert found(made, world()).tolist() == list(range(7))
    attribution = scored(made, world(), seed=3)
    torch.testing.assert_close(attribution.mas_l2, world().shares)
    assert attribution.alive.all()
    assert (attribution.density > world().probability - 0.01).all()  # rounding makes a feature fire a little more


def test_a_token_for_every_feature_alone() -> None:
    torch.testing.assert_close(alone(world(), 0), world().rows)


def test_held_out_tokens_are_as_many_as_asked_for() -> None:
    assert sum(len(batch.values) for batch in held_out(world(), 0, 3000)) == 3000
