"""`examples`: what the features at the top of every tail, and those that were selected, react to and say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from featdiff.attribution import Attribution, Examples, LatentScaling, Passages, top_examples
from featdiff.config.study import BASE
from featdiff.crosscoder import Crosscoder
from featdiff.data.corpus import Corpus
from featdiff.files import Json, read_json, write_json
from featdiff.models.loading import Lineup
from featdiff.models.residual import token_logits
from featdiff.models.tokenizer import Tokenizer
from featdiff.progress import Progress
from featdiff.run.held_out import calibration_of, held_out_corpus
from featdiff.run.models import load_lineup, load_whole
from featdiff.run.ownership import scaling_of
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of, held_out_statistics
from featdiff.run.splice import harvest, packed_parts

SELECTED = "selected"


@dataclass(frozen=True)
class _Shown:
    """A crosscoder, and why each of some of its features is shown."""

    name: str
    crosscoder: Crosscoder
    why: Mapping[int, list[str]]

    @property
    def features(self) -> Tensor:
        return torch.tensor(list(self.why))


def examples(plan: Plan, folder: Path) -> None:
    """Write `<crosscoder>.json` for the joint crosscoder and each tuned model's pair: its features, one by one."""
    shown = [one for name in plan.shown if (one := _shown(plan, name)).why]
    corpus, settings = held_out_corpus(plan), plan.study.examples
    corpus = corpus.select(torch.arange(min(len(corpus.input_ids), ceil(settings.tokens / corpus.input_ids.shape[1]))))
    lineup = load_lineup(plan, plan.models_of(plan.shown))
    found = {one.name: _examples(plan, one, lineup, corpus) for one in shown}
    nearest = _nearest(plan, shown, lineup.tokenizer)
    for one in shown:
        attribution, scaling = attribution_of(plan, one.name), scaling_of(plan, one.name)
        contexts = _contexts(plan, found[one.name], corpus, lineup.tokenizer)
        cards = [
            {
                "feature": feature,
                "why": why,
                **_scores(attribution, scaling, feature),
                "nearest": {model: nearest[one.name, model][row] for model in attribution.models},
                "examples": {reading: rows[row] for reading, rows in contexts.items()},
            }
            for row, (feature, why) in enumerate(one.why.items())
        ]
        tokens = found[one.name].tokens
        write_json(
            folder / f"{one.name}.json", {"models": list(attribution.models), "tokens": tokens, "features": cards}
        )


def _shown(plan: Plan, name: str) -> _Shown:
    """The top of each tuned model's tail, by the lowest cut, and the selected features of the joint crosscoder."""
    attribution, settings = attribution_of(plan, name), plan.study.attribution
    why: dict[int, list[str]] = {}
    for model in attribution.models:
        if model != BASE and settings.tails:
            top = attribution.top(model, plan.study.examples.tail)
            for feature in top[attribution[model][top] > min(settings.tails)].tolist():
                why.setdefault(feature, []).append(f"tail of {model}")
    selection = plan.run.path("selection", "selection.json")
    if name == plan.joint and selection.is_file():
        for feature in read_json(selection)["chosen"]:
            why.setdefault(feature, []).append(SELECTED)
    crosscoder = Crosscoder.load(plan.run.path("crosscoders", name)).to(plan.study.lineup.device)
    return _Shown(name, crosscoder, why)


def _examples(plan: Plan, one: _Shown, lineup: Lineup, corpus: Corpus) -> Examples:
    mean = held_out_statistics(plan, one.name)["mean"]
    with Progress("looking for examples", total=len(corpus.input_ids), unit="row") as progress:
        passages = _passages(plan, lineup, corpus, progress)
        return top_examples(one.crosscoder, passages, one.features, mean, top=plan.study.examples.top)


def _passages(plan: Plan, lineup: Lineup, corpus: Corpus, progress: Progress) -> Iterator[Passages]:
    """The tokens that crosscoders are measured on, forward pass by forward pass."""
    calibration = calibration_of(plan, lineup.names)
    place = torch.arange(corpus.input_ids.numel()).view(corpus.input_ids.shape)
    document = corpus.document_start.flatten().cumsum(0).view(place.shape)
    rows = torch.arange(len(place)).split(plan.study.activations.batch_size)
    for part, row in zip(packed_parts(plan, corpus), rows, strict=True):
        (one,) = harvest(plan, lineup, calibration, [part])
        yield Passages(lineup.names, one.residuals[one.keep], place[row][one.keep], document[row][one.keep])
        progress.advance(len(row))


def _contexts(
    plan: Plan, found: Examples, corpus: Corpus, tokenizer: Tokenizer
) -> dict[str, list[list[dict[str, Json]]]]:
    """By reading, for every feature its contexts: token ids, their text, and which of them excited the feature."""
    settings, ids = plan.study.examples, corpus.input_ids.flatten()
    start = corpus.document_start.flatten()
    first = torch.where(start, torch.arange(len(ids)), 0).cummax(0).values

    def context(value: float, place: int) -> dict[str, Json]:
        begin = max(int(first[place]), place - settings.before)
        end = place + 1
        while end < min(len(ids), place + 1 + settings.after) and not start[end]:
            end += 1
        tokens = ids[begin:end].tolist()
        pieces = [tokenizer.decode([token]) for token in tokens]
        return {"value": value, "token_ids": tokens, "pieces": pieces, "position": place - begin, "place": place}

    def contexts(values: list[float], places: list[int]) -> list[dict[str, Json]]:
        return [context(value, place) for value, place in zip(values, places, strict=True) if place >= 0]

    return {
        reading: [contexts(*row) for row in zip(value.tolist(), place.tolist(), strict=True)]
        for reading, value, place in zip(found.readings, found.value, found.place, strict=True)
    }


def _nearest(plan: Plan, shown: list[_Shown], tokenizer: Tokenizer) -> dict[tuple[str, str], list[list[Json]]]:
    """For each crosscoder and model, the tokens that the decoder row of every shown feature raises most.

    Whole models are loaded one after another.
    """
    found: dict[tuple[str, str], list[list[Json]]] = {}
    for model in plan.models_of(plan.shown):
        reading = [one for one in shown if model in one.crosscoder.models]
        if not reading:
            continue
        whole = load_whole(plan, plan.paths[model])
        for one in reading:
            rows = one.crosscoder.W_dec.detach()[one.features, one.crosscoder.index(model)]
            logits = token_logits(whole, rows)
            found[one.name, model] = _top_tokens(logits - logits.mean(dim=1, keepdim=True), plan, tokenizer)
    return found


def _top_tokens(logits: Float[Tensor, "rows vocabulary"], plan: Plan, tokenizer: Tokenizer) -> list[list[Json]]:
    """Tokens and how far each lies above the mean token, in standard deviations of the row."""
    best = (logits / logits.std(dim=1, keepdim=True).clamp_min(1e-12)).topk(
        min(plan.study.examples.nearest, logits.shape[1]), dim=1
    )
    return [
        [[tokenizer.decode([token]), round(value, 3)] for token, value in zip(tokens, values, strict=True)]
        for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _scores(attribution: Attribution, scaling: LatentScaling, feature: int) -> dict[str, Json]:
    """Density, MAS, cosines to the base, and nu along the direction of the model that owns most of the feature."""
    models, mas = attribution.models, attribution.mas[feature]
    owner = int(mas.nan_to_num(-1).argmax())

    def by_model(values: Tensor) -> dict[str, Json]:
        return {model: value if value == value else None for model, value in zip(models, values.tolist(), strict=True)}

    return {
        "density": float(attribution.density[feature]),
        "mas": by_model(mas),
        "cosine_to_base": by_model(attribution.cosine[feature, 0]),
        "owner": models[owner],
        "nu_error": by_model(scaling.feature.error[feature, :, owner]),
        "nu_reconstruction": by_model(scaling.feature.reconstruction[feature, :, owner]),
    }
