"""The study's crosscoder over all models with one thing changed at a time, compared at equal L0 and at equal variance
explained.

1. Every choice is trained at every strength of its sparsity, unless the study has that crosscoder anyway; what shares a
   layer trains on one stream.
2. Each crosscoder is measured and scored as the study's own.
3. Each selects features, which are compared with those of the study's own.
4. The paper's two edits are made with them: of the study's own at every strength, of others where their curve comes to
   the study's L0 or variance explained.
5. Choices are read off their curves, and judged.

Each crosscoder's part of each step is a file or folder, so a killed attempt is gone on with.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from featdiff.activations.stream import collect
from featdiff.analyses.ownership.result import Ownership
from featdiff.analyses.sensitivity.result import (
    CrosscoderResult,
    CrosscoderTails,
    EditEffects,
    Quantity,
    SelectedFeatures,
    Sensitivity,
    Tails,
    bases_of,
    compared,
)
from featdiff.analyses.sensitivity.variants import (
    OWN,
    Variant,
    check_layers,
    group_plan,
    groups_of,
    points_of,
    rescored_plan,
    rescorings_of,
    settings_of,
)
from featdiff.attribution import LatentScaling, ScaledTail, latent_scalings, scaled_tails
from featdiff.attribution.matching import Matching, match_codes
from featdiff.attribution.rank_overlap import depth_of
from featdiff.attribution.robustness import (
    COVERAGE,
    bracketing_points,
)
from featdiff.attribution.stability import match_scored
from featdiff.config.sensitivity import SensitivitySettings
from featdiff.config.study import BASE
from featdiff.crosscoder import Crosscoder
from featdiff.evaluation.results import Requests
from featdiff.files import load, load_by_name, save
from featdiff.intervention.effect_records import FullEffectRecord, PooledRecord
from featdiff.intervention.effects import ItemSetName
from featdiff.intervention.experiment import PlannedEdit
from featdiff.intervention.pooled_effects import pooled_effect, task_change
from featdiff.models.loading import Lineup, depth
from featdiff.models.partial_model import UpperModel
from featdiff.progress import Progress
from featdiff.run.evaluation import Residuals, choice_tasks, outcomes_of, prompt_ends, requests_of, selecting_tasks
from featdiff.run.held_out import calibration_of, held_out_activations, held_out_corpus
from featdiff.run.intervention_context import edited_items, experiment_of, item_sets, paper_edits
from featdiff.run.models import load_lineup, load_whole
from featdiff.run.plan import Plan
from featdiff.run.results import fit_of
from featdiff.run.scored import attribution_of, scored
from featdiff.run.train import train
from featdiff.selection.from_residuals import choose, mean_rate, task_differences
from featdiff.selection.scores import Selection, rank_features
from featdiff.selection.similarity import RankedSelection, selection_similarity

ITEMS = {"held_out": "held-out critical items", "all": "all items"}
"""Items on which edits are measured, in words."""


def sensitivity(plan: Plan, folder: Path) -> Sensitivity:
    """Train, score, select and edit with every variant, and compare; `folder` gets each variant's part."""
    settings, trust = settings_of(plan), plan.study.lineup.trust_remote_code
    check_layers(plan, depth(plan.paths[BASE], trust_remote_code=trust))
    variants, tails = _trained(plan, folder)
    own = next(one for one in variants if one.point.choice.kind == "reference" and one.point.strength == OWN)
    rescored: dict[str, Mapping[str, Tails]] = {}
    for one in rescorings_of(plan):
        place = folder / "attribution" / f"{one.kind}-{one.value}.json"
        rescored[one.label] = _scored(place, rescored_plan(own, one))[own.name]
    if selecting_tasks(plan):
        _select(settings, variants, own, folder)
        _edit(variants, own, folder)
    points = [_result(one, tails[one.name], folder) for one in variants]
    quantities = _quantities(plan, edits=bool(selecting_tasks(plan)))
    at = _bases(own)
    return Sensitivity(
        coverage=COVERAGE,
        rbo_p=settings.rbo_p,
        acceptance=plan.study.stability.acceptance,
        strengths=tuple(sorted(settings.strengths)),
        at=at,
        quantities=tuple(quantities),
        choices=compared(points, rescored, quantities, at, plan.study.intervention.confidence),
        points=tuple(points),
    )


# ------------------------------------------------------------------ training and scoring


def _trained(plan: Plan, folder: Path) -> tuple[list[Variant], dict[str, dict[str, Tails]]]:
    """Train and score what is missing, a group at a time; the tails by crosscoder and model."""
    variants, tails = list[Variant](), dict[str, dict[str, Tails]]()
    for group in groups_of(plan):
        varied = group_plan(plan, group, folder)
        variants += [Variant(varied, point, name) for point, name in zip(group.points, group.names, strict=True)]
        if group.standing:
            for name in group.names:
                own = load(Ownership, plan.run.path("attribution", f"{name}.json"))
                tails[name] = {model: _tails(own.alive, one.scaled) for model, one in own.of.items()}
        else:
            _train(varied, folder / "crosscoders" / group.name)
            tails |= _scored(folder / "attribution" / f"{group.name}.json", varied)
    order = points_of(plan)
    return sorted(variants, key=lambda one: order.index(one.point)), tails


def _train(varied: Plan, place: Path) -> None:
    """Train a group in a folder of its own, which is renamed when it is whole. A poor fit is one of the things that
    are compared, so it is no error."""
    if place.is_dir():
        return
    training = varied.study.training.model_copy(update={"accept_poor_fit": True})
    partial = place.with_name(f"{place.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    train(Plan(varied.study.model_copy(update={"training": training}), varied.run.elsewhere), partial)
    partial.rename(place)


def _scored(place: Path, plan: Plan) -> dict[str, dict[str, Tails]]:
    """Tails of every crosscoder of a plan by model, from the file at `place`; measured where that is missing."""
    if not place.is_file():
        settings = plan.study.attribution
        scalings = latent_scalings(
            [
                Crosscoder.load(plan.run.path("crosscoders", name)).to(plan.study.lineup.device)
                for name in plan.crosscoders
            ],
            held_out_activations(plan, load_lineup(plan, plan.harvested), settings.scaling.tokens),
            space=settings.space,
            min_active=settings.scaling.min_active,
            seed=plan.study.seed,
        )
        named = zip(plan.crosscoders, scalings, strict=True)
        save({name: CrosscoderTails(_measured(plan, name, one)) for name, one in named}, place)
    return {name: one.of for name, one in load_by_name(CrosscoderTails, place).items()}


def _measured(plan: Plan, name: str, scaling: LatentScaling) -> dict[str, Tails]:
    one, settings = attribution_of(plan, name), plan.study.attribution
    limits, alive = settings.scaling.model_dump(include={"max_error", "max_reconstruction"}), int(one.alive.sum())
    return {m: _tails(alive, scaled_tails(one, scaling, m, settings.tails, **limits)) for m in one.models}


def _tails(alive: int, tails: Sequence[ScaledTail]) -> Tails:
    return Tails(alive, {f"{t.cut:g}": t.before for t in tails}, {f"{t.cut:g}": t.absent for t in tails})


# ------------------------------------------------------------------ selection


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """What the crosscoders of one layer share: their models up to the hook point, and what these read."""

    lineup: Lineup
    requests: dict[str, Requests]
    ends: dict[str, Residuals]
    """By task of the selection: residual streams at the ends of its prompts."""

    @staticmethod
    def of(plan: Plan) -> "LayerInputs":
        """For the crosscoders of a plan, all of which read the same models at the same layer."""
        lineup = load_lineup(plan, plan.crosscoders[plan.joint].models)
        requests = {task.name: requests_of(plan, task.name, lineup) for task in choice_tasks(plan)}
        return LayerInputs(lineup, requests, {task: prompt_ends(plan, lineup, task) for task in selecting_tasks(plan)})


def _select(settings: SensitivitySettings, variants: Sequence[Variant], own: Variant, folder: Path) -> None:
    """A file for each crosscoder: the features that it selects, and their similarity to those of the study's own."""
    missing = [one for one in variants if not _selection_file(one, folder).is_file()]
    if not missing:
        return
    p, draws, seed = settings.rbo_p, own.plan.study.selection.null_draws, own.plan.study.seed
    own_inputs = LayerInputs.of(own.plan)
    reference = _selected(own, own_inputs, p)[2]
    with Progress("selecting features", len(variants), "crosscoder", len(variants) - len(missing)) as progress:
        for here in _by_layer(missing):
            same = here[0].point.choice.layer == own.point.choice.layer
            inputs = own_inputs if same else LayerInputs.of(here[0].plan)
            for one in here:
                whole, half, ranked = _selected(one, inputs, p)
                pairs = _matched((own, own_inputs), (one, inputs), settings.tokens)
                alike = selection_similarity(reference, ranked, pairs, p, draws, seed)
                shared = pairs.share(pairs.acceptance)
                found = SelectedFeatures(
                    chosen=tuple(whole.chosen.tolist()),
                    without_held_out=tuple(half.chosen.tolist()),
                    rule=whole.rule,
                    per_task=whole.per_task,
                    jaccard=alike.jaccard,
                    rbo=alike.rbo,
                    matched=None if math.isnan(shared) else shared,
                )
                save(found, _selection_file(one, folder))
                progress.advance()


def _selected(variant: Variant, inputs: LayerInputs, p: float) -> tuple[Selection, Selection, RankedSelection]:
    """Select by the study's rule and score: from all critical items, without those held out, and ranked as far as a
    persistence of `p` looks."""
    plan, one = variant.plan, scored(variant.plan, variant.name)
    alive, settings = one.attribution.alive.cpu(), plan.study.selection
    tasks = [
        task_differences(
            one.crosscoder,
            residuals,
            outcomes_of(plan, task).critical(BASE, settings.model),
            task,
            tuned=settings.model,
            held_out=settings.held_out,
            seed=plan.study.seed,
        )
        for task, residuals in inputs.ends.items()
    ]
    whole, half = (choose(tasks, alive, settings, without_held_out=without) for without in (False, True))
    score = torch.where(alive, whole.score, 0.0)
    best = rank_features(whole.selected, score, depth_of(p))
    best = best[(score > 0).any(dim=0)[best]]
    return whole, half, RankedSelection(whole.chosen, best, mean_rate(tasks), alive)


def _matched(own: tuple[Variant, LayerInputs], other: tuple[Variant, LayerInputs], tokens: int) -> Matching:
    """Match the features of two crosscoders by decoder direction; at different layers, by their codes."""
    one, two = (scored(variant.plan, variant.name) for variant, _ in (own, other))
    acceptance = own[0].plan.study.stability.acceptance
    if own[1].lineup.layers == other[1].lineup.layers:
        return match_scored(one, two, acceptance)
    parts = _codes([(*own, one.crosscoder), (*other, two.crosscoder)], tokens)
    a, b = (torch.cat(codes)[:tokens] for codes in zip(*parts, strict=True))
    return match_codes(a, b, acceptance, alive=(one.attribution.alive.cpu(), two.attribution.alive.cpu()))


def _codes(
    sides: Sequence[tuple[Variant, LayerInputs, Crosscoder]], tokens: int
) -> Iterator[tuple[Float[Tensor, "tokens features"], Float[Tensor, "tokens others"]]]:
    """Codes of two crosscoders on the same held-out tokens, without those that are sinks at either layer."""
    calibrations = [calibration_of(variant.plan, inputs.lineup.names) for variant, inputs, _ in sides]
    batches = [
        collect(
            inputs.lineup,
            held_out_corpus(variant.plan),
            replace(calibration, largest_norm=torch.full_like(calibration.largest_norm, torch.inf)),
            variant.plan.study.activations,
        )
        for (variant, inputs, _), calibration in zip(sides, calibrations, strict=True)
    ]
    left = tokens
    for pair in zip(*batches, strict=True):
        one, other = (
            (batch.values.norm(dim=-1).cpu() <= calibration.largest_norm).all(dim=-1)
            for batch, calibration in zip(pair, calibrations, strict=True)
        )
        keep = (one & other).to(pair[0].values.device)
        with torch.no_grad():
            a, b = (
                crosscoder.encode(batch.values[keep]).cpu() for batch, (*_, crosscoder) in zip(pair, sides, strict=True)
            )
        yield a, b
        left -= len(a)
        if left <= 0:
            return


# ------------------------------------------------------------------ edits


def _edit(variants: Sequence[Variant], own: Variant, folder: Path) -> None:
    """A file for each crosscoder from which an effect is read, and each of the paper's two edits."""
    wanted = [one for one in _read_from(variants, own) if load(SelectedFeatures, _selection_file(one, folder)).chosen]
    tests = paper_edits(own.plan)
    missing = [one for one in wanted if not all(_effect_file(one, test.model, folder).is_file() for test in tests)]
    with Progress("editing features", len(wanted), "crosscoder", len(wanted) - len(missing)) as progress:
        for here in _by_layer(missing):
            plan, inputs = here[0].plan, LayerInputs.of(here[0].plan)
            uppers = [UpperModel(load_whole(plan, plan.paths[test.model]), inputs.lineup.layers) for test in tests]
            for one in here:
                selected = load(SelectedFeatures, _selection_file(one, folder))
                for test, upper in zip(tests, uppers, strict=True):
                    if not (place := _effect_file(one, test.model, folder)).is_file():
                        save(_edited(one, inputs, test, upper, selected), place)
                progress.advance()


def _edited(
    variant: Variant, inputs: LayerInputs, test: PlannedEdit, upper: UpperModel, selected: SelectedFeatures
) -> EditEffects:
    """One edit of one crosscoder's features over all tasks."""
    plan, one = variant.plan, scored(variant.plan, variant.name)
    experiment = experiment_of(plan, one.crosscoder, inputs.lineup, upper, one.attribution, test.model)
    chosen, half = (torch.tensor(of, dtype=torch.long) for of in (selected.chosen, selected.without_held_out))
    effects = list[FullEffectRecord]()
    for task in choice_tasks(plan):
        items, requests = edited_items(plan, inputs.requests[task.name])
        part = None if task.role == "unseen" else half
        sets = item_sets(plan, task, items)
        effects.append(experiment.effect(test, requests, chosen, part, sets, task=task.name)[0].full_record())

    def pooled(items: ItemSetName) -> PooledRecord:
        resamples, confidence = plan.study.intervention.bootstrap, plan.study.intervention.confidence
        parts = [task_change(one.sets[items], confidence) for one in effects]
        return pooled_effect(
            parts, test.goal, resamples=resamples, confidence=confidence, seed=plan.study.seed
        ).record()

    return EditEffects(held_out=pooled("held_out"), all=pooled("all"))


def _read_from(variants: Sequence[Variant], own: Variant) -> list[Variant]:
    """Crosscoders between which a number is read at equal L0 or variance explained; of the study's own choice, all."""
    wanted, target = list[Variant](), _bases(own)
    for label in dict.fromkeys(one.point.choice.label for one in variants):
        curve = [one for one in variants if one.point.choice.label == label]
        bases = [_bases(one) for one in curve]
        found = {at for base, x in target.items() for at in bracketing_points([one[base] for one in bases], x)}
        wanted += [one for at, one in enumerate(curve) if one.point.choice.kind == "reference" or at in found]
    return wanted


def _by_layer(variants: Sequence[Variant]) -> list[list[Variant]]:
    layers = dict.fromkeys(one.point.choice.layer for one in variants)
    return [[one for one in variants if one.point.choice.layer == layer] for layer in layers]


def _selection_file(variant: Variant, folder: Path) -> Path:
    return folder / "choices" / f"{variant.name}.json"


def _effect_file(variant: Variant, model: str, folder: Path) -> Path:
    return folder / "effects" / variant.name / f"{model}.json"


# ------------------------------------------------------------------ results


def _result(variant: Variant, tails: dict[str, Tails], folder: Path) -> CrosscoderResult:
    """One crosscoder, from its files."""
    choice, fit = variant.point.choice, fit_of(variant.plan, variant.name)
    selection = _selection_file(variant, folder)
    effects = {test.model: _effect_file(variant, test.model, folder) for test in paper_edits(variant.plan)}
    return CrosscoderResult(
        choice=choice.label,
        kind=choice.kind,
        strength=variant.point.strength,
        layer=choice.layer,
        sparsity=variant.point.crosscoder.sparsity,
        variance_explained=fit.variance_explained,
        l0=fit.l0,
        dead_share=fit.dead_share,
        tokens=fit.tokens,
        ce_recovered=fit.ce_recovered,
        tails=tails,
        selection=load(SelectedFeatures, selection) if selection.is_file() else None,
        effects={model: load(EditEffects, place) for model, place in effects.items() if place.is_file()},
    )


def _bases(variant: Variant) -> dict[str, float]:
    return bases_of(fit_of(variant.plan, variant.name))


def _quantities(plan: Plan, edits: bool) -> list[Quantity]:
    models = [model for model in plan.crosscoders[plan.joint].models if model != BASE]
    cuts = [f"{cut:g}" for cut in plan.study.attribution.tails]
    found = [Quantity(f"tail {m} {cut}", f"{m} above {cut}", "share") for m in models for cut in cuts]
    for model in models:
        found += [Quantity(f"absent {model} {cut}", f"{model} above {cut}, absent elsewhere", "share") for cut in cuts]
    if edits:
        found += [Quantity("jaccard", "Final features: Jaccard", "similarity")]
        found += [Quantity("rbo", "Their ranking: RBO", "similarity")]
        for test in paper_edits(plan):
            about = f"{test.model}, {test.value.name}"
            found += [Quantity(f"effect {test.model} {key}", f"{about}: {of}", "effect") for key, of in ITEMS.items()]
    return found
