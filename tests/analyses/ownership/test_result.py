"""Tails before and after latent scaling: what the panel counts, and what the page says of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from featdiff.analyses.ownership.result import BINS, PeerTails, TailPanel
from featdiff.analyses.ownership.text import tail_pictures, tail_sentence
from featdiff.attribution import Attribution, LatentScaling, scaled_tails
from featdiff.attribution.latent_scaling import Ratios
from featdiff.report.data import ReportData
from featdiff.report.findings import caveats
from featdiff.report.page import write_report

PAIR = ("base", "rl")
MAS = torch.tensor([0.99, 0.95, 0.85, 0.82, 0.81, 0.99, 0.4])
NU_ERROR = [0.01, 0.02, 0.3, 0.05, float("nan"), 0.7, 1.6]
NU_RECONSTRUCTION = [0.1, 0.0, 0.0, 0.6, float("nan"), 0.9, 1.0]
ALIVE = torch.tensor([True, True, True, True, True, False, True])


def ratios(error: list[float], reconstruction: list[float]) -> Ratios:
    def pair(nu: list[float]) -> Tensor:
        table = torch.ones(len(nu), 2, 2)
        table[:, 0, 1] = torch.tensor(nu)
        return table

    return Ratios(pair(error), pair(reconstruction))


def panel(peer: PeerTails | None = None) -> TailPanel:
    """Above 0.8 and alive: two absent, one shrunk (backwards), one rebuilt, one too rare; a dead one beside them."""
    scores = torch.stack([1 - MAS, MAS], dim=1)
    attribution = Attribution(PAIR, "normalised", scores, scores, torch.ones(7, 2, 2), torch.ones(7), ALIVE)
    random = ratios([0.0, 0.04, 0.08, 0.12, float("nan"), 0.5, 0.9], [0.0] * 7)
    feature = ratios([-nu for nu in NU_ERROR], NU_RECONSTRUCTION)
    ones = torch.ones(7, 2)
    active = torch.full((7,), 200)
    scaling = LatentScaling(PAIR, "normalised", feature, random, random, ones, ones, active, 1000, 100)
    return TailPanel.of(
        attribution,
        scaling,
        scaled_tails(attribution, scaling, "rl"),
        lineup="base-rl",
        sparsity="L1, beta 2",
        peer=peer,
        max_error=0.1,
        max_reconstruction=0.5,
    )


def test_every_measured_alive_feature_is_in_one_bin_of_its_nu() -> None:
    found = panel()
    low, high = found.tails
    assert (low.before, low.absent, low.shrunk, low.rebuilt, low.unmeasured) == (5, 2, 1, 1, 1)
    assert (high.before, high.absent) == (2, 2)
    assert len(found.beyond) == BINS and found.edges[-1] == 1.5
    bins = [0, 0, 1, 6]  # of 0.01, 0.02, 0.05 and 0.3, each 0.05 wide; the dead feature is in none
    assert [found.beyond[bin] for bin in (0, 1, 6)] == [bins.count(0), bins.count(1), bins.count(6)]
    assert sum(found.beyond) == 4 and sum(found.others) == 1 == found.others[-1]  # 1.6 is in the last bin


def test_the_control_is_the_middle_of_random_directions_in_the_place_of_the_tail() -> None:
    low, high = panel().control or (0.0, 0.0)
    assert low == pytest.approx(0.025 * 3 * 0.04) and high == pytest.approx(0.12 - 0.025 * 3 * 0.04)


def test_the_sentence_accounts_for_the_whole_tail() -> None:
    assert tail_sentence(panel()) == (
        "rl in base-rl: of 5 features above 0.8, 2 absent elsewhere, 1 only shrunk, 1 rebuilt by others, "
        "1 too rare to tell. Of random directions in their place, 75 % would be called absent."
    )


def test_the_page_shows_both_counts_and_those_of_the_batchtopk_peer(study: ReportData, tmp_path: Path) -> None:
    peer = PeerTails("<topk>", 512, 400, {"0.8": 17, "0.9": 3})
    page = write_report(replace(study, tails=[panel(peer)]), tmp_path).read_text()
    section = page[page.index("Absent elsewhere") : page.index('id="selection"')]
    assert "17<small>of 400 alive, &lt;topk&gt;</small>" in section and "<topk>" not in page
    assert section.count("<br>L1, beta 2") == 2 and "75.0" in section
    assert (tmp_path / "figures" / "scaling-1-base-rl-rl.json").is_file()
    assert "Absent elsewhere" not in write_report(study, tmp_path).read_text()


def test_the_caveat_says_what_latent_scaling_leaves(study: ReportData) -> None:
    def caveat(data: ReportData) -> str:
        return next(text for text in caveats(data) if "L1 penalty" in text)

    assert "was not done" in caveat(study)
    assert "leaves 2 of 5 features in the tails above 0.8" in caveat(replace(study, tails=[panel()]))
    empty = replace(panel(), tails=[replace(tail, before=0, absent=0) for tail in panel().tails])
    assert "found no tail to test" in caveat(replace(study, tails=[empty]))


def test_a_tail_of_which_nothing_was_measured_has_no_figure() -> None:
    nothing = replace(panel(), beyond=[0] * BINS)
    assert [picture.section for picture in tail_pictures([nothing, panel()], PAIR)] == ["scaling"]


def test_an_empty_tail_beside_a_full_one_leaves_no_nan_in_the_numbers_of_the_figure() -> None:
    low, high = panel().tails
    nan = float("nan")
    empty = replace(high, before=0, random_absent=nan, other_absent=nan)
    (picture,) = tail_pictures([replace(panel(), tails=[low, empty])], PAIR)
    tails = json.loads(json.dumps(picture.numbers, allow_nan=False))["tails"]
    assert tails[0]["random_absent"] == 0.75 and tails[1]["random_absent"] is tails[1]["other_absent"] is None
