import pytest
import torch

from featdiff.intervention.controls import activity_matched, uniform_alive

FEATURES = 400


def activities(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    density = 10 ** (-4 * torch.rand(FEATURES, generator=generator))
    return density, density * 10 ** (torch.rand(FEATURES, generator=generator) - 1)


def test_a_draw_repeats_no_feature_and_takes_none_that_is_chosen_or_dead() -> None:
    density, contribution = activities()
    alive = torch.arange(FEATURES) % 7 != 0
    chosen = torch.arange(1, 60)[alive[1:60]]
    controls = activity_matched(chosen, density, contribution, alive, 50, 0)
    assert controls.features.shape == (50, len(chosen))
    assert all(len(set(draw)) == len(draw) for draw in controls.features.tolist())
    assert alive[controls.features].all()
    assert not torch.isin(controls.features, chosen).any()
    assert controls.note == ""


def test_controls_are_as_active_as_the_chosen_features_where_uniform_ones_are_not() -> None:
    density, contribution = activities()
    alive = torch.ones(FEATURES, dtype=torch.bool)
    chosen = density.argsort(descending=True)[10:90:8]
    matched = activity_matched(chosen, density, contribution, alive, 200, 0).features
    uniform = uniform_alive(chosen, alive, 200, 0).features
    for activity in (density.log(), contribution.log()):
        wanted = activity[chosen].mean()
        assert (activity[matched].mean() - wanted).abs() < 0.25
        assert (activity[uniform].mean() - wanted).abs() > 1.5


def test_one_feature_is_replaced_by_its_only_neighbour() -> None:
    density = torch.tensor([0.5, 0.001, 0.45, 0.002])
    controls = activity_matched(
        torch.tensor([0]), density, density, torch.ones(4, dtype=torch.bool), 5, 0, neighbours=1
    )
    assert controls.features.tolist() == [[2]] * 5


def test_both_the_rate_and_the_contribution_decide_who_is_near() -> None:
    density = torch.tensor([0.1, 0.1, 0.1, 0.001])
    contribution = torch.tensor([1.0, 0.01, 0.9, 1.0])
    controls = activity_matched(
        torch.tensor([0]), density, contribution, torch.ones(4, dtype=torch.bool), 3, 0, neighbours=1
    )
    assert controls.features.tolist() == [[2]] * 3


def test_used_up_neighbours_give_way_to_the_next_nearest() -> None:
    density = torch.cat([torch.full((10,), 0.5), torch.linspace(0.4, 0.001, 12)])
    controls = activity_matched(
        torch.arange(10), density, density, torch.ones(22, dtype=torch.bool), 20, 0, neighbours=2
    )
    assert all(len(set(draw)) == 10 for draw in controls.features.tolist())


def test_a_seed_fixes_the_draws_and_another_seed_gives_others() -> None:
    density, contribution = activities()
    alive, chosen = torch.ones(FEATURES, dtype=torch.bool), torch.arange(5)
    first, again, other = (activity_matched(chosen, density, contribution, alive, 10, seed) for seed in (3, 3, 4))
    assert torch.equal(first.features, again.features)
    assert not torch.equal(first.features, other.features)
    assert torch.equal(uniform_alive(chosen, alive, 10, 3).features, uniform_alive(chosen, alive, 10, 3).features)


@pytest.mark.parametrize(("alive", "size", "note"), [(3, 0, "only 0"), (5, 2, "only 2"), (8, 3, "overlap strongly")])
def test_too_few_features_make_smaller_sets_and_a_note(alive: int, size: int, note: str) -> None:
    density = torch.full((8,), 0.1)
    lives = torch.arange(8) < alive
    for controls in (
        activity_matched(torch.arange(3), density, density, lives, 4, 0),
        uniform_alive(torch.arange(3), lives, 4, 0),
    ):
        assert controls.features.shape == (4, size)
        assert note in controls.note
        assert controls.pool == alive - 3


def test_an_empty_choice_has_empty_controls() -> None:
    density, contribution = activities()
    controls = activity_matched(
        torch.zeros(0, dtype=torch.long), density, contribution, torch.ones(FEATURES, dtype=torch.bool), 10, 0
    )
    assert controls.features.shape == (10, 0)
    assert controls.note == ""


def test_a_feature_that_is_silent_where_edits_apply_is_matched_by_silent_ones() -> None:
    density = torch.tensor([0.0, 0.0, 0.3, 0.2, 0.25])
    controls = activity_matched(
        torch.tensor([0]), density, density, torch.ones(5, dtype=torch.bool), 4, 0, neighbours=1
    )
    assert controls.features.tolist() == [[1]] * 4
