"""The command line: a verb, a study, and flags that override its settings.

Progress goes to stderr, results to files, and the last line on stdout is the path of what was made. What a user can
mend is said in one line and ends with exit code 2; set FEATDIFF_TRACEBACK=1 to see where it was raised.
"""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from traceback import walk_tb
from typing import NoReturn, TypeVar

import tyro

from featdiff import torchrun
from featdiff.config.study import Study
from featdiff.config.study_file import read_study, validated
from featdiff.openmp import spin_briefly
from featdiff.workflow.help import help_text, verb_help, verbs

Read = TypeVar("Read")
HINTS = {
    "trl": "posttrain",
    "accelerate": "eval",  # post-training needs these two as well
    "math_verify": "eval",
    "lm_eval": "eval",
    "reasoning_gym": "demo",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 a check of `verify` failed, 2 something that the user can mend, 130
    interrupted."""
    spin_briefly()
    status = _status(list(sys.argv[1:] if arguments is None else arguments))
    if status == 0 and torchrun.processes() > 1:
        _leave()
    sys.exit(status)


def _leave() -> NoReturn:
    """End without tearing the interpreter down: gloo's threads can outlive their process group, and abort a process
    that ends beneath them (pytorch/pytorch#190489)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _status(arguments: list[str]) -> int:
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        if os.environ.get("FEATDIFF_TRACEBACK"):
            raise
        return _refuse(" ".join(str(error).split()))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in HINTS:
            raise
        extra = "demo" if arguments[:1] == ["demo"] else _extra(package, error)
        return _refuse(f"this needs the package {package}; install it with: pip install 'featdiff[{extra}]'")
    except KeyboardInterrupt:
        print("featdiff: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _extra(package: str, error: ModuleNotFoundError) -> str:
    """The extra with `package` for what was running: post-training, or anything else."""
    running = [frame.f_globals["__name__"] for frame, _ in walk_tb(error.__traceback__)]
    shared = HINTS[package] == "eval"
    return (
        "posttrain" if shared and any(name.startswith("featdiff.posttraining") for name in running) else HINTS[package]
    )


def _refuse(reason: str) -> int:
    if not torchrun.rank() or torchrun.joined():
        print(f"featdiff: {reason}", file=sys.stderr)
    return 2


def _dispatch(arguments: list[str]) -> int:
    if torchrun.processes() > 1 and arguments[:1] != ["train"]:
        raise ValueError("several processes can only train together; start the other verbs without torchrun")
    match arguments:
        case [] | ["-h" | "--help", *_] | ["help"]:
            print(help_text())
        case ["--version"]:
            from importlib.metadata import version

            print(f"featdiff {version('featdiff')}")
        case ["init", *rest]:
            from featdiff.workflow.init import init

            _made(lambda: init(*_init_arguments(rest)))
        case ["show", *rest]:
            from featdiff.workflow.show import show

            print(show(*_show_arguments(rest)))
        case ["plan", *rest]:
            print(_plan(rest))
        case ["verify", *rest]:
            return _verify(rest)
        case ["demo", *rest]:
            from featdiff.workflow.demo import demo_study

            if "-h" in rest or "--help" in rest:
                print(verb_help("demo", read_study(demo_study())))
            else:
                _run_verb("run", demo_study(), rest)
        case [verb, *rest] if verb in verbs():
            if not rest or rest[0] in ("-h", "--help"):
                print(verb_help(verb))
                return 0 if rest else 2
            if "-h" in rest or "--help" in rest:
                print(verb_help(verb, read_study(Path(rest[0]))))
                return 0
            _run_verb(verb, Path(rest[0]), rest[1:])
        case _:
            raise ValueError(f"unknown verb {arguments[0]}; verbs: {', '.join(verbs())}")
    return 0


def _run_verb(verb: str, path: Path, flags: list[str]) -> None:
    study = _overridden(read_study(path), flags)
    from featdiff.workflow.runner import run_study, run_verb

    _made(lambda: run_study(study) if verb == "run" else run_verb(study, verb))


def _made(work: Callable[[], Path]) -> None:
    """Do the work; whatever a library prints goes to stderr, and the path that was made ends stdout."""
    with contextlib.redirect_stdout(sys.stderr):
        path = work()
    if not torchrun.rank():
        print(path)


def _overridden(study: Study, flags: list[str]) -> Study:
    """The study with flags such as `--training.lr 3e-4` laid over it."""
    if not flags:
        return study
    changed = _told(lambda: _tyro(study, flags))
    return validated(changed.model_dump(mode="json"), "flags")


def _told(read: Callable[[], Read]) -> Read:
    """What tyro reads; ValueError with its words where it refuses."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return read()
    except SystemExit:
        raise ValueError(_flattened(said.getvalue())) from None


def _flattened(box: str) -> str:
    """The words of tyro's box, without its frame and its pointers to further reading."""
    words = " ".join(re.sub(r"[─│╭╮╰╯]+|-{3,}", " ", box).split())
    for ending in ("For full helptext", "For further information", "Argument helptext"):
        words = words.split(ending)[0]
    return words.removeprefix("Unrecognized options").removeprefix("Value error").strip()


def _tyro(study: Study, flags: list[str]) -> Study:
    return tyro.cli(
        tyro.conf.configure(tyro.conf.AvoidSubcommands)(Study), default=study, args=flags, prog="featdiff VERB STUDY"
    )


def _init_arguments(rest: list[str]) -> tuple[str, dict[str, str], Path]:
    usage = "usage: featdiff init --base PATH --tuned NAME=PATH [NAME=PATH ...] [--out FILE]"
    if not rest or "-h" in rest or "--help" in rest:
        print(usage)
        raise SystemExit(0 if rest else 2)
    values: dict[str, list[str]] = {}
    for word in rest:
        if word.startswith("--"):
            values[word] = []
        elif values:
            values[list(values)[-1]].append(word)
    if unknown := set(values) - {"--base", "--tuned", "--out"}:
        raise ValueError(f"unknown option {sorted(unknown)[0]}; {usage}")
    if (
        len(values.get("--base", [])) != 1
        or not values.get("--tuned")
        or any("=" not in pair for pair in values["--tuned"])
    ):
        raise ValueError(f"give one base and at least one tuned model as NAME=PATH; {usage}")
    tuned = dict(pair.split("=", 1) for pair in values["--tuned"])
    return values["--base"][0], tuned, Path(values.get("--out", ["study.toml"])[0])


def _show_arguments(rest: list[str]) -> tuple[Path, bool]:
    usage = "usage: featdiff show STUDY|RUN [--json]"
    paths = [word for word in rest if not word.startswith("-")]
    if "-h" in rest or "--help" in rest:
        print(usage)
        raise SystemExit(0)
    if len(paths) != 1 or set(rest) - {"--json", *paths}:
        raise ValueError(usage)
    return Path(paths[0]), "--json" in rest


def _plan(rest: list[str]) -> str:
    """The estimate of a study; with --calibrate after a measurement, whose file alone is given where no study is."""
    from featdiff.costs.assumptions import Assumptions, assumptions_of
    from featdiff.workflow.estimate_table import PlanOptions, calibrated, plan_text

    usage = "featdiff plan STUDY [--section.setting VALUE ...]"
    said = [word for word in rest if word != "--calibrate"]
    if "-h" in said or "--help" in said:
        tyro.cli(PlanOptions, default=PlanOptions(Assumptions()), args=["--help"], prog=usage)
    if not said and rest:
        return str(calibrated())
    if not said or said[0].startswith("-"):
        raise ValueError(f"usage: {usage} [--gpus N] [--kind H200] [--json]; featdiff plan --help lists the others")
    study = read_study(Path(said[0]))
    default = PlanOptions(assumptions_of(study))
    options, flags = _told(
        lambda: tyro.cli(PlanOptions, default=default, args=said[1:], return_unknown_args=True, prog=usage)
    )
    if said != rest:
        print(f"measured: {calibrated()}", file=sys.stderr)
    return plan_text(_overridden(study, flags), options)


def _verify(rest: list[str]) -> int:
    """1 if a check fails, else 0."""
    usage = "usage: featdiff verify [--seed N] [--json]"
    match [word for word in rest if word != "--json"]:
        case ["-h" | "--help", *_]:
            print(f"{usage}\n\n{verbs()['verify']} Minutes on two cores; exit code 1 if a check fails.")
            return 0
        case []:
            seed = 0
        case ["--seed", number] if number.isdecimal():
            seed = int(number)
        case _:
            raise ValueError(usage)
    from featdiff.verify import table, verify

    with contextlib.redirect_stdout(sys.stderr):
        checks = verify(seed)
    print(json.dumps([check.record() for check in checks], indent=2) if "--json" in rest else table(checks))
    return 0 if all(check.passed for check in checks) else 1
