from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from featdiff.activations.stream import Activations
from featdiff.config.crosscoder import ReLU
from featdiff.crosscoder.metrics import SplicedLosses, measure, spliced_losses
from featdiff.crosscoder.model import Crosscoder

MODELS = ("base", "rl")


def identity() -> Crosscoder:
    """Two features per coordinate and model, for its positive and its negative part."""
    made = Crosscoder(MODELS, d_model=4, features=16, sparsity=ReLU())
    signs = torch.cat([torch.eye(8), -torch.eye(8)])
    with torch.no_grad():
        made.W_dec.copy_(signs.view(16, 2, 4))
        made.W_enc.copy_(signs.T.reshape(2, 4, 16))
        made.scale.copy_(torch.tensor([2.0, 0.5]))
    return made


def constant(mean: Tensor) -> Crosscoder:
    """No feature ever fires; every token is reconstructed as the mean."""
    made = Crosscoder(MODELS, d_model=4, features=16, sparsity=ReLU())
    with torch.no_grad():
        made.b_enc.fill_(-1e6)
        made.b_dec.copy_(mean)
    return made


def tokens(count: int = 60) -> Tensor:
    values = torch.randn(count, 2, 4, generator=torch.Generator().manual_seed(3))
    return values * torch.tensor([1.0, 5.0])[:, None] + torch.tensor([3.0, -1.0])[:, None]


def batches(values: Tensor, size: int, models: tuple[str, ...] = MODELS) -> Iterator[Activations]:
    for part in values.split(size):
        yield Activations(models, part, torch.zeros(len(part), dtype=torch.int64))


def test_the_identity_explains_all_variance() -> None:
    found = measure(identity(), batches(tokens(), 60))
    torch.testing.assert_close(found.variance_explained, torch.ones(2))
    assert found.l0 == 8.0 and found.dead_share < 1.0  # of each pair of features one fires on every token


def test_the_mean_explains_none() -> None:
    found = measure(constant(tokens().mean(dim=0)), batches(tokens(), 60))
    torch.testing.assert_close(found.variance_explained, torch.zeros(2), atol=1e-5, rtol=0)
    assert found.l0 == 0.0 and found.dead_share == 1.0
    torch.testing.assert_close(found.mean, tokens().mean(dim=0))


def test_variance_explained_is_a_ratio_of_sums_around_the_global_mean() -> None:
    made = constant(torch.zeros(2, 4))
    values = torch.zeros(2, 2, 4)
    values[0, 0, 0], values[1, 0, 0] = 4.0, 2.0  # mean 3, variation 1 + 1, errors 16 + 4
    values[:, 1] = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    found = measure(made, batches(values, 2))
    assert found.of("base") == pytest.approx(1 - 20 / 2)


def test_the_size_of_batches_does_not_matter() -> None:
    made = Crosscoder(MODELS, d_model=4, features=16, seed=1)
    whole, parts = measure(made, batches(tokens(), 60)), measure(made, batches(tokens(), 7))
    torch.testing.assert_close(whole.variance_explained, parts.variance_explained)
    assert torch.equal(whole.density, parts.density)
    assert (
        (whole.l0, whole.dead_share, whole.tokens)
        == (parts.l0, parts.dead_share, parts.tokens)
        == (whole.l0, whole.dead_share, 60)
    )


def test_a_constant_far_from_zero_costs_no_precision() -> None:
    far = tokens() + 1000.0
    near, shifted = measure(constant(tokens().mean(0)), batches(tokens(), 60)), measure(identity(), batches(far, 60))
    torch.testing.assert_close(shifted.variance_explained, torch.ones(2))
    torch.testing.assert_close(near.mean + 1000.0, shifted.mean)


def test_densities_count_tokens_and_l0_is_their_sum() -> None:
    values = torch.zeros(4, 2, 4)
    values[:3, 0, 0] = 1.0
    values[0, 1, 2] = -1.0
    found = measure(identity(), batches(values, 2))
    assert found.density[0] == 0.75 and found.density[8 + 6] == 0.25
    assert found.l0 == 1.0 and found.dead_share == 14 / 16


def test_activations_of_more_models_are_read_by_name() -> None:
    values = tokens()
    wider = torch.stack([values[:, 1], torch.randn(60, 4), values[:, 0]], dim=1)
    made = Crosscoder(MODELS, d_model=4, features=16, seed=1)
    found = measure(made, batches(wider, 60, ("rl", "sft", "base")))
    torch.testing.assert_close(found.variance_explained, measure(made, batches(values, 60)).variance_explained)


def test_nothing_to_measure_on_is_refused() -> None:
    with pytest.raises(ValueError, match="no held-out tokens"):
        measure(identity(), iter(()))


VOCABULARY, MEAN = 5, torch.tensor([0.5, -0.5, 0.0, 1.0])


def logits(residual: Tensor) -> Tensor:
    """A model above the tap in which positions see those before them."""
    readout = torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(9))
    return (residual + 0.3 * residual.cumsum(dim=1)) @ readout


def case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    residual = torch.randn(3, 6, 4, generator=generator)
    labels = torch.randint(VOCABULARY, (3, 6), generator=generator)
    labels[:, -1] = -100
    keep = torch.ones(3, 6, dtype=torch.bool)
    keep[:, 0] = False
    return residual, labels, keep


def test_a_perfect_reconstruction_recovers_everything() -> None:
    residual, labels, keep = case()
    losses = spliced_losses(logits, residual, residual.clone(), MEAN, labels, keep)
    assert losses.ce_recovered == 1.0 and losses.kl_recovered == 1.0
    assert losses.positions == 15


def test_the_mean_recovers_nothing() -> None:
    residual, labels, keep = case()
    losses = spliced_losses(logits, residual, MEAN.expand(3, 6, 4), MEAN, labels, keep)
    assert losses.ce_recovered == 0.0 and losses.kl_recovered == 0.0


def test_dropped_positions_keep_their_activation_whatever_the_reconstruction_says() -> None:
    residual, labels, keep = case()
    wrong_where_dropped = residual.clone()
    wrong_where_dropped[:, 0] = 1e3
    losses = spliced_losses(logits, residual, wrong_where_dropped, MEAN, labels, keep)
    assert losses.ce_recovered == 1.0 and losses.kl_recovered == 1.0


def test_losses_are_those_of_a_loop_over_positions() -> None:
    residual, labels, keep = case()
    reconstruction = 0.7 * residual
    found = spliced_losses(logits, residual, reconstruction, MEAN, labels, keep)
    spliced = residual.clone()
    spliced[:, 1:] = reconstruction[:, 1:]
    p, q = logits(residual).double().softmax(-1), logits(spliced).double().softmax(-1)
    ce = kl = 0.0
    for row in range(3):
        for position in range(5):
            ce -= float(q[row, position, labels[row, position]].log())
            kl += float((p[row, position] * (p[row, position] / q[row, position]).log()).sum())
    assert found.ce_spliced == pytest.approx(ce, rel=1e-5)
    assert found.kl_spliced == pytest.approx(kl, rel=1e-5)


def test_losses_of_batches_add_up() -> None:
    residual, labels, keep = case()
    whole = spliced_losses(logits, residual, 0.7 * residual, MEAN, labels, keep)
    rows = [slice(0, 1), slice(1, 3)]
    parts = [spliced_losses(logits, residual[r], 0.7 * residual[r], MEAN, labels[r], keep[r]) for r in rows]
    total = sum(parts, start=SplicedLosses())
    assert total.positions == whole.positions
    assert (total.ce_recovered, total.kl_recovered) == pytest.approx((whole.ce_recovered, whole.kl_recovered))


def test_the_scores_of_round_numbers() -> None:
    losses = SplicedLosses(10, ce_original=10.0, ce_spliced=12.0, ce_ablated=30.0, kl_spliced=1.0, kl_ablated=4.0)
    assert losses.ce_recovered == pytest.approx(0.9) and losses.kl_recovered == pytest.approx(0.75)
