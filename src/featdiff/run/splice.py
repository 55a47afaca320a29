"""CE and KL recovered: what a model still predicts when a reconstruction takes the place of its activations."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.activations.stream import Calibration
from featdiff.crosscoder import Crosscoder
from featdiff.crosscoder.metrics import NO_LABEL, SplicedLosses, spliced_losses
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup
from featdiff.models.logits import rows_at_once
from featdiff.models.partial_model import UpperModel
from featdiff.progress import Progress
from featdiff.run.folder import Json
from featdiff.run.models import load_whole
from featdiff.run.plan import Plan

FLOAT_BYTES = 4
MIB = 2**20


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


def packed_parts(plan: Plan, corpus: Corpus) -> list[Part]:
    """Rows of packed documents: each position predicts the next one of the same document."""
    rows = torch.arange(len(corpus.input_ids)).split(plan.study.activations.batch_size)
    return [_packed(corpus.select(row)) for row in rows]


def harvest(plan: Plan, lineup: Lineup, calibration: Calibration, parts: list[Part]) -> list[Harvested]:
    """The residual streams on as many parts as fit the buffer of the study; on one at least."""
    room = plan.study.activations.buffer_mib * MIB // (FLOAT_BYTES * len(lineup.names) * lineup.d_model)
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
    plan: Plan,
    lineup: Lineup,
    crosscoder: Crosscoder,
    mean: Float[Tensor, "models d_model"],
    harvested: list[Harvested],
) -> dict[str, Json]:
    """`ce_recovered` and `kl_recovered` of each model of one crosscoder. Sinks keep their own activation."""
    columns = [lineup.names.index(name) for name in crosscoder.models]
    rebuilt = [_rebuilt(crosscoder, one.residuals[:, :, columns]) for one in harvested]
    losses, device = dict[str, SplicedLosses](), plan.study.lineup.device
    with Progress("splicing", total=len(columns), unit="model") as progress:
        for index, name in enumerate(crosscoder.models):
            whole = load_whole(plan, plan.paths[name])
            upper, vocabulary = UpperModel(whole, lineup.layers), whole.config.get_text_config().vocab_size
            losses[name] = SplicedLosses()
            for one, reconstruction in zip(harvested, rebuilt, strict=True):
                own, spliced = one.residuals[:, :, columns[index]], reconstruction[:, :, index]
                every, positions = one.keep.shape
                for rows in torch.arange(every).split(rows_at_once(positions, vocabulary)):
                    part = one.select(rows)
                    losses[name] += _losses(upper, device, part, own[rows], spliced[rows], mean[index])
            progress.advance()
    return {
        "ce_recovered": {name: loss.ce_recovered for name, loss in losses.items()},
        "kl_recovered": {name: loss.kl_recovered for name, loss in losses.items()},
    }


@torch.no_grad()
def _rebuilt(
    crosscoder: Crosscoder, residuals: Float[Tensor, "batch positions models d_model"]
) -> Float[Tensor, "batch positions models d_model"]:
    values = residuals.flatten(0, 1).to(crosscoder.W_dec.device)
    return crosscoder.decode(crosscoder.encode(values)).cpu().view_as(residuals)


def _losses(
    upper: UpperModel,
    device: str,
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
