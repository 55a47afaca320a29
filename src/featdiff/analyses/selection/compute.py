"""Features that differ where the tuned model is right and the base wrong (Sec. 3.2)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from featdiff.analyses.selection.result import ScoreSelection, SelectionResult, SharedFeatures, TasksSelection
from featdiff.analyses.stability.result import FeatureStability, ScoreOverSeeds
from featdiff.attribution.stability import ENOUGH, mean_and_deviation
from featdiff.config.intervention import REDRAWN, SelectionSettings
from featdiff.config.study import BASE
from featdiff.crosscoder import Crosscoder
from featdiff.evaluation.outcomes import Outcomes
from featdiff.selection.agreement import (
    ContrastScores,
    contrast_scores,
    redrawn_features,
    selected_elsewhere,
    without_each_task,
)
from featdiff.selection.from_residuals import (
    Residuals,
    Rule,
    Score,
    TaskDifferences,
    choose,
    item_differences,
    mean_rate,
    task_differences,
)
from featdiff.selection.overlap import overlap_null
from featdiff.selection.scores import Selection, task_score

RULES: tuple[Rule, ...] = ("rel_max", "top_n", "t_bh")
SCORES: tuple[Score, ...] = ("swap", "branch")
Contrast = Literal["both right", "both wrong", "mirror"]
CONTRASTS: dict[Contrast, Callable[[Outcomes, str], Int[Tensor, " items"]]] = {
    "both right": lambda outcomes, tuned: outcomes.both_right(BASE, tuned),
    "both wrong": lambda outcomes, tuned: outcomes.both_wrong(BASE, tuned),
    "mirror": lambda outcomes, tuned: outcomes.mirror(BASE, tuned),
}
"""Items that are not critical, by what they are called."""


@dataclass(frozen=True, eq=False)
class TaskItems:
    """One task: who was right on its items, and the residual streams at the ends of their prompts."""

    task: str
    outcomes: Outcomes
    residuals: Residuals


def write_selection(
    crosscoder: Crosscoder,
    alive: Bool[Tensor, " features"],
    items: Iterable[TaskItems],
    settings: SelectionSettings,
    place: Path,
    *,
    lineup: str,
    seed: int,
) -> SelectionResult:
    """Select features on the critical items of every task, and again where the models do not differ.

    Args:
        crosscoder: supplies the features.
        alive: features that may be selected.
        items: the tasks, read one after another.
        settings: model, score, rules and thresholds.
        place: folder; `scores.safetensors` gets the mean score of each task and score, `controls.safetensors` what
            redrawn items that are not critical select (see `redrawn_features`), which serves as controls.
        lineup: name of the crosscoder.
        seed: of the split into items to select on and held-out ones, and of all draws.
    """
    tuned, found, mirror = settings.model, list[TaskDifferences](), dict[str, int]()
    contrasts: dict[Contrast, dict[str, ContrastScores]] = {name: {} for name in CONTRASTS}
    for one in items:
        critical = one.outcomes.critical(BASE, tuned)
        mirror[one.task] = len(one.outcomes.mirror(BASE, tuned))
        held_out = settings.held_out
        found.append(
            task_differences(
                crosscoder, one.residuals, critical, one.task, tuned=tuned, base=BASE, held_out=held_out, seed=seed
            )
        )
        for name, items_of in CONTRASTS.items():
            there = one.residuals[items_of(one.outcomes, tuned)]
            differences = item_differences(crosscoder, there, tuned, BASE, score=settings.score)
            contrasts[name][one.task] = contrast_scores(differences, len(critical), settings.redraws, seed)
    scores = {f"{one.task}.{score}": task_score(one.by(score)) for one in found for score in SCORES}
    save_file({name: tensor.contiguous() for name, tensor in scores.items()}, place / "scores.safetensors")
    redrawn = {
        kind: redrawn_features(list(by_task.values()), alive, settings.threshold)
        for kind, by_task in contrasts.items()
        if kind in REDRAWN
    }
    save_file(redrawn, place / "controls.safetensors")
    whole, rate = choose(found, alive, settings), mean_rate(found)
    by: dict[Score, ScoreSelection] = {score: _by_score(found, alive, settings, score) for score in SCORES}
    return SelectionResult(
        **vars(by[settings.score]),
        score=settings.score,
        lineup=lineup,
        model=tuned,
        threshold=settings.threshold,
        critical={one.task: one.critical for one in found},
        mirror=mirror,
        by=by,
        null=overlap_null(whole.selected, rate, alive, settings.null_draws, seed),
        null_draws=settings.null_draws,
        without_task=without_each_task(whole, settings.at_least),
        elsewhere={
            name: selected_elsewhere(whole, by_task, rate, alive, settings, seed) for name, by_task in contrasts.items()
        },
    )


def stability_of_features(place: Path, features: Sequence[int], models: Sequence[str], model: str) -> FeatureStability:
    """Some features of a lineup under its other seeds.

    Args:
        place: the tensors that the stage `stability` wrote of the lineup.
        features: indices in the first seed's crosscoder.
        models: those of the crosscoder.
        model: the one whose scores are averaged over seeds.
    """
    tensors, which = load_file(place), list(features)
    mean, deviation = mean_and_deviation(tensors["mas"][:, which, list(models).index(model)])
    return FeatureStability(
        other_seeds=len(tensors["cosine"]),
        needed=ENOUGH,
        matched_in=tuple(tensors["matched_in"][which].tolist()),
        score=ScoreOverSeeds(model, _numbers(mean), _numbers(deviation)),
    )


def _by_score(
    found: Sequence[TaskDifferences], alive: Bool[Tensor, " features"], settings: SelectionSettings, score: Score
) -> ScoreSelection:
    by_rule = {rule: choose(found, alive, settings, score=score, rule=rule) for rule in RULES}
    return ScoreSelection(
        **vars(_with_overlaps(by_rule[settings.rule])),
        without_held_out=_with_overlaps(choose(found, alive, settings, score=score, without_held_out=True)),
        by_rule={
            rule: SharedFeatures(one.per_task, tuple(one.chosen.tolist()), one.rule) for rule, one in by_rule.items()
        },
    )


def _with_overlaps(selection: Selection) -> TasksSelection:
    return TasksSelection(
        per_task=selection.per_task,
        chosen=tuple(selection.chosen.tolist()),
        rule=selection.rule,
        tasks=selection.tasks,
        overlap=tuple(map(tuple, selection.overlap.tolist())),
        overlap_coefficient=tuple(map(tuple, selection.overlap_coefficient.tolist())),
        in_at_least=selection.in_at_least,
    )


def _numbers(values: Float[Tensor, " n"]) -> tuple[float | None, ...]:
    return tuple(None if value != value else float(value) for value in values.tolist())
