import json
import random
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from featdiff.config.study import EvaluationSettings, TaskSettings
from featdiff.evaluation.results import Requests, TaskResult

pytest.importorskip("lm_eval")

import datasets
import datasets.config
import lm_eval.api.task
import tqdm
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from featdiff.evaluation import tasks
from featdiff.evaluation.harness import build_requests, evaluate

CHOICES = ["red", "bluish-gréén", "y", "very dark magenta", "ééé", "green"]
TASK = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "colours.jsonl"}},
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task folder with 24 items of two to four choices; some prompts end in spaces."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rng = random.Random(0)
    items = [
        {
            "question": f"which colour is number {number}?{' ' * (number % 3)}",
            "choices": rng.sample(CHOICES, 2 + number % 3),
            "answer": rng.randrange(2),
        }
        for number in range(24)
    ]
    (folder / "colours.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    write_task(folder, "colours")
    return folder


def write_task(folder: Path, name: str, **changes: object) -> None:
    """A task file; JSON is YAML."""
    (folder / f"{name}.yaml").write_text(json.dumps({"task": name} | TASK | changes))


def settings_for(folder: Path, *names: str, **changes: object) -> EvaluationSettings:
    tasks = tuple(TaskSettings(name=name) for name in names)
    return EvaluationSettings(tasks=tasks, task_folder=str(folder), batch_size=5).model_copy(update=changes)


def tokenizer_of_bytes(bos: bool = False) -> PreTrainedTokenizerFast:
    """One token per byte, after a BOS if wanted."""
    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE(vocab={piece: number for number, piece in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>" if bos else None, eos_token="</s>")


def text(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    decoded = tokenizer.decode(ids)
    assert isinstance(decoded, str)
    return decoded


def tiny_model(positions: int = 128) -> PreTrainedModel:
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=258,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=positions,
        initializer_range=0.3,
    )
    return Qwen3ForCausalLM(config).eval()


@torch.no_grad()
def plain_scores(model: PreTrainedModel, requests: Requests) -> list[float]:
    """Log-likelihoods, one unpadded sequence at a time."""
    scores = []
    for context, continuation in zip(requests.context_ids, requests.continuation_ids, strict=True):
        logits = model(torch.tensor([context + continuation])).logits[0, len(context) - 1 : -1]
        scores.append(float(logits.log_softmax(dim=-1).gather(1, torch.tensor(continuation)[:, None]).sum()))
    return scores


def predictions(result: TaskResult, scores: list[float], lengths: list[float]) -> list[int]:
    """Best choice of each sample, from scores that follow one another."""
    counts, best, start = [len(sample.choices) for sample in result.samples], [], 0
    for count in counts:
        part = slice(start, start + count)
        best.append(int(np.argmax(np.array(scores[part]) / np.array(lengths[part]))))
        start += count
    return best


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_accuracy_and_every_item_are_those_of_a_separate_run_of_simple_evaluate(
    folder: Path, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (result,) = evaluate(tiny_model(), tokenizer_of_bytes(), settings_for(folder, "colours", metric=metric), seed=0)
    monkeypatch.chdir(folder)  # lm-eval itself looks for relative data in the working folder
    report = simple_evaluate(
        HFLM.create_from_arg_obj({"pretrained": tiny_model(), "tokenizer": tokenizer_of_bytes(), "batch_size": 3}),
        tasks=["colours"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )
    assert report is not None and "results" in report and "samples" in report
    assert report["results"]["colours"][f"{metric},none"] == result.accuracy
    logged = report["samples"]["colours"]
    assert [bool(sample[metric]) for sample in logged] == result.correct.tolist()
    for mine, theirs in zip(result.samples, logged, strict=True):
        assert mine.log_likelihoods == pytest.approx([answer[0] for answer in theirs["filtered_resps"]], abs=1e-4)
        assert (mine.target, mine.prompt) == (theirs["target"], theirs["doc"]["question"])


def test_both_metrics_are_kept_and_they_differ_where_choices_differ_in_length(folder: Path) -> None:
    (by_acc,) = evaluate(tiny_model(), tokenizer_of_bytes(), settings_for(folder, "colours"), seed=0)
    (by_norm,) = evaluate(
        tiny_model(), tokenizer_of_bytes(), settings_for(folder, "colours", metric="acc_norm"), seed=0
    )
    assert by_acc.prediction_by("acc_norm").tolist() == by_norm.prediction.tolist() != by_acc.prediction.tolist()
    assert by_acc.accuracy_by("acc_norm") == by_norm.accuracy


@pytest.mark.parametrize("bos", [False, True])
def test_requests_scored_by_a_plain_forward_pass_give_the_log_likelihoods_of_lm_eval(folder: Path, bos: bool) -> None:
    model, tokenizer, settings = tiny_model(), tokenizer_of_bytes(bos), settings_for(folder, "colours")
    (result,) = evaluate(model, tokenizer, settings, seed=0)
    requests = build_requests("colours", settings, tokenizer, seed=0)
    scores = plain_scores(model, requests)
    expected = [score for sample in result.samples for score in sample.log_likelihoods]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert predictions(result, scores, [1.0] * len(scores)) == result.prediction.tolist()
    lengths = requests.choice_characters.tolist()
    assert predictions(result, scores, lengths) == result.prediction_by("acc_norm").tolist()
    assert all((context[0] == 0) == bos and 0 not in context[1:] for context in requests.context_ids)


def test_requests_are_in_the_order_of_the_samples_and_their_choices(folder: Path) -> None:
    settings = settings_for(folder, "colours")
    (result,) = evaluate(tiny_model(), tokenizer_of_bytes(), settings, seed=0)
    requests = build_requests("colours", settings, tokenizer_of_bytes(), seed=0)
    assert requests.sample_ids == result.sample_ids
    assert requests.target.tolist() == result.target.tolist()
    assert requests.choice_counts.tolist() == [len(sample.choices) for sample in result.samples]
    choices = [result.samples[s].choices[c] for s, c in zip(requests.sample_of, requests.choice_of, strict=True)]
    assert requests.choice_characters.tolist() == [len(choice) for choice in choices]


def test_spaces_at_the_end_of_a_prompt_belong_to_the_continuation(folder: Path) -> None:
    tokenizer = tokenizer_of_bytes()
    requests = build_requests("colours", settings_for(folder, "colours"), tokenizer, seed=0)
    third = int((requests.sample_of == 2).nonzero()[0])
    (result,) = evaluate(tiny_model(), tokenizer, settings_for(folder, "colours", limit=3), seed=0)
    assert text(tokenizer, requests.context_ids[third]) == "which colour is number 2?"
    # two spaces of the prompt and one delimiter
    assert text(tokenizer, requests.continuation_ids[third]) == "   " + result.samples[2].choices[0]


def test_contexts_that_are_too_long_lose_their_beginning_as_in_lm_eval(folder: Path) -> None:
    model, tokenizer, settings = tiny_model(positions=20), tokenizer_of_bytes(), settings_for(folder, "colours")
    (result,) = evaluate(model, tokenizer, settings, seed=0)
    requests = build_requests("colours", settings, tokenizer, seed=0, max_length=20)
    lengths = [len(a) + len(b) for a, b in zip(requests.context_ids, requests.continuation_ids, strict=True)]
    assert set(lengths) == {21}  # the last token is not read
    expected = [score for sample in result.samples for score in sample.log_likelihoods]
    assert plain_scores(model, requests) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="the model reads at most 3"):
        build_requests("colours", settings, tokenizer, seed=0, max_length=3)


def test_log_likelihoods_of_a_low_precision_model_are_summed_in_float32(folder: Path) -> None:
    model, settings = tiny_model().bfloat16(), settings_for(folder, "colours")
    (result,) = evaluate(model, tokenizer_of_bytes(), settings, seed=0)
    scores = torch.tensor([score for sample in result.samples for score in sample.log_likelihoods])
    assert (scores != scores.bfloat16().float()).float().mean() > 0.9


def test_an_answer_may_be_given_as_the_text_of_the_choice(folder: Path) -> None:
    write_task(folder, "by-text", doc_to_target="{{choices[answer]}}")
    settings = settings_for(folder, "colours", "by-text")
    by_number, by_text = evaluate(tiny_model(), tokenizer_of_bytes(), settings, seed=0)
    assert by_text.target.tolist() == by_number.target.tolist()
    assert by_text.accuracy == by_number.accuracy


def test_sample_ids_do_not_depend_on_the_model_but_on_the_prompt(folder: Path) -> None:
    settings = settings_for(folder, "colours", limit=3)
    model = tiny_model()
    (first,) = evaluate(model, tokenizer_of_bytes(), settings, seed=0)
    (second,) = evaluate(tiny_model(64), tokenizer_of_bytes(bos=True), settings, seed=1)
    write_task(folder, "colours", doc_to_text="Q: {{question}}")
    (other,) = evaluate(model, tokenizer_of_bytes(), settings, seed=0)
    assert first.sample_ids == second.sample_ids
    assert not set(first.sample_ids) & set(other.sample_ids)


def test_limit_keeps_the_first_items_in_results_and_requests(folder: Path) -> None:
    whole = build_requests("colours", settings_for(folder, "colours"), tokenizer_of_bytes(), seed=0)
    settings = settings_for(folder, "colours", limit=5)
    (result,) = evaluate(tiny_model(), tokenizer_of_bytes(), settings, seed=0)
    requests = build_requests("colours", settings, tokenizer_of_bytes(), seed=0)
    assert result.sample_ids == requests.sample_ids == whole.sample_ids[:5]


def test_a_limit_of_one_task_goes_before_that_of_all(folder: Path) -> None:
    common = settings_for(folder, "colours", limit=5)
    own = common.model_copy(update={"tasks": (TaskSettings(name="colours", limit=2),)})
    (result,) = evaluate(tiny_model(), tokenizer_of_bytes(), own, seed=0)
    assert result.sample_ids == build_requests("colours", own, tokenizer_of_bytes(), seed=0).sample_ids
    assert len(result.sample_ids) == 2 and own.limit_of("another") == 5


def test_worked_examples_come_before_the_question_and_follow_the_seed(folder: Path) -> None:
    write_task(folder, "shots", fewshot_split="test")
    settings = settings_for(folder, "shots", fewshot=2, limit=4)
    prompts = []
    for seed in (0, 0, 1):
        (result,) = evaluate(tiny_model(512), tokenizer_of_bytes(), settings, seed=seed)
        prompts.append([sample.prompt for sample in result.samples])
    assert all(prompt.count("which colour") == 3 for prompt in prompts[0])
    assert prompts[0] == prompts[1] != prompts[2]


def test_results_come_in_the_order_of_the_settings_and_a_task_may_go_by_its_file_name(folder: Path) -> None:
    write_task(folder, "file-name", task="inner-name")
    results = evaluate(tiny_model(), tokenizer_of_bytes(), settings_for(folder, "file-name", "colours"), seed=0)
    assert [result.task for result in results] == ["file-name", "colours"]
    assert results[0].prediction.tolist() == results[1].prediction.tolist()


def test_data_may_lie_beside_the_task_file_or_in_the_task_folder_and_match_a_pattern(folder: Path) -> None:
    nested = folder / "nested"
    nested.mkdir()
    (nested / "near.jsonl").write_text((folder / "colours.jsonl").read_text().splitlines()[0])
    write_task(nested, "beside", dataset_kwargs={"data_files": {"test": "near.jsonl"}})
    write_task(nested, "above", dataset_kwargs={"data_files": {"test": ["colours.jsonl"]}})
    write_task(nested, "pattern", dataset_kwargs={"data_files": {"test": "ne*.jsonl"}})
    write_task(nested, "absolute", dataset_kwargs={"data_files": {"test": str(folder / "colours.jsonl")}})
    names = ("beside", "above", "pattern", "absolute")
    sizes = [len(build_requests(n, settings_for(folder, n), tokenizer_of_bytes(), seed=0).sample_ids) for n in names]
    assert sizes == [1, 24, 1, 24]


def test_changed_data_are_read_again(folder: Path) -> None:
    settings = settings_for(folder, "colours")
    before = build_requests("colours", settings, tokenizer_of_bytes(), seed=0)
    (folder / "colours.jsonl").write_text((folder / "colours.jsonl").read_text().splitlines()[0])
    after = build_requests("colours", settings, tokenizer_of_bytes(), seed=0)
    assert (len(before.sample_ids), len(after.sample_ids)) == (24, 1)


def test_generated_answers_are_recorded_with_exact_match(folder: Path) -> None:
    changes = {
        "output_type": "generate_until",
        "doc_to_choice": None,
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    write_task(folder, "written", **changes)
    settings = settings_for(folder, "written", limit=6)
    (result,) = evaluate(tiny_model(), tokenizer_of_bytes(), settings, seed=0)
    (again,) = evaluate(tiny_model(), tokenizer_of_bytes(), settings, seed=0)
    assert result == again
    assert (result.kind, result.metric) == ("generate_until", "exact_match")
    assert [sample.correct for sample in result.samples] == [
        sample.prediction_text == sample.target_text for sample in result.samples
    ]
    assert result.prediction.tolist() == [-1] * 6
    assert result.samples[0].target_text in CHOICES
    with pytest.raises(ValueError, match="multiple-choice task"):
        build_requests("written", settings, tokenizer_of_bytes(), seed=0)
    with pytest.raises(ValueError, match="maximum sequence length"):
        evaluate(tiny_model(positions=4), tokenizer_of_bytes(), settings, seed=0)


def test_choices_may_share_a_continuation_and_differ_in_context(folder: Path) -> None:
    """The form of Winogrande: the right answer's number is doc_to_text, the contexts are doc_to_choice."""
    rows = [{"options": ["the cat", "the big dog"], "rest": "sleeps", "answer": number % 2} for number in range(4)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_task(
        folder,
        "pairs",
        dataset_kwargs={"data_files": {"test": "pairs.jsonl"}},
        doc_to_text="answer",
        doc_to_choice="options",
        doc_to_target="rest",
    )
    settings = settings_for(folder, "pairs")
    tokenizer = tokenizer_of_bytes()
    requests = build_requests("pairs", settings, tokenizer, seed=0)
    assert [text(tokenizer, ids) for ids in requests.context_ids[:2]] == ["the cat", "the big dog"]
    assert {text(tokenizer, ids) for ids in requests.continuation_ids} == {" sleeps"}
    assert requests.target.tolist() == [0, 1, 0, 1]
    (result,) = evaluate(tiny_model(), tokenizer, settings, seed=0)
    assert result.accuracy == 0.5


def test_nothing_asks_the_network_for_local_tasks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    evaluate(tiny_model(), tokenizer_of_bytes(), settings_for(folder, "colours"), seed=0)
    build_requests("colours", settings_for(folder, "colours"), tokenizer_of_bytes(), seed=0)


def test_nothing_is_printed_and_nothing_global_is_changed(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, tokenizer, settings = tiny_model(), tokenizer_of_bytes(), settings_for(folder, "colours")
    state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist()
    evaluate(model, tokenizer, settings, seed=0)
    build_requests("colours", settings, tokenizer, seed=0)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == state[1]
    assert tokenizer.pad_token is None
    assert lm_eval.api.task.tqdm is tqdm.tqdm
    assert not datasets.are_progress_bars_disabled()
    assert capfd.readouterr() == ("", "")


def test_a_model_that_gives_no_numbers_is_refused(folder: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="are not numbers; check its weights"):
        evaluate(model, tokenizer_of_bytes(), settings_for(folder, "colours"), seed=0)


def refusal(folder: Path, name: str) -> str:
    """The one line that `evaluate` and `build_requests` refuse the task with."""
    lines = set()
    with pytest.raises(ValueError) as error:
        evaluate(tiny_model(), tokenizer_of_bytes(), settings_for(folder, name), seed=0)
    lines.add(str(error.value))
    with pytest.raises(ValueError) as error:
        build_requests(name, settings_for(folder, name), tokenizer_of_bytes(), seed=0)
    lines.add(str(error.value))
    (line,) = lines
    assert "\n" not in line
    return line


def test_an_unknown_task_is_refused_with_the_nearest_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_own_tasks", lambda: TaskManager(include_defaults=False))
    assert refusal(folder, "colors") == "no task is called 'colors'; nearest: colours"
    assert refusal(folder, "zzz") == "no task is called 'zzz'; nearest: colours"


@pytest.mark.slow
def test_a_misspelt_task_of_lm_eval_is_refused_with_the_nearest_names(folder: Path) -> None:
    assert "arc_challenge" in refusal(folder, "arc_chalenge")


def test_a_missing_task_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere", "colours").startswith("there is no task folder ")


def test_a_missing_data_file_is_refused(folder: Path) -> None:
    (folder / "colours.jsonl").unlink()
    assert refusal(folder, "colours").startswith("there is no data file colours.jsonl in ")


def test_a_task_file_that_is_no_task_is_refused(folder: Path) -> None:
    (folder / "broken.yaml").write_text("task: [unclosed")
    assert "is no task file" in refusal(folder, "broken")


def test_malformed_data_are_refused(folder: Path) -> None:
    (folder / "colours.jsonl").write_text('{"question": "is this a line?", \n')
    assert "its data cannot be read" in refusal(folder, "colours")


def test_an_empty_data_file_is_refused(folder: Path) -> None:
    (folder / "colours.jsonl").write_text("")
    assert "colours.jsonl is empty" in refusal(folder, "colours")


def test_a_column_that_the_data_lack_is_refused_by_name(folder: Path) -> None:
    write_task(folder, "colours", doc_to_text="{{riddle}}")
    assert "'riddle' is undefined" in refusal(folder, "colours")


def test_a_split_that_the_data_lack_is_refused_by_name(folder: Path) -> None:
    write_task(folder, "colours", test_split="validation")
    assert "validation" in refusal(folder, "colours")


def test_an_answer_that_is_none_of_the_choices_is_refused(folder: Path) -> None:
    good, bad = ({"question": "?", "choices": ["a", "b"], "answer": answer} for answer in (1, 2))
    (folder / "colours.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(bad))
    assert refusal(folder, "colours").startswith("colours: item 1 has the right answer 2 and the choices ")
    (folder / "colours.jsonl").write_text(json.dumps(bad))
    assert "an answer's number is beyond its choices" in refusal(folder, "colours")


def test_groups_and_tasks_of_other_kinds_are_refused(folder: Path) -> None:
    (folder / "family.yaml").write_text(json.dumps({"group": "family", "task": ["colours"]}))
    assert "is a group of tasks" in refusal(folder, "family")
    write_task(folder, "flow", output_type="loglikelihood_rolling", doc_to_choice=None, doc_to_target="{{question}}")
    assert "neither a multiple-choice task nor" in refusal(folder, "flow")
