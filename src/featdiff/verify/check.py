"""One comparison of what was found with what was planted, and the table of all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Relation = Literal["=", ">=", "<="]
"""How what was found has to stand to what was expected."""


@dataclass(frozen=True)
class Check:
    """Passed if `found` is within `tolerance` of `expected` ("="), or not beyond expected by more than that (">=",
    "<="). What is not a number does not pass."""

    test: str
    """Which acceptance test it belongs to, such as "T3"."""
    what: str
    """What was measured, in words."""
    expected: float | None
    """None: there is no right answer, and what was found is shown for what it is."""
    found: float
    tolerance: float = 0.0
    relation: Relation = "="

    @property
    def passed(self) -> bool:
        """Whether this installation does what it should."""
        if self.expected is None:
            return math.isfinite(self.found)
        match self.relation:
            case "=":
                return abs(self.found - self.expected) <= self.tolerance
            case ">=":
                return self.found >= self.expected - self.tolerance
            case "<=":
                return self.found <= self.expected + self.tolerance

    def record(self) -> dict[str, str | float | bool | None]:
        """For JSON, which has no NaN."""
        return {
            "test": self.test,
            "what": self.what,
            "relation": self.relation,
            "expected": self.expected,
            "found": self.found if math.isfinite(self.found) else None,
            "tolerance": self.tolerance,
            "passed": self.passed,
        }


def table(checks: Sequence[Check]) -> str:
    """All checks as a text table, and how many of them passed."""
    rows = [("test", "what", "expected", "found", "tolerance", "passed"), *map(_row, checks)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    failed = sum(not check.passed for check in checks)
    return "\n".join([*lines, "", f"{len(checks) - failed} of {len(checks)} checks passed"])


def _row(check: Check) -> tuple[str, ...]:
    passed = "yes" if check.passed else "NO"
    if check.expected is None:
        return check.test, check.what, "-", f"{check.found:.4g}", "-", passed
    relation = "" if check.relation == "=" else f"{check.relation} "
    tolerance = f"{check.tolerance:.4g}" if check.tolerance else "exact"
    return check.test, check.what, f"{relation}{check.expected:.4g}", f"{check.found:.4g}", tolerance, passed
