"""Our model class beside stock lm-eval, item by item, on the questions of the study of stories260K.

    FEATDIFF_STOCK_ITEMS=500 pytest tests/evaluation/test_stock.py -s

asks as many items as the study does, and prints how many choices were compared.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval")

import datasets.config
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from stock_tasks import CHOICES, DATA, GENERATED, MODEL, shared, stock_config

from featdiff.config.study import EvaluationSettings, TaskSettings
from featdiff.crosscoder import BatchTopK, Crosscoder
from featdiff.evaluation.harness import evaluate
from featdiff.evaluation.results import TaskResult
from featdiff.intervention.edited_model import EditedModel
from featdiff.intervention.edits import Edit
from featdiff.models.loading import Lineup, load_model, load_tokenizer

ITEMS = int(os.environ.get("FEATDIFF_STOCK_ITEMS", "8"))
READABLE = {"piqa": 314}
"""The next item has a choice of 625 tokens; the model reads 512, and lm-eval then refuses the whole task."""
BATCH = 64
NOTHING = Edit(torch.empty(0, dtype=torch.long), 3.0)
"""Goes all the way through the tap, and changes nothing there."""

pytestmark = [pytest.mark.slow, shared]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@cache
def unedited(*edits: Edit) -> EditedModel:
    """The model as the second of a lineup, under edits that change nothing, or none."""
    lineup = Lineup.load({"base": str(MODEL), "rl": str(MODEL)}, layer=2)
    crosscoder = Crosscoder(lineup.names, lineup.d_model, features=32, sparsity=BatchTopK(k=4), seed=0)
    return EditedModel(load_model(str(MODEL)), lineup, crosscoder, "rl", edits)


def ours(task: TaskSettings, *edits: Edit) -> TaskResult:
    settings = EvaluationSettings(tasks=(task,), data_folder=str(DATA), batch_size=BATCH)
    (result,) = evaluate(unedited(*edits), load_tokenizer(str(MODEL)), settings, seed=0)
    return result


def stock(task: str, folder: Path, limit: int, **options: Any) -> list[dict[str, Any]]:
    """Lm-eval's own records, in the order of the items."""
    given = {"pretrained": load_model(str(MODEL)), "tokenizer": load_tokenizer(str(MODEL)), "batch_size": BATCH}
    report = simple_evaluate(
        HFLM.create_from_arg_obj(given),
        tasks=[stock_config(task, folder)],
        task_manager=TaskManager(include_defaults=False),
        limit=limit,
        bootstrap_iters=0,
        **options,
    )
    assert report is not None and "samples" in report
    return [dict(logged) for logged in report["samples"][task]]


@pytest.mark.parametrize("task", CHOICES)
def test_items_prompts_scores_and_verdicts_are_those_of_stock_lm_eval(task: str, tmp_path: Path) -> None:
    limit = min(ITEMS, READABLE.get(task, ITEMS), CHOICES[task][2])
    wanted = stock(task, tmp_path, limit)
    results = [ours(TaskSettings(name=task, limit=limit), *edits) for edits in ((), (NOTHING,))]
    for result in results:
        assert len(result.samples) == len(wanted) == limit
        for mine, theirs in zip(result.samples, wanted, strict=True):
            asked = [tuple(one[:2]) for one in theirs["arguments"]][: len(mine.choices)]
            assert mine.prompt == asked[0][0]
            assert list(mine.log_likelihoods) == [answer[0] for answer in theirs["filtered_resps"]][: len(asked)]
            assert mine.correct == bool(theirs["acc"])
            assert "acc_norm" not in theirs or (mine.prediction_acc_norm == mine.target) == bool(theirs["acc_norm"])
        assert result.accuracy == sum(one["acc"] for one in wanted) / limit
    choices = sum(len(sample.choices) for sample in results[0].samples)
    print(f"\n{task}: {limit} items, {choices} choices, accuracy {100 * results[0].accuracy:.1f} %: equal to the bit")


@pytest.mark.parametrize("task", GENERATED)
def test_prompts_and_greedy_answers_are_those_of_stock_lm_eval(task: str, tmp_path: Path) -> None:
    limit, length = min(ITEMS, GENERATED[task][2]), 12
    wanted = stock(task, tmp_path, limit, gen_kwargs={"max_gen_toks": length})
    for edits in ((), (NOTHING,)):
        result = ours(TaskSettings(name=task, limit=limit, max_new_tokens=length), *edits)
        assert len(result.samples) == len(wanted) == limit
        for mine, theirs in zip(result.samples, wanted, strict=True):
            assert (mine.prompt, mine.answers) == (next(iter(theirs["arguments"]))[0], tuple(theirs["resps"][0]))
            assert mine.target_text == str(theirs["target"])
    print(f"\n{task}: {limit} items: the same prompts and greedy answers")
