"""The help of the command line: the verbs, and the settings that a verb reads with their values in a study."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from featdiff.config.study import Study
from featdiff.workflow.registry import definition, every

OTHERS = {
    "demo": "Make the demo study from beginning to end, with models that are post-trained here.",
    "init": "Write a commented study for models that you have: --base PATH --tuned sft=PATH rl=PATH [--out FILE].",
    "run": "Run all missing or stale stages in order.",
    "verify": "Check this installation on planted worlds whose answers are known: verify [--seed N] [--json].",
    "show": "Show existing results, their inputs, and which are stale: show STUDY|RUN [--json].",
    "plan": "Estimate what stages cost: plan STUDY [--gpus N] [--kind H200] [--json]; measure first: --calibrate.",
}
COMMON = ("name", "seed", "runs", "threads")
WIDTH = 118


def verbs() -> dict[str, str]:
    """Every verb with its sentence; those that are stages in the order in which they are made."""
    stages = {stage.name: stage.help for stage in every() if stage.name != "inputs"}
    first = {name: OTHERS[name] for name in ("demo", "init", "run")}
    return first | stages | {name: OTHERS[name] for name in ("verify", "show", "plan")}


def help_text() -> str:
    """What `featdiff --help` prints."""
    width = max(map(len, verbs()))
    lines = "\n".join(f"  {verb:<{width}}  {sentence}" for verb, sentence in verbs().items())
    return (
        "featdiff shows, feature by feature, what post-training changed inside a language model.\n\n"
        f"usage: featdiff VERB STUDY [--section.setting VALUE ...]\n\n{lines}\n\n"
        "A study is one TOML file; flags override it, for example: featdiff train study.toml --training.lr 3e-4\n"
        "featdiff VERB STUDY --help lists the settings that the verb reads. Results lie in runs/<name>."
    )


def verb_help(verb: str, study: Study | None = None) -> str:
    """What `featdiff VERB [STUDY] --help` prints: with a study, the settings that the verb reads."""
    usage = f"usage: featdiff {verb} STUDY [--section.setting VALUE ...]\n\n{verbs()[verb]}"
    if study is None:
        return f"{usage}\n\nfeatdiff {verb} STUDY --help lists the settings that it reads, with their values."
    paths = (*COMMON, *_read_by(verb))
    lines = [line for path in paths for line in _listed(study, path)]
    return "\n".join([usage, "", f"Settings, with their values in the study {study.name}:", "", *lines])


def _read_by(verb: str) -> tuple[str, ...]:
    """The settings of a stage; of `run` and `demo` those of all stages."""
    if verb not in ("run", "demo"):
        return definition(verb).settings
    return tuple(dict.fromkeys(path.split(".")[0] for stage in every() for path in stage.settings))


def _listed(study: Study, path: str) -> Iterator[str]:
    """The lines of one setting, or of all settings of a section."""
    holder: object = study
    *sections, name = path.split(".")
    for section in sections:
        holder = getattr(holder, section)
        if holder is None:
            return
    yield from _setting(holder, name, path)


def _setting(holder: object, name: str, path: str) -> Iterator[str]:
    value, field = getattr(holder, name), _fields(holder)[name]
    if inside := _fields(value):
        for inner in inside:
            yield from _setting(value, inner, f"{path}.{inner}")
        return
    described = " ".join((field.description or "").split())
    choices = [one for one in get_args(field.annotation) if isinstance(one, str)]
    among = f" One of {', '.join(choices)}." if choices else ""
    head = f"--{path} {_value(value)}"
    yield "  " + (textwrap.shorten(head, WIDTH - 2, placeholder=" ...") if len(head) > WIDTH - 2 else head)
    yield from textwrap.wrap(described + among, WIDTH, initial_indent="      ", subsequent_indent="      ")


def _fields(value: object) -> Mapping[str, FieldInfo]:
    """The settings in a section, or in a choice such as a sparsity; none in a plain value."""
    if isinstance(value, BaseModel):
        return type(value).model_fields
    return getattr(type(value), "__pydantic_fields__", {})


def _value(value: object) -> str:
    match value:
        case None:
            return "(unset)"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case dict():
            return "{" + ", ".join(f"{name} = {_value(one)}" for name, one in value.items()) + "}"
        case tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
        case _ if fields := _fields(value):
            return _value({name: one for name in fields if (one := getattr(value, name)) is not None})
        case _:
            return str(value)
