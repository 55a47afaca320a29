import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdiff.crosscoder.kernels.cpu.encode import (
    compact,
    mirror,
    order_by_feature,
    quantise_tokens,
    refine,
    screen,
)


def test_scores_above_their_tokens_limit_pass_the_screen_by_hand() -> None:
    scores = np.array([[5, -5, 0, 900], [5, -5, 0, 900]], np.int32)
    lower = np.array([2.0, -4.0, 0.5, 1000.0], np.float32)
    found, ends = np.empty(64, np.int32), np.empty(2, np.int64)
    factors, margins = np.array([1.0, 2.0], np.float32), np.array([0.0, 1200.0], np.float32)
    assert screen(scores, lower, factors, margins, found, ends) == 5
    # Limits 2, -4, 0.5 and 1000; then 4, -8, 1 and 2000, all less 1200.
    assert found[:5].tolist() == [0, 0, 1, 2, 3] and ends.tolist() == [1, 5]


def test_no_room_for_the_pairs_is_said_not_overrun() -> None:
    scores, ends = np.ones((3, 40), np.int32), np.empty(3, np.int64)
    found = np.full(48, -7, np.int32)
    nothing = np.zeros(40, np.float32)
    assert screen(scores, nothing, nothing[:3], nothing[:3], found[:40], ends) == -1
    assert (found[40:] == -7).all()
    pre = np.empty(40, np.float32)
    assert compact(np.ones((3, 40), np.float32), np.zeros(40, np.float32), found[:40], ends, pre) == -1
    assert (found[40:] == -7).all()


def test_pairs_below_the_floor_are_struck_off_by_hand() -> None:
    x = np.array([[1.0, 2.0], [3.0, -1.0]], np.float32)
    enc = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
    bias, floor = np.array([0.0, 0.5, -4.0], np.float32), np.array([0.0, 2.0, -3.0], np.float32)
    found, ends = np.array([0, 1, 2, 0, 1], np.int32), np.array([3, 5])
    pre = np.empty(5, np.float32)
    assert refine(x, enc, bias, floor, found, ends, pre) == 4
    # Token 0: 1, 2.5 and -1 > -3. Token 1: 3, and -0.5 which is below 2.
    assert found[:4].tolist() == [0, 1, 2, 0]
    assert pre[:4].tolist() == [1.0, 2.5, -1.0, 3.0]
    assert ends.tolist() == [3, 4]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 9), features=st.integers(1, 41))
def test_pairs_are_those_of_torch_and_sort_by_feature_then_token(seed: int, tokens: int, features: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    products, floor = torch.randn(tokens, features, generator=generator), torch.randn(features, generator=generator)
    found, pre, ends = np.empty(400, np.int32), np.empty(400, np.float32), np.empty(tokens, np.int64)
    count = compact(products.numpy(), floor.numpy(), found, ends, pre)
    wanted = (products > floor).nonzero()
    assert found[:count].tolist() == wanted[:, 1].tolist()
    assert np.array_equal(pre[:count], products[products > floor].numpy())
    starts, order, token = np.empty(features + 1, np.int64), np.empty(count, np.int32), np.empty(count, np.int32)
    order_by_feature(np.concatenate(([0], ends)), found[:count], starts, order, token)
    by_feature = (products > floor).T.nonzero()
    assert found[order].tolist() == by_feature[:, 0].tolist()
    assert token.tolist() == by_feature[:, 1].tolist()
    assert np.diff(starts).tolist() == torch.bincount(by_feature[:, 0], minlength=features).tolist()


def test_a_value_does_not_depend_on_what_else_is_listed() -> None:
    generator = torch.Generator().manual_seed(0)
    x, enc = (torch.randn(rows, 300, generator=generator).numpy() for rows in (1, 7))
    bias, floor = np.zeros(7, np.float32), np.full(7, -1e9, np.float32)
    values = dict[int, set[float]]()
    for size in range(1, 8):
        for first in range(8 - size):
            found, pre = np.arange(first, first + size, dtype=np.int32), np.empty(size, np.float32)
            assert refine(x, enc, bias, floor, found, np.array([size]), pre) == size
            for feature, value in zip(found.tolist(), pre.tolist(), strict=True):
                values.setdefault(feature, set()).add(value)
    assert [len(values[feature]) for feature in range(7)] == [1] * 7


def test_copies_are_the_nearest_of_127_steps_on_both_sides() -> None:
    enc = torch.randn(7, 50, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 7)[:, None]
    enc[3] = 0.0
    columns = torch.linspace(0.1, 9, 50)
    scale, length, copy = np.empty(7, np.float32), np.empty(7, np.float32), np.full((7, 50), 9, np.int8)
    mirror(enc.numpy(), columns.numpy(), scale, length, copy, 0, 7)
    wanted = enc * columns
    assert scale[3] == 1 and length[3] == 0 and not copy[3].any()
    rows = [0, 1, 2, 4, 5, 6]
    steps, error = torch.from_numpy(scale)[:, None], torch.from_numpy(copy) * torch.from_numpy(scale)[:, None] - wanted
    assert (error.abs() <= 0.5001 * steps).all()
    assert np.abs(copy[rows]).max(axis=1).tolist() == [127] * 6
    torch.testing.assert_close(torch.from_numpy(length * scale), wanted.norm(dim=1))


def test_the_coarseness_is_the_step_beside_the_mean_magnitude() -> None:
    x = np.array([[127.0, 1.0, -4.0, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    scale, length, copy = np.empty(2, np.float32), np.empty(2, np.float32), np.empty((2, 4), np.int8)
    assert quantise_tokens(x, np.ones(4, np.float32), scale, length, copy) == np.float32(1 / 33 / 2)
    assert copy.tolist() == [[127, 1, -4, 0], [0, 0, 0, 0]] and scale.tolist() == [1, 1]
