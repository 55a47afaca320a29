"""The paper's tasks on local files, beside lm-eval's own task code and model class on the same rows."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

pytest.importorskip("lm_eval")

import datasets
import datasets.config
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from stock_tasks import CHOICES, DATA, GENERATED, MODEL, TASKS, shared, stock_config, stock_task

from featdiff import evaluation
from featdiff.config.evaluation import DATA_FILES
from featdiff.config.study import EvaluationSettings, TaskSettings
from featdiff.evaluation import harness as scoring
from featdiff.evaluation.harness import evaluate
from featdiff.evaluation.results import TaskResult
from featdiff.evaluation.tasks import WITHOUT_PASSAGE, load_task
from featdiff.models.loading import load_model, load_tokenizer
from featdiff.posttraining.rewards import reward_function


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def settings_for(*tasks: TaskSettings, **changes: Any) -> EvaluationSettings:
    return EvaluationSettings(tasks=tasks, data_folder=str(DATA), batch_size=8).model_copy(update=changes)


def run(*tasks: TaskSettings, **changes: Any) -> list[TaskResult]:
    model, tokenizer = load_model(str(MODEL)), load_tokenizer(str(MODEL))
    return evaluate(model, tokenizer, settings_for(*tasks, **changes), seed=0)


@shared
@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_all_questions_answers_and_their_number_are_those_of_lm_eval(task: str, tmp_path: Path) -> None:
    ours, stock = load_task(TaskSettings(name=task), settings_for(), 0), stock_task(task, tmp_path)
    for one in (ours, stock):
        one.set_config("num_fewshot", 0)
        one.build_all_requests()
    assert len(ours.eval_docs) == TASKS[task][2]
    generated = task in GENERATED
    for mine, theirs in zip(ours.instances, stock.instances, strict=True):
        assert (mine.doc_id, mine.idx) == (theirs.doc_id, theirs.idx)
        assert tuple(mine.args)[: 1 if generated else 2] == tuple(theirs.args)[: 1 if generated else 2]
        assert not generated or options(mine) == options(theirs)
        right, wanted = ours.doc_to_target(mine.doc), stock.doc_to_target(theirs.doc)
        assert (wanted == "ABCDE"[int(str(right))]) if task == "commonsense_qa" else (wanted == right)


def options(instance: Instance) -> dict[str, Any]:
    """How an answer is generated."""
    _, how = list[Any](instance.args)
    return dict(how)


@shared
@pytest.mark.slow
@pytest.mark.parametrize("task", CHOICES)
def test_scores_are_those_of_stock_lm_eval_item_by_item(task: str, tmp_path: Path) -> None:
    (result,) = run(TaskSettings(name=task), limit=16)
    report = simple_evaluate(
        HFLM.create_from_arg_obj(
            {"pretrained": load_model(str(MODEL)), "tokenizer": load_tokenizer(str(MODEL)), "batch_size": 8}
        ),
        tasks=[stock_config(task, tmp_path)],
        task_manager=TaskManager(include_defaults=False),
        limit=16,
        bootstrap_iters=0,
    )
    assert report is not None and "results" in report and "samples" in report
    logged = report["samples"][task]
    assert len(result.samples) == len(logged) == 16
    for mine, theirs in zip(result.samples, logged, strict=True):
        answers: list[Any] = list(theirs["filtered_resps"])
        assert list(mine.log_likelihoods) == [answer[0] for answer in answers]
        assert mine.correct == bool(theirs["acc"])
        if "acc_norm" in theirs:
            assert (mine.prediction_acc_norm == mine.target) == bool(theirs["acc_norm"])
    assert report["results"][task]["acc,none"] == result.accuracy
    assert result.note == (WITHOUT_PASSAGE if task == "sciq" else "")
    assert sum(result.histogram) == 16


@shared
@pytest.mark.slow
@pytest.mark.parametrize("task", GENERATED)
def test_generated_answers_are_those_of_stock_lm_eval_item_by_item(task: str, tmp_path: Path) -> None:
    (result,) = run(TaskSettings(name=task, max_new_tokens=12), limit=6)
    report = simple_evaluate(
        HFLM.create_from_arg_obj(
            {"pretrained": load_model(str(MODEL)), "tokenizer": load_tokenizer(str(MODEL)), "batch_size": 8}
        ),
        tasks=[stock_config(task, tmp_path)],
        task_manager=TaskManager(include_defaults=False),
        gen_kwargs={"max_gen_toks": 12},
        limit=6,
        bootstrap_iters=0,
    )
    assert report is not None and "samples" in report
    for mine, theirs in zip(result.samples, report["samples"][task], strict=True):
        assert (mine.prompt, mine.answers) == (list[Any](theirs["arguments"])[0][0], tuple(theirs["resps"][0]))
        assert mine.target_text == str(theirs["target"])


# What follows needs no shared data.


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A data folder of invented rows."""
    folder = tmp_path / "data"
    folder.mkdir()
    passage = "Context: Ann has a hat.\nQuestion: What has Ann?\nChoices: A. a hat\nB. a B. C. of hats\nC. no\nD. so"
    made = {
        "logiqa.jsonl": [{"question": passage, "choices": list("ABCD"), "answer_idx": 0, "meta": {}}],
        "sciq.jsonl": [
            {"question": f"q{n}?", "choices": ["w", "r", "x", "y"], "answer_idx": 1, "answer": "r", "meta": {}}
            for n in range(4)
        ],
        "commonsenseqa.jsonl": [
            {"question": f"where {n}?", "choices": [f"{c}{n}" for c in "vwxyz"], "answer_idx": n % 2, "meta": {}}
            for n in range(5)
        ],
        "math500.jsonl": [{"question": f"{n}/2?", "answer": f"\\frac{{{n}}}{{2}}", "meta": {}} for n in (1, 3)],
    }
    for name, lines in made.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def questions(name: str, folder: Path) -> list[tuple[str, str]]:
    """Prompt and choice, of every choice of every item."""
    task = load_task(TaskSettings(name=name), EvaluationSettings(data_folder=str(folder)), 0)
    task.build_all_requests()
    pairs = [list[Any](instance.args) for instance in task.instances]
    return [(str(prompt), str(choice)) for prompt, choice in pairs]


def test_a_passage_is_shown_where_the_rows_have_one(local: Path) -> None:
    assert questions("sciq", local)[0] == ("\nQuestion: q0?\nAnswer:", " w")
    assert [choice for _, choice in questions("sciq", local)[:4]] == [" w", " x", " y", " r"]
    lines = [json.loads(line) for line in (local / "sciq.jsonl").read_text().splitlines()]
    (local / "sciq.jsonl").write_text("".join(json.dumps(r | {"meta": {"support": " Water."}}) + "\n" for r in lines))
    assert questions("sciq", local)[0] == ("Water.\nQuestion: q0?\nAnswer:", " w")


def test_a_passage_task_is_taken_apart_by_its_markers(local: Path) -> None:
    """By hand; a choice may hold what looks like a marker."""
    choices = "A. a hat\nB. a B. C. of hats\nC. no\nD. so"
    prompt = f"Passage: Ann has a hat.\nQuestion: What has Ann?\nChoices:\n{choices}\nAnswer:"
    assert questions("logiqa", local)[1] == (prompt, " a B. C. of hats")


def test_letters_and_texts_are_asked_by_the_same_prompt(local: Path) -> None:
    letters, texts = questions("commonsense_qa", local), questions("commonsense_qa_text", local)
    assert [prompt for prompt, _ in letters] == [prompt for prompt, _ in texts]
    assert [choice for _, choice in letters[:5]] == [" A", " B", " C", " D", " E"]
    assert [choice for _, choice in texts[5:10]] == [" v1", " w1", " x1", " y1", " z1"]


def test_every_task_of_the_paper_has_a_file_of_questions_and_one_of_data() -> None:
    place = Path(evaluation.__path__[0]) / "task_files" / "local"
    assert {file.stem for file in place.glob("*.yaml")} == set(DATA_FILES)
    assert Counter(DATA_FILES.values()).most_common(1) == [("commonsenseqa.jsonl", 2)]


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (TaskSettings(name="hendrycks_math500", repeats=3), "3 greedy answers"),
        (TaskSettings(name="hendrycks_math500", repeats=3, temperature=0.0), "3 greedy answers"),
        (TaskSettings(name="sciq", temperature=0.7), "scores choices"),
        (TaskSettings(name="openbookqa"), "there is no data file .*openbookqa.jsonl"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(one: TaskSettings, reason: str, local: Path) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        load_task(one, EvaluationSettings(data_folder=str(local)), 0)
    assert "\n" not in str(refusal.value)


def test_worked_examples_and_rows_of_another_form_are_refused(local: Path) -> None:
    with pytest.raises(ValueError, match="no worked examples"):
        load_task(TaskSettings(name="sciq"), EvaluationSettings(data_folder=str(local), fewshot=2), 0)
    (local / "logiqa.jsonl").write_text('{"question": "Why?", "choices": ["a"], "answer_idx": 0}\n')
    with pytest.raises(ValueError, match=r"logiqa: its data lack .*Context"):
        load_task(TaskSettings(name="logiqa"), EvaluationSettings(data_folder=str(local)), 0)
    with pytest.raises(ValidationError):
        EvaluationSettings(data_folder="")


def results_of(
    answers: dict[str, list[str]], one: TaskSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> TaskResult:
    """The task's result for a model that gives these answers to a prompt, in turn."""
    waiting = {prompt: list(given) for prompt, given in answers.items()}

    class Parrot(LM):
        def loglikelihood(self, requests: list) -> list:
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

        def generate_until(self, requests: list) -> list[str]:
            return [waiting[request.args[0]].pop(0) for request in requests]

    monkeypatch.setattr(scoring, "stock_language_model", lambda *_: Parrot())
    settings = EvaluationSettings(tasks=(one,), data_folder=str(folder))
    (result,) = evaluate(load_tiny_model(), load_tiny_tokenizer(), settings, seed=0)
    return result


def load_tiny_model() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=2, n_embd=8, n_layer=1, n_head=1))


def load_tiny_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))


def test_repeated_answers_are_averaged_and_the_most_frequent_verdict_is_the_items(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: of three answers each, two and one are right."""
    answers = {
        "Problem: 1/2?\nAnswer:": ["$1/2$", "no", "it is \\boxed{0.5}"],
        "Problem: 3/2?\nAnswer:": ["$1.5$", "1.6", "hm"],
    }
    one = TaskSettings(name="hendrycks_math500", repeats=3, temperature=0.7)
    result = results_of(answers, one, local, monkeypatch)
    assert [sample.rights for sample in result.samples] == [(True, False, True), (True, False, False)]
    assert result.correct.tolist() == [True, False]
    assert result.accuracy == 0.5
    assert result.shares.tolist() == pytest.approx([2 / 3, 1 / 3])
    result.save(local / "answers.parquet")
    assert TaskResult.load(local / "answers.parquet") == result


def test_the_reward_of_a_completion_is_what_evaluation_calls_right(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: the first five say one half, in forms of their own; the others are wrong or say nothing."""
    forms = [
        "$1/2$",
        "so \\boxed{\\frac{2}{4}}",
        "x = 0.5",
        "It is 0.5.",
        "$\\frac12$",
        "0.6",
        "$2$",
        "no idea",
        "",
        "$1/$",
    ]
    answers = {"Problem: 1/2?\nAnswer:": forms, "Problem: 3/2?\nAnswer:": forms}
    one = TaskSettings(name="hendrycks_math500", repeats=len(forms), temperature=0.7)
    half, other = results_of(answers, one, local, monkeypatch).samples
    assert half.rights == (True,) * 5 + (False,) * 5 and not any(other.rights)
    reward = reward_function("math_verify")
    for sample in (half, other):
        assert [reward(answer, sample.target_text) for answer in forms] == [float(right) for right in sample.rights]


def test_the_tasks_own_rule_compares_the_text(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"Problem: 1/2?\nAnswer:": ["$1/2$"], "Problem: 3/2?\nAnswer:": ["\\frac{3}{2}"]}
    one = TaskSettings(name="hendrycks_math500", check="task")
    assert results_of(answers, one, local, monkeypatch).correct.tolist() == [False, True]
