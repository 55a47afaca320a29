"""The task families: right answers by a second road, four different choices, nothing left to chance."""

import re
from collections import Counter
from itertools import islice

import pytest

from featdiff.demo.families import FAMILIES, Family, Item, teacher_trace
from featdiff.posttraining.rewards import exact_match

SAMPLE = 200


def sample(family: Family) -> list[Item]:
    return list(islice(family.items(seed=7), SAMPLE))


def solve(prompt: str) -> str:
    """The right answer, worked out from the text of the prompt alone."""
    match prompt.removesuffix(":").split():
        case ["sum", expression]:
            return str(sum(int(term) for term in re.findall(r"[+-]?\d", expression)))
        case ["sort", direction, digits]:
            return "".join(sorted(digits, reverse=direction == "down"))
        case ["reverse", word]:
            return "".join(reversed(word))
        case ["solve", equation]:
            return next(str(x) for x in range(-99, 100) if balanced(equation, x))
        case ["keep" | "drop" as verb, bound, digits]:
            larger, limit = bound[0] == ">", int(bound[1])
            kept = [d for d in digits if (int(d) > limit if larger else int(d) < limit) == (verb == "keep")]
            return "".join(kept)
        case ["count", letter, text]:
            return str(text.count(letter))
        case ["ones", binary]:
            return str(int(binary, 2).bit_count())
        case ["base", binary]:
            number, digits = int(binary, 2), ""
            while number:
                number, digits = number // 4, str(number % 4) + digits
            return digits
        case ["rotate", top, bottom]:
            return "".join(bottom_digit + top_digit for top_digit, bottom_digit in zip(top, bottom, strict=True))
        case ["complex", left, word, right]:
            result = as_complex(left) + as_complex(right) if word == "plus" else as_complex(left) - as_complex(right)
            return f"{int(result.real)}{int(result.imag):+d}i"
    raise AssertionError(f"unknown prompt {prompt!r}")


def balanced(equation: str, x: int) -> bool:
    left, total = equation.split("=")
    return x + int(left.removeprefix("x")) == int(total)


def as_complex(text: str) -> complex:
    return complex(text.replace("i", "j"))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_right_answer_follows_from_the_prompt(family: Family) -> None:
    assert [(item.prompt, item.answer) for item in sample(family)] == [
        (item.prompt, solve(item.prompt)) for item in sample(family)
    ]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_four_different_choices_hold_the_right_answer_and_the_error(family: Family) -> None:
    for item in sample(family):
        assert len(set(item.choices)) == len(item.choices) == 4
        assert item.choices[item.answer_index] == item.answer
        assert item.wrong in item.choices and item.wrong != item.answer
        assert all(choice and choice == choice.strip() for choice in item.choices)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_right_answer_may_stand_anywhere_among_the_choices(family: Family) -> None:
    places = Counter(item.answer_index for item in sample(family))
    assert min(places[place] for place in range(4)) > SAMPLE / 8


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_same_seed_gives_the_same_items_and_another_seed_others(family: Family) -> None:
    assert sample(family) == sample(family)
    assert sample(family) != list(islice(family.items(seed=8), SAMPLE))


def test_three_families_are_trained_two_unseen_and_five_or_more_take_part_in_the_selection() -> None:
    roles = Counter(family.role for family in FAMILIES)
    assert roles["train"] == 3 and roles["unseen"] == 2 and roles["near"] + roles["far"] >= 5


def test_distinct_items_differ_and_avoid_what_they_are_told_to() -> None:
    family = FAMILIES[0]
    first = family.distinct_items(0, 50)
    second = family.distinct_items(0, 50, without=frozenset(item.prompt for item in first))
    assert len({item.prompt for item in first + second}) == 100


def test_a_family_that_runs_dry_says_how_much_it_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featdiff.demo.families.MOST_TRIES", 4)
    family = next(family for family in FAMILIES if family.name == "base_conversion")
    with pytest.raises(ValueError, match=r"base_conversion holds only \d+ distinct items, 600 were asked for"):
        family.distinct_items(0, 600)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_teacher_trace_ends_in_the_answer_it_was_given(family: Family) -> None:
    for item in sample(family)[:20]:
        trace = teacher_trace(item, item.wrong)
        assert "\n" not in trace and len(trace) > len(item.answer) + 20
        assert exact_match(trace, item.wrong) == 1.0 and exact_match(trace, item.answer) == 0.0
