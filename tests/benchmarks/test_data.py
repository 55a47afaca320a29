import math

import pytest
import torch
from data import mixture, read_batch, read_rows, write
from task import Shape

SHAPE = Shape(models=3, d_model=64, features=512, tokens=1024)


def test_activations_have_the_units_of_training() -> None:
    _, batches = mixture(SHAPE, 10, 2)
    for batch in batches:
        torch.testing.assert_close(batch.norm(dim=-1).mean(dim=0), torch.full((3,), math.sqrt(64)), rtol=0.05, atol=0)


def test_a_twentieth_of_the_features_belongs_to_each_model_alone() -> None:
    rows, _ = mixture(Shape(models=3, d_model=4, features=20_000, tokens=8), 10, 1)
    has = rows.norm(dim=-1) > 0
    alone = has[has.sum(dim=1) == 1].sum(dim=0) / len(rows)
    torch.testing.assert_close(alone, torch.full((3,), 0.05), rtol=0.15, atol=0)
    assert (has.sum(dim=1) != 2).all()


def test_so_many_features_are_active_as_was_asked_for() -> None:
    # Orthogonal directions, so that the codes can be read off: as many dimensions as features, and one model.
    shape = Shape(models=1, d_model=2048, features=128, tokens=2048)
    rows, batches = mixture(shape, 10, 1)
    codes = next(batches).flatten(1) @ torch.linalg.pinv(rows.flatten(1))
    assert float((codes > 0.25).sum() / shape.tokens) == pytest.approx(10, rel=0.05)


def test_every_worker_reads_the_same_bytes(tmp_path) -> None:
    write(tmp_path, SHAPE, 10, 2)
    rows, batches = mixture(SHAPE, 10, 2)
    made = list(batches)
    assert torch.equal(read_rows(tmp_path), rows)
    assert torch.equal(read_batch(tmp_path, 1), made[1])
    assert torch.equal(read_batch(tmp_path, 2), made[0]), "after the last batch comes the first again"


def test_more_active_features_than_the_law_allows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"100 of 128 features cannot be active on a token; lower --l0"):
        mixture(Shape(models=1, d_model=4, features=128, tokens=8), 100, 1)
