"""`select`: features that differ where the tuned model is right and the base wrong (Sec. 3.2)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor

from featdiff.analyses.selection.agreement import CONTRASTS, Others, agreement_record, contrast
from featdiff.analyses.stability.compute import stability_of_features
from featdiff.config.intervention import SelectionSettings
from featdiff.config.study import BASE
from featdiff.crosscoder import Crosscoder
from featdiff.files import Record, as_json, write_json
from featdiff.run.evaluation import (
    Residuals,
    held_out_parts,
    outcomes_of,
    prompt_ends,
    selecting_tasks,
)
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of, crosscoder_and_lineup
from featdiff.selection.rules import above_share, by_paired_t, top
from featdiff.selection.scores import (
    HeldOutSplit,
    Selection,
    branch_score,
    combine_tasks,
    swap_score,
    task_score,
)

ItemScore = Float[Tensor, "items features"]
RULES = ("rel_max", "top_n", "t_bh")


@dataclass(frozen=True)
class TaskScores:
    """Per critical item of one task, how much more of each feature the tuned model has; by both readings."""

    task: str
    critical: int
    parts: HeldOutSplit
    branch: ItemScore
    swap: ItemScore
    rate: Float[Tensor, " features"]
    """Share of the task's prompts at whose end each feature fires."""

    def by(self, score: str) -> ItemScore:
        """The differences by one reading, "branch" or "swap"."""
        return self.swap if score == "swap" else self.branch


def select(plan: Plan, folder: Path) -> None:
    """Write `selection.json` (what was chosen, by both scores), `scores.safetensors` and `controls.safetensors`.

    Features are chosen twice: on all critical items, as the paper does, and on those that are not held out. Then again
    where the models do not differ; the draws of these choices serve as controls.
    """
    crosscoder, lineup = crosscoder_and_lineup(plan)
    alive = attribution_of(plan, plan.joint).alive
    tasks = selecting_tasks(plan)
    if not tasks:
        raise ValueError(
            "no multiple-choice task takes part in the selection; give evaluation.tasks one whose role is not unseen"
        )
    found, others = list[TaskScores](), dict[str, dict[str, Others]]()
    for task in tasks:
        residuals = prompt_ends(plan, lineup, task)
        found.append(task_scores(plan, crosscoder, residuals, task))
        others[task] = _others(plan, crosscoder, residuals, task)
    chosen = {kind: _selections(plan, found, alive, kind) for kind in ("swap", "branch")}
    main = plan.study.selection.score
    record = chosen[main] | {"score": main, "lineup": plan.joint, "model": plan.study.selection.model}
    record |= {"critical": {scores.task: scores.critical for scores in found}, "by": chosen}
    whole, _ = selections(plan, found, alive)
    agreement, draws = agreement_record(plan, whole, others, mean_rate(found), alive)
    record |= agreement
    if len(plan.seeds[plan.joint]) > 1:
        place, models = plan.run.path("stability", plan.joint), plan.crosscoders[plan.joint].models
        chosen_features, model = chosen[main]["chosen"], plan.study.selection.model
        record["stability"] = as_json(stability_of_features(place, chosen_features, models, model))
    write_json(folder / "selection.json", record)
    tensors = {f"{scores.task}.{kind}": task_score(scores.by(kind)) for scores in found for kind in chosen}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "scores.safetensors")
    save_file(draws, folder / "controls.safetensors")


def task_scores(plan: Plan, crosscoder: Crosscoder, residuals: Residuals, task: str) -> TaskScores:
    """The scores of one task's critical items, from what the crosscoder's models hold at the ends of its prompts."""
    tuned = plan.study.selection.model
    critical = outcomes_of(plan, task).critical(BASE, tuned)
    at_critical = residuals[critical]
    return TaskScores(
        task=task,
        critical=len(critical),
        parts=_positions(held_out_parts(plan, task), critical),
        branch=_differences(crosscoder, at_critical, tuned, "branch"),
        swap=_differences(crosscoder, at_critical, tuned, "swap"),
        rate=_rate(crosscoder, residuals),
    )


def selections(plan: Plan, found: list[TaskScores], alive: Bool[Tensor, " features"]) -> tuple[Selection, Selection]:
    """What the tasks agree on by the study's rule and score: from all critical items, and without those held out."""
    settings = plan.study.selection
    items = [scores.by(settings.score) for scores in found]
    half = [one[scores.parts.choosing] for one, scores in zip(items, found, strict=True)]
    whole = _agreed(items, found, alive, settings, settings.rule)
    return whole, _agreed(half, found, alive, settings, settings.rule)


def mean_rate(found: list[TaskScores]) -> Float[Tensor, " features"]:
    """Share of a prompt's ends at which each feature fires, the mean over tasks."""
    return torch.stack([scores.rate for scores in found]).mean(dim=0)


def retained(
    differences: ItemScore, alive: Bool[Tensor, " features"], settings: SelectionSettings, rule: str
) -> Bool[Tensor, " features"]:
    """Features that one task retains by a rule, from the differences between the models on its items."""
    match rule:
        case "top_n":
            return top(task_score(differences), alive, settings.top)
        case "t_bh":
            return by_paired_t(differences, alive, settings.fdr)
        case _:
            return above_share(task_score(differences), alive, settings.threshold)


@torch.no_grad()
def _differences(crosscoder: Crosscoder, residuals: Residuals, tuned: str, score: str) -> ItemScore:
    residuals = residuals.to(crosscoder.W_dec.device)
    if score == "swap":
        return swap_score(crosscoder, residuals, tuned, BASE).cpu()
    of, base = crosscoder.index(tuned), crosscoder.index(BASE)
    return branch_score(crosscoder, residuals[:, of], residuals[:, base], tuned, BASE).cpu()


def _others(plan: Plan, crosscoder: Crosscoder, residuals: Residuals, task: str) -> dict[str, Others]:
    """The score where the two models do not differ, or differ the other way: of all such items, and of as many, drawn
    again and again, as are critical."""
    outcomes, settings = outcomes_of(plan, task), plan.study.selection
    critical = len(outcomes.critical(BASE, settings.model))

    def other(items: Int[Tensor, " items"]) -> Others:
        score = _differences(crosscoder, residuals[items], settings.model, settings.score)
        return contrast(score, critical, settings.redraws, plan.study.seed)

    return {name: other(items_of(outcomes, settings.model)) for name, items_of in CONTRASTS.items()}


@torch.no_grad()
def _rate(crosscoder: Crosscoder, residuals: Residuals) -> Float[Tensor, " features"]:
    fired = torch.zeros(crosscoder.features)
    for chunk in residuals.to(crosscoder.W_dec.device).split(1024):
        fired += (crosscoder.encode(chunk) > 0).sum(dim=0).cpu()
    return fired / max(len(residuals), 1)


def _positions(parts: HeldOutSplit, critical: Tensor) -> HeldOutSplit:
    """The parts as positions among the critical items."""
    return HeldOutSplit(torch.searchsorted(critical, parts.choosing), torch.searchsorted(critical, parts.held_out))


def _agreed(
    items: list[Float[Tensor, "_ features"]],
    found: list[TaskScores],
    alive: Bool[Tensor, " features"],
    settings: SelectionSettings,
    rule: str,
) -> Selection:
    kept = torch.stack([retained(one, alive, settings, rule) for one in items])
    mean = torch.stack([task_score(one) for one in items])
    return combine_tasks(kept, mean, [scores.task for scores in found], settings.at_least)


def _selections(plan: Plan, found: list[TaskScores], alive: Bool[Tensor, " features"], score: str) -> Record:
    settings = plan.study.selection
    whole = [scores.by(score) for scores in found]
    half = [scores.by(score)[scores.parts.choosing] for scores in found]
    by_rule = {rule: _agreed(whole, found, alive, settings, rule) for rule in RULES}
    without_held_out = _agreed(half, found, alive, settings, settings.rule)
    return {
        **by_rule[settings.rule].to_json(),
        "without_held_out": without_held_out.to_json(),
        "by_rule": {rule: _short(selection) for rule, selection in by_rule.items()},
    }


def _short(selection: Selection) -> Record:
    return {"per_task": selection.per_task, "chosen": selection.chosen.tolist(), "rule": selection.rule}
