import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from tiny_lineup import BLOCKS, NAMES, VOCABULARY, random_crosscoder, random_requests, tiny_lineup, tiny_model
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from featdiff.crosscoder.model import Crosscoder
from featdiff.evaluation.batches import Positions, edited_tokens
from featdiff.intervention.edited_model import EditedModel
from featdiff.intervention.edits import CodeReading, Edit, Patch
from featdiff.intervention.scoring import ErrorTerm, score
from featdiff.models.loading import Lineup
from featdiff.models.partial_model import UpperModel
from featdiff.models.residual import blocks

EDIT = Edit(torch.tensor([3, 0, 11]), 4.0)


def edited(
    edits: Sequence[Edit] = (EDIT,),
    name: str = "sft",
    architecture: str = "qwen3",
    crosscoder: Crosscoder | None = None,
) -> EditedModel:
    return EditedModel(
        tiny_model(architecture, NAMES.index(name)),
        tiny_lineup(architecture=architecture),
        crosscoder or random_crosscoder(),
        name,
        tuple(edits),
    )


def sentences(count: int = 5, longest: int = 9) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, VOCABULARY, (longest - row,), generator=generator) for row in range(count)]


def padded(rows: list[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """Token ids and mask, with the padding on one side."""
    longest = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
    for index, row in enumerate(rows):
        where = slice(longest - len(row), longest) if side == "left" else slice(0, len(row))
        ids[index, where], mask[index, where] = row, 1
    return ids, mask


def generate(model: EditedModel, ids: Tensor, mask: Tensor, **options: object) -> Tensor:
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, **options}
    with model.running(prompt=ids.shape[1]) as running:
        made = getattr(running, "generate")(input_ids=ids, attention_mask=mask, **settings)  # noqa: B009  (untyped)
    return made[:, ids.shape[1] :]


def silent_crosscoder() -> Crosscoder:
    """Features 0 and 1 never fire."""
    crosscoder = random_crosscoder()
    with torch.no_grad():
        crosscoder.b_enc[:2] = -1e6
    return crosscoder


@pytest.mark.parametrize("positions", ["all", "prompt", "last_prompt", "generated"])
@pytest.mark.parametrize("architecture", ["qwen3", "windows", "gpt2"])
def test_edited_generation_with_a_cache_equals_that_without_on_left_padded_batches(
    positions: Positions, architecture: str
) -> None:
    model = edited([replace(EDIT, positions=positions)], architecture=architecture)
    ids, mask = padded(sentences(), "left")
    with_cache = generate(model, ids, mask, use_cache=True)
    assert torch.equal(with_cache, generate(model, ids, mask, use_cache=False))
    assert not torch.equal(with_cache, generate(edited([], architecture=architecture), ids, mask)), "an edit shows"


def test_generation_in_a_padded_batch_is_that_of_each_prompt_alone() -> None:
    model = edited()
    together = generate(model, *padded(sentences(), "left"))
    alone = [generate(model, row[None], torch.ones_like(row[None]))[0] for row in sentences()]
    assert torch.equal(together, torch.stack(alone))


def test_beams_carry_the_other_models_caches_with_them() -> None:
    ids, mask = padded(sentences(), "left")
    with_cache = generate(edited(), ids, mask, num_beams=3, use_cache=True)
    assert torch.equal(with_cache, generate(edited(), ids, mask, num_beams=3, use_cache=False))


def logits(model: EditedModel, ids: Tensor, prompt: int | Tensor, real: Tensor | None = None, **options: object):
    with model.running(prompt, real=real) as running:
        return running(ids, **options).logits


def test_a_padded_batch_scores_as_batches_of_one() -> None:
    model = edited([replace(EDIT, positions="prompt")])
    rows, prompt = sentences(), torch.tensor([4, 3, 5, 2, 3])
    ids, mask = padded(rows, "right")
    together = logits(model, ids, prompt, mask.bool())
    ids, mask = padded(rows, "left")
    position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
    left_prompt = prompt + (1 - mask).sum(dim=-1)
    left = logits(model, ids, left_prompt, attention_mask=mask, position_ids=position_ids)
    for index, row in enumerate(rows):
        alone = logits(model, row[None], int(prompt[index]))[0]
        torch.testing.assert_close(together[index, : len(row)], alone, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(left[index, -len(row) :], alone, rtol=1e-4, atol=1e-4)


def test_padding_is_never_edited() -> None:
    """With the only real token of a row outside the edit's positions, the row keeps its bits."""
    ids, mask = padded([torch.tensor([5, 7, 9, 2]), torch.tensor([6])], "left")
    options = {"attention_mask": mask}
    model = edited([replace(EDIT, positions="prompt")])
    assert torch.equal(logits(model, ids, 3, **options)[1], logits(edited([]), ids, 3, **options)[1])
    assert not torch.equal(logits(model, ids, 3, **options)[0], logits(edited([]), ids, 3, **options)[0])


def test_an_edit_that_changes_nothing_keeps_every_bit() -> None:
    ids, mask = padded(sentences(), "left")
    silent = edited([Edit(torch.tensor([0, 1]), 0.0)], crosscoder=silent_crosscoder())
    elsewhere = edited([replace(EDIT, positions="generated")])
    nothing = edited([Edit(torch.empty(0, dtype=torch.long), 3.0)])
    plain = logits(edited([]), ids, 99, attention_mask=mask)
    for model in (silent, elsewhere, nothing):
        assert torch.equal(logits(model, ids, 99, attention_mask=mask), plain)
    assert torch.equal(generate(silent, ids, mask), generate(edited([]), ids, mask))


@pytest.mark.parametrize("keyword", ["cache", "past_key_values"])
@pytest.mark.parametrize("architecture", ["qwen3", "windows"])
def test_a_cached_prefix_that_is_repeated_gives_the_same_logits(architecture: str, keyword: str) -> None:
    """The prefix is read once under edits; its cache is copied, repeated and read on by several answers.

    The cache is found by the keyword of transformers before 5.24 and by that since, whichever is installed.
    """
    prefix, answers = sentences()[0][None], torch.randint(1, VOCABULARY, (4, 3))
    model = edited([Edit(torch.tensor([3]), 4.0, "prompt"), Edit(torch.tensor([5]), 2.0)], architecture=architecture)
    with model.running(prompt=prefix.shape[1]) as running:
        kept = running(prefix, use_cache=True).past_key_values
        branch = copy.deepcopy(kept)
        branch.batch_repeat_interleave(len(answers))
        found = running(answers, **{keyword: branch}).logits
    whole = logits(
        model, torch.cat([prefix.expand(len(answers), -1), answers], dim=1), prefix.shape[1], use_cache=False
    )
    torch.testing.assert_close(found, whole[:, prefix.shape[1] :], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", ["all", "prompt", "last_prompt", "generated"])
def test_scores_equal_those_of_the_half_above_the_tap(positions: Positions) -> None:
    same_as_above_the_tap(replace(EDIT, positions=positions))


@pytest.mark.parametrize("reading", ["joint", "branch", "replicate"])
@pytest.mark.parametrize("error", ["keep", "drop"])
@pytest.mark.parametrize("value", [0.0, Patch("rl")])
def test_readings_patches_and_a_dropped_error_are_those_of_the_half_above_the_tap(
    reading: CodeReading, error: ErrorTerm, value: float | Patch
) -> None:
    same_as_above_the_tap(replace(EDIT, value=value), reading, error)


def same_as_above_the_tap(edit: Edit, reading: CodeReading = "joint", error: ErrorTerm = "keep") -> None:
    """A second road: intervention.score edits residual streams that it has captured."""
    requests = random_requests(samples=3)
    model = replace(edited([edit]), reading=reading, error=error)
    upper = UpperModel(model.model, model.lineup.layers)
    wanted = score(requests, model.lineup, upper, model.crosscoder, "sft", [edit], reading=reading, error=error)[1]
    for request, (context, answer) in enumerate(zip(requests.context_ids, requests.continuation_ids, strict=True)):
        found = logits(model, torch.tensor([context + answer[:-1]]), len(context))[0, len(context) - 1 :]
        value = found.log_softmax(dim=-1).gather(1, torch.tensor(answer)[:, None]).sum()
        torch.testing.assert_close(value, wanted[request], rtol=1e-4, atol=1e-4)


def test_a_model_that_is_read_by_its_own_branch_needs_no_other() -> None:
    """So it can generate while the lineup's models take turns."""
    model = replace(edited(), reading="branch")
    turns = replace(model, lineup=replace(model.lineup, turns=True))
    ids, mask = padded(sentences(), "left")
    assert torch.equal(generate(turns, ids, mask), generate(model, ids, mask, use_cache=False))


def test_several_edits_add_up_to_one_of_all_features() -> None:
    ids, _ = padded(sentences(), "left")
    parts = edited([Edit(torch.tensor([3, 0]), 4.0), Edit(torch.tensor([11]), 4.0)])
    torch.testing.assert_close(logits(parts, ids, 9), logits(edited(), ids, 9))


def test_the_upper_half_reads_the_edited_residual_stream() -> None:
    """By hand: one token, one feature set to 4 where its code is f moves a by scale (4 - f) W_dec."""
    model, ids, seen = edited([Edit(torch.tensor([3]), 4.0)]), torch.tensor([[7]]), []
    tap = model.lineup.layers

    def keep(module: object, arguments: tuple[Tensor, ...], options: dict[str, Tensor]) -> None:
        seen.append(arguments[0] if arguments else options["hidden_states"])

    handle = blocks(model.model)[tap].register_forward_pre_hook(keep, with_kwargs=True)
    with model.running(prompt=1) as running:
        running(ids)
    running(ids)
    handle.remove()
    moved, plain = seen
    code = model.crosscoder.encode(model.lineup.residuals(ids)[0])[0, 3]
    direction = model.crosscoder.scale[1] * model.crosscoder.W_dec[3, 1]
    torch.testing.assert_close(moved[0, 0], plain[0, 0] + (4 - code) * direction)


def test_the_model_is_left_as_it_was() -> None:
    model, ids = edited(), sentences()[0][None]
    before = model.model(ids).logits
    with pytest.raises(RuntimeError), model.running(prompt=1):
        raise RuntimeError
    assert torch.equal(model.model(ids).logits, before)


def test_places_of_each_kind_of_position() -> None:
    """By hand: padding, two tokens of the prompt, two of the answer."""
    place, real = torch.arange(5)[None], torch.tensor([[False, True, True, True, True]])
    found = {
        positions: edited_tokens(positions, place, torch.tensor([[3]]), real)[0].int().tolist()
        for positions in ("all", "prompt", "last_prompt", "generated")
    }
    assert found == {
        "all": [0, 1, 1, 1, 1],
        "prompt": [0, 1, 1, 0, 0],
        "last_prompt": [0, 0, 1, 0, 0],
        "generated": [0, 0, 0, 1, 1],
    }


def run_with(cache: object, **changes: object) -> PreTrainedModel:
    model = replace(edited(), **changes)
    with model.running(prompt=3) as running:
        running(torch.tensor([[1, 2, 3]]), past_key_values=cache, use_cache=True)
    return model.model


def test_what_cannot_be_edited_is_refused() -> None:
    lineup = tiny_lineup()
    with pytest.raises(ValueError, match="the crosscoder reads \\['rl'\\]"):
        replace(edited(), lineup=Lineup(NAMES[:2], lineup.models[:2], lineup.tokenizer, 2, lineup.d_model))
    with pytest.raises(ValueError, match="feature 24"):
        edited([Edit(torch.tensor([24]), 0.0)])
    with pytest.raises(ValueError, match="two edits"):
        edited([EDIT, Edit(torch.tensor([3]), 0.0)])
    with pytest.raises(ValueError, match="take turns"):
        run_with(DynamicCache(), lineup=replace(lineup, turns=True))
    with pytest.raises(ValueError, match="past_key_values = a tuple"):
        run_with(())
    with edited().running(prompt=3) as running:
        ids = torch.tensor([[1, 2, 3]])
        for given in ({"kept": DynamicCache()}, {"cache": DynamicCache(), "past_key_values": DynamicCache()}):
            with pytest.raises(ValueError, match="one KV cache"):
                running(ids, **given)
        with pytest.raises(ValueError, match="5 tokens have been read and 3 are given"):
            running(ids, attention_mask=torch.ones(1, 5), kept=object())
    filled = tiny_model()(torch.tensor([[1]]), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="filled without edits"):
        run_with(filled)
    assert len(blocks(run_with(DynamicCache()))) == BLOCKS, "a cache without layers is taken"
