"""Questions whose outcome is known, and edits that flip it."""

import torch
from torch import Generator

from featdiff.planted import Group, Quiz, World


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def quiz(noise: float = 0.0) -> Quiz:
    groups = (
        Group(("base", "rl"), 4, (1.0, 3.0)),  # evidence: weak in the base
        Group(("base", "rl"), 4, (2.0, 2.0)),  # decoys
        Group(("base", "rl"), 6, (5.0, 5.0), probability=0.3),  # no cause
    )
    return Quiz(World.build(("base", "rl"), 24, groups, seed=0, noise=noise), (0, 1, 2, 3), (4, 5, 6, 7))


def test_the_base_fails_and_rl_passes_every_item_as_planted() -> None:
    items = quiz().items(200, generator())
    right = quiz().answers(items.activations) == items.target[:, None]
    assert torch.equal(right, quiz().right(items))
    assert not right[:, 0].any() and right[:, 1].all()


def test_taking_the_evidence_away_flips_rl_and_raising_it_saves_the_base() -> None:
    made = quiz()
    items = made.items(200, generator())
    evidence = items.codes[:, :4].clone()
    for factor, outcome in ((0.0, [False, False]), (4.0, [True, True])):
        codes = items.codes.clone()
        codes[:, :4] = factor * evidence
        answers = made.answers(made.world.render(codes, generator()).activations)
        assert (answers == items.target[:, None]).all(dim=0).tolist() == outcome


def test_features_that_are_no_cause_change_no_logit() -> None:
    made = quiz()
    items = made.items(50, generator())
    codes = items.codes.clone()
    codes[:, 8:] = 7.0
    changed = made.world.render(codes, generator()).activations - items.activations
    torch.testing.assert_close(changed @ made.readout.T, torch.zeros(50, 2, 4), atol=1e-4, rtol=0)
