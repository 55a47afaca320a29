"""Owners and tails counted by hand."""

from pathlib import Path

import pytest
import torch
from made_up_ownership import attribution, made_up, scaling

from featdiff.analyses.ownership.compute import specificity, write_ownership
from featdiff.analyses.ownership.result import Ownership, load_scaling
from featdiff.attribution import Attribution
from featdiff.attribution.scores import decoder_cosines, model_attribution_score
from featdiff.config.study import AttributionSettings
from featdiff.files import load


def test_every_measured_alive_feature_is_in_one_bin_of_its_nu() -> None:
    one = made_up().of["rl"]
    low, high = one.scaled
    assert (low.before, low.absent, low.shrunk, low.rebuilt, low.unmeasured) == (5, 2, 1, 1, 1)
    assert (high.before, high.absent) == (2, 2)
    assert one.nu is not None and len(one.nu.beyond) == len(one.nu.others) == 30
    # 0.01, 0.02, 0.05 and 0.3 in bins of 0.05; the dead feature is in none
    assert [one.nu.beyond[bin] for bin in (0, 1, 6)] == [2, 1, 1] and sum(one.nu.beyond) == 4
    assert sum(one.nu.others) == 1 == one.nu.others[-1]  # 1.6 is in the last bin


def test_the_control_is_the_middle_of_random_directions_in_the_place_of_the_tail() -> None:
    nu = made_up().of["rl"].nu
    assert nu is not None and nu.control is not None
    assert nu.control == pytest.approx((0.025 * 3 * 0.04, 0.12 - 0.025 * 3 * 0.04))


def test_without_a_control_nothing_is_said_of_it() -> None:
    (tail,) = made_up(tails=(0.995,)).of["rl"].scaled
    assert tail.before == 0 and tail.random_absent is None and made_up(tails=(0.995,)).of["rl"].nu
    assert made_up(tails=()).of["rl"].nu is None


def test_a_histogram_counts_alive_features_once_each() -> None:
    W_dec = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.1, 0.9], [0.0, 1.0]]).unsqueeze(-1)
    scores, alive = model_attribution_score(W_dec), torch.tensor([True] * 4 + [False])
    one = Attribution(("base", "rl"), "normalised", scores, scores, decoder_cosines(W_dec), torch.ones(5), alive)
    found = specificity(one, "rl", (0.8,))
    assert {bin: count for bin, count in enumerate(found.counts) if count} == {0: 1, 25: 1, 45: 1, 49: 1}
    assert found.tails == found.tails_l2 == {"0.8": 2}


def test_the_summary_has_the_tails_before_and_after_scaling() -> None:
    found = made_up().summary()["rl"]
    assert {key: found[key] for key in ("0.8", "0.9", "alive")} == {"0.8": 5, "0.9": 2, "alive": 6}
    scaled = found["scaled"]
    assert isinstance(scaled, dict)
    assert (scaled["0.8"], scaled["0.9"]) == (2, 2) and scaled["shrunk"] == {"0.8": 1, "0.9": 0}
    assert scaled["random_absent"] == {"0.8": pytest.approx(0.75), "0.9": 1.0}


def test_files_give_back_what_was_counted_and_measured(tmp_path: Path) -> None:
    found = write_ownership(attribution(), scaling(), AttributionSettings(), tmp_path / "pair.1")
    assert load(Ownership, tmp_path / "pair.1.json") == found and found.score == "NRN"
    again = load_scaling(tmp_path, "pair.1")
    torch.testing.assert_close(again.feature.error, scaling().feature.error, equal_nan=True)
    assert (again.tokens, again.min_active, again.models) == (1000, 100, ("base", "rl"))
