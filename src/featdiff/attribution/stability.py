"""Stability of features over crosscoders that differ in their seed alone.

Features of the first are looked for in each other one by decoder direction (`matching`). A feature is *stable* if it is
matched in at least `ENOUGH` others. Over the seeds in which it is found, its own included, a score has a mean, a
spread (the standard deviation), and Student's interval

    mean +- t(n - 1) spread / sqrt(n)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit
from torch import Tensor

from featdiff.attribution.matching import ACCEPTANCES, Matching, match
from featdiff.attribution.scores import Attribution
from featdiff.crosscoder.model import Crosscoder

ENOUGH = 2
"""Other seeds in which a stable feature is matched."""


@dataclass(frozen=True, eq=False)
class ScoredCrosscoder:
    """A crosscoder and the attribution of its features."""

    crosscoder: Crosscoder
    attribution: Attribution


@dataclass(frozen=True)
class SeedSpread:
    """A count or share under every seed: each value, their mean and standard deviation (NaN with one seed)."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.values)

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds, with n - 1."""
        return stdev(self.values) if len(self.values) > 1 else float("nan")


@dataclass(frozen=True, eq=False)
class Stability:
    """Features of the first crosscoder found again in those of other seeds.

    `cosine[s, k]` is the cosine of feature k with its one-to-one partner in the other crosscoder s, 0 where it has none
    above 0.5; NaN for features that are not alive. `partner[s, k]` is that partner where the cosine exceeds
    `acceptance`, -1 elsewhere. `mas[s, k, m]` holds the scores under each seed, the first one's own first, NaN where
    the feature is not matched. `tails[model][cut]` counts alive features above each cut, and under "alive" all of them.
    `pw_mcc` is the similarity of the first dictionary to each other one.
    """

    models: tuple[str, ...]
    seeds: tuple[int, ...]
    acceptance: float
    alive: Bool[Tensor, " features"]
    cosine: Float[Tensor, "others features"]
    partner: Int[Tensor, "others features"]
    mas: Float[Tensor, "seeds features models"]
    tails: Mapping[str, Mapping[str, SeedSpread]]
    pw_mcc: tuple[float, ...]

    @property
    def matched_in(self) -> Int[Tensor, " features"]:
        """In how many other seeds each feature is matched."""
        return (self.partner >= 0).sum(dim=0)

    @property
    def stable(self) -> Bool[Tensor, " features"]:
        """Which features are matched in at least two other seeds; none where there are fewer."""
        return self.matched_in >= ENOUGH

    @property
    def curve(self) -> dict[str, float]:
        """Share of alive features that are matched in at least two others, at acceptance 0.5 to 0.9."""
        alive = int(self.alive.sum())
        shares = {cut: int(((self.cosine > cut).sum(dim=0) >= ENOUGH).sum()) for cut in ACCEPTANCES}
        return {f"{cut:g}": count / alive if alive else float("nan") for cut, count in shares.items()}

    @property
    def stable_tails(self) -> dict[str, dict[str, int]] | None:
        """How many features of the first seed in each tail are stable; None with fewer than three seeds."""
        if len(self.seeds) <= ENOUGH:
            return None
        kept = self.stable & self.alive
        return {
            model: {cut: int((self.mas[0, kept, m] > float(cut)).sum()) for cut in cuts if cut != "alive"}
            for m, (model, cuts) in enumerate(self.tails.items())
        }

    def spread(self, model: str) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
        """Mean and standard deviation of each feature's score for `model` over the seeds in which it is found."""
        return mean_and_deviation(self.mas[:, :, self.models.index(model)])


def stability_of(
    seeds: Sequence[ScoredCrosscoder], cuts: Sequence[float] = (0.8, 0.9), acceptance: float = 0.7
) -> Stability:
    """Find the features of the first crosscoder in the others, and count tails under every seed.

    All must align the same models; the seeds must differ. `acceptance` is the cosine above which two features match.
    """
    first, *others = seeds
    _check([one.crosscoder for one in seeds])
    models, features = first.crosscoder.models, first.crosscoder.features
    found = [match_scored(first, other, acceptance) for other in others]
    partners = [torch.arange(features), *(one.partner for one in found)]
    cosine = torch.where(first.attribution.alive.cpu(), 0.0, torch.nan).repeat(len(found), 1)
    for row, one in zip(cosine, found, strict=True):
        row[one.assigned[:, 0]] = one.assigned_cosine
    counted = {model: [one.attribution.tails(model, cuts) for one in seeds] for model in models}
    scores = [aligned_scores([one.attribution[model].cpu() for one in seeds], partners) for model in models]
    return Stability(
        models=models,
        seeds=tuple(one.crosscoder.seed for one in seeds),
        acceptance=acceptance,
        alive=first.attribution.alive.cpu(),
        cosine=cosine,
        partner=torch.stack(partners)[1:],
        mas=torch.stack(scores, dim=-1),
        tails={
            model: {cut: SeedSpread(tuple(float(tails[cut]) for tails in of_seeds)) for cut in of_seeds[0]}
            for model, of_seeds in counted.items()
        },
        pw_mcc=tuple(one.pw_mcc for one in found),
    )


def match_scored(
    a: ScoredCrosscoder, b: ScoredCrosscoder, acceptance: float, models: Sequence[str | tuple[str, str]] = ()
) -> Matching:
    """`match` among the alive features of two crosscoders."""
    alive = a.attribution.alive, b.attribution.alive
    return match(a.crosscoder, b.crosscoder, acceptance, models=models, alive=alive)


def aligned_scores(
    scores: Sequence[Float[Tensor, " features"]], partners: Sequence[Int[Tensor, " features"]]
) -> Float[Tensor, "seeds features"]:
    """The scores of the same feature under every seed; NaN where it has no partner (-1)."""
    aligned = zip(scores, partners, strict=True)
    return torch.stack(
        [torch.where(partner >= 0, score[partner.clamp(min=0)], torch.nan) for score, partner in aligned]
    )


def mean_and_deviation(
    scores: Float[Tensor, "seeds features"],
) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """Mean and standard deviation (n - 1) over the seeds that have the feature; NaN below one and two of them."""
    found = ~scores.isnan()
    count = found.sum(dim=0)
    values = scores.double()
    mean = values.nanmean(dim=0)
    squares = torch.where(found, values - mean, 0.0).square().sum(dim=0)
    deviation = torch.where(count > 1, (squares / (count - 1).clamp(min=1)).sqrt(), torch.nan)
    return mean.float(), deviation.float()


def seed_interval(
    scores: Float[Tensor, "seeds features"], confidence: float = 0.95
) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """Student's interval of the mean over seeds, low and high; NaN for a feature that fewer than two seeds have."""
    count = (~scores.isnan()).sum(dim=0)
    mean, deviation = mean_and_deviation(scores)
    quantile = torch.from_numpy(stdtrit((count - 1).clamp(min=1).numpy(), 0.5 + confidence / 2)).float()
    half = quantile * deviation / count.sqrt()
    return mean - half, mean + half


def _check(crosscoders: Sequence[Crosscoder]) -> None:
    seeds = [one.seed for one in crosscoders]
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds are {', '.join(map(str, seeds))}; stability compares crosscoders of different seeds")
    for one in crosscoders[1:]:
        if one.models != crosscoders[0].models:
            raise ValueError(
                f"seed {one.seed} aligns {', '.join(one.models)}, seed {seeds[0]} {', '.join(crosscoders[0].models)}; "
                "compare crosscoders of the same models"
            )
