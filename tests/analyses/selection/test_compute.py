"""The selection of a run, made again from the scores, the records and the models."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_study import changed
from torch import Tensor
from torch.testing import assert_close

from featdiff.analyses import selection as stage
from featdiff.analyses.selection.compute import CONTRASTS
from featdiff.analyses.selection.result import SelectionResult
from featdiff.crosscoder import Crosscoder
from featdiff.evaluation.results import TaskResult
from featdiff.files import load
from featdiff.models.loading import load_tokenizer
from featdiff.run.evaluation import held_out_parts, outcomes_of
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of
from featdiff.selection.from_residuals import Score

TASKS = ["colours", "animals"]


def selection_of(plan: Plan, folder: str = "selection") -> SelectionResult:
    return load(SelectionResult, plan.run.path(folder, "selection.json"))


def critical(plan: Plan, task: str) -> list[int]:
    """Items that the base gets wrong and rl right."""
    base, rl = (TaskResult.load(plan.run.path("evaluation", m, f"{task}.parquet")) for m in ("base", "rl"))
    return [i for i, (b, r) in enumerate(zip(base.samples, rl.samples, strict=True)) if r.correct and not b.correct]


def final_activations(plan: Plan, task: str) -> Tensor:
    """[items models d_model] at the last prompt token of the critical items, one prompt at a time."""
    lineup, tokenizer = load_lineup(plan, plan.models), load_tokenizer(plan.paths["base"])
    samples = TaskResult.load(plan.run.path("evaluation", "base", f"{task}.parquet")).samples
    prompts = [torch.tensor([tokenizer(samples[i].prompt)["input_ids"]]) for i in critical(plan, task)]
    return torch.stack([lineup.residuals(prompt)[0, -1] for prompt in prompts])


def by_hand(plan: Plan, kind: str) -> tuple[dict[str, int], list[int]]:
    """Features above a fifth of the task's largest score: how many per task, and which in all tasks."""
    scores = load_file(plan.run.path("selection", "scores.safetensors"))
    alive = attribution_of(plan, "joint").alive.tolist()
    kept = []
    for task in TASKS:
        score = scores[f"{task}.{kind}"].tolist()
        largest = max(value for value, lives in zip(score, alive, strict=True) if lives)
        kept.append({k for k, value in enumerate(score) if alive[k] and value > 0.2 * largest})
    return {task: len(one) for task, one in zip(TASKS, kept, strict=True)}, sorted(kept[0] & kept[1])


def test_unseen_tasks_take_no_part(tiny: Plan) -> None:
    selection = selection_of(tiny)
    assert list(selection.tasks) == TASKS and selection.model == "rl" and selection.lineup == "joint"
    assert load_file(tiny.run.path("selection", "scores.safetensors")).keys() == {
        f"{task}.{kind}" for task in TASKS for kind in ("swap", "branch")
    }


@pytest.mark.parametrize("kind", ["swap", "branch"])
def test_what_is_chosen_follows_from_the_scores_by_either_reading(tiny: Plan, kind: Score) -> None:
    found = selection_of(tiny).by[kind]
    per_task, shared = by_hand(tiny, kind)
    assert found.per_task == per_task and min(per_task.values()) > 0
    if shared:
        assert found.rule == "intersection" and list(found.chosen) == shared


def test_the_headline_is_the_choice_by_the_score_of_the_study(own: Plan) -> None:
    selection = selection_of(own)
    assert selection.score == "swap" and selection.chosen == selection.by["swap"].chosen
    own.run.path("new").mkdir()
    stage.run(Plan(changed(own.study, selection__score="branch")), own.run.path("new"))
    other = selection_of(own, "new")
    assert other.score == "branch" and other.chosen == selection.by["branch"].chosen


@pytest.mark.parametrize("task", TASKS)
def test_swap_scores_are_what_the_joint_code_loses_when_the_base_stands_in(tiny: Plan, task: str) -> None:
    crosscoder = Crosscoder.load(tiny.run.path("crosscoders", "joint"))
    residuals = final_activations(tiny, task)
    swapped = residuals.clone()
    swapped[:, 2] = residuals[:, 0] / crosscoder.scale[0] * crosscoder.scale[2]
    with torch.no_grad():
        wanted = (crosscoder.encode(residuals) - crosscoder.encode(swapped)).mean(dim=0)
        branch = crosscoder.encode_branch(residuals[:, 2], "rl") - crosscoder.encode_branch(residuals[:, 0], "base")
    scores = load_file(tiny.run.path("selection", "scores.safetensors"))
    assert_close(scores[f"{task}.swap"], wanted, rtol=1e-3, atol=1e-4)
    assert_close(scores[f"{task}.branch"], branch.mean(dim=0), rtol=1e-3, atol=1e-4)


def test_held_out_items_are_critical_and_features_are_chosen_on_the_others(tiny: Plan) -> None:
    counts = selection_of(tiny).critical
    for task in TASKS:
        parts = held_out_parts(tiny, task)
        choosing, held_out = set(parts.choosing.tolist()), set(parts.held_out.tolist())
        assert sorted(choosing | held_out) == critical(tiny, task) and not choosing & held_out
        assert counts[task] == len(critical(tiny, task)) and len(held_out) == round(0.5 * counts[task])


def test_choosing_without_the_held_out_items_scores_only_the_others(tiny: Plan) -> None:
    """Second road: the scores of the choosing items alone, thresholded by hand."""
    crosscoder, alive = Crosscoder.load(tiny.run.path("crosscoders", "joint")), attribution_of(tiny, "joint").alive
    kept = []
    for task in TASKS:
        place = {item: position for position, item in enumerate(critical(tiny, task))}
        rows = [place[item] for item in held_out_parts(tiny, task).choosing.tolist()]
        residuals = final_activations(tiny, task)[rows]
        swapped = residuals.clone()
        swapped[:, 2] = residuals[:, 0] / crosscoder.scale[0] * crosscoder.scale[2]
        with torch.no_grad():
            score = (crosscoder.encode(residuals) - crosscoder.encode(swapped)).mean(dim=0).where(alive, 0.0)
        kept.append((score > 0.2 * score.max()).sum())
    found = selection_of(tiny).without_held_out
    assert list(found.per_task.values()) == [int(count) for count in kept]


def test_a_study_whose_tasks_are_all_unseen_has_nothing_to_select_on(own: Plan) -> None:
    tasks = [{"name": name, "role": "unseen"} for name in ("colours", "animals", "numbers")]
    with pytest.raises(ValueError, match=r"give evaluation\.tasks one whose role is not unseen"):
        stage.run(Plan(changed(own.study, evaluation__tasks=tasks)), own.run.path("selection"))


def test_each_rule_retains_what_it_says(tiny: Plan) -> None:
    found = selection_of(tiny)
    scores, alive = load_file(tiny.run.path("selection", "scores.safetensors")), attribution_of(tiny, "joint").alive
    assert found.by_rule["rel_max"].chosen == found.chosen
    for task in TASKS:
        positive = int(((scores[f"{task}.swap"] > 0) & alive).sum())
        assert found.by_rule["top_n"].per_task[task] == min(50, positive)
        assert found.by_rule["t_bh"].per_task[task] <= positive


def test_without_a_task_the_other_one_decides_alone(tiny: Plan) -> None:
    found = selection_of(tiny)
    for task, other in (TASKS, TASKS[::-1]):
        assert len(found.without_task[task].chosen) == found.per_task[other]
        assert set(found.chosen) <= set(found.without_task[task].chosen)


def test_overlaps_stand_beside_their_null(tiny: Plan) -> None:
    found = selection_of(tiny)
    null = found.null
    assert found.null_draws == 20
    assert null.jaccard[0][1].found == pytest.approx(found.overlap[0][1])
    assert [one.found for one in null.in_at_least] == list(found.in_at_least)
    votes = null.in_at_least[0].null + null.in_at_least[1].null
    assert votes == pytest.approx(sum(found.per_task.values()))


def test_the_same_pipeline_runs_where_the_models_do_not_differ(tiny: Plan) -> None:
    found = selection_of(tiny).elsewhere
    draws, alive = load_file(tiny.run.path("selection", "controls.safetensors")), attribution_of(tiny, "joint").alive
    for name in ("both right", "both wrong", "mirror"):
        counts = [len(CONTRASTS[name](outcomes_of(tiny, task), "rl")) for task in TASKS]
        assert found[name].items == sum(counts) and 0 < found[name].shared.p <= 1
    assert set(draws) == {"both right", "both wrong"}
    for rows in draws.values():
        assert rows.shape == (6, len(alive)) and alive[rows[:, :5]].all()
        assert all(len(set(row)) == len(row) for row in rows.tolist())
