"""T1, T10-T12: answers that are known without training."""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from featdiff.attribution.matching import match_decoders
from featdiff.attribution.scores import model_attribution_score, normalized_relative_norm
from featdiff.crosscoder.model import Crosscoder
from featdiff.intervention.edits import Edit, apply
from featdiff.planted import Group, Quiz, World
from featdiff.selection.scores import select_above_share, swap_score, task_score
from featdiff.verify.check import Check
from featdiff.verify.training import perfect

PAIR = ("base", "rl")
TRIO = ("base", "sft", "rl")


def exact(seed: int) -> list[Check]:
    """Scores, gauge, matching and interventions."""
    return [*_scores(seed), *_gauge(seed), *_matching(seed), *_interventions(seed)]


def _scores(seed: int) -> list[Check]:
    norms = torch.rand(50, 3, generator=Generator().manual_seed(seed))
    rows = norms[:, :, None] * torch.tensor([0.5, -0.25, 0.25])  # L1 norm 1
    scores = model_attribution_score(rows)
    wanted = norms / norms.sum(dim=1, keepdim=True)
    axis, flat = torch.zeros(1, 64), torch.full((1, 64), 1 / 8)
    axis[0, seed % 64] = 1.0
    l1, l2 = normalized_relative_norm(axis, flat), normalized_relative_norm(axis, flat, p=2)
    return [
        Check("T1", "MAS of hand-set decoders, largest error", 0, _largest(scores - wanted), 1e-6),
        Check("T1", "MAS summed over models, largest error", 0, _largest(scores.sum(dim=1) - 1), 1e-6),
        Check("T1", "NRN of an axis against a flat vector, L1", 8 / 9, float(l1), 1e-6),
        Check("T1", "the same, L2", 0.5, float(l2), 1e-6),
    ]


@torch.no_grad()
def _gauge(seed: int) -> list[Check]:
    """A feature rescaled by c, its decoder by 1 / c: once the gauge is fixed, the same features are selected."""
    generator = Generator().manual_seed(seed)
    one, other = (Crosscoder(TRIO, 16, 60, seed=seed) for _ in range(2))
    factor = torch.exp(2 * torch.randn(60, generator=generator))
    other.W_enc.mul_(factor)
    other.b_enc.mul_(factor)
    other.W_dec.div_(factor[:, None, None])
    tasks = torch.randn(5, 40, 3, 16, generator=generator)
    choices = []
    for made in (one.canonicalise(), other.canonicalise()):
        score = torch.stack([task_score(swap_score(made, items, "rl", "base")) for items in tasks])
        choices.append(select_above_share(score, [f"task {number}" for number in range(5)]).selected)
    return [
        Check("T10", "selected features that change with the gauge", 0, float((choices[0] != choices[1]).sum())),
        Check("T10", "selected features", 1, float(choices[0].sum()), relation=">="),
    ]


def _matching(seed: int) -> list[Check]:
    """A permutation, and one with noise s: then w and its copy have cosine 1 / sqrt(1 + s^2)."""
    generator = Generator().manual_seed(seed)
    rows = torch.randn(300, 2, 100, generator=generator)
    went = torch.randperm(300, generator=generator)
    shuffled, noisy = torch.empty_like(rows), torch.empty_like(rows)
    shuffled[went] = rows * (0.1 + torch.rand(300, 1, 1, generator=generator))
    level = torch.linspace(0.1, 1.6, 300)[:, None, None]
    noisy[went] = rows + level * torch.randn(rows.shape, generator=generator)
    clean, blurred = match_decoders(rows, shuffled), match_decoders(rows, noisy)
    wanted = float((1 / (1 + level.square()).sqrt() > 0.7).double().mean())
    wrong = (blurred.partner[blurred.pairs[:, 0]] != went[blurred.pairs[:, 0]]).sum()
    return [
        Check("T11", "features of a planted permutation that are missed", 0, float((clean.partner != went).sum())),
        Check("T11", "share matched under known noise", wanted, blurred.share(0.7), 0.05),
        Check("T11", "wrong pairs under noise", 0, float(wrong)),
    ]


def _interventions(seed: int) -> list[Check]:
    """A quiz in which the evidence is weak in the base; directions lie along axes, so that products are exact."""
    generator = Generator().manual_seed(seed)
    groups = (Group(PAIR, 4, (1.0, 4.0)), Group(PAIR, 4, (2.0, 2.0)), Group(PAIR, 6, (4.0, 4.0), probability=0.3))
    world = World.build(PAIR, 16, groups, seed=seed)
    axes = torch.eye(16)[torch.randperm(16, generator=generator)[:14]]
    world = replace(world, direction=axes[:, None, :].expand(14, 2, 16).contiguous())
    quiz = Quiz(world, (0, 1, 2, 3), (4, 5, 6, 7))
    crosscoder, items = perfect(world), quiz.items(400, generator)
    evidence, rest = torch.arange(4), torch.arange(8, 14)

    def edited(features: Tensor, value: float, model: int, codes: Tensor = items.codes) -> Tensor:
        changed = items.activations.clone()
        residual, chosen = changed[:, model].unsqueeze(0), codes[:, features].unsqueeze(0)
        mask = torch.ones(1, len(changed), dtype=torch.bool)
        changed[:, model] = apply(Edit(features, value), residual, chosen, crosscoder, PAIR[model], mask)[0].detach()
        return changed

    def right(activations: Tensor, model: int) -> float:
        return float((quiz.answers(activations)[:, model] == items.target).double().mean())

    first = items.target == 0
    raised = (quiz.answers(edited(evidence[:1], 3.0, 0))[first, 0] == 0).double().mean()
    same = edited(evidence, 0.7, 1, torch.full_like(items.codes, 0.7))
    bits = (same.view(torch.int32) != items.activations.view(torch.int32)).sum()
    apart = (edited(rest, 3.0, 1) - items.activations) @ quiz.readout.T
    return [
        Check("T12", "values changed by an edit to what is there", 0, float(bits)),
        Check("T12", "rl is right", 1, right(items.activations, 1)),
        Check("T12", "rl is right with its evidence zeroed", 0, right(edited(evidence, 0.0, 1), 1)),
        Check("T12", "the base is right", 0, right(items.activations, 0)),
        Check("T12", "the base is right with its evidence set to 3, first choice", 1, float(raised)),
        Check("T12", "change of the logits by features orthogonal to them", 0, _largest(apart)),
    ]


def _largest(values: Tensor) -> float:
    return float(values.abs().max())
