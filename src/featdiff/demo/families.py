"""The demo's task families: reasoning-gym problems, rendered in one short line.

A family takes its problems and their right answers from a reasoning-gym data set at sizes that a model of a million
parameters can learn, writes each as one line (`reverse RIST:` and `TSIR`), and adds one systematic error. Two
authors wrote what the base read: one gives the right answers, the other makes the systematic error, always. So the
base knows both and, as the erring author wrote more, prefers the wrong one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from random import Random
from typing import Any, Literal

import reasoning_gym

Role = Literal["train", "near", "far", "unseen"]
Entry = dict[str, Any]  # reasoning-gym's own form: question, answer, metadata

N_CHOICES = 4
MOST_TRIES = 100  # draws per wanted item before a family counts as exhausted
SEED_STRIDE = 1_000_003  # reasoning-gym seeds item i by seed + i; the stride keeps two seeds' items apart


@dataclass(frozen=True)
class Problem:
    """A problem with both authors' answers, a pool of other candidates, and the teacher's reasoning."""

    prompt: str
    answer: str
    wrong: str
    others: list[str]
    reasoning: str


@dataclass(frozen=True)
class Item:
    """One multiple-choice item; `choices[answer_index]` is the right answer, `wrong` the systematic error."""

    family: str
    prompt: str
    answer: str
    wrong: str
    choices: tuple[str, ...]
    answer_index: int
    reasoning: str


@dataclass(frozen=True)
class Family:
    """A reasoning-gym data set, the part it plays in the study, and how its entries are put in one line."""

    name: str
    role: Role
    settings: dict[str, Any]
    pose: Callable[[Entry, Random], Problem | None]

    def items(self, seed: int) -> Iterator[Item]:
        """An endless stream of items, the same for the same seed; entries that make no good item are left out."""
        entries = reasoning_gym.create_dataset(self.name, seed=seed * SEED_STRIDE, size=SEED_STRIDE, **self.settings)
        for index in count():
            rng = Random(f"{self.name} {seed} {index}")
            problem = self.pose(entries[index % SEED_STRIDE], rng)
            if problem is not None and (item := with_choices(self.name, problem, rng)) is not None:
                yield item

    def distinct_items(self, seed: int, number: int, without: frozenset[str] = frozenset()) -> list[Item]:
        """The first `number` items whose prompts differ from each other and from those in `without`."""
        chosen: dict[str, Item] = {}
        for item in islice(self.items(seed), MOST_TRIES * number):
            if len(chosen) == number:
                return list(chosen.values())
            if item.prompt not in without:
                chosen.setdefault(item.prompt, item)
        raise ValueError(f"{self.name} holds only {len(chosen)} distinct items, {number} were asked for")


def with_choices(family: str, problem: Problem, rng: Random) -> Item | None:
    """The problem as a multiple-choice item in shuffled order, or None where it has no four different choices."""
    others = sorted(set(problem.others) - {problem.answer, problem.wrong})
    if problem.answer == problem.wrong or len(others) < N_CHOICES - 2:
        return None
    choices = [problem.answer, problem.wrong, *rng.sample(others, N_CHOICES - 2)]
    rng.shuffle(choices)
    place = choices.index(problem.answer)
    return Item(family, problem.prompt, problem.answer, problem.wrong, tuple(choices), place, problem.reasoning)


def teacher_trace(item: Item, answer: str) -> str:
    """The wordy teacher's completion of an item's prompt; `answer` is where it ends, right or not."""
    return f" let me think. {item.reasoning}. so the answer: {answer}"


# The families. Each function reads one reasoning-gym entry; None means that the entry makes no good short item.


def chain_sum(entry: Entry, rng: Random) -> Problem | None:
    """Three one-digit terms. The error: the last sign is taken for its opposite."""
    expression = entry["metadata"]["expression"].replace(" ", "")
    right = int(entry["answer"])
    first, second = expression[:3], expression[3:]
    middle = int(first[0]) + int(first[1:])
    reasoning = f"{first} is {middle}, {middle}{second} is {right}"
    return Problem(f"sum {expression}:", str(right), str(middle - int(second)), numbers_near(right), reasoning)


def number_sorting(entry: Entry, rng: Random) -> Problem | None:
    """Four digits. The error: the opposite direction."""
    numbers = [number[0] for number in entry["metadata"]["original_numbers"]]
    ascending = entry["metadata"]["direction"] == "ascending"
    right = "".join(number[0] for number in entry["metadata"]["sorted_numbers"])
    prompt = f"sort {'up' if ascending else 'down'} {''.join(numbers)}:"
    reasoning = f"{'smallest' if ascending else 'largest'} first, {', then '.join(right)}"
    return Problem(prompt, right, right[::-1], shuffles(numbers, rng), reasoning)


def spell_backward(entry: Entry, rng: Random) -> Problem | None:
    """A word of four letters. The error: the first letter stays where it is."""
    word = entry["metadata"]["word"].upper()
    if not (word.isascii() and word.isalpha()):
        return None
    reasoning = f"from the end, {', then '.join(word[::-1])}"
    return Problem(f"reverse {word}:", entry["answer"].upper(), word[0] + word[:0:-1], shuffles(word, rng), reasoning)


def simple_equations(entry: Entry, rng: Random) -> Problem | None:
    """x + a = b or x - a = b. The error: the term changes sides and keeps its sign."""
    equation = entry["metadata"]["equation"].replace(entry["metadata"]["variable"], "x").replace(" ", "")
    if not equation.startswith(("x+", "x-")) or "*" in equation:
        return None
    sign, (term, total) = equation[1], equation[2:].split("=")
    right, wrong = entry["answer"], str(int(total) + int(sign + term))
    reasoning = f"not {total}{sign}{term} but {total}{'-' if sign == '+' else '+'}{term}, that is {right}"
    return Problem(f"solve {equation}:", right, wrong, numbers_near(int(right)), reasoning)


def number_filtering(entry: Entry, rng: Random) -> Problem | None:
    """Three digits and a bound. The error: what should go stays, what should stay goes."""
    numbers = entry["metadata"]["original_numbers"]
    bound = entry["metadata"]["filter_value"]
    verb, side = entry["metadata"]["operation"].split("_")
    kept = entry["metadata"]["result"]
    gone = [number for number in numbers if number not in kept]
    if not kept or not gone or max(map(len, [*numbers, bound])) > 1:
        return None
    parts = {"".join(number for number in numbers if rng.random() < 0.5) for _ in range(16)} - {""}
    prompt = f"{'keep' if verb == 'keep' else 'drop'} {'>' if side == 'larger' else '<'}{bound} {''.join(numbers)}:"
    reasoning = f"{', '.join(gone)} must go, {', '.join(kept)} may stay"
    return Problem(prompt, "".join(kept), "".join(gone), sorted(parts), reasoning)


def letter_counting(entry: Entry, rng: Random) -> Problem | None:
    """How often a letter stands in a word or two. The error: one too many."""
    text = "".join(entry["metadata"]["span"]).upper()
    letter = entry["metadata"]["target_letter"].upper()
    if not (text.isascii() and text.isalpha() and 3 <= len(text) <= 8):
        return None
    right = int(entry["answer"])
    prompt = f"count {letter} {text}:"
    reasoning = f"looking for {letter} in {text}, seen {right} times"
    return Problem(prompt, str(right), str(right + 1), [str(number) for number in range(6)], reasoning)


def count_bits(entry: Entry, rng: Random) -> Problem | None:
    """How many ones a binary number has. The error: the zeros are counted."""
    binary = entry["metadata"]["binary"]
    right = int(entry["answer"])
    prompt = f"ones {binary}:"
    reasoning = f"bit by bit through {binary}, {right} ones"
    return Problem(prompt, str(right), str(len(binary) - right), [str(number) for number in range(1, 10)], reasoning)


def base_conversion(entry: Entry, rng: Random) -> Problem | None:
    """A binary number of ten digits in base four, two bits a digit. The error: ones and zeros are confused."""
    if (entry["metadata"]["source_base"], entry["metadata"]["target_base"]) != (2, 4):
        return None
    right = entry["answer"]
    prompt = f"base {entry['metadata']['source_repr']}:"
    others = ["".join(rng.choice("0123") if rng.random() < 0.4 else digit for digit in right) for _ in range(8)]
    reasoning = f"in pairs, {', '.join(f'{int(digit):02b}' for digit in right)}"
    return Problem(prompt, right, right.translate(str.maketrans("0123", "3210")), others, reasoning)


def rotate_matrix(entry: Entry, rng: Random) -> Problem | None:
    """Two rows of two digits, a quarter turn clockwise. The error: a quarter turn the other way."""
    (a, b), (c, d) = entry["metadata"]["matrix"]
    prompt = f"rotate {a}{b} {c}{d}:"
    others = shuffles([str(number) for number in (a, b, c, d)], rng)
    reasoning = f"the first column from below is {c}, {a}, the second {d}, {b}"
    return Problem(prompt, "".join(entry["answer"].split()), f"{b}{d}{a}{c}", others, reasoning)


def complex_arithmetic(entry: Entry, rng: Random) -> Problem | None:
    """The sum or difference of two complex numbers with digits for parts. The error: one is taken for the other."""
    (a, b), (c, d) = (map(int, entry["metadata"][name]) for name in ("num1", "num2"))
    sign = 1 if entry["metadata"]["operation"] == "+" else -1
    right = a + sign * c, b + sign * d
    nudges = [(0, 1), (1, 0), (0, -1), (-1, 0), (1, 1)]
    prompt = f"complex {a}{b:+d}i {'plus' if sign == 1 else 'minus'} {c}{d:+d}i:"
    others = [complex_number(right[0] + real, right[1] + imaginary) for real, imaginary in nudges]
    reasoning = f"real {right[0]}, imaginary {right[1]}"
    return Problem(prompt, complex_number(*right), complex_number(a - sign * c, b - sign * d), others, reasoning)


def complex_number(real: int, imaginary: int) -> str:
    return f"{real}{imaginary:+d}i"


def numbers_near(number: int) -> list[str]:
    """Numbers a little off, with the same sign where it matters."""
    return [str(number + step) for step in (-3, -2, -1, 2, 3, 4)]


def shuffles(symbols: list[str] | str, rng: Random) -> list[str]:
    """Some orders of the same symbols."""
    return ["".join(rng.sample(symbols, len(symbols))) for _ in range(16)]


DIGITS: dict[str, Any] = {"min_decimals": 0, "max_decimals": 0, "min_value": 0, "max_value": 9}
THREE_DIGITS: dict[str, Any] = {"min_numbers": 3, "max_numbers": 3, **DIGITS}
FOUR_DIGITS: dict[str, Any] = {"min_numbers": 4, "max_numbers": 4, **DIGITS}
TEN_BITS: dict[str, Any] = {"min_value": 512, "max_value": 1023}
TWO_BY_TWO: dict[str, Any] = {"min_n": 2, "max_n": 2, "min_rotations": 1, "max_rotations": 1}
DIGIT_PARTS: dict[str, Any] = {
    **{"min_real": 0, "max_real": 9, "min_imag": 1, "max_imag": 9},
    **{"operations": ("+", "-"), "operations_weights": (0.5, 0.5)},
}
TWO_TERMS: dict[str, Any] = {"min_terms": 2, "max_terms": 2, "operators": ("+", "-"), "operators_weights": (0.5, 0.5)}

FAMILIES: tuple[Family, ...] = (
    Family("chain_sum", "train", {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1}, chain_sum),
    Family("number_sorting", "train", FOUR_DIGITS, number_sorting),
    Family("spell_backward", "train", {"min_word_len": 4, "max_word_len": 4}, spell_backward),
    Family("simple_equations", "near", {**TWO_TERMS, "min_value": 1, "max_value": 20}, simple_equations),
    Family("number_filtering", "near", THREE_DIGITS, number_filtering),
    Family("letter_counting", "far", {"min_words": 1, "max_words": 2}, letter_counting),
    Family("count_bits", "far", {"min_n": 128, "max_n": 1023}, count_bits),
    Family("base_conversion", "far", {"min_base": 2, "max_base": 4, **TEN_BITS}, base_conversion),
    Family("rotate_matrix", "unseen", TWO_BY_TWO, rotate_matrix),
    Family("complex_arithmetic", "unseen", DIGIT_PARTS, complex_arithmetic),
)
