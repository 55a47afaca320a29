"""How well a crosscoder explains its models on a text, and on the evaluation prompts, where causal claims are made."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from featdiff.activations.stream import Calibration, calibrate
from featdiff.config.study import ActivationSettings
from featdiff.crosscoder import Crosscoder
from featdiff.crosscoder.metrics import NO_LABEL, measure
from featdiff.data.corpus import Corpus
from featdiff.evaluation.batches import padded
from featdiff.evaluation.results import Requests
from featdiff.models.loading import Lineup
from featdiff.run.results import HeldOutFit
from featdiff.run.splice import Harvested, LoadWhole, Part, held_out_fits, recovered


def quality(
    crosscoder: Crosscoder,
    lineup: Lineup,
    corpus: Corpus,
    load_whole: LoadWhole | None = None,
    *,
    calibration: Calibration | None = None,
    settings: ActivationSettings | None = None,
) -> HeldOutFit:
    """Measure how well a crosscoder fits a text: variance explained, L0, dead features, and CE and KL recovered.

    Args:
        crosscoder: reads some of the models of the lineup.
        lineup: the models up to the tap.
        corpus: text that the crosscoder was not trained on.
        load_whole: gives a whole model by its name; without it nothing is spliced in, and no CE or KL is recovered.
        calibration: which tokens are attention sinks, as in training; else it is estimated on `corpus`.
        settings: rows per forward pass, what is dropped, and how much text fits memory to be spliced.
    """
    settings = settings or ActivationSettings()
    calibration = calibration or calibrate(lineup, corpus, settings)
    name = "crosscoder"
    found = held_out_fits({name: crosscoder}, lineup, corpus, calibration, settings, load_whole, spliced=(name,))
    return found[name][1]


def fit(
    crosscoder: Crosscoder,
    lineup: Lineup,
    harvested: Sequence[Harvested],
    mean: Float[Tensor, "models d_model"],
    load_whole: LoadWhole,
) -> HeldOutFit:
    """Measure the fit on text that the models have read.

    Args:
        crosscoder: reads some of the models of the lineup.
        lineup: the models up to the tap.
        harvested: their residual streams.
        mean: raw mean activation of each model of the crosscoder, by which is ablated; that of ordinary text, so that
            prompts of one form have no mean of their own.
        load_whole: gives a whole model by its name.
    """
    found = measure(crosscoder, (one.activations(lineup.names) for one in harvested))
    return HeldOutFit.of(found, recovered(lineup, crosscoder, mean, harvested, load_whole))


def prompt_parts(requests: Requests, longest: int, batch_size: int) -> list[Part]:
    """Every item once, its prompt with the right answer, in padded batches; the first position is left alone.

    Unlike a model that scores the answer, all read its last token too; a row of more than `longest` tokens loses its
    first.
    """
    right = requests.choice_of == requests.target[requests.sample_of]
    pairs = [(requests.context_ids[i], requests.continuation_ids[i]) for i in right.nonzero().flatten().tolist()]
    rows = [[*context, *answer][-longest:] for context, answer in pairs]
    rows.sort(key=len)
    return [_padded_part(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]


def _padded_part(rows: list[list[int]]) -> Part:
    input_ids, attention_mask = padded(rows)
    labels = torch.full_like(input_ids, NO_LABEL)
    labels[:, :-1] = input_ids[:, 1:].masked_fill(attention_mask[:, 1:] == 0, NO_LABEL)
    replaceable = attention_mask.bool()
    replaceable[:, 0] = False
    return Part(input_ids, attention_mask, None, labels, replaceable)
