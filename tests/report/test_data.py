"""Panels made from results: hand-counted histograms and blanks."""

from dataclasses import replace
from pathlib import Path

import torch

from featdiff.attribution import Attribution
from featdiff.attribution.scores import decoder_cosines, model_attribution_score
from featdiff.report.data import ChosenStability, FoundAgain, ReportData, SpecificityPanel
from featdiff.report.page import write_report


def attribution_of(norms: list[list[float]], models: tuple[str, ...], alive: list[bool]) -> Attribution:
    W_dec = torch.tensor(norms).unsqueeze(-1)
    scores = model_attribution_score(W_dec)
    density = torch.full((len(norms),), 0.1)
    return Attribution(models, "normalised", scores, scores, decoder_cosines(W_dec), density, torch.tensor(alive))


def test_a_histogram_counts_alive_features_once_each() -> None:
    attribution = attribution_of(
        [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.1, 0.9], [0.0, 1.0]], ("base", "rl"), [True, True, True, True, False]
    )
    panel = SpecificityPanel.of(attribution, "rl", lineup="pair", cuts=(0.8,), bins=4)

    assert panel.score == "NRN"
    assert panel.edges == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert panel.counts == [1, 0, 1, 2]
    assert (panel.alive, panel.features) == (4, 5)
    assert panel.tails == panel.tails_l2 == {"0.8": 2}


def test_with_three_models_the_score_is_the_mas() -> None:
    attribution = attribution_of([[1.0, 1.0, 2.0]], ("base", "sft", "rl"), [True])
    panel = SpecificityPanel.of(attribution, "rl", lineup="joint")

    assert panel.score == "MAS"
    assert panel.aligned == ("base", "sft", "rl")
    assert sum(panel.counts) == 1
    assert panel.counts[25] == 1


def test_the_final_set_says_how_many_of_it_are_stable(study: ReportData, tmp_path: Path) -> None:
    features = [FoundAgain(3, 2, 0.71, 0.02), FoundAgain(17, 1, 0.6, None), FoundAgain(40, 0, None, None)]
    chosen = ChosenStability("rl", 2, 2, features)
    page = write_report(replace(study, chosen_stability=chosen), tmp_path).read_text()
    assert "1 of the 3 selected features is stable: found again in at least 2 of 2 other seeds." in page
    assert "0.71 ± 0.02</td>" in page and "1 of 2</td>" in page
    few = write_report(replace(study, chosen_stability=replace(chosen, other_seeds=1)), tmp_path / "few").read_text()
    assert "With 1 other seed no feature can be called stable; that takes 2." in few
