"""Matching of the features of two crosscoders by decoder direction.

An index means nothing across two dictionaries; what a feature writes does. The similarity of feature i of one and j of
the other is the cosine of their decoders, taken over the models side by side, in normalised units:

    S_ij = <w_i, v_j> / (|w_i| |v_j|),    w_i = (W_dec[i, m1], W_dec[i, m2], ...)

The sign counts: features are never negative, so an opposite direction says the opposite. One-to-one pairs above a
`floor` are chosen so that their sum of cosines is largest; weaker pairs are worth nothing, so that none of them takes
the partner of a strong one. Of these, pairs above `acceptance` are the match.

Up to `exact` features a side this is one exact assignment. Beyond it, features that are each other's nearest are paired
first, from blocks of S, round after round while that settles many; the assignment is solved on what is left. The two
ways differ only where giving up the nearest would have made a larger sum. S is never whole in memory: the largest
things beside the decoders are four blocks of `block` decoder rows, a tile of block x block cosines, and exact x exact
cosines for the assignment (16 bytes each, float64 copy included).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder

Alive = tuple[Bool[Tensor, " features"], Bool[Tensor, " others"]]
"""Which features of either crosscoder take part."""

ACCEPTANCES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Where the curve of matched shares is read."""

EXACT = 4096
"""Features a side up to which the assignment is solved at once."""

BLOCK = 2048
"""Features a side of one tile of cosines."""

SETTLED = 0.05
"""Another round of mutual nearest neighbours follows if the last paired at least this share of what was left."""


@dataclass(frozen=True, eq=False)
class Matching:
    """One-to-one pairs of features of crosscoder a and crosscoder b, and how near each feature's nearest is.

    `assigned` holds all pairs above `floor`, ordered by a's feature, `assigned_cosine` their cosines; `pairs` and
    `cosines` those above `acceptance`. `best_a` is the cosine of each feature of a with the nearest of b, whether or
    not they are paired; `best_b` the reverse. It is NaN for features that take no part: without a decoder, or not
    alive.
    """

    acceptance: float
    floor: float
    assigned: Int[Tensor, "assigned 2"]
    assigned_cosine: Float[Tensor, " assigned"]
    best_a: Float[Tensor, " features"]
    best_b: Float[Tensor, " others"]

    @property
    def pairs(self) -> Int[Tensor, "pairs 2"]:
        """Matched features: of a, of b."""
        return self.assigned[self.assigned_cosine > self.acceptance]

    @property
    def cosines(self) -> Float[Tensor, " pairs"]:
        """Of the matched pairs."""
        return self.assigned_cosine[self.assigned_cosine > self.acceptance]

    @property
    def partner(self) -> Int[Tensor, " features"]:
        """b's feature that matches each one of a, -1 where none does."""
        partner = torch.full((len(self.best_a),), -1)
        partner[self.pairs[:, 0]] = self.pairs[:, 1]
        return partner

    @property
    def curve(self) -> dict[str, float]:
        """Share of features matched at acceptance 0.5 to 0.9; nothing is known below `floor`."""
        return {f"{acceptance:g}": self.share(acceptance) for acceptance in ACCEPTANCES}

    def share(self, acceptance: float) -> float:
        """2 x pairs above `acceptance` / features of a and b that take part; NaN if none does."""
        if acceptance < self.floor:
            raise ValueError(f"pairs were kept above cosine {self.floor:g}; match again with acceptance={acceptance:g}")
        taking_part = int((~self.best_a.isnan()).sum() + (~self.best_b.isnan()).sum())
        matched = int((self.assigned_cosine > acceptance).sum())
        return 2 * matched / taking_part if taking_part else float("nan")

    @property
    def pw_mcc(self) -> float:
        """Pairwise dictionary mean correlation: the mean cosine of a feature with its nearest in the other dictionary,
        over all features of a, over all of b, and the mean of the two.

        Two features may have one nearest, so this is at least the mean over one-to-one pairs. It is 1
        for equal dictionaries, and about sqrt(2 log(features) / width) for unrelated ones.
        """
        return float((self.best_a.double().nanmean() + self.best_b.double().nanmean()) / 2)

    def carry(self, features: Int[Tensor, " n"]) -> Int[Tensor, " carried"]:
        """The features of b that match those of a, in the same order; unmatched ones are left out."""
        carried = self.partner[features.cpu()]
        return carried[carried >= 0]

    def reversed(self) -> "Matching":
        """The same pairs, from b to a."""
        order = self.assigned[:, 1].argsort()
        pairs, cosines = self.assigned.flip(1)[order], self.assigned_cosine[order]
        return Matching(self.acceptance, self.floor, pairs, cosines, self.best_b, self.best_a)


def match(
    a: Crosscoder,
    b: Crosscoder,
    acceptance: float = 0.7,
    *,
    models: Sequence[str | tuple[str, str]] = (),
    alive: Alive | None = None,
    exact: int = EXACT,
    block: int = BLOCK,
) -> Matching:
    """Pair the features of two crosscoders.

    `models` says whose decoders are compared: a name that both know, or a pair (a's name, b's name), so that
    ("base", ("c1", "c2")) lays the checkpoint c1 of one beside c2 of the other. Empty: all models of a, which b must
    know too. `alive` says which features of a and of b take part; without it all that have a decoder do.
    """
    couples = [(name, name) if isinstance(name, str) else name for name in models or a.models]
    left = _Side.of(a.W_dec.detach(), [a.index(name) for name, _ in couples], alive and alive[0])
    right = _Side.of(b.W_dec.detach(), [b.index(name) for _, name in couples], alive and alive[1])
    return _match(left, right, acceptance, exact, block)


def match_decoders(
    a: Float[Tensor, "features models d_model"],
    b: Float[Tensor, "others models d_model"],
    acceptance: float = 0.7,
    *,
    alive: Alive | None = None,
    exact: int = EXACT,
    block: int = BLOCK,
) -> Matching:
    """`match` for decoders alone, model by model in one order and in normalised units."""
    every = list(range(a.shape[1]))
    left, right = _Side.of(a, every, alive and alive[0]), _Side.of(b, every, alive and alive[1])
    return _match(left, right, acceptance, exact, block)


def match_codes(
    a: Float[Tensor, "tokens features"],
    b: Float[Tensor, "tokens others"],
    acceptance: float = 0.7,
    *,
    alive: Alive | None = None,
) -> Matching:
    """Pair features by the correlation of their codes on the same tokens; one that is constant there takes no part.

    Decoders of different layers lie in different spaces, so their directions say nothing about each other. What two
    features do on the same tokens does: the correlation of their codes, which is the cosine of the codes less their
    means, takes the place of the cosine of decoders.
    """
    return match_decoders(_centred(a), _centred(b), acceptance, alive=alive)


def _centred(codes: Float[Tensor, "tokens features"]) -> Float[Tensor, "features 1 tokens"]:
    """Codes less their mean, one row a feature; zero, to the bit, for a feature that never changes."""
    varies = (codes != codes[:1]).any(dim=0)
    return rearrange((codes - codes.mean(dim=0)) * varies, "tokens features -> features 1 tokens")


def matched_jaccard(matching: Matching, of_a: Int[Tensor, " n"], of_b: Int[Tensor, " m"]) -> float:
    """|A and B| / |A or B| of a set A of a's features and a set B of b's, where matched features are one and the same.

    A feature without a match counts as one that the other set lacks. NaN if both sets are empty.
    """
    shared = int(torch.isin(matching.carry(of_a.unique()), of_b.cpu()).sum())
    union = len(of_a.unique()) + len(of_b.unique()) - shared
    return shared / union if union else float("nan")


@dataclass(frozen=True, eq=False)
class _Side:
    """Some features of one dictionary, by their decoders in the models of `columns`."""

    W_dec: Float[Tensor, "features models d_model"]
    columns: list[int]
    features: Int[Tensor, " n"]

    @staticmethod
    def of(
        W_dec: Float[Tensor, "features models d_model"], columns: list[int], alive: Bool[Tensor, " features"] | None
    ) -> "_Side":
        """All that are alive and have a decoder in any of the models."""
        written = (W_dec.norm(dim=-1)[:, columns] > 0).any(dim=1)
        chosen = written if alive is None else written & alive.to(written.device)
        return _Side(W_dec, columns, rearrange(chosen.nonzero(), "n 1 -> n"))

    def __len__(self) -> int:
        return len(self.features)

    def only(self, kept: Tensor | slice) -> "_Side":
        return replace(self, features=self.features[kept])

    def unit(self) -> Float[Tensor, "n width"]:
        """Their concatenated decoders, brought to length 1."""
        rows = rearrange(self.W_dec[self.features][:, self.columns].float(), "n m d -> n (m d)")
        return rows / rows.norm(dim=-1, keepdim=True)


@dataclass(frozen=True, eq=False)
class _Nearest:
    """For each feature of a the largest cosine with one of b, and where that one stands; and the reverse."""

    left: Float[Tensor, " left"]
    right_of_left: Int[Tensor, " left"]
    right: Float[Tensor, " right"]
    left_of_right: Int[Tensor, " right"]

    @staticmethod
    def of(a: _Side, b: _Side, block: int) -> "_Nearest":
        def empty(features: Tensor) -> tuple[Tensor, Tensor]:
            return torch.full_like(features, -torch.inf, dtype=torch.float32), torch.zeros_like(features)

        (best_left, at_right), (best_right, at_left) = empty(a.features), empty(b.features)
        for i, j, tile in _tiles(a, b, block):
            rows, columns = slice(i, i + len(tile)), slice(j, j + tile.shape[1])
            _keep_larger(best_left[rows], at_right[rows], tile, j)
            _keep_larger(best_right[columns], at_left[columns], tile.T, i)
        return _Nearest(best_left, at_right, best_right, at_left)


def _match(a: _Side, b: _Side, acceptance: float, exact: int, block: int) -> Matching:
    if not 0 < acceptance < 1:
        raise ValueError(f"{acceptance=}, but a cosine to accept lies between 0 and 1; the usual choice is 0.7")
    if a.W_dec.shape[2] != b.W_dec.shape[2]:
        raise ValueError(
            f"d_model is {a.W_dec.shape[2]} in one crosscoder and {b.W_dec.shape[2]} in the other; match dictionaries "
            "of models of one width"
        )
    assert exact > 0 and block > 0
    floor = min(acceptance, *ACCEPTANCES)
    best_a, best_b = (torch.full((len(side.W_dec),), torch.nan) for side in (a, b))
    nearest = _Nearest.of(a, b, block)
    best_a[a.features.cpu()], best_b[b.features.cpu()] = nearest.left.cpu(), nearest.right.cpu()
    pairs, cosines = _pairs(a, b, nearest, floor, exact, block)
    order = pairs[:, 0].argsort()
    return Matching(acceptance, floor, pairs[order], cosines[order], best_a, best_b)


def _pairs(
    a: _Side, b: _Side, nearest: _Nearest, floor: float, exact: int, block: int
) -> tuple[Int[Tensor, "pairs 2"], Float[Tensor, " pairs"]]:
    """All one-to-one pairs above the floor: rounds of mutual nearest neighbours while there are too many features for
    an assignment, then that."""
    pairs, cosines = [torch.empty(0, 2, dtype=torch.int64)], [torch.empty(0)]
    while len(a) * len(b) > exact * exact:
        above, free = nearest.left > floor, nearest.right > floor
        back = nearest.left_of_right[nearest.right_of_left]
        mutual = above & (back == torch.arange(len(a), device=back.device))
        partners = nearest.right_of_left[mutual]
        pairs.append(torch.stack([a.features[mutual], b.features[partners]], dim=1).cpu())
        cosines.append(nearest.left[mutual].cpu())
        free[partners] = False
        settled = len(partners) >= SETTLED * min(len(a), len(b))
        a, b = a.only(above & ~mutual), b.only(free)
        nearest = _Nearest.of(a, b, block)
        if not settled:
            break
    best_first = nearest.left.argsort(descending=True, stable=True)[: int((nearest.left > floor).sum())]
    a, b = a.only(best_first), b.only(nearest.right > floor)
    # One assignment for all, or for as many of `a` at a time as make exact x exact cosines with what is left of `b`.
    while len(a) and len(b):
        count = max(1, exact * exact // len(b))
        chosen, a = a.only(slice(count)), a.only(slice(count, None))
        found = torch.empty(len(chosen), len(b))
        for i, j, tile in _tiles(chosen, b, block):
            found[i : i + len(tile), j : j + tile.shape[1]] = tile
        assigned = linear_sum_assignment(found.where(found > floor, 0.0).numpy(), maximize=True)
        rows, columns = map(torch.from_numpy, assigned)
        kept = found[rows, columns] > floor
        rows, columns = rows[kept], columns[kept]
        pairs.append(torch.stack([chosen.features.cpu()[rows], b.features.cpu()[columns]], dim=1))
        cosines.append(found[rows, columns])
        free = torch.ones(len(b), dtype=torch.bool, device=b.features.device)
        free[columns] = False
        b = b.only(free)
    return torch.cat(pairs), torch.cat(cosines)


def _keep_larger(
    best: Float[Tensor, " rows"], at: Int[Tensor, " rows"], tile: Float[Tensor, "rows columns"], offset: int
) -> None:
    """Where the largest of the tile exceeds the best so far, put it in its place."""
    found = tile.max(dim=1)
    larger = found.values > best
    best[larger] = found.values[larger]
    at[larger] = found.indices[larger] + offset


def _tiles(a: _Side, b: _Side, block: int) -> Iterator[tuple[int, int, Float[Tensor, "rows columns"]]]:
    """Cosines of all features of a with all of b, a tile at a time, with its first row and column."""
    for i in range(0, len(a), block):
        rows = a.only(slice(i, i + block)).unit()
        for j in range(0, len(b), block):
            yield i, j, (rows @ b.only(slice(j, j + block)).unit().T).clamp_(-1, 1)
