"""A whole causal language model under edits at the tap: it scores and generates as ever, with or without a KV cache.

    model = EditedModel(model, lineup, crosscoder, "rl", (Edit(features, 0.0),))
    with model.running(prompt=input_ids.shape[1]) as edited:
        edited.generate(input_ids, attention_mask=attention_mask)

Codes come from joint encoding: the other models of the lineup run beside it on the same tokens, also on those that it
generates. What the crosscoder does not reconstruct is kept. Padding is never edited.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.activations.beside import Tapped, running_beside
from featdiff.activations.models import Lineup, PreTrainedModel
from featdiff.causal.batches import edited_tokens
from featdiff.causal.intervention import Edit, apply, joint_features
from featdiff.crosscoder.model import Crosscoder


@dataclass(frozen=True, eq=False)
class EditedModel:
    """A model, the lineup that it belongs to, and edits of it; all edits apply at once, each to features of its own.

    `evaluate` of causal/evaluation takes one in the place of a model, for choices and for generated answers. For
    hundreds of edits of the same choices, `intervention.score` shares what they have in common and is much cheaper.
    Raises ValueError when the crosscoder reads models that the lineup lacks, when `name` is none of its models, and for
    features that are out of range or named by two edits.
    """

    model: PreTrainedModel
    lineup: Lineup
    crosscoder: Crosscoder
    name: str
    edits: tuple[Edit, ...] = ()

    def __post_init__(self) -> None:
        self.crosscoder.index(self.name)
        if missing := [name for name in self.crosscoder.models if name not in self.lineup.names]:
            raise ValueError(
                f"the crosscoder reads {missing}, the lineup holds {list(self.lineup.names)}; load those models too"
            )
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
    ) -> Iterator[PreTrainedModel]:
        """The model, edited whenever it runs inside; outside it is left as it was.

        `prompt` says how many of the columns that the model reads come before the answer, padding on the left and
        cached tokens included; one number, or one per row. `real` marks padding where no attention mask does (padding
        on the right of a causal model needs none).
        """
        if not self.edits:
            yield self.model
            return
        with running_beside(
            self.model, self._lineup(), self.name, lambda a, tapped: self._moved(a, tapped, prompt, real)
        ):
            yield self.model

    def _lineup(self) -> Lineup:
        """The lineup's models that the crosscoder reads, in its order."""
        places = [self.lineup.names.index(name) for name in self.crosscoder.models]
        models = tuple(self.lineup.models[place] for place in places)
        whole = self.lineup
        return Lineup(
            self.crosscoder.models, models, whole.tokenizer, whole.layers, whole.d_model, whole.device, whole.turns
        )

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
        activations, place = tapped.activations.to(device), tapped.place.to(device)
        known = tapped.real.to(device)
        if real is not None:
            known = known & real.to(device).gather(1, place.expand(len(real), -1))
        first = torch.as_tensor(prompt, device=device).reshape(-1, 1)
        changed = residual.to(device, torch.float32)
        for edit in self.edits:
            codes = joint_features(activations, known.long(), self.crosscoder, edit.features.to(device))
            mask = edited_tokens(edit.positions, place, first, known)
            changed = apply(edit, changed, codes, self.crosscoder, self.name, mask)
        return changed
