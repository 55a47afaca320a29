"""How well crosscoders fit a text: variance explained, and what a model still predicts from the reconstruction."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.activations.stream import Activations, Calibration, collect
from featdiff.config.study import ActivationSettings
from featdiff.crosscoder import Crosscoder
from featdiff.crosscoder.metrics import NO_LABEL, Quality, SplicedLosses, measure_all, spliced_losses
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup, PreTrainedModel
from featdiff.models.logits import rows_at_once
from featdiff.models.partial_model import UpperModel
from featdiff.progress import Progress
from featdiff.run.results import HeldOutFit

FLOAT_BYTES = 4
MIB = 2**20

LoadWhole = Callable[[str], PreTrainedModel]


@dataclass(frozen=True)
class Part:
    """One batch of text: what models read, what is to be predicted, and which positions may be replaced."""

    input_ids: Int[Tensor, "batch positions"]
    attention_mask: Int[Tensor, "batch positions"] | None
    position_ids: Int[Tensor, "batch positions"] | None
    labels: Int[Tensor, "batch positions"]
    replaceable: Bool[Tensor, "batch positions"]

    def select(self, rows: Int[Tensor, " rows"]) -> "Part":
        """Some of the rows."""
        mask, places = (None if one is None else one[rows] for one in (self.attention_mask, self.position_ids))
        return Part(self.input_ids[rows], mask, places, self.labels[rows], self.replaceable[rows])


@dataclass(frozen=True)
class Harvested:
    """A part with the residual streams of a lineup on it; `keep`: what may be replaced and is no sink in any model."""

    part: Part
    residuals: Float[Tensor, "batch positions models d_model"]
    keep: Bool[Tensor, "batch positions"]

    def select(self, rows: Int[Tensor, " rows"]) -> "Harvested":
        """Some of the rows."""
        return Harvested(self.part.select(rows), self.residuals[rows], self.keep[rows])

    def activations(self, models: tuple[str, ...]) -> Activations:
        """What is kept, token by token; `models` are those of the lineup."""
        return Activations(models, self.residuals[self.keep], self.part.input_ids[self.keep])


def packed_parts(corpus: Corpus, batch_size: int) -> list[Part]:
    """Rows of packed documents: each position predicts the next one of the same document."""
    rows = torch.arange(len(corpus.input_ids)).split(batch_size)
    return [_packed(corpus.select(row)) for row in rows]


def harvest(lineup: Lineup, calibration: Calibration, parts: Sequence[Part], buffer_mib: int) -> list[Harvested]:
    """The residual streams on as many parts as fit a buffer; on one at least.

    Args:
        lineup: the models up to the tap.
        calibration: of the models of the lineup, in their order; tokens beyond its norms are sinks.
        parts: what the models read.
        buffer_mib: size of the buffer in MiB.
    """
    room = buffer_mib * MIB // (FLOAT_BYTES * len(lineup.names) * lineup.d_model)
    found: list[Harvested] = []
    for part in parts:
        room -= part.input_ids.numel()
        if found and room < 0:
            break
        residuals = lineup.residuals(part.input_ids, part.attention_mask, part.position_ids)
        sinks = (residuals.norm(dim=-1) > calibration.largest_norm.to(residuals.device)).any(dim=-1)
        found.append(Harvested(part, residuals.cpu(), (part.replaceable.to(sinks.device) & ~sinks).cpu()))
    return found


def recovered(
    lineup: Lineup,
    crosscoder: Crosscoder,
    mean: Float[Tensor, "models d_model"],
    harvested: Sequence[Harvested],
    load_whole: LoadWhole,
) -> dict[str, SplicedLosses]:
    """By model of one crosscoder, its losses with the reconstruction in the place of its activations.

    Args:
        lineup: the models up to the tap, which `harvested` is of.
        crosscoder: reads some of the models of the lineup.
        mean: raw mean activation of each model of the crosscoder, by which is ablated.
        harvested: the text. Sinks keep their own activation.
        load_whole: gives a whole model by its name; they are loaded one after another.
    """
    columns = [lineup.names.index(name) for name in crosscoder.models]
    rebuilt = [_rebuilt(crosscoder, one.residuals[:, :, columns]) for one in harvested]
    losses = dict[str, SplicedLosses]()
    with Progress("splicing", total=len(columns), unit="model") as progress:
        for index, name in enumerate(crosscoder.models):
            whole = load_whole(name)
            upper, vocabulary = UpperModel(whole, lineup.layers), whole.config.get_text_config().vocab_size
            losses[name] = SplicedLosses()
            for one, reconstruction in zip(harvested, rebuilt, strict=True):
                own, spliced = one.residuals[:, :, columns[index]], reconstruction[:, :, index]
                every, positions = one.keep.shape
                for rows in torch.arange(every).split(rows_at_once(positions, vocabulary)):
                    part = one.select(rows)
                    losses[name] += _losses(upper, whole.device, part, own[rows], spliced[rows], mean[index])
            progress.advance()
    return losses


def held_out_fits(
    crosscoders: Mapping[str, Crosscoder],
    lineup: Lineup,
    corpus: Corpus,
    calibration: Calibration,
    settings: ActivationSettings,
    load_whole: LoadWhole | None,
    spliced: Collection[str],
) -> dict[str, tuple[Quality, HeldOutFit]]:
    """The fit of several crosscoders on one text that the models of the lineup read.

    Args:
        crosscoders: by name.
        lineup: holds the models of all of them, up to the tap.
        corpus: text that they were not trained on.
        calibration: of the models of the lineup, in their order.
        settings: rows per forward pass, what is dropped, and how much text fits memory to be spliced.
        load_whole: gives a whole model by its name; without it nothing is spliced.
        spliced: names of the crosscoders whose reconstructions are put into the models.
    """
    batches = collect(lineup, corpus, calibration, settings)
    measured = dict(zip(crosscoders, measure_all(list(crosscoders.values()), batches), strict=True))
    parts = packed_parts(corpus, settings.batch_size)
    harvested = harvest(lineup, calibration, parts, settings.buffer_mib) if load_whole and spliced else []

    def losses(name: str, mean: Float[Tensor, "models d_model"]) -> dict[str, SplicedLosses] | None:
        if load_whole is None or name not in spliced:
            return None
        return recovered(lineup, crosscoders[name], mean, harvested, load_whole)

    return {name: (one, HeldOutFit.of(one, losses(name, one.mean))) for name, one in measured.items()}


@torch.no_grad()
def _rebuilt(
    crosscoder: Crosscoder, residuals: Float[Tensor, "batch positions models d_model"]
) -> Float[Tensor, "batch positions models d_model"]:
    values = residuals.flatten(0, 1).to(crosscoder.W_dec.device)
    return crosscoder.decode(crosscoder.encode(values)).cpu().view_as(residuals)


def _losses(
    upper: UpperModel,
    device: torch.device,
    harvested: Harvested,
    own: Float[Tensor, "batch positions d_model"],
    reconstruction: Float[Tensor, "batch positions d_model"],
    mean: Float[Tensor, " d_model"],
) -> SplicedLosses:
    part = harvested.part

    def on(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device)

    def logits(residual: Tensor) -> Tensor:
        return upper(residual, part.input_ids.to(device), on(part.attention_mask), on(part.position_ids))

    tensors = (own, reconstruction, mean, part.labels, harvested.keep)
    return spliced_losses(logits, *(tensor.to(device) for tensor in tensors))


def _packed(corpus: Corpus) -> Part:
    input_ids = corpus.input_ids.long()
    labels = torch.full_like(input_ids, NO_LABEL)
    labels[:, :-1] = input_ids[:, 1:].masked_fill(corpus.document_start[:, 1:], NO_LABEL)
    return Part(input_ids, None, corpus.position_ids, labels, ~corpus.document_start)
