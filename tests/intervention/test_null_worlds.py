"""T9 from end to end: features are scored, chosen, matched, edited and judged in worlds with known answers."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Generator, Tensor

from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU
from featdiff.intervention.controls import activity_matched, random_directions, uniform_alive
from featdiff.intervention.edits import Edit, apply
from featdiff.intervention.effects import EditedAnswers, Effect, ItemSets, measure_effect
from featdiff.planted import Group, Quiz, World
from featdiff.selection.scores import select_above_share, split_held_out, swap_score, task_score
from featdiff.stats import Verdict

PAIR = ("base", "rl")
SEEDS, DRAWS, WIDTH, FEATURES = 100, 100, 24, 80
NOTHING = torch.zeros(0, dtype=torch.long)


def tied(rows: Tensor) -> Crosscoder:
    """Features that read both models along the directions in which they write, and are 1 where they wrote 1."""
    crosscoder = Crosscoder(PAIR, rows.shape[-1], len(rows), ReLU(weight=0.0))
    with torch.no_grad():
        crosscoder.W_dec.copy_(rows)
        crosscoder.W_enc.copy_(rows.permute(1, 2, 0) / rows.square().sum(dim=(1, 2)))
    return crosscoder.canonicalise()


def zeroed(sets: Tensor, residual: Tensor, codes: Tensor, crosscoder: Crosscoder) -> Tensor:
    """What `apply` makes of every item with each set of features zeroed, all sets at once."""
    taken = torch.zeros(len(sets), len(crosscoder.W_dec)).scatter_(1, sets, 1.0)
    edited = residual - (codes * taken[:, None]) @ crosscoder.W_dec[:, 1]
    mask = torch.ones(len(residual), 1, dtype=torch.bool)
    one = apply(Edit(sets[0], 0.0), residual[:, None], codes[:, None, sets[0]], crosscoder, "rl", mask)[:, 0]
    torch.testing.assert_close(edited[0], one, atol=1e-4, rtol=1e-4)
    return edited


@torch.no_grad()
def judged(
    crosscoder: Crosscoder,
    sample: tuple[Tensor, Tensor, Tensor],
    chosen: Tensor,
    free: Tensor,
    sets: ItemSets,
    seed: int,
) -> Effect:
    """The chosen features zeroed in rl, beside a hundred draws of three kinds of random control.

    `sample` holds activations, readout and targets; controls are drawn from the features that are `free`.
    """
    activations, readout, target = sample
    codes, residual = crosscoder.encode(activations), activations[:, 1]
    density, contribution = (codes > 0).float().mean(dim=0), codes.mean(dim=0)
    matched = activity_matched(chosen, density, contribution, free, DRAWS, seed).features
    uniform = uniform_alive(chosen, free, DRAWS, seed).features
    edited = zeroed(torch.cat([chosen[None], matched, uniform]), residual, codes, crosscoder)
    lengths = (edited[0] - residual).norm(dim=1, keepdim=True)
    along = residual + lengths * random_directions(activations.shape[-1], DRAWS, seed)[:, None]
    right = (torch.cat([residual[None], edited, along]) @ readout.T).argmax(dim=-1) == target
    kinds = right[2:].split(DRAWS)
    answers = EditedAnswers(right[1], kinds[0], {"uniform alive": kinds[1], "random directions": kinds[2]})
    edit = Edit(chosen, 0.0)
    return measure_effect(
        "world", "rl", edit, right[0], answers, answers, sets, resamples=500, confidence=0.95, seed=seed
    )


@torch.no_grad()
def null_effect(seed: int) -> Effect:
    """Base and rl know the same and differ by noise alone; features point anywhere, so all of them matter a bit."""
    generator = Generator().manual_seed(seed)
    knowledge = torch.randn(400, WIDTH, generator=generator)
    activations = knowledge[:, None] + 0.4 * torch.randn(400, 2, WIDTH, generator=generator)
    readout = torch.randn(4, WIDTH, generator=generator)
    target = (knowledge @ readout.T).argmax(dim=-1)
    rows = torch.randn(FEATURES, 1, WIDTH, generator=generator).expand(-1, 2, -1)
    crosscoder = tied(rows / rows.norm(dim=-1, keepdim=True))
    base, rl = ((activations @ readout.T).argmax(dim=-1) == target[:, None]).unbind(dim=1)
    critical, mirror = (~base & rl).nonzero().flatten(), (base & ~rl).nonzero().flatten()
    parts = split_held_out(critical, 0.5, seed)
    score = task_score(swap_score(crosscoder, activations[parts.choosing], "rl", "base"))
    chosen = select_above_share(score[None], ["world"]).score[0].topk(8).indices.sort().values
    sets, everyone = ItemSets(critical, mirror, parts.held_out), torch.ones(FEATURES, dtype=torch.bool)
    return judged(crosscoder, (activations, readout, target), chosen, everyone, sets, seed)


def test_without_an_rl_effect_the_raw_change_is_large_and_the_verdict_is_not_supported() -> None:
    effects = [null_effect(seed) for seed in range(SEEDS)]
    critical = [effect.sets["critical"].change for effect in effects]
    assert np.mean([change.value for change in critical]) < -0.25
    assert np.mean([change.high < 0 for change in critical]) > 0.9
    assert sum(effect.headline.verdict == "supported" for effect in effects) <= 5


@pytest.mark.parametrize(("items", "features"), [(30, 1), (12, 2)])
def test_planted_causes_are_supported_with_the_power_that_was_computed(items: int, features: int) -> None:
    """Of four features that carry the evidence one or two are zeroed, so a known share of the items is lost.

    In 400 dimensions hardly any random direction of the same length turns an answer; in 24 a quarter of them would.
    """
    groups = (Group(PAIR, 4, (1.0, 3.0)), Group(PAIR, 4, (2.0, 2.0)), Group(PAIR, 12, (5.0, 5.0), probability=0.3))
    quiz = Quiz(World.build(PAIR, 400, groups, seed=0), (0, 1, 2, 3), (4, 5, 6, 7))
    crosscoder, generator = tied(quiz.world.rows), Generator().manual_seed(0)
    found = list[Verdict]()
    for seed in range(SEEDS):
        asked = quiz.items(items, generator)
        sets = ItemSets(torch.arange(items), NOTHING, torch.arange(items))
        sample = (asked.activations, quiz.readout, asked.target)
        effect = judged(crosscoder, sample, torch.arange(features), torch.arange(20) >= 8, sets, seed)
        assert effect.headline.before == 1.0 and effect.headline.flips.gained == 0
        found.append(effect.headline.verdict)
    power = float(binom.sf(5, items, features / 4))  # six changes one way are the fewest with p <= .05
    assert found.count("supported") / SEEDS == pytest.approx(power, abs=3 * (power * (1 - power) / SEEDS) ** 0.5)
