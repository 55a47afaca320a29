"""Readings, levels, patches and directions; that edits are right in the stream is tested beside `score`."""

import pytest
import torch
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU
from featdiff.intervention.activity import Activity, activity_on
from featdiff.intervention.edit_values import EditValue
from featdiff.intervention.edits import Edit, Patch, apply, codes, reconstruction

MODELS, WIDTH, FEATURES = ("base", "sft", "rl"), 8, 12


def crosscoder() -> Crosscoder:
    made = Crosscoder(MODELS, WIDTH, FEATURES, ReLU(weight=1.0), seed=1)
    with torch.no_grad():
        made.scale.copy_(torch.tensor([0.5, 1.0, 2.0]))
        made.W_enc.mul_(20.0)
    return made.requires_grad_(False)


def stream(tokens: int = 9) -> Tensor:
    return torch.randn(tokens, len(MODELS), WIDTH, generator=torch.Generator().manual_seed(0))


def test_replicate_reads_one_activation_in_every_slot_in_normalised_units() -> None:
    made, activations = crosscoder(), stream()
    alike = (activations[:, 2:] / 2.0) * made.scale[:, None]
    assert torch.allclose(codes(made, activations, "rl", "replicate"), made.encode(alike))
    assert torch.equal(codes(made, activations, "base", "replicate", "rl"), codes(made, activations, "rl", "replicate"))


def test_a_branch_is_read_from_its_model_alone() -> None:
    made, activations = crosscoder(), stream()
    assert torch.equal(codes(made, activations, "rl", "branch"), made.encode_branch(activations[:, 2], "rl"))
    assert torch.equal(codes(made, activations, "base", "branch", "rl"), made.encode_branch(activations[:, 2], "rl"))


def test_a_joint_patch_puts_the_other_models_activation_in_this_ones_place() -> None:
    made, activations = crosscoder(), stream()
    swapped = activations.clone()
    swapped[:, 0] = activations[:, 2] * 0.5 / 2.0
    assert torch.allclose(codes(made, activations, "base", "joint", "rl"), made.encode(swapped))
    assert torch.equal(codes(made, activations, "base"), made.encode(activations))


def test_of_models_that_scale_one_stream_all_joint_readings_agree() -> None:
    made = crosscoder()
    activations = torch.randn(5, 1, WIDTH) * made.scale[:, None]
    joint = codes(made, activations, "base")
    for model in MODELS:
        torch.testing.assert_close(codes(made, activations, model, "replicate"), joint, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(codes(made, activations, "base", "joint", model), joint, atol=1e-5, rtol=1e-5)


def edited(edit: Edit, residual: Tensor, found: Tensor, patched: Tensor | None = None) -> Tensor:
    mask = torch.ones(1, len(residual), dtype=torch.bool)
    other = None if patched is None else patched[None][:, :, edit.features]
    return apply(edit, residual[None], found[None][:, :, edit.features], crosscoder(), "rl", mask, other)[0]


def test_a_patch_sets_every_token_to_its_own_value() -> None:
    made, found, given = crosscoder(), torch.rand(4, FEATURES), torch.rand(4, FEATURES)
    features, residual = torch.tensor([3, 7]), torch.randn(4, WIDTH)
    moved = edited(Edit(features, Patch("base")), residual, found, given)
    wanted = 2.0 * (given - found)[:, features] @ made.W_dec[features, 2]
    torch.testing.assert_close(moved - residual, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(edited(Edit(features, Patch("base")), residual, found, found), residual)


def test_values_of_their_own_equal_one_edit_for_each_feature() -> None:
    found, residual = torch.rand(4, FEATURES), torch.randn(4, WIDTH)
    together = edited(Edit(torch.tensor([1, 5]), torch.tensor([0.5, 2.0])), residual, found)
    one_by_one = edited(Edit(torch.tensor([1]), 0.5), residual, found)
    one_by_one = edited(Edit(torch.tensor([5]), 2.0), one_by_one, found)
    torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=1e-5)


def test_along_a_direction_a_token_moves_as_far_and_where_the_features_leave_it_alone_not_at_all() -> None:
    found, residual, direction = torch.rand(6, FEATURES), torch.randn(6, WIDTH), torch.randn(WIDTH)
    found[2] = 0.0
    features = torch.tensor([0, 4, 9])
    own = edited(Edit(features, 0.0), residual, found) - residual
    turned = edited(Edit(features, 0.0, along=direction), residual, found) - residual
    torch.testing.assert_close(turned.norm(dim=1), own.norm(dim=1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        turned, own.norm(dim=1, keepdim=True) * direction / direction.norm(), atol=1e-5, rtol=1e-5
    )
    assert torch.equal(edited(Edit(features, 0.0, along=direction), residual, found)[2], residual[2])


def test_the_reconstruction_is_one_models_part_of_the_decoding() -> None:
    made, found = crosscoder(), torch.rand(5, FEATURES)
    torch.testing.assert_close(reconstruction(made, found, "sft"), made.decode(found)[:, 1])


def test_edits_say_what_they_should_do_to_accuracy() -> None:
    features = torch.tensor([1, 2])
    assert [Edit(features, value).expected for value in (0.0, 3.0)] == ["decrease", "increase"]
    assert Edit(features, Patch("base"), goal="decrease").expected == "decrease"
    assert Edit(features, Patch("base")).name == "patch from base"
    with pytest.raises(ValueError, match="3 values for 2 features"):
        Edit(features, torch.zeros(3))


def measured(values: Tensor) -> Activity:
    """The activity of given codes: a crosscoder of one feature for each dimension, read as it is."""
    made = Crosscoder(("base",), values.shape[1], values.shape[1], ReLU(weight=1.0))
    with torch.no_grad():
        made.W_dec.copy_(2 * torch.eye(values.shape[1])[:, None])
        made.W_enc.copy_(torch.eye(values.shape[1])[None])
    return activity_on([values[:3, None], values[3:, None]], made, "base", quantiles=(0.0, 0.5, 0.75))


def test_the_activity_of_codes_by_hand() -> None:
    found = measured(torch.tensor([[1.0, 0.0], [2.0, -1.0], [0.0, 0.0], [3.0, 0.0], [6.0, 0.0]]))
    assert (found.tokens, found.density.tolist(), found.maximum.tolist()) == (5, [pytest.approx(0.8), 0.0], [6.0, 0.0])
    assert found.mean.tolist() == pytest.approx([12 / 5, 0.0]) and found.mean_active.tolist() == [3.0, 0.0]
    assert found.contribution.tolist() == pytest.approx([24 / 5, 0.0])


def test_quantiles_of_active_values_are_those_of_torch() -> None:
    values = torch.randn(200, 5)
    found = measured(values)
    for share in (0.0, 0.5, 0.75):
        wanted = [float(torch.quantile(column[column > 0], share)) for column in values.T]
        assert found.quantiles[share].tolist() == pytest.approx(wanted, abs=1e-5)


def test_levels_give_every_feature_its_value() -> None:
    own, given, features = measured(torch.rand(40, 4)), measured(torch.rand(40, 4) + 1), torch.tensor([2, 0])

    def value(kind: str, by: float = 0.0) -> object:
        return EditValue(kind, by, "rl").edit(features, own, given, "all", "increase").value  # pyright: ignore[reportArgumentType] -- each is a kind

    assert value("zero") == 0.0 and value("set", 3.0) == 3.0 and value("patch") == Patch("rl")
    for kind, by, wanted in (
        ("mean", 0.0, own.mean),
        ("times_max", 1.5, 1.5 * own.maximum),
        ("quantile", 0.5, own.quantiles[0.5]),
        ("tuned_mean", 0.0, given.mean_active),
    ):
        found = value(kind, by)
        assert isinstance(found, Tensor) and torch.equal(found, wanted[features])
