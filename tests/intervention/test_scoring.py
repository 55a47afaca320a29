import pytest
import torch
from tiny_lineup import (
    ARCHITECTURES,
    BLOCKS,
    NAMES,
    VOCABULARY,
    WIDTH,
    random_crosscoder,
    random_requests,
    tiny_lineup,
    tiny_model,
)
from torch import Tensor
from transformers import PreTrainedModel

from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU
from featdiff.evaluation.results import Requests
from featdiff.intervention.activity import activity
from featdiff.intervention.edits import Edit, apply
from featdiff.intervention.scoring import correctness, predictions, score
from featdiff.models.loading import Lineup
from featdiff.models.partial_model import UpperModel
from featdiff.models.residual import blocks, residual


def upper_of(model: str, layers: int = 2, architecture: str = "qwen3") -> UpperModel:
    return UpperModel(tiny_model(architecture, NAMES.index(model)), layers)


def plain_scores(model: PreTrainedModel, requests: Requests) -> Tensor:
    """The second road: each request by itself, through the whole model."""
    values = []
    for context, continuation in zip(requests.context_ids, requests.continuation_ids, strict=True):
        logits = model(input_ids=torch.tensor([context + continuation])).logits[0].log_softmax(dim=-1)
        places = range(len(context) - 1, len(context) + len(continuation) - 1)
        values.append(sum(float(logits[p, token]) for p, token in zip(places, continuation, strict=True)))
    return torch.tensor(values)


def edits_of(*sets: list[int], value: float = 3.0) -> list[Edit]:
    return [Edit(torch.tensor(features, dtype=torch.long), value) for features in sets]


# --------------------------------------------------------------------- the half above the tap


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layers", [1, 2, BLOCKS])
@pytest.mark.parametrize("padded", [False, True])
def test_the_upper_half_gives_the_whole_models_logits_to_the_bit(architecture: str, layers: int, padded: bool) -> None:
    model = tiny_model(architecture)
    input_ids = torch.randint(1, VOCABULARY, (3, 9))
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 2 + [0] * 7]) if padded else None
    whole = model(input_ids=input_ids, attention_mask=mask).logits
    above = UpperModel(model, layers)(residual(model, layers, input_ids, mask), input_ids, mask)
    assert torch.equal(above, whole)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_upper_half_reads_the_residual_and_not_the_tokens(architecture: str) -> None:
    model = tiny_model(architecture)
    upper = UpperModel(model, 2)
    input_ids, others = torch.randint(1, VOCABULARY, (2, 2, 6))
    given = residual(model, 2, input_ids)
    assert torch.equal(upper(given, others), upper(given, input_ids))
    assert not torch.equal(upper(given + 1.0, input_ids), upper(given, input_ids))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_model_itself_is_left_as_it_was(architecture: str) -> None:
    model = tiny_model(architecture)
    input_ids = torch.randint(1, VOCABULARY, (2, 6))
    before, modules = model(input_ids=input_ids).logits, list(model.modules())
    upper = UpperModel(model, 2)
    upper(torch.randn(2, 6, WIDTH), input_ids)
    assert torch.equal(model(input_ids=input_ids).logits, before)
    assert all(now is then for now, then in zip(model.modules(), modules, strict=True))
    assert not any("forward" in vars(block) for block in blocks(model))


def test_the_upper_half_shares_the_models_parameters() -> None:
    model = tiny_model()
    upper, input_ids, given = UpperModel(model, 2), torch.randint(1, VOCABULARY, (1, 4)), torch.randn(1, 4, WIDTH)
    before = upper(given, input_ids)
    with torch.no_grad():
        model.get_parameter("lm_head.weight").mul_(2.0)
    torch.testing.assert_close(upper(given, input_ids), 2 * before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_at_some_positions_are_those_of_all_positions(architecture: str) -> None:
    upper, input_ids = upper_of("base", architecture=architecture), torch.randint(1, VOCABULARY, (2, 6))
    given, keep = torch.randn(2, 6, WIDTH), torch.tensor([1, 4])
    torch.testing.assert_close(upper(given, input_ids, keep=keep), upper(given, input_ids)[:, keep])


def test_a_bfloat16_models_own_residual_gives_its_own_logits() -> None:
    model = tiny_model().bfloat16()
    input_ids = torch.randint(1, VOCABULARY, (2, 6))
    given = residual(model, 2, input_ids)
    assert given.dtype == torch.float32
    assert torch.equal(UpperModel(model, 2)(given, input_ids), model(input_ids=input_ids).logits)


def test_a_tap_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="choose a layer from 1 to 4"):
        UpperModel(tiny_model(), 5)


def test_a_model_whose_forward_is_bound_elsewhere_is_refused_and_not_scored_unedited() -> None:
    model = tiny_model()
    model.forward = model.forward
    with pytest.raises(ValueError, match="load it without device map"):
        UpperModel(model, 2)(torch.randn(1, 4, WIDTH), torch.randint(1, VOCABULARY, (1, 4)))


# --------------------------------------------------------------------- one edit


def planted_readout() -> tuple[Crosscoder, Tensor]:
    """Four features along the axes of raw width 4, and a readout of two answers that sees only axes 0 and 1."""
    crosscoder = Crosscoder(models=("base", "rl"), d_model=4, features=4, sparsity=ReLU(weight=2.0))
    with torch.no_grad():
        crosscoder.W_dec.copy_(torch.eye(4)[:, None, :].expand(4, 2, 4))
        crosscoder.scale.copy_(torch.tensor([1.0, 0.5]))
    return crosscoder, torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])


def edit_one_token(features: list[int], value: float, activation: Tensor, codes: list[float], model: str) -> Tensor:
    crosscoder, _ = planted_readout()
    edit = Edit(torch.tensor(features), value)
    mask = torch.ones(1, 1, dtype=torch.bool)
    return apply(edit, activation.view(1, 1, -1), torch.tensor([[codes]]), crosscoder, model, mask).flatten().detach()


def test_an_edit_moves_by_scale_times_the_change_of_the_code_in_raw_units() -> None:
    activation = torch.tensor([5.0, 1.0, 7.0, -2.0])
    # (3 - 4) * 0.5 = -0.5 along axis 0 and (3 - 0) * 0.5 = 1.5 along axis 2; the base's scale is twice that.
    assert edit_one_token([0, 2], 3.0, activation, [4.0, 0.0], "rl").tolist() == [4.5, 1.0, 8.5, -2.0]
    assert edit_one_token([0, 2], 3.0, activation, [4.0, 0.0], "base").tolist() == [4.0, 1.0, 10.0, -2.0]


def test_zeroing_the_planted_feature_flips_the_answer_and_setting_it_flips_it_back() -> None:
    _, readout = planted_readout()
    activation = torch.tensor([2.0, 1.0, 0.3, 0.7])  # scale 0.5: the code of feature 0 is 4
    zeroed = edit_one_token([0], 0.0, activation, [4.0], "rl")
    restored = edit_one_token([0], 4.0, zeroed, [0.0], "rl")
    assert [int((readout @ a).argmax()) for a in (activation, zeroed, restored)] == [0, 1, 0]
    assert (readout @ zeroed).tolist() == [0.0, 1.0]
    assert torch.equal(restored, activation)


def test_features_orthogonal_to_the_readout_change_it_by_exactly_nothing() -> None:
    _, readout = planted_readout()
    activation = torch.randn(4)
    edited = edit_one_token([2, 3], 3.0, activation, [0.123, 0.7], "rl")
    assert not torch.equal(edited, activation)
    assert torch.equal(readout @ edited, readout @ activation)


def test_setting_features_to_their_own_values_keeps_every_bit() -> None:
    stream = torch.randn(2, 5, WIDTH)
    stream[0, 0, 0] = -0.0
    codes = torch.full((2, 5, 3), 0.1)
    edit = Edit(torch.tensor([1, 5, 7]), 0.1)
    edited = apply(edit, stream, codes, random_crosscoder(), "rl", torch.ones(2, 5).bool())
    assert torch.equal(edited.view(torch.int32), stream.view(torch.int32))


def test_zeroing_silent_features_keeps_every_bit() -> None:
    stream = torch.randn(2, 5, WIDTH)
    stream[:, 1] = -0.0
    edit = Edit(torch.arange(6), 0.0)
    edited = apply(edit, stream, torch.zeros(2, 5, 6), random_crosscoder(), "sft", torch.ones(2, 5).bool())
    assert torch.equal(edited.view(torch.int32), stream.view(torch.int32))


def test_an_edit_of_no_features_changes_nothing() -> None:
    stream = torch.randn(2, 5, WIDTH)
    edit = Edit(torch.zeros(0, dtype=torch.long), 3.0)
    edited = apply(edit, stream, torch.zeros(2, 5, 0), random_crosscoder(), "rl", torch.ones(2, 5).bool())
    assert torch.equal(edited, stream)


def test_masked_positions_are_untouched() -> None:
    stream = torch.randn(2, 3, WIDTH)
    mask = torch.tensor([[True, True, False], [False, True, False]])
    edited = apply(Edit(torch.tensor([0]), 3.0), stream, torch.zeros(2, 3, 1), random_crosscoder(), "rl", mask)
    assert torch.equal((edited != stream).any(dim=-1), mask)


def test_the_edit_is_the_difference_of_two_decodings() -> None:
    crosscoder = random_crosscoder()
    codes = torch.rand(6, 24)
    changed = codes.clone()
    changed[:, [3, 8]] = 3.0
    wanted = crosscoder.decode(changed)[:, 1] - crosscoder.decode(codes)[:, 1]
    stream = torch.randn(1, 6, WIDTH)
    edit = Edit(torch.tensor([3, 8]), 3.0)
    edited = apply(edit, stream, codes[None][:, :, [3, 8]], crosscoder, "sft", torch.ones(1, 6).bool())
    torch.testing.assert_close((edited - stream)[0], wanted, atol=1e-5, rtol=0)


def test_edits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="names a feature twice"):
        Edit(torch.tensor([1, 1]), 0.0)
    with pytest.raises(ValueError, match="finite"):
        Edit(torch.tensor([1]), float("nan"))


def test_edits_are_called_as_in_the_tables() -> None:
    assert [Edit(torch.tensor([0]), value).name for value in (0.0, 3.0)] == ["zero", "set to 3.0"]


# --------------------------------------------------------------------- scoring


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_unedited_scores_are_those_of_a_plain_forward_pass(architecture: str) -> None:
    requests = random_requests()
    found = score(
        requests,
        tiny_lineup(2, architecture),
        upper_of("rl", 2, architecture),
        random_crosscoder(),
        "rl",
        [],
        batch_size=4,
    )
    torch.testing.assert_close(found[0], plain_scores(tiny_model(architecture, 2), requests), atol=1e-5, rtol=0)


def test_edited_scores_are_those_of_a_hook_in_the_whole_model() -> None:
    requests, lineup = random_requests(), tiny_lineup()
    crosscoder = random_crosscoder().requires_grad_(False)
    features = torch.tensor([2, 11, 5])
    found = score(requests, lineup, upper_of("rl"), crosscoder, "rl", [Edit(features, 3.0)], batch_size=4)

    whole = tiny_model("qwen3", 2)

    def hook(module: torch.nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        change = torch.zeros_like(codes)
        change[:, features] = 3.0 - codes[:, features]
        return output + 2.0 * (change @ crosscoder.W_dec[:, 2])[None]

    values = []
    for context, continuation in zip(requests.context_ids, requests.continuation_ids, strict=True):
        input_ids = torch.tensor([context + continuation])
        codes = crosscoder.encode(lineup.residuals(input_ids)[0])
        handle = blocks(whole)[1].register_forward_hook(hook)
        logits = whole(input_ids=input_ids).logits[0].log_softmax(dim=-1)
        handle.remove()
        places = range(len(context) - 1, len(context) + len(continuation) - 1)
        values.append(sum(float(logits[p, token]) for p, token in zip(places, continuation, strict=True)))
    assert (found[1] - found[0]).abs().max() > 0.01
    torch.testing.assert_close(found[1], torch.tensor(values), atol=2e-5, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batches_of_one_and_padded_batches_with_shared_contexts_agree(architecture: str) -> None:
    requests, lineup, crosscoder = random_requests(), tiny_lineup(2, architecture), random_crosscoder()
    edits = [
        *edits_of([0, 1], [4]),
        Edit(torch.tensor([3, 9]), 0.0, "prompt"),
        Edit(torch.tensor([7]), 3.0, "last_prompt"),
    ]
    single, padded = (
        score(requests, lineup, upper_of("rl", 2, architecture), crosscoder, "rl", edits, batch_size=size)
        for size in (1, 16)
    )
    assert ((single[1:] - single[0]).abs().amax(dim=1) > 0.001).all()
    torch.testing.assert_close(single, padded, atol=1e-5, rtol=0)
    assert torch.equal(predictions(single, requests), predictions(padded, requests))


@pytest.mark.parametrize(("architecture", "shares"), [("qwen3", True), ("gpt2", True), ("windows", False)])
def test_choices_share_their_context_above_the_tap_where_the_model_allows_it(architecture: str, shares: bool) -> None:
    requests, rows = random_requests(samples=5, choices=4), []
    whole = tiny_model(architecture, 2)
    blocks(whole)[-1].register_forward_hook(lambda module, arguments, output: rows.append(len(output)))
    upper, lineup = UpperModel(whole, 2), tiny_lineup(2, architecture)
    score(requests, lineup, upper, random_crosscoder(), "rl", edits_of([0]), batch_size=64)
    # Unedited row by row, the check with one sequence per item, and the edit as the check decides.
    read = {
        (*context, 0, *more[:-1]) for context, more in zip(requests.context_ids, requests.continuation_ids, strict=True)
    }
    assert rows == [len(read), 5, 5 if shares else len(read)]


def test_edits_scored_together_equal_edits_scored_alone() -> None:
    requests, lineup, upper, crosscoder = random_requests(), tiny_lineup(), upper_of("base"), random_crosscoder()
    edits = edits_of([0, 1], [5, 2], [23], [7, 8, 9])
    together = score(requests, lineup, upper, crosscoder, "base", edits, batch_size=5)
    for i, edit in enumerate(edits):
        alone = score(requests, lineup, upper, crosscoder, "base", [edit], batch_size=5)
        torch.testing.assert_close(together[i + 1], alone[1], atol=1e-5, rtol=0)


def test_the_order_of_an_edits_features_does_not_matter() -> None:
    requests, lineup, upper, crosscoder = random_requests(), tiny_lineup(), upper_of("rl"), random_crosscoder()
    found = score(requests, lineup, upper, crosscoder, "rl", edits_of([9, 2, 17], [2, 17, 9], value=0.0))
    torch.testing.assert_close(found[1], found[2], atol=1e-5, rtol=0)


def test_edits_that_move_nothing_keep_the_scores_to_the_bit() -> None:
    requests, lineup, upper, crosscoder = random_requests(), tiny_lineup(), upper_of("rl"), random_crosscoder()
    with torch.no_grad():
        crosscoder.b_enc[[3, 4]] = -100.0  # silent features
    found = score(requests, lineup, upper, crosscoder, "rl", [*edits_of([], [3, 4], value=0.0), *edits_of([3])])
    assert torch.equal(found[1], found[0])
    assert torch.equal(found[2], found[0])
    assert not torch.equal(found[3], found[0])


def test_editing_the_last_prompt_token_alone_differs_from_editing_all() -> None:
    requests, lineup, upper, crosscoder = random_requests(), tiny_lineup(), upper_of("rl"), random_crosscoder()
    edits = [Edit(torch.tensor([1, 2]), 3.0, positions) for positions in ("all", "prompt", "last_prompt")]
    found = score(requests, lineup, upper, crosscoder, "rl", edits)
    single = torch.tensor([len(continuation) == 1 for continuation in requests.continuation_ids])
    torch.testing.assert_close(found[1, single], found[2, single], atol=1e-5, rtol=0)
    assert ((found[1] - found[2])[~single].abs() > 1e-4).any()
    assert ((found[2] - found[3]).abs() > 1e-4).any()


def test_the_lower_halves_run_as_often_for_a_hundred_edits_as_for_one() -> None:
    requests, lineup, upper, crosscoder = random_requests(), tiny_lineup(), upper_of("rl"), random_crosscoder()
    calls = []
    for model in lineup.models:
        blocks(model)[0].register_forward_hook(lambda module, arguments, output: calls.append(len(output)))
    counts = []
    for edits in (edits_of([0]), edits_of(*[[i % 24, (i + 1) % 24] for i in range(100)])):
        calls.clear()
        score(requests, lineup, upper, crosscoder, "rl", edits, batch_size=8)
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0


def test_a_crosscoder_of_two_models_works_in_a_lineup_of_three() -> None:
    requests, pair = random_requests(), random_crosscoder(("base", "rl"))
    three = tiny_lineup()
    two = Lineup(("base", "rl"), (three.models[0], three.models[2]), three.tokenizer, three.layers, three.d_model)
    edits = edits_of([0, 5])
    from_three, from_two = (score(requests, lineup, upper_of("rl"), pair, "rl", edits) for lineup in (three, two))
    assert torch.equal(from_three, from_two)


def test_what_does_not_fit_together_is_refused() -> None:
    requests, lineup, crosscoder = random_requests(), tiny_lineup(), random_crosscoder()
    with pytest.raises(ValueError, match="names the feature 24; the crosscoder has 24"):
        score(requests, lineup, upper_of("rl"), crosscoder, "rl", edits_of([24]))
    with pytest.raises(ValueError, match="starts after block 3"):
        score(requests, lineup, upper_of("rl", layers=3), crosscoder, "rl", [])
    with pytest.raises(ValueError, match=r"reads \['other'\]"):
        score(requests, lineup, upper_of("rl"), random_crosscoder(("base", "other")), "base", [])
    with pytest.raises(ValueError, match="'nobody'"):
        score(requests, lineup, upper_of("rl"), crosscoder, "nobody", [])


# --------------------------------------------------------------------- predictions and activity


def test_predictions_go_by_the_sum_or_by_the_sum_per_character() -> None:
    requests = random_requests(samples=1, choices=2)
    requests.choice_characters[:] = torch.tensor([1.0, 10.0])
    requests.target[0] = 1
    values = torch.tensor([[-2.0, -3.0], [-4.0, -3.0]])
    assert predictions(values, requests).tolist() == [[0], [1]]
    assert predictions(values, requests, "acc_norm").tolist() == [[1], [1]]
    assert correctness(values, requests).tolist() == [[False], [True]]


def test_activity_is_the_firing_rate_and_the_mean_push_at_the_edited_positions() -> None:
    requests, lineup, crosscoder = random_requests(samples=3, choices=1), tiny_lineup(), random_crosscoder()
    found = activity(requests, lineup, crosscoder, "rl", "last_prompt", batch_size=2)
    codes = torch.stack(
        [crosscoder.encode(lineup.residuals(torch.tensor([context]))[0])[-1] for context in requests.context_ids]
    )
    assert found.tokens == 3
    torch.testing.assert_close(found.density, (codes > 0).float().mean(dim=0))
    torch.testing.assert_close(found.contribution, codes.mean(dim=0) * crosscoder.W_dec[:, 2].norm(dim=-1))
