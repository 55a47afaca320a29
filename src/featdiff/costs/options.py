"""What the command line says to `plan` beside the study."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from math import isfinite
from textwrap import fill

from featdiff.costs.hardware import KINDS, UNITS
from featdiff.costs.shapes import FIELDS
from featdiff.costs.workload import Assumptions

Numbers = dict[str, float]

ASSUMED = tuple(one.name for one in fields(Assumptions))
USAGE = "usage: featdiff plan STUDY [--gpus N] [--kind KIND] [--json]; featdiff plan --help lists the other options"
HELP = f"""\
usage: featdiff plan STUDY [--gpus N] [--kind KIND] [--json] [--shape NAME=N,...]
                     [--teacher-shape NAME=N,...] [--hardware NAME=N,...] [--assume NAME=N,...]
                     [--section.setting VALUE ...]

Prints FLOPs, time, memory and disk of every stage; nothing is run, downloaded or written.

  --gpus N         devices (1)
  --kind KIND      {", ".join(KINDS)}; unset: cpu for a study on the CPU, else H200
  --json           the same for scripts, in FLOPs, seconds and bytes
  --shape          of the base, where its config.json is not on this disk:
                   {", ".join(FIELDS)}
  --teacher-shape  of the model that writes the teacher's traces, likewise
  --hardware       of one device, in TFLOP/s, GB/s, GB, ms and shares of 1:
                   {fill(", ".join(UNITS), 80, subsequent_indent=" " * 19)}
  --assume         {fill(", ".join(ASSUMED), 80, subsequent_indent=" " * 19)}

For example: featdiff plan study.toml --gpus 8 --kind H100 --assume completion_tokens=4000,l0=60"""


@dataclass(frozen=True)
class PlanOptions:
    """Devices, and numbers that replace those of the estimate."""

    gpus: int = 1
    kind: str | None = None
    as_json: bool = False
    shape: Numbers = field(default_factory=dict)
    teacher_shape: Numbers = field(default_factory=dict)
    hardware: Numbers = field(default_factory=dict)
    assume: Numbers = field(default_factory=dict)


def read_options(words: list[str]) -> tuple[PlanOptions, list[str]]:
    """The options among words of a command line, and the words that are none. ValueError for one that is malformed."""
    said, rest, left = dict[str, str](), list[str](), list(words)
    while left:
        word = left.pop(0)
        if word == "--json":
            said[word] = ""
        elif word in ("--gpus", "--kind", "--shape", "--teacher-shape", "--hardware", "--assume"):
            if not left:
                raise ValueError(f"{word} has no value; {USAGE}")
            said[word] = left.pop(0)
        else:
            rest.append(word)
    options = PlanOptions(
        gpus=_count(said.get("--gpus", "1")),
        kind=said.get("--kind"),
        as_json="--json" in said,
        shape=_numbers("--shape", said, FIELDS),
        teacher_shape=_numbers("--teacher-shape", said, FIELDS),
        hardware=_numbers("--hardware", said, UNITS),
        assume=_numbers("--assume", said, ASSUMED),
    )
    return options, rest


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"--gpus is {text!r}; give a number of devices")
    return int(text)


def _numbers(option: str, said: dict[str, str], known: Iterable[str]) -> Numbers:
    """The numbers of `name=1,other=2.5`."""
    found: Numbers = {}
    for pair in said.get(option, "").split(",") if option in said else ():
        name, _, text = pair.partition("=")
        try:
            number = float(text)
        except ValueError:
            example = next(iter(known))
            raise ValueError(f"{option} {pair!r} is no NAME=NUMBER; write for example {option} {example}=1") from None
        if not isfinite(number):
            raise ValueError(f"{option} {pair!r} is no number that can be reckoned with; give a finite one")
        if name not in known:
            raise ValueError(f"{option} knows no {name!r}; it takes {', '.join(known)}")
        found[name] = number
    return found
