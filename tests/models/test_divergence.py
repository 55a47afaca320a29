"""Drift between two models: by hand, on either end of an interpolation, and at a KL that was asked for."""

import math

import pytest
import torch
from tiny_study import moved, random_model
from torch import Tensor

from featdiff.models.divergence import (
    Text,
    activation_change,
    interpolate,
    matching_alpha,
    mean_divergence,
    weight_change,
)

BASE = random_model(seed=0)
TUNED = moved(BASE, 0.3, seed=1)


def texts(sizes: tuple[int, ...] = (5,), seed: int = 0) -> list[Text]:
    ids = torch.randint(3, 500, (sum(sizes), 12), generator=torch.Generator().manual_seed(seed))
    compared = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed + 1)) < 0.6
    return [Text(rows, None, None, some) for rows, some in zip(ids.split(sizes), compared.split(sizes), strict=True)]


def probabilities(model, text: Text) -> Tensor:
    with torch.no_grad():
        return model(input_ids=text.input_ids).logits.double().softmax(dim=-1)


def test_divergence_is_the_mean_over_the_compared_predictions() -> None:
    (text,) = texts()
    p, q = probabilities(BASE, text)[text.compared], probabilities(TUNED, text)[text.compared]
    wanted = float((p * (p / q).log()).sum(dim=1).mean())
    assert mean_divergence(BASE, TUNED, [text]) == pytest.approx(wanted, rel=1e-4) and wanted > 0.01
    assert mean_divergence(BASE, TUNED, texts((2, 3))) == pytest.approx(wanted, rel=1e-4)
    assert mean_divergence(BASE, BASE, [text]) == 0


def test_activations_change_by_the_share_of_variance_that_a_hidden_state_shows() -> None:
    """Second road: transformers' own hidden states, which are the blocks' outputs below the last."""
    parts = texts((2, 3))
    found = activation_change(BASE, TUNED, parts)
    (whole,) = texts((5,))
    with torch.no_grad():
        here, there = (
            model(input_ids=whole.input_ids, output_hidden_states=True).hidden_states for model in (BASE, TUNED)
        )
    for layer in range(3):
        a, b = (states[layer + 1][whole.compared].double() for states in (here, there))
        wanted = (b - a).square().sum() / (a - a.mean(dim=0)).square().sum()
        assert float(found[layer]) == pytest.approx(float(wanted), rel=1e-3)
    assert found.shape == (4,) and activation_change(BASE, BASE, parts).tolist() == [0.0] * 4


def test_weights_change_by_their_own_size() -> None:
    grown = moved(BASE, 0.0, seed=0)
    with torch.no_grad():
        for name, parameter in grown.named_parameters():
            parameter *= 1.5 if "mlp" in name else 1.0
    found = weight_change(BASE, grown)
    assert found.keys() == {"embeddings", "attention", "mlp", "norms", "all"}
    assert found["mlp"] == pytest.approx(0.5) and found["attention"] == found["norms"] == found["embeddings"] == 0
    squares = {name: float(p.double().square().sum()) for name, p in BASE.named_parameters()}
    share = sum(size for name, size in squares.items() if "mlp" in name) / sum(squares.values())
    assert found["all"] == pytest.approx(0.5 * math.sqrt(share))


def test_an_interpolation_is_each_end_exactly_and_lies_between_on_the_way() -> None:
    into = moved(BASE, 0.0, seed=0)
    for alpha, end in ((1.0, TUNED), (0.0, BASE)):
        interpolate(into, BASE, TUNED, alpha)
        ends = dict(end.named_parameters())
        assert all(torch.equal(parameter, ends[name]) for name, parameter in into.named_parameters())
    interpolate(into, BASE, TUNED, 0.25)
    assert weight_change(BASE, into)["all"] == pytest.approx(0.25 * weight_change(BASE, TUNED)["all"], rel=1e-4)


def test_bisection_finds_the_share_with_the_wanted_divergence() -> None:
    into, some = moved(BASE, 0.0, seed=0), texts()

    def divergence(alpha: float) -> float:
        interpolate(into, BASE, TUNED, alpha)
        return mean_divergence(BASE, into, some)

    whole = divergence(1.0)
    assert divergence(matching_alpha(divergence, whole / 5)) == pytest.approx(whole / 5, rel=0.01)
    assert matching_alpha(divergence, 2 * whole) == 1.0
    assert matching_alpha(lambda alpha: alpha**2, 0.09) == pytest.approx(0.3, abs=1 / 4096)


def test_nothing_to_compare_is_an_error() -> None:
    none = Text(torch.ones(1, 3, dtype=torch.long), None, None, torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="no prediction to compare"):
        mean_divergence(BASE, TUNED, [none])
    with pytest.raises(ValueError, match="no token to compare activations on"):
        activation_change(BASE, TUNED, [])
