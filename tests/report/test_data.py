"""Panels made from results: hand-counted histograms and blanks."""

import torch

from featdiff.analyses.dynamics.result import DynamicsPanel
from featdiff.attribution import Attribution
from featdiff.attribution.scores import decoder_cosines, model_attribution_score
from featdiff.attribution.trajectories import follow, joint_scores
from featdiff.report.data import SpecificityPanel


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


def test_a_feature_that_leaves_the_top_is_a_blank_in_the_panel() -> None:
    attribution = attribution_of([[1.0, 9.0, 1.0], [1.0, 1.0, 9.0]], ("base", "sft-1", "sft-2"), [True, True])
    names, index = ("sft-1", "sft-2"), torch.arange(2)
    scores = joint_scores(attribution, names)
    result = follow([scores], names, lambda _, __: index, torch.ones_like(scores.alive), "joint", top=1)
    panel = DynamicsPanel.of(result, "sft")

    assert panel.rank_shift == [[None]]
    assert panel.overlap == [[1.0, 0.0], [0.0, 1.0]]
    assert panel.chance == 0.5
