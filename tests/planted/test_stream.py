"""A planted stream goes on where it stood, and names the types of its tokens."""

import torch

from featdiff.planted import Group, PlantedStream, World

PAIR = ("base", "tuned")


def stream() -> PlantedStream:
    groups = (Group(PAIR, 4, magnitude="uniform", correlation=0.5, token_type=1), Group(PAIR, 4))
    world = World.build(PAIR, 16, groups, seed=0, noise=0.1, type_shares=(0.5, 0.5))
    return PlantedStream(world, 6, 8, seed=1, scale=torch.ones(2))


def test_a_stream_goes_on_from_a_state_with_the_batches_that_would_have_followed() -> None:
    whole = list(stream().batches())
    state = stream().state_from({name: tensor.clone() for name, tensor in whole[2][1].tensors().items()})
    rest = list(stream().batches(state))
    assert len(whole) == stream().steps == 6 and len(rest) == 3
    assert all(torch.equal(whole[3 + i][0].values, rest[i][0].values) for i in range(3))


def test_token_ids_are_the_types_of_the_tokens() -> None:
    ids = torch.cat([batch.tokens for batch, _ in stream().batches()])
    assert ids.unique().tolist() == [0, 1]
