from collections.abc import Sequence

import pytest
import torch
from tiny_lineup import WIDTH, random_crosscoder, tiny_lineup, tiny_model
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance

from featdiff.causal.edited_model import EditedModel
from featdiff.causal.evaluation import EditedLanguageModel
from featdiff.causal.evaluation.language_model import stock_language_model
from featdiff.causal.intervention import Edit

WORDS = ["<s>", *(chr(ord("a") + number) for number in range(26))]
QUESTIONS = ["a b c d e", "f g", "h i j k l m n", "o p q", "r s t u"]
EDIT = Edit(torch.tensor([3, 0, 11]), 4.0)


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<s>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<s>")


def language_model(edits: Sequence[Edit] = (EDIT,), batch_size: int = 4) -> EditedLanguageModel:
    lineup = tiny_lineup()
    assert lineup.d_model == WIDTH
    edited = EditedModel(tiny_model(seed=1), lineup, random_crosscoder(), "sft", tuple(edits))
    return EditedLanguageModel(edited, tokenizer(), batch_size)  # pyright: ignore[reportAbstractUsage]  (as HFLM)


def choices() -> list[Instance]:
    """Choices of one to three words; some share all but the last."""
    return [
        Instance("loglikelihood", {}, (question, f" {answer}"), number)
        for number, question in enumerate(QUESTIONS)
        for answer in ("x", "y", "x y", "x y z")
    ]


def questions(**options: object) -> list[Instance]:
    kwargs = {"until": ["zz"], "max_gen_toks": 6, **options}
    return [Instance("generate_until", {}, (question, dict(kwargs)), 0) for question in QUESTIONS]


def test_without_edits_all_scores_and_answers_are_those_of_lm_eval_to_the_bit() -> None:
    stock = stock_language_model(tiny_model(seed=1), tokenizer(), batch_size=4)
    ours = language_model([])
    assert ours.loglikelihood(choices()) == stock.loglikelihood(choices())
    assert ours.generate_until(questions()) == stock.generate_until(questions())
    text = [Instance("loglikelihood_rolling", {}, ("a b c d e f g",), 0)]
    assert ours.loglikelihood_rolling(text) == stock.loglikelihood_rolling(text)


def test_an_edit_that_changes_nothing_changes_no_bit() -> None:
    nothing = [Edit(torch.empty(0, dtype=torch.long), 3.0)]
    assert language_model(nothing).loglikelihood(choices()) == language_model([]).loglikelihood(choices())
    assert language_model(nothing).generate_until(questions()) == language_model([]).generate_until(questions())


def test_edited_scores_and_answers_do_not_depend_on_the_batch() -> None:
    one, many = language_model(batch_size=1), language_model(batch_size=7)
    scores = [value for value, _ in many.loglikelihood(choices())]
    assert [value for value, _ in one.loglikelihood(choices())] == pytest.approx(scores, abs=1e-4)
    assert one.generate_until(questions()) == many.generate_until(questions())
    assert many.generate_until(questions()) != language_model([]).generate_until(questions()), "an edit shows"


def test_an_edit_of_the_prompt_leaves_the_choice_alone_and_one_of_the_answer_the_prompt() -> None:
    """By hand: the first token of a choice is predicted at the last of the prompt, which `generated` spares."""
    plain = [value for value, _ in language_model([]).loglikelihood(choices())]
    answer = [value for value, _ in language_model([Edit(EDIT.features, 4.0, "generated")]).loglikelihood(choices())]
    prompt = [value for value, _ in language_model([Edit(EDIT.features, 4.0, "prompt")]).loglikelihood(choices())]
    whole = [value for value, _ in language_model().loglikelihood(choices())]
    first = [number % 4 < 2 for number in range(len(plain))]
    for one_token, a, b, c, d in zip(first, plain, answer, prompt, whole, strict=True):
        assert (a == b) == one_token
        assert (c == pytest.approx(d, abs=1e-5)) == one_token
