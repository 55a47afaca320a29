import torch
from scipy.stats import false_discovery_control, ttest_1samp
from torch import Generator

from featdiff.selection.rules import above_share, by_paired_t, top

ALL = torch.ones(6, dtype=torch.bool)


def test_a_share_of_the_largest_score_of_a_live_feature_by_hand() -> None:
    score = torch.tensor([10.0, 2.0, 1.9, -5.0, 0.0, 40.0])
    alive = torch.tensor([True, True, True, True, True, False])
    assert above_share(score, alive, 0.19).nonzero().flatten().tolist() == [0, 1]
    assert not above_share(-score.abs(), ALL, 0.2).any()


def test_the_top_are_the_largest_positive_ones_alive() -> None:
    score = torch.tensor([1.0, 3.0, 3.0, -1.0, 2.0, 9.0])
    alive = torch.tensor([True, True, True, True, True, False])
    assert top(score, alive, 2).nonzero().flatten().tolist() == [1, 2]
    assert top(score, alive, 6).nonzero().flatten().tolist() == [0, 1, 2, 4]


def test_the_paired_t_is_that_of_scipy_and_keeps_what_was_planted() -> None:
    generator = Generator().manual_seed(0)
    differences = torch.randn(40, 300, generator=generator)
    differences[:, :20] += 1.5
    alive = torch.arange(300) != 7
    kept = by_paired_t(differences, alive, 0.05)
    p = ttest_1samp(differences[:, alive].double().numpy(), 0, alternative="greater").pvalue  # pyright: ignore[reportAttributeAccessIssue] -- scipy makes it at run time
    assert kept[alive].tolist() == (false_discovery_control(p) <= 0.05).tolist()
    assert kept[:20].sum() == 19 and not kept[7]


def test_noise_is_rarely_kept_however_large_its_maximum() -> None:
    """A fifth of the largest score keeps a third of pure noise; the test keeps something in one world of twenty."""
    kept = shared = 0
    for seed in range(60):
        differences = torch.randn(30, 200, generator=Generator().manual_seed(seed))
        alive = torch.ones(200, dtype=torch.bool)
        kept += int(by_paired_t(differences, alive, 0.05).any())
        shared += int(above_share(differences.mean(dim=0), alive, 0.2).sum())
    assert kept <= 8 and shared / 60 > 50


def test_one_item_shows_nothing_and_equal_differences_show_all() -> None:
    assert not by_paired_t(torch.ones(1, 6), ALL, 0.05).any()
    same = torch.tensor([[1.0, 0.0, -1.0, 0.0, 0.0, 0.0]]).repeat(5, 1)
    assert by_paired_t(same, ALL, 0.05).nonzero().flatten().tolist() == [0]
