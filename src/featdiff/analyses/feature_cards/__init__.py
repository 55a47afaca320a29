"""Evidence for single features: the contexts that excite them, and the tokens that they write."""

from pathlib import Path

from featdiff.config.study import BASE
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write `<crosscoder>.json` for the joint crosscoder and each tuned model's pair: its features, one by one."""
    from math import ceil

    import torch

    from featdiff.analyses.feature_cards.compute import card, nearest_tokens, top_contexts
    from featdiff.analyses.feature_cards.result import FeatureCards, Tokens, TopContexts
    from featdiff.analyses.ownership.result import load_scaling
    from featdiff.crosscoder import Crosscoder
    from featdiff.files import save
    from featdiff.run.held_out import calibration_of, held_out_corpus
    from featdiff.run.models import load_lineup, load_whole
    from featdiff.run.scored import attribution_of, held_out_statistics

    settings, corpus = plan.study.examples, held_out_corpus(plan)
    corpus = corpus.select(torch.arange(min(len(corpus.input_ids), ceil(settings.tokens / corpus.input_ids.shape[1]))))
    lineup = load_lineup(plan, plan.models_of(plan.shown))
    shown = {name: why for name in plan.shown if (why := _why(plan, name))}
    place = plan.run.path("crosscoders")
    crosscoders = {name: Crosscoder.load(place / name).to(plan.study.lineup.device) for name in shown}
    found: dict[str, TopContexts] = {
        name: top_contexts(
            crosscoders[name],
            lineup,
            list(why),
            corpus,
            lineup.tokenizer,
            held_out_statistics(plan, name)["mean"],
            examples=settings,
            activations=plan.study.activations,
            calibration=calibration_of(plan, lineup.names),
        )
        for name, why in shown.items()
    }
    nearest: dict[tuple[str, str], tuple[Tokens, ...]] = {}
    for model in plan.models_of(tuple(shown)):  # whole models, one after another
        whole = load_whole(plan, plan.paths[model])
        for name, why in shown.items():
            if model in crosscoders[name].models:
                nearest[name, model] = nearest_tokens(
                    crosscoders[name], list(why), model, whole, lineup.tokenizer, settings.nearest
                )
    for name, why in shown.items():
        attribution, scaling = attribution_of(plan, name), load_scaling(plan.run.path("attribution"), name)
        cards = tuple(
            card(
                attribution,
                scaling,
                feature,
                why[feature],
                {model: nearest[name, model][row] for model in attribution.models},
                found[name].contexts[row],
            )
            for row, feature in enumerate(why)
        )
        save(FeatureCards(attribution.models, found[name].tokens, cards), folder / f"{name}.json")


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    from featdiff.analyses.feature_cards.text import section_of

    return section_of(plan)


def _why(plan: Plan, name: str) -> dict[int, tuple[str, ...]]:
    """Why features of a crosscoder are shown; the selected ones are those of the joint one."""
    from featdiff.analyses.feature_cards.compute import shown_features
    from featdiff.analyses.selection.result import SelectionResult
    from featdiff.files import load
    from featdiff.run.scored import attribution_of

    attribution, selection = attribution_of(plan, name), plan.run.path("selection", "selection.json")
    chosen = load(SelectionResult, selection).chosen if name == plan.joint and selection.is_file() else ()
    tuned = [model for model in attribution.models if model != BASE]
    return shown_features(attribution, tuned, plan.study.attribution.tails, plan.study.examples.tail, chosen)
