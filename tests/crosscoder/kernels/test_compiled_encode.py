import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdiff.crosscoder.kernels.compiled_encode import compact, mirror, order_by_feature, refine, screen


def test_positive_numbers_and_small_negative_ones_pass_the_screen() -> None:
    values = torch.tensor([[0.5, -0.5, -0.01, 0.0, -0.0, 3.0, -8.0, 1e-30, -0.02]]).bfloat16()
    margin = int(torch.tensor(0.015).bfloat16().view(torch.int16))
    found, ends = np.empty(64, np.int32), np.empty(1, np.int64)
    limit = np.array([0x8000 + margin], np.uint16)
    assert screen(values.view(torch.uint16).numpy(), limit, found, ends) == 6 == ends[0]
    assert found[:6].tolist() == [0, 2, 3, 4, 5, 7]


def test_no_room_for_the_pairs_is_said_not_overrun() -> None:
    bits, ends = np.zeros((3, 40), np.uint16), np.empty(3, np.int64)
    found = np.full(48, -7, np.int32)
    assert screen(bits, np.full(3, 0x8000, np.uint16), found[:40], ends) == -1
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


def test_the_copy_is_torchs_bfloat16_of_rows_with_unit_fourth_norm() -> None:
    enc = torch.randn(7, 50, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 7)[:, None]
    enc[3] = 0.0
    scale, bits = np.empty(7, np.float32), np.full((7, 50), 9, np.uint16)
    mirror(enc.numpy(), scale, bits, 0, 7)
    scaled = enc * torch.from_numpy(scale)[:, None]
    assert torch.equal(torch.from_numpy(bits).view(torch.bfloat16), scaled.bfloat16())
    torch.testing.assert_close(scaled.pow(4).sum(dim=1), torch.tensor([1.0, 1, 1, 0, 1, 1, 1]))
