"""Are the numbers of two summaries the same? `python benchmarks/same_numbers.py OLD.json NEW.json`

Says how many values are identical, the largest relative difference of the others, and every value that differs by more
than rounding, or that only one of the two has. Exit code 1 if there is any.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROUNDING = 1e-12
Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


def leaves(value: Json, place: str = "") -> Iterator[tuple[str, Json]]:
    """Every value with its place."""
    match value:
        case dict():
            for key, inner in value.items():
                yield from leaves(inner, f"{place}/{key}")
        case list():
            yield f"{place}/length", len(value)
            for number, inner in enumerate(value):
                yield from leaves(inner, f"{place}/{number}")
        case _:
            yield place, value


def difference(one: Json, other: Json) -> float:
    """0 where two values are identical, the relative difference of two numbers, infinite for anything else."""
    if one == other and type(one) is type(other):
        return 0.0
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) / max(abs(one), abs(other), sys.float_info.min)
    return float("inf")


def compared(old: Json, new: Json) -> tuple[dict[str, float], list[str]]:
    """The difference of every value that both have, by place, and the places that only one has."""
    one, other = dict(leaves(old)), dict(leaves(new))
    return {place: difference(one[place], other[place]) for place in one.keys() & other.keys()}, sorted(
        one.keys() ^ other.keys()
    )


def main() -> int:
    """Compare the two files of the command line."""
    old, new = (json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:3])
    differences, alone = compared(old, new)
    identical = sum(one == 0 for one in differences.values())
    largest = max(differences.values(), default=0.0)
    print(f"{identical} of {len(differences)} values identical; largest relative difference {largest:.2g}")
    wrong = [f"{place} differs by {one:.2g}" for place, one in sorted(differences.items()) if one > ROUNDING]
    wrong += [f"{place} is in one of the two only" for place in alone]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
