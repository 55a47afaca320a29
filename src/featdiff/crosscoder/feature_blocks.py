"""Features that are set apart before training: shared ones, and ones that only some models have.

order       shared features first, then the dedicated ones as the partition lists them, then all others.
shared      one decoder row for all models, in normalised units (Anthropic, February 2025): rows start equal, gradients
            are averaged over models, and the sparsity penalty is multiplied by a ratio below 1.
dedicated   encoder and decoder rows of the models that do not own the feature are 0 and have gradient 0
            (Jiralerspong & Bricken 2026). Its MAS is theirs by construction: a check of MAS, not a finding.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from featdiff.config.crosscoder import Design, dedicated


@dataclass(frozen=True, eq=False)
class Blocks:
    """Which features are set apart, and how."""

    owned: Bool[Tensor, "features models"]
    """Whether the model has the feature."""
    shared: Bool[Tensor, " features"]
    """Whether all models have one decoder row."""
    price: Float[Tensor, " features"]
    """What the sparsity penalty is multiplied by."""

    @staticmethod
    def of(models: tuple[str, ...], features: int, design: Design) -> "Blocks | None":
        """The blocks of a crosscoder that `check_blocks` allows; None where no feature is set apart."""
        shared = design.shared.features
        if not shared and not design.partition:
            return None
        owned = torch.ones(features, len(models), dtype=torch.bool)
        first = shared
        for key, count in dedicated(features, design.partition).items():
            owners = key.split("+")
            owned[first : first + count] = torch.tensor([model in owners for model in models])
            first += count
        is_shared = torch.arange(features) < shared
        return Blocks(owned, is_shared, torch.where(is_shared, design.shared.ratio, 1.0))

    def to(self, device: torch.device) -> "Blocks":
        """The same on another device."""
        return Blocks(self.owned.to(device), self.shared.to(device), self.price.to(device))

    @torch.no_grad()
    def keep_within(
        self, enc: Float[Tensor, "features models d_model"], dec: Float[Tensor, "features models d_model"]
    ) -> None:
        """Project gradients onto what the blocks leave free, in place: 0 where a model lacks the feature, the mean over
        models in shared decoder rows."""
        lacking = (~self.owned)[:, :, None]
        enc.masked_fill_(lacking, 0.0)
        dec.masked_fill_(lacking, 0.0)
        dec[self.shared] = dec[self.shared].mean(dim=1, keepdim=True).expand(-1, dec.shape[1], -1)

    def begin(self, rows: Float[Tensor, "features models d_model"]) -> None:
        """Zero rows that a model lacks, and give shared features the first model's rows in all, in place."""
        rows.masked_fill_((~self.owned)[:, :, None], 0.0)
        self.tie(rows)

    @torch.no_grad()
    def tie(self, dec: Float[Tensor, "features models d_model"]) -> bool:
        """Make shared decoder rows equal to the bit, in place; whether any was not.

        Vector loops may round the end of a row otherwise than its middle, so equal gradients do not see to it.
        """
        rows = dec[self.shared]
        wanted = rows[:, :1].expand_as(rows)
        if torch.equal(rows, wanted):
            return False
        dec[self.shared] = wanted
        return True

    def free(
        self, enc: Float[Tensor, "models d_model features"], dec: Float[Tensor, "features models d_model"]
    ) -> tuple[Float[Tensor, "models d_model features"], Float[Tensor, "features models d_model"]]:
        """The same weights, through which autograd gives what `keep_within` leaves."""
        owned = self.owned.to(dec.dtype)
        mean = dec.mean(dim=1, keepdim=True).expand_as(dec)
        through_dec = torch.where(self.shared[:, None, None], mean, dec) * owned[:, :, None]
        through_enc = enc * owned.T[:, None, :]
        # through - through.detach() is 0 and has the projected gradient: it changes no value.
        return enc.detach() + (through_enc - through_enc.detach()), dec.detach() + (through_dec - through_dec.detach())
