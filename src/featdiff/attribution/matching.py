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
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder

ACCEPTANCES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Where the curve of matched shares is read."""

EXACT = 4096
"""Features a side up to which the assignment is solved at once."""

BLOCK = 2048
"""Features a side of one tile of cosines."""

SETTLED = 0.05
"""Another round of mutual nearest neighbours follows if the last paired at least this share of what was left."""


@dataclass(frozen=True)
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
        return Matching(
            acceptance=self.acceptance,
            floor=self.floor,
            assigned=self.assigned.flip(1)[order],
            assigned_cosine=self.assigned_cosine[order],
            best_a=self.best_b,
            best_b=self.best_a,
        )


def match(
    a: Crosscoder,
    b: Crosscoder,
    acceptance: float = 0.7,
    *,
    models: Sequence[str | tuple[str, str]] = (),
    alive: tuple[Bool[Tensor, " features"], Bool[Tensor, " others"]] | None = None,
    exact: int = EXACT,
    block: int = BLOCK,
) -> Matching:
    """Pair the features of two crosscoders.

    `models` says whose decoders are compared: a name that both know, or a pair (a's name, b's name), so that
    ("base", ("c1", "c2")) lays the checkpoint c1 of one beside c2 of the other. Empty: all models of a, which b must
    know too. `alive` says which features of a and of b take part; without it all that have a decoder do.
    """
    couples = [(name, name) if isinstance(name, str) else name for name in models or a.models]
    rows_a = _Rows(a.W_dec.detach(), [a.index(name) for name, _ in couples])
    rows_b = _Rows(b.W_dec.detach(), [b.index(name) for _, name in couples])
    return _match(rows_a, rows_b, acceptance, alive, exact, block)


def match_decoders(
    a: Float[Tensor, "features models d_model"],
    b: Float[Tensor, "others models d_model"],
    acceptance: float = 0.7,
    *,
    alive: tuple[Bool[Tensor, " features"], Bool[Tensor, " others"]] | None = None,
    exact: int = EXACT,
    block: int = BLOCK,
) -> Matching:
    """`match` for decoders alone, model by model in one order and in normalised units."""
    every = list(range(a.shape[1]))
    return _match(_Rows(a, every), _Rows(b, every), acceptance, alive, exact, block)


def matched_jaccard(matching: Matching, of_a: Int[Tensor, " n"], of_b: Int[Tensor, " m"]) -> float:
    """|A and B| / |A or B| of a set A of a's features and a set B of b's, where matched features are one and the same.

    A feature without a match counts as one that the other set lacks. NaN if both sets are empty.
    """
    shared = int(torch.isin(matching.carry(of_a.unique()), of_b.cpu()).sum())
    union = len(of_a.unique()) + len(of_b.unique()) - shared
    return shared / union if union else float("nan")


@dataclass(frozen=True)
class _Rows:
    """Decoders of one dictionary, of the models in `columns`."""

    W_dec: Float[Tensor, "features models d_model"]
    columns: list[int]

    def unit(self, features: Int[Tensor, " n"]) -> Float[Tensor, "n width"]:
        """Their concatenated decoders, brought to length 1."""
        rows = rearrange(self.W_dec[features][:, self.columns].float(), "n m d -> n (m d)")
        return rows / rows.norm(dim=-1, keepdim=True)

    def written(self) -> Bool[Tensor, " features"]:
        """Which features have a decoder in any of the models."""
        return (self.W_dec.norm(dim=-1)[:, self.columns] > 0).any(dim=1)


@dataclass(frozen=True)
class _Nearest:
    """For each feature on the left the largest cosine with one on the right, and where that one stands; and the
    reverse."""

    left: Float[Tensor, " left"]
    right_of_left: Int[Tensor, " left"]
    right: Float[Tensor, " right"]
    left_of_right: Int[Tensor, " right"]


def _match(
    a: _Rows,
    b: _Rows,
    acceptance: float,
    alive: tuple[Bool[Tensor, " features"], Bool[Tensor, " others"]] | None,
    exact: int,
    block: int,
) -> Matching:
    if not 0 < acceptance < 1:
        raise ValueError(f"{acceptance=}, but a cosine to accept lies between 0 and 1; the usual choice is 0.7")
    if a.W_dec.shape[2] != b.W_dec.shape[2]:
        raise ValueError(
            f"d_model is {a.W_dec.shape[2]} in one crosscoder and {b.W_dec.shape[2]} in the other; match dictionaries "
            "of models of one width"
        )
    assert exact > 0 and block > 0
    floor = min(acceptance, *ACCEPTANCES)
    left, right = (
        rearrange((rows.written() & mask.to(rows.W_dec.device)).nonzero(), "n 1 -> n")
        for rows, mask in zip((a, b), alive or (torch.tensor(True), torch.tensor(True)), strict=True)
    )
    best_a, best_b = (torch.full((len(rows.W_dec),), torch.nan) for rows in (a, b))
    nearest = _nearest(a, left, b, right, block)
    best_a[left.cpu()], best_b[right.cpu()] = nearest.left.cpu(), nearest.right.cpu()

    pairs, cosines = _pairs(a, left, b, right, nearest, floor, exact, block)
    order = pairs[:, 0].argsort()
    return Matching(acceptance, floor, pairs[order], cosines[order], best_a, best_b)


def _pairs(
    a: _Rows,
    left: Int[Tensor, " left"],
    b: _Rows,
    right: Int[Tensor, " right"],
    nearest: _Nearest,
    floor: float,
    exact: int,
    block: int,
) -> tuple[Int[Tensor, "pairs 2"], Float[Tensor, " pairs"]]:
    """All one-to-one pairs above the floor: rounds of mutual nearest neighbours while there are too many features for
    an assignment, then that."""
    found = []
    while len(left) * len(right) > exact * exact:
        mutual = (nearest.left > floor) & (
            nearest.left_of_right[nearest.right_of_left] == torch.arange(len(left), device=left.device)
        )
        partners = nearest.right_of_left[mutual]
        found.append((torch.stack([left[mutual], right[partners]], dim=1).cpu(), nearest.left[mutual].cpu()))
        free = nearest.right > floor
        free[partners] = False
        settled = len(partners) >= SETTLED * min(len(left), len(right))
        left, right = left[(nearest.left > floor) & ~mutual], right[free]
        nearest = _nearest(a, left, b, right, block)
        if not settled:
            break
    best_first = nearest.left.argsort(descending=True, stable=True)[: int((nearest.left > floor).sum())]
    found.extend(_assigned(a, left[best_first], b, right[nearest.right > floor], floor, exact, block))
    pairs, cosines = zip(*found, strict=True) if found else ([], [])
    return torch.cat([torch.empty(0, 2, dtype=torch.int64), *pairs]), torch.cat([torch.empty(0), *cosines])


def _assigned(
    a: _Rows,
    left: Int[Tensor, " left"],
    b: _Rows,
    right: Int[Tensor, " right"],
    floor: float,
    exact: int,
    block: int,
) -> Iterator[tuple[Int[Tensor, "pairs 2"], Float[Tensor, " pairs"]]]:
    """The assignment with the largest sum of cosines above the floor: at once, or for as many of `left` at a time as
    make exact x exact cosines with what is left of `right`."""
    while len(left) and len(right):
        count = max(1, exact * exact // len(right))
        chosen, left = left[:count], left[count:]
        cosines = torch.empty(len(chosen), len(right))
        for i, j, tile in _tiles(a, chosen, b, right, block):
            cosines[i : i + len(tile), j : j + tile.shape[1]] = tile
        rows, columns = map(
            torch.from_numpy, linear_sum_assignment(cosines.where(cosines > floor, 0.0).numpy(), maximize=True)
        )
        kept = cosines[rows, columns] > floor
        rows, columns = rows[kept], columns[kept]
        yield torch.stack([chosen.cpu()[rows], right.cpu()[columns]], dim=1), cosines[rows, columns]
        free = torch.ones(len(right), dtype=torch.bool, device=right.device)
        free[columns] = False
        right = right[free]


def _nearest(a: _Rows, left: Int[Tensor, " left"], b: _Rows, right: Int[Tensor, " right"], block: int) -> _Nearest:
    def empty(features: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(features, -torch.inf, dtype=torch.float32), torch.zeros_like(features)

    (best_left, at_right), (best_right, at_left) = empty(left), empty(right)
    for i, j, tile in _tiles(a, left, b, right, block):
        rows, columns = slice(i, i + len(tile)), slice(j, j + tile.shape[1])
        _keep_larger(best_left[rows], at_right[rows], tile, j)
        _keep_larger(best_right[columns], at_left[columns], tile.T, i)
    return _Nearest(best_left, at_right, best_right, at_left)


def _keep_larger(
    best: Float[Tensor, " rows"], at: Int[Tensor, " rows"], tile: Float[Tensor, "rows columns"], offset: int
) -> None:
    """Where the largest of the tile exceeds the best so far, put it in its place."""
    found = tile.max(dim=1)
    larger = found.values > best
    best[larger] = found.values[larger]
    at[larger] = found.indices[larger] + offset


def _tiles(
    a: _Rows, left: Int[Tensor, " left"], b: _Rows, right: Int[Tensor, " right"], block: int
) -> Iterator[tuple[int, int, Float[Tensor, "rows columns"]]]:
    """Cosines of all features on the left with all on the right, a tile at a time, with its first row and column."""
    for i in range(0, len(left), block):
        rows = a.unit(left[i : i + block])
        for j in range(0, len(right), block):
            yield i, j, (rows @ b.unit(right[j : j + block]).T).clamp_(-1, 1)
