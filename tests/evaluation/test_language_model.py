import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny_lineup import WIDTH, random_crosscoder, tiny_lineup, tiny_model
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

pytest.importorskip("lm_eval")

import datasets.config
from lm_eval.api.instance import Instance

from featdiff.config.study import EvaluationSettings, TaskSettings
from featdiff.evaluation.harness import evaluate
from featdiff.evaluation.language_model import EditedLanguageModel, stock_language_model
from featdiff.intervention.edited_model import EditedModel
from featdiff.intervention.edits import Edit

WORDS = ["<s>", *(chr(ord("a") + number) for number in range(26))]
QUESTIONS = ["a b c d e", "f g", "h i j k l m n", "o p q", "r s t u"]
EDIT = Edit(torch.tensor([3, 0, 11]), 4.0)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


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


def test_an_edited_model_takes_the_place_of_a_model_in_an_evaluation(tmp_path: Path) -> None:
    """Choices and generated answers; the edited scores are those of the language model itself."""
    choice = {"choices": ["x", "y", "x y", "x y z"], "answer_idx": 2}
    rows = {
        "openbookqa": [{"question": question, **choice} for question in QUESTIONS],
        "math500": [{"question": question, "answer": "7"} for question in QUESTIONS],
    }
    for name, lines in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = (TaskSettings(name="openbookqa"), TaskSettings(name="hendrycks_math500", max_new_tokens=5))
    settings = EvaluationSettings(tasks=asked, data_folder=str(tmp_path), batch_size=4)
    lineup, model = tiny_lineup(), tiny_model(seed=1)
    edited = EditedModel(model, lineup, random_crosscoder(), "sft", (EDIT,))
    scored, written = evaluate(edited, tokenizer(), settings, seed=0)
    found = [value for sample in scored.samples for value in sample.log_likelihoods]
    assert found == [value for value, _ in language_model().loglikelihood(choices())]
    plain_scored, plain_written = evaluate(model, tokenizer(), settings, seed=0)
    assert found != [value for sample in plain_scored.samples for value in sample.log_likelihoods]
    assert [one.answers for one in written.samples] != [one.answers for one in plain_written.samples]
    nothing = EditedModel(model, lineup, random_crosscoder(), "sft", (Edit(torch.empty(0, dtype=torch.long), 0.0),))
    assert evaluate(nothing, tokenizer(), settings, seed=0) == [plain_scored, plain_written]
