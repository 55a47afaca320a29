"""How well a crosscoder fits its models, and what its features react to."""

from collections.abc import Sequence

from featdiff.activations.stream import calibrate, collect
from featdiff.analyses.feature_cards.compute import top_contexts as find_contexts
from featdiff.analyses.feature_cards.result import TopContexts
from featdiff.analyses.quality.compute import quality as measure_quality
from featdiff.api.settings import settings_of
from featdiff.config.evidence import ExampleSettings
from featdiff.config.study import ActivationSettings
from featdiff.crosscoder.metrics import measure
from featdiff.crosscoder.model import Crosscoder
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup, PreTrainedModel
from featdiff.run.results import HeldOutFit
from featdiff.selection.scores import Selection


def quality(
    crosscoder: Crosscoder,
    models: Lineup,
    held_out: Corpus,
    *,
    recovered: bool = True,
    activations: ActivationSettings = ActivationSettings(),  # noqa: B008 -- frozen
) -> HeldOutFit:
    """Measure how well a crosscoder fits text that it was not trained on.

    Arguments:
        crosscoder: reads some of the models of the lineup.
        models: by `load_models`.
        held_out: by `tokenize`.
        recovered: whether reconstructions are also put into the models, which are loaded whole one after another.
        activations: batch size and buffer of the models, and which tokens are dropped; sinks are found on `held_out`.

    Returns, by model, `variance_explained` (around the global mean), `ce_recovered` and `kl_recovered` (1: the
    reconstruction predicts as the model itself does, 0: as its mean activation does); and `l0`, the active features
    per token, and `dead_share`, the share of features that fire on no token.

    Raises ValueError for models that the lineup lacks, and where no token is kept.

    >>> quality(crosscoder, models, held_out).variance_explained["rl"]
    """

    def whole(name: str) -> PreTrainedModel:
        return models[name].whole()

    lineup = models.of(crosscoder.models)
    return measure_quality(crosscoder, lineup, held_out, whole if recovered else None, settings=activations)


def top_contexts(
    crosscoder: Crosscoder,
    models: Lineup,
    features: int | Sequence[int] | Selection,
    held_out: Corpus,
    *,
    activations: ActivationSettings = ActivationSettings(),  # noqa: B008 -- frozen
    **settings: object,
) -> TopContexts:
    """Find the places of a text that excite features most, each from another document, and the words around them.

    Arguments:
        crosscoder: whose features they are.
        models: by `load_models`; holds its models.
        features: one or several, by number; or a `Selection`.
        held_out: by `tokenize`; all of it is read.
        activations: batch size of the models, and which tokens are dropped; sinks are found on `held_out`.
        settings: those of `ExampleSettings`: top (contexts), before and after (tokens around the place).

    Returns `contexts`, feature by feature: by reading, `joint` or a model's own part, the contexts, best first, with
    `value`, `before`, `token` and `after`; none where nothing excites the feature.

    Raises ValueError for features that the crosscoder lacks and for settings that do not exist.

    >>> for context in top_contexts(crosscoder, models, 7, held_out).contexts[0]["joint"]:
    ...     print(f"{context.value:.2f} {context.before}[{context.token}]{context.after}")
    """
    wanted = [features] if isinstance(features, int) else list(features)
    if outside := [feature for feature in wanted if not 0 <= feature < crosscoder.features]:
        raise ValueError(f"the crosscoder has {crosscoder.features} features, counted from 0; got {outside}")
    lineup = models.of(crosscoder.models)
    calibration = calibrate(lineup, held_out, activations)
    return find_contexts(
        crosscoder,
        lineup,
        wanted,
        held_out,
        models.tokenizer,
        measure(crosscoder, collect(lineup, held_out, calibration, activations)).mean,
        examples=settings_of(ExampleSettings, **settings),
        activations=activations,
        calibration=calibration,
    )
