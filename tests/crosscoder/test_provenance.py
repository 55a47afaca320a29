"""What a crosscoder began with is noted, travels with it, and differs where it should."""

from pathlib import Path

import torch

from featdiff.crosscoder import Crosscoder
from featdiff.crosscoder.provenance import note_origin, origin_of, weights_digest


def new(models: tuple[str, ...] = ("base", "rl-1"), seed: int = 0, decoder_init_norm: float = 0.08) -> Crosscoder:
    return Crosscoder(models, 8, 16, seed=seed, decoder_init_norm=decoder_init_norm)


def test_checkpoints_of_one_seed_begin_with_the_same_weights_and_other_seeds_with_others() -> None:
    assert weights_digest(new()) == weights_digest(new(("base", "rl-2")))
    others = {weights_digest(one) for one in (new(), new(seed=1), new(decoder_init_norm=0.1))}
    assert len(others) == 3


def test_what_was_noted_before_training_is_kept_through_training_and_on_disk(tmp_path: Path) -> None:
    crosscoder = new(seed=3)
    begun = weights_digest(crosscoder)
    note_origin(crosscoder, "order")
    with torch.no_grad():
        crosscoder.W_dec.add_(1.0)
    crosscoder.save(tmp_path / "one")
    origin = origin_of(Crosscoder.load(tmp_path / "one"))
    assert origin is not None and (origin.seed, origin.initial_weights, origin.data_order) == (3, begun, "order")
    assert weights_digest(crosscoder) != begun


def test_a_crosscoder_of_which_nothing_was_noted_has_no_origin() -> None:
    assert origin_of(new()) is None
