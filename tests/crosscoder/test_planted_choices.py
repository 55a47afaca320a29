"""Each choice of sparsity, objective, blocks and map on a world that shows what it is for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted_training import PAIR, densities, matched, power_curve, recalled, trained
from safetensors.torch import load_file
from torch import Generator, Tensor

from featdiff.attribution import model_attribution_score
from featdiff.config.crosscoder import (
    MLP,
    MSE,
    BatchTopK,
    Cosine,
    DeltaMSE,
    Design,
    JumpReLU,
    NoAlignment,
    Objective,
    Procrustes,
    ReLU,
    Shared,
    Sparsity,
)
from featdiff.crosscoder.model import Crosscoder
from featdiff.planted import Group, World

TAIL = 0.9
"""A share of the decoder above which a feature counts as rl's own; at a planted ratio of 0.2 it is 0.833."""


def shrunk_world(probability: float, seed: int = 0) -> World:
    """8 features that are five times weaker in the base, and 8 that are not."""
    groups = (
        Group(PAIR, 8, (0.8, 4.0), probability=probability),
        Group(PAIR, 8, (4.0, 4.0), probability=probability),
    )
    return World.build(PAIR, 32, groups, seed=seed)


def owned(crosscoder: Crosscoder, world: World) -> Tensor:
    """rl's share of the decoder of the feature found for each planted one."""
    indices, cosines = matched(crosscoder, world)
    assert cosines.min() > 0.9
    return model_attribution_score(crosscoder.W_dec.detach())[indices, 1]


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [ReLU(weight=2.0), BatchTopK(k=1)], ids=["l1", "batchtopk"])
def test_what_is_five_times_weaker_is_a_tail_under_l1_and_none_under_batch_top_k(
    tmp_path: Path, sparsity: Sparsity
) -> None:
    """At beta 2 L1 takes 1 off every contribution, and so all of the base's 0.8."""
    world = shrunk_world(1 / 16)
    found = trained(world, Crosscoder(PAIR, 32, 32, sparsity, seed=0), tmp_path, steps=1200)
    scores, dense = model_attribution_score(found.W_dec.detach())[:, 1], densities(found, world) > 1e-3
    tail = int(((scores > TAIL) & dense).sum())
    if isinstance(sparsity, ReLU):
        assert tail >= 8
        return
    assert tail == 0
    assert (owned(found, world)[:8] - 1 / 1.2).abs().max() < 0.02


@pytest.mark.slow
def test_jump_relu_shrinks_nothing(tmp_path: Path) -> None:
    """Its threshold has to start among the contributions, and thresholds learn slowly: many small steps."""
    world = shrunk_world(0.02)
    sparsity = JumpReLU(weight=0.5, threshold=1.0)
    found = trained(world, Crosscoder(PAIR, 32, 32, sparsity, seed=0), tmp_path, steps=6000, batch_size=128)
    scores = owned(found, world)
    assert (scores[:8] - 1 / 1.2).abs().max() < 0.02
    assert (scores[8:] - 1 / 2).abs().max() < 0.06


@pytest.mark.slow
def test_a_cheap_shared_block_makes_room_for_exclusive_features(tmp_path: Path) -> None:
    """20 dense features that both models have keep 36 features busy; taken over by 20 that cost a seventh, they do
    not."""
    dense = Group(PAIR, 20, (2.0, 2.0), probability=0.5, magnitude="uniform")
    world = World.build(PAIR, 32, (dense, Group(("rl",), 10, (3.0,), magnitude="uniform")), seed=0, noise=0.05)
    found: dict[str, int] = {}
    for name, shared in (("none", Shared()), ("tied", Shared(20, 1.0)), ("cheap", Shared(20, 0.15))):
        made = Crosscoder(PAIR, 32, 36, ReLU(weight=1.0), seed=0, design=Design(shared=shared))
        found[name] = recalled(trained(world, made, tmp_path / name, steps=1000), world, slice(20, 30))
    assert found["cheap"] >= 5 and found["none"] <= 1 and found["tied"] <= 1


@pytest.mark.slow
def test_dedicated_features_find_what_one_model_alone_has(tmp_path: Path) -> None:
    """Sparse features of rl beside dense ones of both: no feature is left for them unless some are set aside."""
    dense = Group(PAIR, 20, (2.0, 2.0), probability=0.3, magnitude="uniform")
    sparse = Group(("rl",), 10, (3.0,), probability=0.02, magnitude="uniform")
    world = World.build(PAIR, 32, (dense, sparse), seed=0, noise=0.05)
    found: dict[str, int] = {}
    for name, partition in (("none", {}), ("dedicated", {"rl": 10 / 34})):
        made = Crosscoder(PAIR, 32, 34, ReLU(weight=1.0), seed=0, design=Design(partition=partition))
        found[name] = recalled(trained(world, made, tmp_path / name, steps=1000), world, slice(20, 30))
        if partition:
            scores = model_attribution_score(made.W_dec.detach())
            assert torch.equal(scores[:10], torch.tensor([[0.0, 1.0]]).expand(10, -1))
            assert not made.W_enc[0, :, :10].any()
    assert found["dedicated"] >= 5 and found["none"] <= 1


@pytest.mark.slow
def test_the_delta_objective_finds_weak_features_that_squared_error_misses(tmp_path: Path) -> None:
    """Acceptance test T14. At weight -0.99 a shared feature of 4 is worth less than it costs: it stays out where
    4 < beta / (2 (1 + weight)) = 10; what rl alone has keeps its worth."""
    energies = (0.001, 0.01)
    squared = power_curve(MSE(), energies, 0, tmp_path / "mse")
    delta = power_curve(DeltaMSE(-0.99), energies, 0, tmp_path / "delta")
    assert all(more >= less for more, less in zip(delta, squared, strict=True))
    assert squared == [0.0, 0.0] and delta[1] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "wanted"), [(MSE(), 8**-0.5), (Cosine(), 1.0)], ids=["mse", "cosine"])
def test_the_cosine_objective_rebuilds_the_direction_of_tokens_that_l1_erases(
    tmp_path: Path, objective: Objective, wanted: float
) -> None:
    """Each contribution is 0.8, below beta / 2: squared error keeps only b_dec, the mean of 8 orthogonal features."""
    world = World.build(PAIR, 16, (Group(PAIR, 8, (0.8, 0.8), probability=0.2),), seed=0)
    made = Crosscoder(PAIR, 16, 16, ReLU(weight=2.0), seed=0, design=Design(objective=objective))
    trained(world, made, tmp_path, steps=500, batch_size=256)
    tokens = world.render(torch.eye(8), Generator()).activations
    cosine = torch.cosine_similarity(made.decode(made.encode(tokens)).detach(), tokens, dim=-1).mean()
    assert float(cosine) == pytest.approx(wanted, abs=0.05)


def turned_world(seed: int) -> World:
    """Features of both models, the second of which has another basis."""
    world = World.build(PAIR, 16, (Group(PAIR, 12, (4.0, 4.0), probability=0.1),), seed=seed, noise=0.05)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=Generator().manual_seed(seed + 1))).Q
    direction = world.direction.clone()
    direction[:, 1] = direction[:, 1] @ rotation.T
    return replace(world, direction=direction)


@pytest.mark.slow
@pytest.mark.parametrize("align", [Procrustes(20_000), NoAlignment()], ids=["procrustes", "none"])
def test_procrustes_undoes_a_planted_rotation(tmp_path: Path, align: Procrustes | NoAlignment) -> None:
    """With one decoder row for both models, only aligned ones can be rebuilt."""
    world = turned_world(0)
    made = Crosscoder(PAIR, 16, 24, ReLU(weight=0.5), seed=0, design=Design(align=align, shared=Shared(24, 1.0)))
    trained(world, made, tmp_path, steps=800, batch_size=256)
    tokens = world.sample(2000, Generator().manual_seed(7)).activations
    residual = (tokens - made.decode(made.encode(tokens)).detach()).square().sum()
    explained = float(1 - residual / (tokens - tokens.mean(dim=0)).square().sum())
    if isinstance(align, NoAlignment):
        assert explained < 0.8
        return
    assert explained > 0.9 and recalled(made, world, slice(None)) == 12
    found = load_file(tmp_path / "planted" / "alignment.safetensors")["rotation"][1]
    seen = world.direction[:, 1] @ found
    assert (seen * world.direction[:, 0]).sum(dim=-1).min() > 0.99
    indices, _ = matched(made, world)
    base, rl = made.W_dec.detach()[indices].unbind(dim=1)
    torch.testing.assert_close(torch.cosine_similarity(base, rl @ found, dim=-1), torch.ones(12))
    torch.testing.assert_close(model_attribution_score(made.W_dec.detach(), p=2)[indices], torch.full((12, 2), 0.5))


@pytest.mark.slow
def test_a_hidden_layer_changes_no_owner_where_a_linear_encoder_suffices(tmp_path: Path) -> None:
    world = shrunk_world(1 / 16)
    made = Crosscoder(PAIR, 32, 32, BatchTopK(k=1), seed=0, design=Design(encoder=MLP(16)))
    scores = owned(trained(world, made, tmp_path, steps=1200), world)
    assert made.W_hidden is not None and made.W_hidden.any()
    assert (scores[:8] - 1 / 1.2).abs().max() < 0.02 and (scores[8:] - 1 / 2).abs().max() < 0.02
