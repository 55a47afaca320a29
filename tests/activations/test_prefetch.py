"""Tests of work ahead with iterators that say when each item is made, and in which thread."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from featdiff.activations.prefetch import Ahead, one_thread


def wait_for_made(items: Ahead[int]) -> int | None:
    for _ in range(1000):
        if (made := items.made()) is not None:
            return made
        threading.Event().wait(0.002)
    return None


def failing(count: int) -> Iterator[int]:
    yield from range(count)
    raise ValueError(f"item {count} cannot be made")


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_the_items_are_those_of_the_iterator_in_order_whichever_thread_makes_them(count: int, wanted: bool) -> None:
    with one_thread(wanted) as pool:
        items = Ahead(iter(range(count)), pool)
        assert list(items) == list(range(count))
        assert list(items) == []


def test_one_item_is_made_ahead_and_no_more() -> None:
    began: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(4):
            began.append(number)
            yield number

    with one_thread(True) as pool:
        items = Ahead(numbers(), pool)
        assert wait_for_made(items) == 0
        assert items.made() == 0  # it stays the next
        assert began == [0]
        assert next(items) == 0
        assert wait_for_made(items) == 1
        assert began == [0, 1]


def test_without_a_thread_nothing_is_made_before_it_is_asked_for() -> None:
    began: list[str] = []

    def numbers() -> Iterator[int]:
        began.append(threading.current_thread().name)
        yield 7

    with one_thread(False) as pool:
        items = Ahead(numbers(), pool)
        assert items.made() is None and began == []
        assert next(items) == 7
        assert began == [threading.current_thread().name]


@pytest.mark.parametrize("wanted", [True, False])
def test_an_error_is_raised_in_the_place_of_its_item(wanted: bool) -> None:
    with one_thread(wanted) as pool:
        items = Ahead(failing(2), pool)
        assert [next(items), next(items)] == [0, 1]
        threading.Event().wait(0.05)
        assert items.made() is None  # an error is never what was made
        with pytest.raises(ValueError, match=r"^item 2 cannot be made$"):
            next(items)


def test_leaving_waits_for_what_was_begun_and_begins_nothing_more() -> None:
    entered, go_on, made = threading.Event(), threading.Event(), list[int]()

    def slow() -> Iterator[int]:
        for number in range(3):
            entered.set()
            go_on.wait(5)
            made.append(number)
            yield number

    with one_thread(True) as pool:
        Ahead(slow(), pool)
        assert entered.wait(5)
        go_on.set()
    assert made == [0]
    assert not any(thread.name.startswith("harvest") for thread in threading.enumerate())


def test_the_thread_computes_with_as_many_threads_as_its_maker() -> None:
    def threads() -> Iterator[int]:
        yield torch.get_num_threads()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with one_thread(True) as pool:
            assert next(Ahead(threads(), pool)) == 3
    finally:
        torch.set_num_threads(before)


def test_a_program_that_fails_in_the_middle_ends() -> None:
    program = (
        "from itertools import count\n"
        "from featdiff.activations.prefetch import Ahead, one_thread\n"
        "made = one_thread(True)\n"
        "items = Ahead(count(), made.__enter__())\n"  # and is never left, as by a traceback that is kept
        "print(next(items), flush=True)\n"
        "raise SystemExit(3)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (3, "0\n"), ended.stderr
