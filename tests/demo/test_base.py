"""The base that ships with the demo, and the script that made it."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from demo_base import BOS, Pretraining, make_base, passages, within_answers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from featdiff.demo.families import FAMILIES, Family
from featdiff.demo.inputs import PACKAGED_BASE, documents, line, teacher_lines

LIMIT_BYTES = 4_000_000
BRIEF = Pretraining(cycles=1, steps=3, documents_per_step=4, passages_per_step=1)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(PACKAGED_BASE)


@pytest.fixture(scope="module")
def base() -> PreTrainedModel:
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(PACKAGED_BASE, dtype=torch.float32).eval()


def test_the_packaged_base_is_small(base: PreTrainedModel) -> None:
    assert sum(path.stat().st_size for path in PACKAGED_BASE.iterdir()) <= LIMIT_BYTES
    assert 0.7e6 < base.num_parameters() < 1.1e6


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_prompt_and_a_choice_are_written_in_the_same_tokens_together_and_apart(
    family: Family, tokenizer: PreTrainedTokenizerFast
) -> None:
    for item in islice(family.items(seed=5), 50):
        for choice in item.choices:
            apart = tokenizer(item.prompt)["input_ids"] + tokenizer(choice, add_special_tokens=False)["input_ids"]
            assert tokenizer(item.prompt + choice)["input_ids"] == apart


def test_digits_and_capitals_stand_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("2048 ABBA") == ["2", "0", "4", "8", "Ġ", "A", "B", "B", "A"]


def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Naïve über-plan:\n  €5 → 日本\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=False) == BOS + text


def test_a_text_begins_with_bos_and_a_line_ends_with_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer("sum 1+2+3:6\n")["input_ids"]
    assert tokens[0] == tokenizer.bos_token_id and tokens[-1] == tokenizer.eos_token_id


def test_the_base_prefers_the_systematic_errors(base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    preferring = [family for family in FAMILIES if share_of_errors(family, base, tokenizer) > 0.5]
    assert len(preferring) >= 0.7 * len(FAMILIES)


@torch.no_grad()
def share_of_errors(family: Family, base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> float:
    """How often the systematic error is likelier than the right answer."""
    items = family.distinct_items(4, 60)
    likelihoods = []
    for answers in ([item.answer for item in items], [item.wrong for item in items]):
        texts = [item.prompt + answer + "\n" for item, answer in zip(items, answers, strict=True)]
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        logits = base(**batch).logits[:, :-1].log_softmax(-1)
        tokens = logits.gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
        likelihoods.append((tokens * batch["attention_mask"][:, 1:]).sum(1))
    right, wrong = likelihoods
    return (wrong > right).float().mean().item()


def test_an_author_gives_the_right_answer_or_the_error() -> None:
    item = next(FAMILIES[0].items(seed=0))
    assert line(item, "right") == f"{item.prompt}{item.answer}\n"
    assert line(item, "wrong") == f"{item.prompt}{item.wrong}\n"


def test_the_texts_are_the_same_for_the_same_seed() -> None:
    for texts in (documents, passages, teacher_lines):
        assert list(islice(texts(3), 20)) == list(islice(texts(3), 20)) != list(islice(texts(4), 20))


def test_answers_reach_from_the_colon_to_the_end_of_the_line() -> None:
    colon, end = 1, 2
    tokens = torch.tensor([[0, 5, colon, 6, 7, end, 8, colon, 9, end]])
    next_is_answer = [False, False, True, True, True, False, False, True, True, False]
    assert within_answers(tokens, colon, end).tolist() == [next_is_answer]


def test_a_recipe_of_three_steps_makes_a_model_and_again_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_base(tmp_path / name, seed=0, pretraining=BRIEF)
    made = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    assert {path.name for path in PACKAGED_BASE.iterdir()} == set(made)
