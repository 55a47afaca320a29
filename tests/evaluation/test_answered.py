"""Generated answers as token ids, beside what the tokenizer says."""

import pytest

pytest.importorskip("lm_eval")

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from featdiff.evaluation.answered import answered
from featdiff.evaluation.results import Sample, TaskResult

WORDS = {word: number for number, word in enumerate("_abcdefgh")}
END = 0


def tokenizer() -> PreTrainedTokenizerFast:
    letters = Tokenizer(WordLevel(WORDS, unk_token="_"))
    letters.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="_")


def sample(prompt: str, *answers: str) -> Sample:
    return Sample(
        sample_id="0-a",
        prompt_hash="a",
        prompt=prompt,
        target_text="x",
        prediction_text=answers[0],
        correct=False,
        answers=answers,
        rights=(False,) * len(answers),
    )


def result(*samples: Sample) -> TaskResult:
    return TaskResult("maths", "generate_until", "exact_match", samples)


def test_every_answer_follows_its_prompt_and_ends() -> None:
    """By hand; an answer without text is read as the prompt alone."""
    found = answered(result(sample("a b", "c", ""), sample("d", "e f", "g")), tokenizer(), 16)
    assert found.context_ids == [[1, 2], [1, 2], [4], [4]]
    assert found.continuation_ids == [[3, END], [END], [5, 6, END], [7, END]]
    assert found.sample_of.tolist() == [0, 0, 1, 1] and found.choice_of.tolist() == [0, 1, 0, 1]


def test_a_prompt_is_cut_from_the_left_to_the_models_window() -> None:
    """The model reads prompt and answer, but not the token that ends it: four here."""
    found = answered(result(sample("a b c d e", "f g")), tokenizer(), 4)
    assert found.context_ids == [[4, 5]] and found.continuation_ids == [[6, 7, END]]
