"""Side effects of an edit: on text unrelated to the tasks, and on the form of answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from featdiff.crosscoder.model import Crosscoder
from featdiff.evaluation.batches import choice_beginnings, edited_tokens, padded, prompts_of
from featdiff.evaluation.results import Requests
from featdiff.intervention.activity import order_of
from featdiff.intervention.edits import CHUNK, CodeReading, Edit, Patch, apply, codes
from featdiff.intervention.effect_records import BeforeAfter, TextShiftRecord
from featdiff.models.loading import Lineup
from featdiff.models.partial_model import UpperModel


@dataclass(frozen=True)
class TextShift:
    """Sums over tokens of text: KL of the edited model from the unedited one, and their cross-entropies, in nats."""

    kl: float
    before: float
    after: float
    tokens: int

    def __add__(self, other: "TextShift") -> "TextShift":
        return TextShift(
            self.kl + other.kl, self.before + other.before, self.after + other.after, self.tokens + other.tokens
        )

    def record(self) -> TextShiftRecord:
        """Means per token; None where there are none."""
        if not (n := self.tokens):
            return TextShiftRecord(None, None, 0)
        return TextShiftRecord(self.kl / n, BeforeAfter(self.before / n, self.after / n), n)


@torch.no_grad()
def text_shift(
    plain: Float[Tensor, "batch positions vocabulary"],
    edited: Float[Tensor, "batch positions vocabulary"],
    labels: Int[Tensor, "batch positions"],
    ignored: int = -100,
) -> TextShift:
    """Sum KL(plain || edited) over the positions with a label, and the cross-entropy of the label under both."""
    counted = labels != ignored
    before, after = plain[counted].float().log_softmax(dim=-1), edited[counted].float().log_softmax(dim=-1)
    kl = (before.exp() * (before - after)).sum(dim=-1).clamp_min(0).double().sum()
    entropies = [float(cross_entropy(p.double(), labels[counted], reduction="sum")) for p in (before, after)]
    return TextShift(float(kl), *entropies, tokens=int(counted.sum()))


@torch.no_grad()
def edited_residual(
    activations: Float[Tensor, "batch positions models d_model"],
    crosscoder: Crosscoder,
    model: str,
    edit: Edit,
    mask: Bool[Tensor, "batch positions"],
    reading: CodeReading = "joint",
) -> Float[Tensor, "batch positions d_model"]:
    """Edit one model's residual stream where `mask` holds; the models axis is the crosscoder's."""
    flat = activations.flatten(0, 1)

    def read(source: str | None) -> Tensor:
        parts = [codes(crosscoder, part, model, reading, source)[:, edit.features] for part in flat.split(CHUNK)]
        return torch.cat(parts).view(*mask.shape, -1)

    patched = read(edit.value.source) if isinstance(edit.value, Patch) else None
    own = activations[:, :, crosscoder.index(model)]
    return apply(edit, own, read(None), crosscoder, model, mask, patched)


@torch.no_grad()
def first_tokens(
    requests: Requests,
    lineup: Lineup,
    upper: UpperModel,
    crosscoder: Crosscoder,
    model: str,
    edits: Sequence[Edit],
    *,
    batch_size: int = 64,
    reading: CodeReading = "joint",
) -> Bool[Tensor, "variants samples"]:
    """Whether the token that the model would generate first begins one of the item's choices: row 0 unedited.

    A model that no longer answers in the form of the task may still rank the choices; here it shows.
    """
    prompts, begins = prompts_of(requests), choice_beginnings(requests)
    found = torch.zeros(len(edits) + 1, len(prompts), dtype=torch.bool)
    order = sorted(range(len(prompts)), key=lambda sample: len(prompts[sample]), reverse=True)
    device = crosscoder.W_dec.device
    for start in range(0, len(order), batch_size):
        samples = order[start : start + batch_size]
        input_ids, real = (part.to(device) for part in padded([prompts[sample] for sample in samples]))
        activations, lengths = lineup.residuals(input_ids, real), real.sum(dim=-1)
        place = torch.arange(input_ids.shape[1], device=device)[None]
        own = activations[:, :, order_of(lineup, crosscoder)]
        streams = [activations[:, :, lineup.names.index(model)]]
        for edit in edits:
            mask = edited_tokens(edit.positions, place, lengths[:, None], real.bool())
            streams.append(edited_residual(own, crosscoder, model, edit, mask, reading))
        keep, where = (lengths - 1).unique(return_inverse=True)
        rows = torch.arange(len(samples), device=device)
        for variant, stream in enumerate(streams):
            tokens = upper(stream, input_ids, real, keep=keep)[rows, where].argmax(dim=-1).tolist()
            for sample, token in zip(samples, tokens, strict=True):
                found[variant, sample] = token in begins[sample]
    return found
