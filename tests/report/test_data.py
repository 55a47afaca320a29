"""Panels made from results: blanks."""

import torch

from featdiff.analyses.dynamics.result import DynamicsPanel
from featdiff.attribution import Attribution
from featdiff.attribution.scores import decoder_cosines, model_attribution_score
from featdiff.attribution.trajectories import follow, joint_scores


def attribution_of(norms: list[list[float]], models: tuple[str, ...], alive: list[bool]) -> Attribution:
    W_dec = torch.tensor(norms).unsqueeze(-1)
    scores = model_attribution_score(W_dec)
    density = torch.full((len(norms),), 0.1)
    return Attribution(models, "normalised", scores, scores, decoder_cosines(W_dec), density, torch.tensor(alive))


def test_a_feature_that_leaves_the_top_is_a_blank_in_the_panel() -> None:
    attribution = attribution_of([[1.0, 9.0, 1.0], [1.0, 1.0, 9.0]], ("base", "sft-1", "sft-2"), [True, True])
    names, index = ("sft-1", "sft-2"), torch.arange(2)
    scores = joint_scores(attribution, names)
    result = follow([scores], names, lambda _, __: index, torch.ones_like(scores.alive), "joint", top=1)
    panel = DynamicsPanel.of(result, "sft")

    assert panel.rank_shift == [[None]]
    assert panel.overlap == [[1.0, 0.0], [0.0, 1.0]]
    assert panel.chance == 0.5
