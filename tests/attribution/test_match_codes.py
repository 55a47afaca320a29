"""Features paired by their codes: a planted permutation comes back, and neither scale nor offset matters."""

import torch

from featdiff.attribution.matching import match_codes


def test_a_planted_permutation_comes_back_under_other_scales_offsets_and_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(400, 12, generator=generator)
    order = torch.randperm(12, generator=generator)
    other = 3.0 * codes[:, order] + 0.5 + 0.05 * torch.randn(400, 12, generator=generator)
    found = match_codes(codes, other)
    assert found.partner[order].tolist() == list(range(12))


def test_the_similarity_is_the_correlation() -> None:
    a, b = torch.tensor([[0.0], [1.0], [2.0], [4.0]]), torch.tensor([[1.0], [0.0], [2.0], [3.0]])
    expected = torch.corrcoef(torch.cat([a, b], dim=1).T)[0, 1]
    found = match_codes(a, b, acceptance=0.5)
    assert torch.allclose(found.best_a[0], expected)
    assert torch.allclose(match_codes(a, -b, acceptance=0.5).best_a[0], -expected)


def test_constant_and_dead_features_take_no_part() -> None:
    codes = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    codes[:, 1] = 0.3
    alive = (torch.tensor([True, True, True, False]), torch.ones(4, dtype=torch.bool))
    found = match_codes(codes, codes, alive=alive)
    assert found.pairs.tolist() == [[0, 0], [2, 2]]
    assert found.best_a.isnan().tolist() == [False, True, False, True]
