"""Trajectories under each alignment: of dictionaries written by hand, of noisy copies of one truth, of trained ones."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from featdiff.activations.stream import Activations
from featdiff.attribution import Attribution
from featdiff.attribution.alignments import (
    joint_trajectory,
    matched_trajectory,
    same_seed_index_trajectory,
    swap_trajectory,
)
from featdiff.attribution.stability import ScoredCrosscoder
from featdiff.attribution.swap import swap_specificity
from featdiff.attribution.trajectories import Trajectory
from featdiff.config.study import TrainingSettings
from featdiff.crosscoder import Crosscoder
from featdiff.crosscoder.provenance import note_origin
from featdiff.crosscoder.sparsity import BatchTopK
from featdiff.crosscoder.trainer import train
from featdiff.planted import Group, PlantedStream, World

CHECKPOINTS = ("rl-1", "rl-2", "rl-3")
OFF = ~torch.eye(3, dtype=torch.bool)
FEATURES, WIDTH, TOP = 300, 64, 50


def scored(models: tuple[str, ...], W_dec: Tensor, seed: int = 0) -> ScoredCrosscoder:
    """A crosscoder with the given decoder [features models d_model], of which nothing else is known."""
    crosscoder = Crosscoder(models, W_dec.shape[2], len(W_dec), seed=seed)
    note_origin(crosscoder, "one order")
    crosscoder.W_dec.data.copy_(W_dec)
    return ScoredCrosscoder(crosscoder, Attribution.of(crosscoder))


def seeds_of_pairs(noise: float, seed: int, truth: Sequence[Tensor] | None = None) -> list[list[ScoredCrosscoder]]:
    """Two seeds of a crosscoder per checkpoint: `truth` of each (norms of the tuned model), noisy, in a random order
    of features that depends on the seed alone. Without a truth no checkpoint differs from another."""
    generator = Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(FEATURES, WIDTH, generator=generator), dim=1)
    norms = truth or [0.5 + torch.rand(FEATURES, generator=generator)] * 3
    found = []
    for of_seed in (0, 1):
        order = torch.randperm(FEATURES, generator=generator)
        pairs = []
        for name, norm in zip(CHECKPOINTS, norms, strict=True):
            rows = torch.stack([directions, norm[:, None] * directions], dim=1)
            rows = rows + noise * torch.randn(rows.shape, generator=generator) / WIDTH**0.5
            pairs.append(scored(("base", name), rows[order], of_seed))
        found.append(pairs)
    return found


def joint_of(pairs: Sequence[Sequence[ScoredCrosscoder]]) -> list[ScoredCrosscoder]:
    """One crosscoder over the base and all checkpoints for each seed, with the decoders of its pairs."""
    decoders = [[one.crosscoder.W_dec.detach() for one in of_seed] for of_seed in pairs]
    return [
        scored(("base", *CHECKPOINTS), torch.cat([rows[0][:, :1], *(row[:, 1:] for row in rows)], dim=1), seed)
        for seed, rows in enumerate(decoders)
    ]


def every(pairs: list[list[ScoredCrosscoder]]) -> dict[str, Trajectory]:
    """The trajectory under each alignment that needs no activations."""
    return {
        "joint": joint_trajectory(joint_of(pairs), CHECKPOINTS, top=TOP),
        "matched": matched_trajectory(pairs, CHECKPOINTS, top=TOP),
        "same_seed_index": same_seed_index_trajectory(pairs, CHECKPOINTS, top=TOP),
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_turnover_overlaps_divided_by_the_floor_are_one_however_noisy_the_dictionaries(seed: int) -> None:
    found = every(seeds_of_pairs(0.4, seed))
    for alignment in ("joint", "matched"):
        one = found[alignment]
        assert one.relative is not None and one.noise_floor is not None
        assert one.noise_floor < 0.9  # the test would say nothing about perfect dictionaries
        assert one.relative[OFF].mean() == pytest.approx(1.0, abs=0.1)
        torch.testing.assert_close(one.relative.diagonal(), torch.ones(3))


def test_without_turnover_the_index_overlap_measures_the_seed() -> None:
    found = every(seeds_of_pairs(0.4, 3))["same_seed_index"]
    assert found.noise_floor is not None and found.relative is not None
    assert found.overlap[OFF].mean() > 0.6
    assert found.noise_floor == pytest.approx(TOP / FEATURES, abs=0.1)  # no better than chance
    assert found.relative[OFF].mean() > 2


def test_a_known_turnover_is_found_again_by_both_alignments() -> None:
    strong, weak = torch.full((TOP,), 4.0), torch.full((FEATURES - TOP,), 1.0)
    first = torch.cat([strong, weak])
    half = torch.cat([torch.full((TOP // 2,), 1.0), torch.full((TOP,), 4.0), weak[: FEATURES - TOP - TOP // 2]])
    found = every(seeds_of_pairs(0.2, 4, [first, half, half]))
    for alignment in ("joint", "matched"):
        relative = found[alignment].relative
        assert relative is not None
        assert relative[0, 1] == pytest.approx(0.5, abs=0.1) and relative[1, 2] == pytest.approx(1.0, abs=0.1)


def test_matched_features_keep_their_rank_though_their_index_changes() -> None:
    """Tuned norms 4, 3, 2, 1 of four features; the second dictionary holds them as 2, 0, 3, 1, third now above second.

    By index no feature of the top 2 would stay; matched, the first keeps its rank and the other leaves.
    """
    axes = torch.eye(4)
    order = torch.tensor([2, 0, 3, 1])
    one = torch.stack([axes, torch.tensor([4.0, 3.0, 2.0, 1.0])[:, None] * axes], dim=1)
    two = torch.stack([axes, torch.tensor([4.0, 2.0, 3.0, 1.0])[:, None] * axes], dim=1)[order]
    pairs = [[scored(("base", "rl-1"), one), scored(("base", "rl-2"), two)]]
    found = matched_trajectory(pairs, ("rl-1", "rl-2"), top=2)
    assert found.ranked.tolist() == [[0, 1], [1, 0]]
    assert found.overlap.tolist() == [[1.0, 0.5], [0.5, 1.0]]
    torch.testing.assert_close(found.rank_shift, torch.tensor([[0.0, torch.nan]]), equal_nan=True)
    assert found.chance == pytest.approx(2 / 4)

    by_index = same_seed_index_trajectory(pairs, ("rl-1", "rl-2"), top=2)
    assert by_index.overlap[0, 1] == 1.0 and by_index.rank_shift.tolist() == [[-1.0, 1.0]]


def test_chance_falls_with_the_features_that_have_no_partner() -> None:
    """Of four features three are matched: two random pairs share 2 x 3 / (4 x 4) of their two features."""
    axes = torch.eye(5)
    one = torch.stack([axes[:4], 2 * axes[:4]], dim=1)
    two = torch.stack([axes[1:], 2 * axes[1:]], dim=1)
    found = matched_trajectory(
        [[scored(("base", "rl-1"), one), scored(("base", "rl-2"), two)]], ("rl-1", "rl-2"), top=2
    )
    assert found.chance == pytest.approx(6 / 16)


def test_one_seed_measures_no_floor() -> None:
    pairs = seeds_of_pairs(0.2, 5)[:1]
    for found in every(pairs).values():
        assert found.noise_floor is None and found.between_seeds is None and found.relative is None
        assert found.counted == (TOP,) * 3


def test_only_features_whose_interval_over_seeds_excludes_one_half_have_rank_shifts() -> None:
    """Three seeds agree that features 0 and 1 are specific, and differ about 2, which the first puts above 1."""
    axes = torch.eye(3)
    norms = [torch.tensor([9.0, 2.0, wavering]) for wavering in (3.0, 3.0, 0.4)]
    models = ("base", "rl-1", "rl-2")
    seeds = [
        scored(models, torch.stack([axes, norm[:, None] * axes, norm[:, None] * axes], dim=1), seed)
        for seed, norm in enumerate(norms)
    ]
    found = joint_trajectory(seeds, models[1:], top=3, acceptance=0.5)
    assert found.ranked.tolist() == [[0, 2, 1]] * 2
    assert found.counted == (2, 2)
    torch.testing.assert_close(found.rank_shift, torch.tensor([[0.0, 0.0, torch.nan]]), equal_nan=True)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda one: one.provenance.clear(), r"rl-2 do not record seed, initial weights and order of the data"),
        (lambda one: setattr(one, "seed", 7), r"differ in seed \(0, 7\)"),
        (lambda one: one.provenance.update(initial_weights="x"), "differ in initial weights"),
        (lambda one: one.provenance.update(data_order="x"), r"differ in data order \(one order, x\)"),
    ],
)
def test_indices_are_not_compared_unless_seed_start_and_data_are_recorded_as_equal(spoil, words: str) -> None:
    rows = torch.rand(4, 2, 3, generator=Generator().manual_seed(0))
    pairs = [scored(("base", name), rows) for name in ("rl-1", "rl-2")]
    spoil(pairs[1].crosscoder)
    with pytest.raises(ValueError, match=words) as refusal:
        same_seed_index_trajectory([pairs], ("rl-1", "rl-2"), top=2)
    assert "\n" not in str(refusal.value) and "matched" in str(refusal.value)


def test_a_crosscoder_of_another_checkpoint_is_refused() -> None:
    pairs = seeds_of_pairs(0.1, 6)[0]
    with pytest.raises(ValueError, match="a crosscoder of the base and rl-1 is wanted; this one aligns base, rl-3"):
        matched_trajectory([pairs[::-1]], CHECKPOINTS)


def test_dictionaries_of_different_sizes_are_refused() -> None:
    rows = torch.rand(4, 2, 3, generator=Generator().manual_seed(0))
    pairs = [scored(("base", "rl-1"), rows), scored(("base", "rl-2"), rows[:3])]
    with pytest.raises(ValueError, match="have 3, 4 features; give them one size"):
        matched_trajectory([pairs], ("rl-1", "rl-2"))


@pytest.mark.slow
def test_trained_crosscoders_of_checkpoints_without_turnover_agree_up_to_the_floor(tmp_path: Path) -> None:
    """60 planted features, 40 learned, so that seeds choose; two checkpoints that are one and the same but for
    noise."""
    checkpoints, top, seed = CHECKPOINTS[:2], 15, 0
    models, off = ("base", *checkpoints), ~torch.eye(2, dtype=torch.bool)
    strengths = [(1.0, *(0.3 + 1.7 * i / 59,) * 2) for i in range(60)]
    world = World.build(
        models, 64, tuple(Group(models, 1, s, magnitude="uniform") for s in strengths), seed=seed, noise=0.1
    )
    stream = PlantedStream(world, 250, 128, seed + 1, torch.ones(3))
    lineups = {"joint": models} | {name: ("base", name) for name in checkpoints}
    sparsity = BatchTopK(k=3, aux_weight=1 / 32, aux_k=None, dead_after_tokens=20_000)
    crosscoders = {
        f"{name}@{s}": Crosscoder(lineup, 64, 40, sparsity, seed=100 * seed + s)
        for name, lineup in lineups.items()
        for s in (0, 1)
    }
    for crosscoder in crosscoders.values():
        note_origin(crosscoder, "one stream")
    settings = TrainingSettings(batch_size=128, lr=2e-2, log_every=1000)
    train(crosscoders, stream, settings, folder=tmp_path)

    values = world.sample(8_000, Generator().manual_seed(5)).activations
    batches = [Activations(models, values, torch.zeros(len(values), dtype=torch.int64))]
    of = {name: ScoredCrosscoder(crosscoder, Attribution.of(crosscoder)) for name, crosscoder in crosscoders.items()}
    pairs = [[of[f"{name}@{s}"] for name in checkpoints] for s in (0, 1)]
    last = [of_seed[-1] for of_seed in pairs]
    swapped = swap_specificity([one.crosscoder for one in last], batches, checkpoints, min_active=20)
    found = {
        "joint": joint_trajectory([of[f"joint@{s}"] for s in (0, 1)], checkpoints, top=top),
        "matched": matched_trajectory(pairs, checkpoints, top=top),
        "swap": swap_trajectory(last, swapped, checkpoints, top=top),
    }
    for one in found.values():
        assert one.relative is not None
        assert one.relative[off].mean() == pytest.approx(1.0, abs=0.1)
    by_index = same_seed_index_trajectory(pairs, checkpoints, top=top)
    assert by_index.noise_floor is not None
    assert by_index.noise_floor + 0.1 < by_index.overlap[off].mean() < 0.9
