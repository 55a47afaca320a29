"""A whole causal language model edited at the hook point, which scores and generates with or without a KV cache.

    model = EditedModel(model, lineup, crosscoder, "rl", (Edit(features, 0.0),))
    with model.running(prompt=input_ids.shape[1]) as edited:
        edited.generate(input_ids, attention_mask=attention_mask)

For joint encoding the other models of the lineup run beside it on the same tokens, also on those that it generates; the
codes of its own branch need it alone. Padding is never edited.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder
from featdiff.evaluation.batches import edited_tokens
from featdiff.intervention.edits import CHUNK, CodeReading, Edit, Patch, apply, codes, reconstruction
from featdiff.intervention.scoring import ErrorTerm
from featdiff.models.companions import Tapped, running_beside
from featdiff.models.loading import Lineup, PreTrainedModel


@dataclass(frozen=True, eq=False)
class EditedModel:
    """A model, the lineup that it belongs to, and edits of it; all edits apply at once, each to features of its own.

    `evaluate` of evaluation/harness.py takes one in the place of a model, for choices and for generated answers. For
    hundreds of edits of the same choices, `intervention.score` shares what they have in common and is much cheaper.
    Raises ValueError when the crosscoder reads models that the lineup lacks, when `name` is none of its models, and for
    features that are out of range or named by two edits.
    """

    model: PreTrainedModel
    lineup: Lineup
    crosscoder: Crosscoder
    name: str
    edits: tuple[Edit, ...] = ()
    reading: CodeReading = "joint"
    """From what the codes are read."""
    error: ErrorTerm = "keep"
    """Whether what the crosscoder does not reconstruct stays, or edited tokens first become their reconstruction."""

    def __post_init__(self) -> None:
        self.crosscoder.index(self.name)
        if missing := [name for name in self.crosscoder.models if name not in self.lineup.names]:
            raise ValueError(
                f"the crosscoder reads {missing}, the lineup holds {list(self.lineup.names)}; load those models too"
            )
        for edit in self.edits:
            if isinstance(edit.value, Patch):
                self.crosscoder.index(edit.value.source)
        named = torch.cat([torch.empty(0, dtype=torch.long), *(edit.features.cpu() for edit in self.edits)])
        outside = (named < 0) | (named >= self.crosscoder.features)
        if outside.any():
            raise ValueError(
                f"an edit names the feature {int(named[outside][0])}; "
                f"the crosscoder has {self.crosscoder.features}, counted from 0"
            )
        if len(named.unique()) < len(named):
            raise ValueError("two edits of one model name the same feature; give each feature to one edit")

    @contextmanager
    def running(
        self, prompt: int | Int[Tensor, " batch"], real: Bool[Tensor, "batch positions"] | None = None
    ) -> Generator[PreTrainedModel, None, None]:
        """The model, edited whenever it runs inside; outside it is left as it was.

        `prompt` says how many of the columns that the model reads come before the answer, padding on the left and
        cached tokens included; one number, or one per row. `real` marks padding where no attention mask does (padding
        on the right of a causal model needs none).
        """
        if not self.edits:
            yield self.model
            return

        def change(residual: Tensor, tapped: Tapped) -> Tensor:
            return self._moved(residual, tapped, prompt, real)

        lineup = self.lineup.of(self.crosscoder.models)
        with running_beside(self.model, lineup, self.name, change, self._beside()):
            yield self.model

    def _beside(self) -> tuple[str, ...]:
        """The models whose activations the codes are read from, apart from the edited one."""
        if self.reading == "joint":
            return self.crosscoder.models
        return tuple(edit.value.source for edit in self.edits if isinstance(edit.value, Patch))

    @torch.no_grad()
    def _moved(
        self,
        residual: Float[Tensor, "batch new d_model"],
        tapped: Tapped,
        prompt: int | Int[Tensor, " batch"],
        real: Bool[Tensor, "batch positions"] | None,
    ) -> Float[Tensor, "batch new d_model"]:
        """The residual stream under all edits; tokens that none of them changes keep their bits."""
        device = self.crosscoder.W_dec.device
        place, known = tapped.place.to(device), tapped.real.to(device)
        if real is not None:
            known = known & real.to(device).gather(1, place.expand(len(real), -1))
        first = torch.as_tensor(prompt, device=device).reshape(-1, 1)
        masks = [edited_tokens(edit.positions, place, first, known) for edit in self.edits]
        touched = torch.stack(masks).any(dim=0)
        changed = residual.to(device, torch.float32)
        if not touched.any():
            return changed
        activations = tapped.activations.to(device)[touched]
        wanted = torch.cat([edit.features for edit in self.edits]).to(device)
        if self.error == "drop":
            changed = torch.where(touched[..., None], _placed(self._rebuilt(activations), touched), changed)
        read = {source: _placed(self._codes(activations, wanted, source), touched) for source in self._sources()}
        start = 0
        for edit, mask in zip(self.edits, masks, strict=True):
            columns = slice(start, start := start + len(edit.features))
            patched = read[edit.value.source][..., columns] if isinstance(edit.value, Patch) else None
            changed = apply(edit, changed, read[None][..., columns], self.crosscoder, self.name, mask, patched)
        return changed

    def _sources(self) -> set[str | None]:
        """Whose codes are read: None for the edited model's own."""
        return {None, *(edit.value.source for edit in self.edits if isinstance(edit.value, Patch))}

    def _codes(
        self, activations: Float[Tensor, "tokens models d_model"], wanted: Int[Tensor, " wanted"], source: str | None
    ) -> Float[Tensor, "tokens wanted"]:
        """Codes of the wanted features. All features are held for one chunk of tokens at a time."""
        chunks = activations.split(CHUNK)
        return torch.cat([codes(self.crosscoder, part, self.name, self.reading, source)[:, wanted] for part in chunks])

    def _rebuilt(self, activations: Float[Tensor, "tokens models d_model"]) -> Float[Tensor, "tokens d_model"]:
        """The crosscoder's reconstruction of the edited model's residual stream."""
        parts = [
            reconstruction(self.crosscoder, codes(self.crosscoder, part, self.name, self.reading), self.name)
            for part in activations.split(CHUNK)
        ]
        return torch.cat(parts)


def _placed(values: Float[Tensor, "tokens some"], where: Bool[Tensor, "batch new"]) -> Float[Tensor, "batch new some"]:
    """The tokens' values where they stand, 0 elsewhere."""
    placed = values.new_zeros(*where.shape, values.shape[-1])
    placed[where] = values
    return placed
