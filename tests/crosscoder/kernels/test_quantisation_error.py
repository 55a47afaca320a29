import torch
from hypothesis import given
from hypothesis import strategies as st

from featdiff.crosscoder.kernels.parameter_rows import Rows
from featdiff.crosscoder.kernels.quantisation_error import MARGIN, hidden, hidden_by_int8, missed, rounded_up

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st.lists(FINITE, min_size=1))
def test_rounding_up_gives_the_smallest_bfloat16_that_is_not_smaller(numbers: list[float]) -> None:
    exact = torch.tensor(numbers)
    up = rounded_up(exact)
    below = torch.nextafter(up, torch.full_like(up, -torch.inf))
    assert (up.float() >= exact).all() and (below.float() < exact).all()


def test_infinity_stays_what_it_is() -> None:
    both = torch.tensor([torch.inf, -torch.inf])
    assert torch.equal(rounded_up(both).float(), both)


def test_rounding_hides_less_than_is_said() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 64, generator=generator) * torch.exp(torch.randn(50, 1, generator=generator))
    rows = torch.randn(400, 64, generator=generator)
    exact, rounded = x.double() @ rows.double().T, (x.bfloat16().double() @ rows.bfloat16().double().T).bfloat16()
    bound = hidden(x, torch.tensor(MARGIN)).double()[:, None] * rows.pow(4).sum(dim=1).pow(0.25)
    near = exact.abs() < bound  # where it is decided
    error = (rounded.double() - exact).abs()[near] / bound.expand_as(exact)[near]
    assert 0.1 < float(error.max()) < 1


def test_int8_hides_less_than_is_said() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 64, generator=generator) * torch.exp(torch.randn(50, 1, generator=generator))
    rows = torch.randn(400, 64, generator=generator)
    steps_x, steps = (part.abs().amax(dim=1, keepdim=True) / 127 for part in (x, rows))
    rounded = (x / steps_x).round().double() @ (rows / steps).round().double().T
    lengths, longest = (x / steps_x).norm(dim=1), float((rows / steps).norm(dim=1).max())
    bound = torch.from_numpy(hidden_by_int8(lengths.numpy(), longest, MARGIN)).double()[:, None]
    error = (rounded - (x / steps_x).double() @ (rows / steps).double().T).abs() / bound
    assert 0.1 < float(error.max()) < 1


def test_pairs_that_are_not_listed_are_counted_beyond_rounding() -> None:
    weights = Rows(torch.eye(3), torch.eye(3), torch.zeros(3), torch.zeros(3), None)
    x, floors = torch.tensor([[1.0, 1e-7, -1.0], [2.0, 3.0, 0.0]]), torch.zeros(3)
    none, all_of_them = torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    assert missed(weights, x, floors, none) == 3
    assert missed(weights, x, floors, all_of_them) == 0
