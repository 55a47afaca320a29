"""Features of one crosscoder, read at checkpoints of a planted world that it was not trained on."""

import pytest
import torch
from torch import Generator

from featdiff.activations.stream import Activations
from featdiff.attribution import Attribution
from featdiff.attribution.swap import swap_specificity
from featdiff.crosscoder import Crosscoder
from featdiff.planted import Group, World

MODELS = ("base", "rl", "rl-1", "rl-2")
GROUPS = (
    Group(MODELS, 2, (1.0, 1.0, 1.0, 1.0)),  # shared throughout
    Group(MODELS, 2, (0.5, 1.5, 0.5, 1.0)),  # grows: 0.5, 0.67, 0.75
    Group(("rl", "rl-2"), 2),  # appears at the second checkpoint
    Group(("base", "rl-1"), 2),  # vanishes before it
)


def perfect(world: World, gain: float = 1.0) -> Crosscoder:
    """The crosscoder of base and rl that rebuilds a world exactly: it reads each feature from where it is, and writes
    `gain` of it."""
    rows = world.rows[:, :2]
    crosscoder = Crosscoder(MODELS[:2], rows.shape[2], len(rows))
    crosscoder.W_dec.data.copy_(rows * gain)
    crosscoder.W_enc.data.copy_((rows / rows.square().sum(dim=(1, 2), keepdim=True)).permute(1, 2, 0))
    return crosscoder


def found(crosscoder: Crosscoder, world: World, checkpoints: tuple[str, ...], min_active: int = 20) -> torch.Tensor:
    values = world.sample(4_000, Generator().manual_seed(1)).activations
    batches = [Activations(MODELS, part, torch.zeros(len(part), dtype=torch.int64)) for part in values.split(1_500)]
    (specificity,) = swap_specificity([crosscoder], batches, checkpoints, min_active=min_active)
    return specificity


def world_of(noise: float = 0.0) -> World:
    return World.build(MODELS, 16, GROUPS, seed=0, noise=noise)


def test_with_the_tuned_model_in_its_own_place_it_is_the_score_of_the_decoder() -> None:
    crosscoder = perfect(world_of())
    nrn = Attribution.of(crosscoder)["rl"]
    torch.testing.assert_close(found(crosscoder, world_of(), ("rl",))[0], nrn, atol=1e-4, rtol=0)


def test_planted_growth_and_birth_are_found_at_their_checkpoint() -> None:
    early, late = found(perfect(world_of()), world_of(), ("rl-1", "rl-2"))
    assert early[:4].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5], abs=1e-3)
    assert late[:4].tolist() == pytest.approx([0.5, 0.5, 2 / 3, 2 / 3], abs=1e-3)
    assert early[4:6].isnan().all()  # neither the base nor this checkpoint has them
    assert late[4:6].tolist() == pytest.approx([1.0, 1.0], abs=1e-3)
    # What the tuned model has lost has no tuned direction along which to look.
    assert early[6:].tolist() == late[6:].tolist() == pytest.approx([0.0, 0.0], abs=1e-3)


def test_noise_on_which_a_code_fires_does_not_make_an_absent_feature_present() -> None:
    early, _ = found(perfect(world_of(0.1)), world_of(0.1), ("rl-1", "rl-2"))
    assert early[4:6].isnan().all()
    assert early[2:4].tolist() == pytest.approx([0.5, 0.5], abs=0.03)


def test_shrunken_decoders_are_corrected_by_what_they_leave() -> None:
    """A decoder that writes 0.6 of every feature leaves 0.4 in the error; all slopes are 1 / 0.6."""
    late = found(perfect(world_of(), gain=0.6), world_of(), ("rl-2",))[0]
    assert late[2:4].tolist() == pytest.approx([2 / 3, 2 / 3], abs=1e-3)


def test_features_that_fire_too_rarely_are_not_measured() -> None:
    assert found(perfect(world_of()), world_of(), ("rl-1", "rl-2"), min_active=10**6).isnan().all()


def test_one_pass_serves_several_crosscoders() -> None:
    world, values = world_of(), world_of().sample(500, Generator().manual_seed(2)).activations
    crosscoders = [perfect(world), perfect(world, gain=0.6)]
    batch = Activations(MODELS, values, torch.zeros(500, dtype=torch.int64))
    together = swap_specificity(crosscoders, [batch], ("rl-1",), min_active=5)
    alone = [swap_specificity([one], [batch], ("rl-1",), min_active=5)[0] for one in crosscoders]
    assert all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in zip(together, alone, strict=True))


def test_a_checkpoint_that_was_not_harvested_is_named() -> None:
    with pytest.raises(ValueError, match="the activations lack rl-9; they hold base, rl, rl-1, rl-2"):
        found(perfect(world_of()), world_of(), ("rl-9",))


def test_a_crosscoder_of_three_models_is_refused() -> None:
    with pytest.raises(ValueError, match="takes a crosscoder of two models; this one aligns base, rl, rl-1"):
        swap_specificity([Crosscoder(MODELS[:3], 16, 8)], [], ("rl-1",))
