"""Edits of every kind scored together, against the whole model with a hook, one request at a time."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU
from featdiff.evaluation.results import Requests
from featdiff.intervention.edits import CodeReading, Edit, Patch, codes, reconstruction
from featdiff.intervention.scoring import ErrorTerm, score
from featdiff.intervention.side_effects import edited_residual, first_tokens
from featdiff.models.loading import Lineup
from featdiff.models.partial_model import UpperModel
from featdiff.models.residual import blocks

NAMES, WIDTH, VOCABULARY = ("base", "rl"), 16, 40
SETTINGS = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
OWN = torch.tensor([0.5, 2.0, 0.0])
DIRECTION = torch.linspace(-1, 1, WIDTH)
EDITS = [
    Edit(torch.tensor([2, 11, 5]), 0.0),
    Edit(torch.tensor([2, 11, 5]), OWN),
    Edit(torch.tensor([1, 7]), Patch("base")),
    Edit(torch.tensor([4]), 3.0, "generated"),
    Edit(torch.tensor([4, 9]), 3.0, along=DIRECTION),
]


def model(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SETTINGS))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    return made.eval().requires_grad_(False)


def lineup() -> Lineup:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    return Lineup(NAMES, (model(0), model(1)), tokenizer, 2, WIDTH)


def crosscoder() -> Crosscoder:
    made = Crosscoder(NAMES, WIDTH, 24, ReLU(weight=2.0))
    with torch.no_grad():
        made.scale.copy_(torch.tensor([0.5, 2.0]))
    return made.canonicalise().requires_grad_(False)


def requests(samples: int = 5, choices: int = 3) -> Requests:
    generator = torch.Generator().manual_seed(0)

    def tokens(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high + 1, (1,), generator=generator))
        return torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()

    contexts, continuations = [tokens(3, 9) for _ in range(samples)], [tokens(2, 3) for _ in range(samples * choices)]
    return Requests(
        task="toy",
        sample_ids=tuple(map(str, range(samples))),
        choice_counts=torch.full((samples,), choices),
        target=torch.zeros(samples, dtype=torch.long),
        context_ids=[context for context in contexts for _ in range(choices)],
        continuation_ids=continuations,
        choice_characters=torch.ones(samples * choices),
    )


def moved(edit: Edit, output: Tensor, stream: Tensor, reading: CodeReading, error: ErrorTerm, prompt: int) -> Tensor:
    """One sequence's residual stream under an edit, written out token by token."""
    made = crosscoder()
    own = codes(made, stream, "rl", reading)
    given = codes(made, stream, "rl", reading, "base")
    result = output.clone()
    for place in range(len(stream)):
        if edit.positions == "generated" and place < prompt:
            continue
        start = reconstruction(made, own, "rl")[place] if error == "drop" else output[place]
        value = (
            given[place]
            if isinstance(edit.value, Patch)
            else torch.zeros(24).index_put((edit.features,), torch.as_tensor(edit.value))
        )
        shift = torch.zeros(WIDTH)
        for k in edit.features.tolist():
            shift = shift + 2.0 * (value[k] - own[place, k]) * made.W_dec[k, 1]
        if edit.along is not None:
            shift = shift.norm() * edit.along / edit.along.norm()
        result[place] = start + shift
    return result


def by_hand(edit: Edit, reading: CodeReading, error: ErrorTerm) -> Tensor:
    whole, models, asked, values = model(1), lineup(), requests(), []
    for context, continuation in zip(asked.context_ids, asked.continuation_ids, strict=True):
        ids = torch.tensor([context + continuation[:-1]])
        stream, prompt = models.residuals(ids)[0], len(context)
        handle = blocks(whole)[1].register_forward_hook(
            lambda *seen, s=stream, n=prompt: moved(edit, seen[2][0], s, reading, error, n)[None]
        )
        logits = whole(input_ids=ids).logits.log_softmax(dim=-1)[0]
        handle.remove()
        first = len(context) - 1
        values.append(sum(float(logits[first + i, token]) for i, token in enumerate(continuation)))
    return torch.tensor(values)


@pytest.mark.parametrize("reading", ["joint", "replicate", "branch"])
@pytest.mark.parametrize("error", ["keep", "drop"])
def test_every_kind_of_edit_scores_as_a_hook_in_the_whole_model(reading: CodeReading, error: ErrorTerm) -> None:
    upper = UpperModel(model(1), 2)
    found = score(requests(), lineup(), upper, crosscoder(), "rl", EDITS, batch_size=4, reading=reading, error=error)
    for row, edit in zip(found[1:], EDITS, strict=True):
        torch.testing.assert_close(row, by_hand(edit, reading, error), atol=2e-4, rtol=1e-4)
        assert (row - found[0]).abs().max() > 1e-3


def test_many_controls_scored_together_equal_their_separate_runs() -> None:
    generator, upper, models, made = torch.Generator().manual_seed(0), UpperModel(model(1), 2), lineup(), crosscoder()
    sets = [torch.randperm(24, generator=generator)[:3] for _ in range(100)]
    edits = [Edit(features, float(number % 2) * 3) for number, features in enumerate(sets)]
    together = score(requests(), models, upper, made, "rl", edits, batch_size=8)
    for number in range(0, 100, 7):
        alone = score(requests(), models, upper, made, "rl", [edits[number]], batch_size=8)[1]
        torch.testing.assert_close(together[number + 1], alone, atol=2e-5, rtol=1e-5)


def test_dropping_the_error_leaves_the_reconstruction_where_nothing_else_changes() -> None:
    edit = Edit(torch.zeros(0, dtype=torch.long), 0.0)
    upper = UpperModel(model(1), 2)
    found = score(requests(), lineup(), upper, crosscoder(), "rl", [edit], error="drop")
    assert (found[1] - found[0]).abs().max() > 1e-3
    torch.testing.assert_close(found[1], by_hand(edit, "joint", "drop"), atol=2e-4, rtol=1e-4)


def test_the_first_token_is_what_the_whole_model_would_generate() -> None:
    asked, whole, made, models = requests(), model(1), crosscoder(), lineup()
    edit = Edit(torch.tensor([2, 11, 5]), 3.0)
    found = first_tokens(asked, models, UpperModel(model(1), 2), made, "rl", [edit], batch_size=2)
    for sample in range(5):
        ids = torch.tensor([asked.context_ids[3 * sample]])
        begins = {asked.continuation_ids[3 * sample + choice][0] for choice in range(3)}
        assert bool(found[0, sample]) == (int(whole(ids).logits[0, -1].argmax()) in begins)
        stream = models.residuals(ids)
        moved_stream = edited_residual(stream, made, "rl", edit, torch.ones_like(ids, dtype=torch.bool))
        logits = UpperModel(model(1), 2)(moved_stream, ids)[0, -1]
        assert bool(found[1, sample]) == (int(logits.argmax()) in begins)
