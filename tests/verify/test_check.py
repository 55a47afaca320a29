"""A check passes within its tolerance and on the right side; the table and the records say so."""

import math

import pytest

from featdiff.verify.check import Check, Relation, table


@pytest.mark.parametrize(
    ("relation", "found", "passed"),
    [
        ("=", 1.0, True),
        ("=", 1.1, True),
        ("=", 0.89, False),
        (">=", 5.0, True),
        (">=", 0.91, True),
        (">=", 0.89, False),
        ("<=", -5.0, True),
        ("<=", 1.09, True),
        ("<=", 1.11, False),
        ("=", math.nan, False),
        (">=", math.nan, False),
        ("<=", math.nan, False),
    ],
)
def test_a_check_passes_within_its_tolerance_and_on_its_side(relation: Relation, found: float, passed: bool) -> None:
    check = Check("T0", "a number", 1.0, found, 0.1 + 1e-9, relation)
    assert check.passed is passed and check.record()["passed"] is passed


def test_what_is_only_shown_passes_unless_it_is_no_number() -> None:
    assert Check("T0", "shown", None, 3.0).passed and not Check("T0", "shown", None, math.nan).passed


def test_a_record_holds_all_fields_and_no_nan() -> None:
    assert Check("T0", "a number", 1.0, math.nan, 0.1, "<=").record() == {
        "test": "T0",
        "what": "a number",
        "relation": "<=",
        "expected": 1.0,
        "found": None,
        "tolerance": 0.1,
        "passed": False,
    }


def test_the_table_names_every_check_and_counts_the_failed() -> None:
    lines = table(
        [Check("T1", "one", 1.0, 1.0), Check("T2", "two", 1.0, 0.5, 0.1, ">="), Check("T3", "three", None, 0.25)]
    ).splitlines()
    assert lines[0].split() == ["test", "what", "expected", "found", "tolerance", "passed"]
    assert [line.split() for line in lines[1:4]] == [
        ["T1", "one", "1", "1", "exact", "yes"],
        ["T2", "two", ">=", "1", "0.5", "0.1", "NO"],
        ["T3", "three", "-", "0.25", "-", "yes"],
    ]
    assert lines[-1] == "2 of 3 checks passed"
