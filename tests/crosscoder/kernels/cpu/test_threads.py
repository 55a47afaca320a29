from threading import get_ident

import pytest
import torch

from featdiff.crosscoder.kernels.cpu.threads import Workers


@pytest.mark.parametrize("threads", [1, 3])
def test_ranges_cover_all_rows_in_order(threads: int) -> None:
    found = Workers(threads).map(lambda start, stop: list(range(start, stop)), 23, 5)
    assert [len(part) for part in found] == [5, 5, 5, 5, 3]
    assert [row for part in found for row in part] == list(range(23))


def test_the_leader_is_one_thread_in_which_torch_has_one_and_a_leader_leads_itself() -> None:
    workers, before = Workers(2), torch.get_num_threads()
    first, second = (workers.lead(lambda: (get_ident(), torch.get_num_threads())) for _ in range(2))
    assert first == second and first[0] != get_ident() and first[1] == 1
    assert workers.lead(lambda: workers.lead(get_ident)) == first[0]
    assert torch.get_num_threads() == before


def test_torch_gets_the_threads_for_a_while() -> None:
    workers = Workers(2)

    def threads() -> tuple[int, int]:
        with workers.given_to_torch():
            inside = torch.get_num_threads()
        return inside, torch.get_num_threads()

    assert workers.lead(threads) == (2, 1)


def test_an_error_in_a_range_reaches_the_caller() -> None:
    def fail(start: int, stop: int) -> None:
        raise ValueError(f"{start}..{stop}")

    with pytest.raises(ValueError, match=r"0\.\.4"):
        Workers(2).map(fail, 8, 4)
