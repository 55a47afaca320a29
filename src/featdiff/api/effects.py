"""Features that may control generalization, and what models do when these are edited."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from featdiff.api.evaluation import Items
from featdiff.api.settings import settings_of
from featdiff.attribution.scores import Attribution
from featdiff.config.intervention import REDRAWN, InterventionSettings, SelectionSettings
from featdiff.crosscoder.model import Crosscoder
from featdiff.evaluation.batches import Positions, final_prompt_activations
from featdiff.intervention.edit_values import EditValue
from featdiff.intervention.edited_model import EditedModel
from featdiff.intervention.edits import CodeReading, Edit
from featdiff.intervention.effects import Effect, ItemSets
from featdiff.intervention.experiment import Experiment, PlannedEdit, sampled
from featdiff.intervention.pooled_effects import PooledEffect, pooled_effect, task_change
from featdiff.intervention.scoring import ErrorTerm
from featdiff.models.loading import Lineup, LineupModel, PreTrainedModel
from featdiff.models.partial_model import UpperModel
from featdiff.presentation.picture import Axes
from featdiff.presentation.words import edited as described
from featdiff.presentation.words import plural
from featdiff.selection.from_residuals import select as select_from_residuals
from featdiff.selection.scores import Selection
from featdiff.stats import Direction, Verdict

Features = Selection | Sequence[int] | Int[Tensor, " _"]
Values = Mapping[int, float]
"""By feature, what it is set to."""
Amplified = tuple[Features, float]
"""Features, and the value that all of them are set to."""


def select(crosscoder: Crosscoder, models: Lineup, critical: Items, *, seed: int = 0, **settings: object) -> Selection:
    """Select the features that differ between the models at the end of the prompts of critical items (Sec. 3.2).

    Arguments:
        crosscoder: supplies the features; of those, the ones that are alive (`Attribution.of`) can be selected.
        models: by `load_models`; holds the crosscoder's models.
        critical: by `Evaluation.critical`; all its tasks take part (`critical.of("arc_challenge")`: that one alone).
        seed: draws the half of the critical items that is held out; on these `intervene` tests.
        settings: those of `SelectionSettings`: score, rule, threshold, top, fdr, at_least, held_out.

    Returns a `Selection`, with `chosen` [n], ascending, `score` and `selected` [tasks features] and `overlap` [tasks
    tasks]. `len(selection)` features are chosen, `selection[0]` is the first. It may be empty; `rule` says why.

    Raises ValueError for a setting that does not exist, and for models that the crosscoder or the lineup lacks.

    >>> chosen = select(crosscoder, models, critical, threshold=0.3)
    >>> chosen.per_task
    """
    wanted = settings_of(SelectionSettings, **{"model": critical.tuned, **settings})
    lineup = models.of(crosscoder.models)
    return select_from_residuals(
        crosscoder,
        {task: final_prompt_activations(critical[task].requests, lineup) for task in critical},
        {task: critical[task].indices for task in critical},
        Attribution.of(crosscoder).alive.cpu(),
        wanted,
        tuned=critical.tuned,
        base=critical.base,
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class Intervention:
    """Effects of one edit of one model on several tasks, and what they say together."""

    effects: tuple[Effect, ...]
    pooled: PooledEffect
    """The mean over tasks, on the held-out critical items."""

    @property
    def verdict(self) -> Verdict:
        """Of all tasks together: supported, not distinguishable from random features, underpowered, or opposite."""
        return self.pooled.verdict

    def __iter__(self) -> Iterator[Effect]:
        """The effects, task by task."""
        return iter(self.effects)

    def __getitem__(self, task: str) -> Effect:
        """The effect on one task."""
        found = {effect.task: effect for effect in self.effects}
        if task not in found:
            raise ValueError(f"effects were measured on {', '.join(found)}, not on {task}")
        return found[task]

    def plot(self) -> Axes:
        """Draw the change of accuracy on held-out items, task by task, beside that by each control draw."""
        from featdiff.analyses.intervention.figures import effect_plot
        from featdiff.presentation.style import on_screen

        first = self.effects[0]
        title = f"{first.model}: {plural(first.features, 'feature')} {described(first.edit)}"
        with on_screen():
            return effect_plot([effect.full_record() for effect in self.effects], title).axes[0]


def intervene(
    models: Lineup,
    crosscoder: Crosscoder,
    model: str,
    *,
    zero: Features | None = None,
    set: Values | None = None,
    amplify: Amplified | None = None,
    items: Items,
    expected: Direction | None = None,
    controls: int = 100,
    seed: int = 0,
    **settings: object,
) -> Intervention:
    """Edit features of one model, and compare its answers with those under edits of random features (Sec. 7.1, B.4).

    Arguments:
        models: by `load_models`; holds the crosscoder's models. `model` is loaded whole.
        crosscoder: whose features are edited.
        model: name of the edited model.
        zero: features to set to 0: a `Selection`, or their numbers.
        set: the value of each feature; one and the same, since controls are set to it too.
        amplify: features, and the value to set them to, in the gauge of unit summed decoder norm.
        items: critical items, by `Evaluation.critical`. The effect is tested on those that had no part in the
            `Selection`. Features that are given as numbers count as chosen elsewhere: then all are held out.
        expected: "decrease" or "increase", what the edit should do to accuracy; None: zeroing lowers it, else raised.
        controls: draws of each kind of control: features matched by activity, uniform ones, random directions, and the
            mean difference between the models.
        seed: of the controls and of the bootstrap.
        settings: those of `InterventionSettings`: positions, reading, error, draws, items, bootstrap, confidence,
            batch_size.

    Raises ValueError unless exactly one of `zero`, `set` and `amplify` is given, for no or unknown features, for a
    `Selection` on other items, and for settings that do not exist.

    >>> effect = intervene(models, crosscoder, "rl", zero=chosen, items=critical)
    >>> effect.verdict, effect["arc_challenge"].headline.change
    >>> intervene(models, crosscoder, "base", amplify=(chosen, 3.0), items=critical).plot()
    """
    given, planned = _planned(model, items, zero, set, amplify, expected)
    chosen = _known(given, crosscoder)
    drawn = {"draws": dict.fromkeys(REDRAWN, 0), **settings, "controls": controls}
    experiment = Experiment(
        crosscoder,
        models.of(crosscoder.models),
        UpperModel(models[model].whole(), models.layers),
        Attribution.of(crosscoder).alive.cpu(),
        model,
        planned.value.source,
        settings_of(InterventionSettings, **drawn),
        items.metric,
        seed,
    )
    selection = given if isinstance(given, Selection) else None
    effects = tuple(_effect(experiment, planned, items, task, chosen, selection) for task in items)
    return Intervention(effects, _pooled(effects, experiment.settings, seed))


@contextmanager
def edited(
    model: LineupModel,
    crosscoder: Crosscoder,
    *,
    zero: Features | None = None,
    set: Values | None = None,
    amplify: Amplified | None = None,
    positions: Positions = "all",
    prompt: int | None = None,
    reading: CodeReading = "joint",
    error: ErrorTerm = "keep",
) -> Generator[PreTrainedModel, None, None]:
    """Edit features of one model while it runs: `a' = a + scale_m sum_k (v_k - f_k) W_dec[k, m]` at the hook point.

    Arguments:
        model: `models["rl"]`; it is loaded whole.
        crosscoder: whose features are edited.
        zero, set, amplify: features, and what they are set to, as in `intervene`; each feature once, in one of them.
        positions: which tokens are edited: all, prompt, last_prompt or generated; padding never.
        prompt: for other `positions` than all, how many tokens come before the answer.
        reading: from what the features are read: all models on the same tokens (joint), or the edited one alone.
        error: whether what the crosscoder does not reconstruct stays.

    Gives the model of transformers, which scores and generates as ever inside, edited, and is as it was outside.

    Raises ValueError for unknown or repeated features, and for `positions` that need `prompt`.

    >>> with edited(models["rl"], crosscoder, zero=chosen) as m:
    ...     m.generate(**models.tokenizer("Why is the sky blue?", return_tensors="pt"), max_new_tokens=20)
    """
    if positions != "all" and prompt is None:
        raise ValueError(f"positions = {positions!r} needs prompt, the number of tokens before the answer")
    edits = list[Edit]()
    if zero is not None:
        edits.append(Edit(_numbers(zero), 0.0, positions))
    if set is not None:
        edits.append(Edit(_numbers(list(set)), torch.tensor([float(value) for value in set.values()]), positions))
    if amplify is not None:
        edits.append(Edit(_numbers(amplify[0]), float(amplify[1]), positions))
    kept = tuple(edit for edit in edits if len(edit.features))
    whole = EditedModel(model.whole(), model.lineup, crosscoder, model.name, kept, reading, error)
    with whole.running(prompt or 0) as running:
        yield running


def _planned(
    model: str,
    items: Items,
    zero: Features | None,
    values: Values | None,
    amplify: Amplified | None,
    expected: Direction | None,
) -> tuple[Features, PlannedEdit]:
    """The features, and the edit that is to be tested."""
    other = items.tuned if model == items.base else items.base
    match zero, values, amplify:
        case given, None, None if given is not None:
            return given, PlannedEdit(model, EditValue("zero", 0.0, other), expected or "decrease")
        case None, Mapping() as each, None:
            if len({float(value) for value in each.values()}) != 1:
                raise ValueError("features are set to several values; controls need one, edited takes one for each")
            value = float(next(iter(each.values())))
            return list(each), PlannedEdit(model, EditValue("set", value, other), expected or "increase")
        case None, None, (given, value):
            return given, PlannedEdit(model, EditValue("set", float(value), other), expected or "increase")
        case _:
            raise ValueError("give the features as one of zero, set and amplify")


def _effect(
    experiment: Experiment,
    planned: PlannedEdit,
    items: Items,
    task: str,
    chosen: Int[Tensor, " n"],
    selection: Selection | None,
) -> Effect:
    """The effect on one task; items on which features were selected are tested with those of the other half."""
    requests, outcomes, critical = items[task].requests, items[task].outcomes, items[task].indices
    held_out, half = critical, None
    if selection is not None and selection.without_held_out is not None and task in selection.held_out:
        held_out, half = selection.held_out[task], selection.without_held_out
        if not torch.isin(held_out, critical).all():
            raise ValueError(f"the features were selected on other items of {task}; give the items of the selection")
    used = sampled(len(requests.sample_ids), experiment.settings.items, experiment.seed)
    mirror = outcomes.mirror(items.base, items.tuned)
    sets = ItemSets(*(torch.isin(used, one).nonzero().flatten() for one in (critical, mirror, held_out)))
    effect, _ = experiment.effect(planned, requests.select(used), chosen, half, sets, task=task)
    return effect


def _pooled(effects: Sequence[Effect], settings: InterventionSettings, seed: int) -> PooledEffect:
    confidence, expected = settings.confidence, effects[0].expected
    parts = [task_change(effect.headline.record(effect.expected), confidence) for effect in effects]
    return pooled_effect(parts, expected, resamples=settings.bootstrap, confidence=confidence, seed=seed)


def _known(features: Features, crosscoder: Crosscoder) -> Int[Tensor, " n"]:
    """Numbers of features that the crosscoder has; at least one."""
    numbers = _numbers(features)
    if not len(numbers):
        why = f" ({features.rule})" if isinstance(features, Selection) else ""
        raise ValueError(f"no feature is chosen{why}; there is nothing to edit")
    if int(numbers.min()) < 0 or int(numbers.max()) >= crosscoder.features:
        raise ValueError(f"the crosscoder has {crosscoder.features} features, counted from 0; got {numbers.tolist()}")
    return numbers


def _numbers(features: Features) -> Int[Tensor, " n"]:
    if isinstance(features, Selection):
        return features.chosen
    return torch.as_tensor(features, dtype=torch.long).reshape(-1)
