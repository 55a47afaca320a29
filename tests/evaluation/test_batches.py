import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from featdiff.evaluation.batches import final_prompt_activations, request_batches
from featdiff.evaluation.results import Requests
from featdiff.models.loading import Lineup
from featdiff.models.residual import residual


def requests_of(*samples: list[tuple[list[int], list[int]]]) -> Requests:
    counts = torch.tensor([len(choices) for choices in samples])
    pairs = [pair for choices in samples for pair in choices]
    lengths = torch.tensor([float(len(continuation)) for _, continuation in pairs])
    return Requests(
        task="toy",
        sample_ids=tuple(str(sample) for sample in range(len(samples))),
        choice_counts=counts,
        target=torch.zeros(len(samples), dtype=torch.long),
        context_ids=[context for context, _ in pairs],
        continuation_ids=[continuation for _, continuation in pairs],
        choice_characters=lengths,
    )


TWO_SAMPLES = requests_of([([1, 2, 3], [4]), ([1, 2, 3], [5])], [([6], [7, 8]), ([6], [9, 10, 11])])


def test_choices_of_one_token_share_a_row() -> None:
    (batch,) = request_batches(TWO_SAMPLES, batch_size=8)
    assert batch.input_ids.tolist() == [[1, 2, 3], [6, 9, 10], [6, 7, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0]]
    assert batch.prompt.tolist() == [3, 1, 1]
    plain = batch.plain
    assert plain.branch is None
    assert dict(zip(plain.requests.tolist(), plain.sequence.tolist(), strict=True)) == {0: 0, 1: 0, 3: 1, 2: 2}


def test_rows_of_one_context_can_share_it_and_see_only_their_own_answer() -> None:
    (batch,) = request_batches(TWO_SAMPLES, batch_size=8)
    shared = batch.shared
    assert shared.input_ids.tolist() == [[1, 2, 3, 0], [6, 9, 10, 7]]
    assert shared.position_ids.tolist() == [[0, 1, 2, 0], [0, 1, 2, 1]]
    assert shared.row.tolist() == [[0, 0, 0, 0], [1, 1, 1, 2]]
    assert shared.real.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    seen = shared.attention_mask(torch.tensor([1, 0]), torch.float32) == 0
    assert seen[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]
    assert seen[1, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_every_continuation_token_is_predicted_where_the_token_before_it_stands() -> None:
    for batch in request_batches(TWO_SAMPLES, batch_size=2):
        for layout in (batch.plain, batch.shared):
            for i, request in enumerate(layout.requests.tolist()):
                context, continuation = TWO_SAMPLES.context_ids[request], TWO_SAMPLES.continuation_ids[request]
                real, sequence = layout.answer_mask[i], int(layout.sequence[i])
                places = layout.answer_positions[layout.answer_place[i][real]]
                assert layout.answer_token[i][real].tolist() == continuation
                assert layout.input_ids[sequence, places].tolist() == [context[-1], *continuation[:-1]]
                start = len(context) - 1
                assert layout.position_ids[sequence, places].tolist() == list(range(start, start + len(continuation)))


def test_both_layouts_hold_the_tokens_of_the_rows_that_they_name() -> None:
    (batch,) = request_batches(TWO_SAMPLES, batch_size=8)
    for layout in (batch.plain, batch.shared):
        real = layout.real.bool()
        assert torch.equal(batch.input_ids[layout.row, layout.position_ids][real], layout.input_ids[real])
    assert torch.equal(batch.plain.requests, batch.shared.requests)


def test_batches_serve_every_request_once_and_keep_to_their_size() -> None:
    requests = requests_of(*[[([1] * n, [2, n]), ([1] * n, [3])] for n in range(1, 8)])
    batches = request_batches(requests, batch_size=3)
    assert sorted(torch.cat([batch.plain.requests for batch in batches]).tolist()) == list(range(14))
    assert max(len(batch.input_ids) for batch in batches) == 3


def test_edits_apply_to_all_tokens_to_the_prompt_or_to_its_last_token_and_never_to_padding() -> None:
    (batch,) = request_batches(requests_of([([1, 2], [3, 4, 5])], [([6], [7])]), batch_size=2)
    assert batch.edited("all").tolist() == [[True, True, True, True], [True, False, False, False]]
    assert batch.edited("prompt").tolist() == [[True, True, False, False], [True, False, False, False]]
    assert batch.edited("last_prompt").tolist() == [[False, True, False, False], [True, False, False, False]]


def test_a_request_without_context_or_continuation_is_refused() -> None:
    with pytest.raises(ValueError, match="request 0 of toy"):
        request_batches(requests_of([([], [1])]), batch_size=1)
    with pytest.raises(ValueError, match="request 1 of toy"):
        request_batches(requests_of([([1], [1]), ([1], [])]), batch_size=1)


def test_final_prompt_activations_are_those_of_each_prompt_run_by_itself() -> None:
    models = tuple(
        GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=3, n_head=2, bos_token_id=0, eos_token_id=0)).eval()
        for _ in range(2)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    lineup = Lineup(names=("base", "rl"), models=models, tokenizer=tokenizer, layers=2, d_model=8)
    requests = requests_of([([1, 2, 3, 4], [5])], [([6], [7, 8]), ([9, 9], [1])], [([10, 11], [12])])
    found = final_prompt_activations(requests, lineup, batch_size=2)
    with torch.no_grad():
        for sample, prompt in enumerate([[1, 2, 3, 4], [6], [10, 11]]):
            for m, model in enumerate(models):
                alone = residual(model, 2, torch.tensor([prompt]))[0, -1]
                torch.testing.assert_close(found[sample, m], alone, atol=1e-5, rtol=0)
