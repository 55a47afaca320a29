"""Outcome rewards: 1 where a completion ends in the gold answer, 0 elsewhere (Sec. 4: answer match)."""

import importlib
import math
import os
import re
import sys
from collections.abc import Callable

from featdiff.evaluation.answers import is_equal

Reward = Callable[[str, str], float]

MARKER = re.compile(r"answer:", re.IGNORECASE)


def reward_function(name: str) -> Reward:
    """Find a reward by name: exact_match, math_verify, contains, or your own `module:function`.

    Your own function takes the completion and the gold answer and returns a number; its module is looked for on
    the import path and in the current folder. ValueError when it cannot be had.
    """
    named: dict[str, Reward] = {"exact_match": exact_match, "math_verify": mathematically_equal, "contains": contains}
    return named[name] if name in named else _imported(name)


def exact_match(completion: str, answer: str) -> float:
    """Whether the final answer is the gold answer, but for blanks around it and one full stop."""
    return float(final_answer(completion) == _plain(answer))


def final_answer(completion: str) -> str:
    """First line after the last "answer:" (in any case); without this marker, the first line of all.

    >>> final_answer("3 + 4 is 7. Answer: 7.")
    '7'
    """
    return _plain(MARKER.split(completion)[-1])


def mathematically_equal(completion: str, answer: str) -> float:
    """Whether evaluation would call the completion right: `is_equal`, as 0 or 1."""
    return float(is_equal(completion, answer))


def contains(completion: str, answer: str) -> float:
    """Whether the gold answer occurs in the completion."""
    return float(answer in completion)


def _plain(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0].strip().removesuffix(".").rstrip() if lines else ""


def _imported(name: str) -> Reward:
    module_name, _, function_name = name.partition(":")
    if not function_name:
        raise ValueError(
            f"posttrain.reward: {name!r} is unknown; use exact_match, math_verify, contains or module:function"
        )
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"posttrain.reward: {name} cannot be imported ({error}); is its folder on PYTHONPATH?"
        ) from None
    if not callable(function):
        raise ValueError(f"posttrain.reward: {name} is no function but a {type(function).__name__}")

    def reward(completion: str, answer: str) -> float:
        value = function(completion, answer)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"posttrain.reward: {name} returned {value!r}; a finite number is wanted")
        return float(value)

    return reward
