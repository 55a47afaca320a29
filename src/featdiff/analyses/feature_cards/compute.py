"""What features react to and say: the contexts that excite them most, and the tokens that their decoders raise."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from featdiff.activations.stream import Calibration, calibrate
from featdiff.analyses.feature_cards.result import Context, Contexts, FeatureCard, Shares, Tokens, TopContexts
from featdiff.attribution import Attribution, LatentScaling, Passages, top_examples
from featdiff.config.evidence import ExampleSettings
from featdiff.config.study import ActivationSettings
from featdiff.crosscoder import Crosscoder
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup, PreTrainedModel
from featdiff.models.residual import token_logits
from featdiff.models.tokenizer import Tokenizer
from featdiff.progress import Progress
from featdiff.run.splice import harvest, packed_parts

Features = Sequence[int]
SMALLEST_DEVIATION = 1e-12


def top_contexts(
    crosscoder: Crosscoder,
    lineup: Lineup,
    features: Features,
    corpus: Corpus,
    tokenizer: Tokenizer,
    mean: Float[Tensor, "models d_model"],
    *,
    examples: ExampleSettings | None = None,
    activations: ActivationSettings | None = None,
    calibration: Calibration | None = None,
) -> TopContexts:
    """Find the places of a text that excite each of `features` most, and the text around them.

    Args:
        crosscoder: whose features they are.
        lineup: holds its models, up to the tap.
        features: indices.
        corpus: the text, all of it.
        tokenizer: turns tokens into text.
        mean: raw mean activation of each model of the crosscoder (`Quality.mean`), which takes a model's place when
            its own part is read.
        examples: how many contexts, and how long.
        activations: rows per forward pass, and what counts as a sink where no calibration is given.
        calibration: which tokens are attention sinks, as in training; else it is estimated on `corpus`.
    """
    settings, activations = examples or ExampleSettings(), activations or ActivationSettings()
    calibration = calibration or calibrate(lineup, corpus, activations)
    with Progress("looking for examples", total=len(corpus.input_ids), unit="row") as progress:
        passages = _passages(lineup, corpus, calibration, activations.batch_size, progress)
        found = top_examples(crosscoder, passages, torch.tensor(features), mean, top=settings.top)
    values, places = found.value.tolist(), found.place.tolist()

    def contexts(reading: int, row: int) -> tuple[Context, ...]:
        pairs = zip(values[reading][row], places[reading][row], strict=True)
        return tuple(_context(value, place, corpus, tokenizer, settings) for value, place in pairs if place >= 0)

    by_feature = (
        {reading: contexts(one, row) for one, reading in enumerate(found.readings)} for row in range(len(features))
    )
    return TopContexts(tuple(by_feature), found.tokens)


def nearest_tokens(
    crosscoder: Crosscoder, features: Features, model: str, whole: PreTrainedModel, tokenizer: Tokenizer, top: int
) -> tuple[Tokens, ...]:
    """The `top` tokens that the decoder row of each feature in `model` raises most, through `whole`'s unembedding.

    Each with how far it lies above the mean token, in standard deviations of the row.
    """
    rows = crosscoder.W_dec.detach()[torch.tensor(features), crosscoder.index(model)]
    logits = token_logits(whole, rows)
    logits = logits - logits.mean(dim=1, keepdim=True)
    heights = logits / logits.std(dim=1, keepdim=True).clamp_min(SMALLEST_DEVIATION)
    best = heights.topk(min(top, logits.shape[1]), dim=1)
    return tuple(
        tuple((str(tokenizer.decode([token])), round(value, 3)) for token, value in zip(tokens, values, strict=True))
        for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )


def shown_features(
    attribution: Attribution, models: Sequence[str], cuts: Sequence[float], top: int, selected: Features
) -> dict[int, tuple[str, ...]]:
    """Why each feature is shown: the `top` of the tail of each of `models` above the lowest cut, and those selected."""
    why: dict[int, tuple[str, ...]] = {}
    for model in models if cuts else ():
        best = attribution.top(model, top)
        for feature in best[attribution[model][best] > min(cuts)].tolist():
            why[feature] = (*why.get(feature, ()), f"tail of {model}")
    for feature in selected:
        why[feature] = (*why.get(feature, ()), "selected")
    return why


def card(
    attribution: Attribution,
    scaling: LatentScaling,
    feature: int,
    why: tuple[str, ...],
    nearest: Mapping[str, Tokens],
    contexts: Contexts,
) -> FeatureCard:
    """All that is known of a feature: density, MAS, cosines to the base, and nu along the direction of its owner."""
    models, mas = attribution.models, attribution.mas[feature]
    owner = int(mas.nan_to_num(-1).argmax())

    def by_model(values: Tensor) -> Shares:
        return {model: _defined(value) for model, value in zip(models, values.tolist(), strict=True)}

    return FeatureCard(
        feature=feature,
        why=why,
        density=_defined(float(attribution.density[feature])),
        mas=by_model(mas),
        cosine_to_base=by_model(attribution.cosine[feature, 0]),
        owner=models[owner],
        nu_error=by_model(scaling.feature.error[feature, :, owner]),
        nu_reconstruction=by_model(scaling.feature.reconstruction[feature, :, owner]),
        nearest=dict(nearest),
        examples=contexts,
    )


def _context(value: float, place: int, corpus: Corpus, tokenizer: Tokenizer, settings: ExampleSettings) -> Context:
    """The text around a token, inside its document."""
    ids, start = corpus.input_ids.flatten(), corpus.document_start.flatten()
    begin = place
    while begin > max(0, place - settings.before) and not start[begin]:
        begin -= 1
    end = place + 1
    while end < min(len(ids), place + 1 + settings.after) and not start[end]:
        end += 1
    tokens = tuple(ids[begin:end].tolist())
    return Context(value, tokens, tuple(str(tokenizer.decode([token])) for token in tokens), place - begin, place)


def _passages(
    lineup: Lineup, corpus: Corpus, calibration: Calibration, batch_size: int, progress: Progress
) -> Iterator[Passages]:
    """The tokens that crosscoders are measured on, forward pass by forward pass."""
    place = torch.arange(corpus.input_ids.numel()).view(corpus.input_ids.shape)
    document = corpus.document_start.flatten().cumsum(0).view(place.shape)
    rows = torch.arange(len(place)).split(batch_size)
    for part, row in zip(packed_parts(corpus, batch_size), rows, strict=True):
        (one,) = harvest(lineup, calibration, [part], buffer_mib=1)
        yield Passages(lineup.names, one.residuals[one.keep], place[row][one.keep], document[row][one.keep])
        progress.advance(len(row))


def _defined(value: float) -> float | None:
    return None if value != value else value
