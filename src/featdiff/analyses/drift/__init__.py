"""How far every tuned model and checkpoint has moved from the base, and its tail at less of the same change."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan

if TYPE_CHECKING:
    from featdiff.analyses.drift.compute import Tails
    from featdiff.data.corpus import Corpus
    from featdiff.evaluation.results import Requests, TaskResult
    from featdiff.models.tokenizer import Tokenizer


def run(plan: Plan, folder: Path) -> None:
    """Write `drift.json`, the interpolations as model folders `<tuned model>/<name>/`, and what was evaluated."""
    from featdiff.analyses.drift.compute import Inputs, answer_texts, measure_drift, packed_texts
    from featdiff.config.study import BASE
    from featdiff.files import save
    from featdiff.models.divergence import predictions
    from featdiff.models.loading import load_tokenizer
    from featdiff.run.models import load_whole

    study, settings = plan.study, plan.study.drift
    base = load_whole(plan, plan.paths[BASE])
    tokenizer = load_tokenizer(plan.paths[BASE], trust_remote_code=study.lineup.trust_remote_code)
    answers = (text for requests in task_requests(plan) for text in answer_texts(requests, settings))
    results = _results(plan, folder / "evaluation")
    inputs = Inputs(
        base=base,
        tokenizer=tokenizer,
        tasks=list(predictions(base, answers)),
        neutral=list(packed_texts(neutral_corpus(plan, tokenizer), settings.batch_size)),
        load=lambda path: load_whole(plan, path),
        tails=tails_of(plan),
        results=results,
        base_results=results(BASE, plan.paths[BASE]),
        studied=study.selection.model if study.selection.model in plan.tuned else plan.tuned[-1],
        control=next((name for name in plan.drifting if name not in plan.tuned), None),
        alphas=settings.alphas,
        confidence=study.intervention.confidence,
    )
    trails = {name: plan.trail(name) for name in plan.drifting}
    save(measure_drift(inputs, trails, folder), folder / "drift.json")


def summary(plan: Plan) -> dict[str, Json]:
    """By tuned model, its checkpoints and interpolations by name; and the models at equal drift."""
    from featdiff.analyses.drift.text import headline_numbers

    return headline_numbers(plan)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    from featdiff.analyses.drift.text import section_of

    return section_of(plan)


def task_requests(plan: Plan) -> "Iterator[Requests]":
    """The multiple-choice tasks that models were trained on; all of them where there is none such."""
    from featdiff.config.study import BASE
    from featdiff.run.evaluation import choice_tasks, requests_of
    from featdiff.run.models import load_lineup

    tasks = choice_tasks(plan)
    if not tasks:
        raise ValueError("drift is measured on multiple-choice tasks; give evaluation.tasks at least one")
    lineup = load_lineup(plan, (BASE,))
    for task in [task for task in tasks if task.role == "train"] or tasks:
        yield requests_of(plan, task.name, lineup)


def neutral_corpus(plan: Plan, tokenizer: "Tokenizer") -> "Corpus":
    """Text of the source of the corpus that the study calls neutral."""
    from featdiff.data.corpus import build_corpus

    study, wanted = plan.study, plan.study.drift.neutral
    found = [source for source in study.corpus.sources if wanted in (None, source.path)]
    if not found:
        paths = ", ".join(source.path for source in study.corpus.sources)
        raise ValueError(f"drift.neutral is {wanted}, which is no source of the corpus; give one of {paths}")
    source = found[-1].model_copy(update={"share": 1.0, "path": plan.located(found[-1].path)})
    # Where the source is short, both halves shrink alike.
    sizes = dict.fromkeys(("tokens", "held_out_tokens"), study.drift.neutral_tokens)
    settings = study.corpus.model_copy(update={"sources": (source,), **sizes})
    return build_corpus(settings, tokenizer, seed=study.seed)[0]


def tails_of(plan: Plan) -> "Tails":
    """Tails through the crosscoders of the base and each tuned model that has one."""
    from featdiff.analyses.drift.compute import Tails
    from featdiff.run.scored import attribution_of
    from featdiff.run.swapped import specificity_in_place

    pairs = {tuned: pair for tuned in plan.tuned if (pair := plan.pair(tuned)) is not None}
    alive = {tuned: attribution_of(plan, pair).alive.cpu() for tuned, pair in pairs.items()}
    return Tails(alive, lambda place, path: specificity_in_place(plan, place, path), plan.study.attribution.tails)


def _results(plan: Plan, folder: Path) -> "Callable[[str, str], list[TaskResult]]":
    """Results on the first items of every task. Those of the study's models are there already; other models are
    evaluated into `folder`."""
    from featdiff.run.evaluation import evaluate_missing, located_settings, results_in

    located, items = located_settings(plan), plan.study.drift.accuracy_items
    limit = min((number for number in (located.limit, items) if number is not None), default=None)
    settings, known = (
        located.model_copy(update={"limit": limit}),
        {plan.paths[name]: name for name in plan.models[::-1]},
    )

    def results(name: str, path: str) -> "list[TaskResult]":
        if path in known:
            found = results_in(plan.run.path("evaluation"), known[path], settings)
        else:
            evaluate_missing(plan, folder, name, path, settings)
            found = results_in(folder, name, settings)
        return [replace(result, samples=result.samples[:limit]) for result in found.values()]

    return results
