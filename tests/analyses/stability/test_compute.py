"""Counts over seeds, from the stability of planted matches to the result and its JSON."""

from pathlib import Path

import torch

from featdiff.analyses.stability.compute import result_of
from featdiff.analyses.stability.result import FeatureStability, LineupStability, OverSeeds, ScoreOverSeeds
from featdiff.attribution.stability import SeedSpread, Stability
from featdiff.files import load, save


def stability(others: int) -> Stability:
    """Three alive features of four; one matched everywhere, one in one other seed, one nowhere."""
    partner = torch.tensor([[0, 1, -1, -1], [0, -1, -1, -1]])[:others]
    tails = {"rl": {"alive": SeedSpread((3.0, 5.0, 4.0)), "0.8": SeedSpread((2.0,))}}
    return Stability(
        models=("base", "rl"),
        seeds=(0, 1, 2)[: others + 1],
        acceptance=0.7,
        alive=torch.tensor([True, True, True, False]),
        cosine=torch.where(partner >= 0, 0.9, 0.0),
        partner=partner,
        mas=torch.rand(others + 1, 4, 2),
        tails=tails,
        pw_mcc=(0.5,) * others,
    )


def test_a_stable_feature_is_matched_in_two_other_seeds() -> None:
    found = result_of(stability(2), ("joint", "joint-seed1", "joint-seed2"))
    assert found.stable == 1 and found.alive == 3
    assert found.tails["rl"]["alive"] == OverSeeds((3.0, 5.0, 4.0), 4.0, 1.0)
    assert found.tails["rl"]["0.8"].deviation is None


def test_with_one_other_seed_none_can_be_called_stable() -> None:
    found = result_of(stability(1))
    assert found.stable is None and found.curve is None


def test_the_result_comes_back_from_its_file(tmp_path: Path) -> None:
    found = result_of(stability(2), ("a", "b", "c"))
    save(found, tmp_path / "joint.json")
    assert load(LineupStability, tmp_path / "joint.json") == found


def test_selected_features_are_stable_by_the_same_rule() -> None:
    score = ScoreOverSeeds("rl", (0.7, 0.6, None), (0.02, None, None))
    assert FeatureStability(2, 2, (2, 1, 0), score).stable == 1
    assert FeatureStability(1, 2, (1, 1, 0), score).stable is None
