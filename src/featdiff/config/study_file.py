"""Read a study from TOML and lay flags over it; whatever is wrong is said in one line.

A path in a study is relative to the study's file. One that begins with `demo:` lies in the inputs that ship with us.
"""

import difflib
import json
import tomllib
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo

from featdiff.config.study import Study

Section = TypeVar("Section", bound=BaseModel)

DEMO_PREFIX = "demo:"
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a key that a section, or a choice with a `kind`, does not have."""
FILE_ENDINGS = {".jsonl", ".json", ".parquet", ".txt", ".md", ".csv", ".yaml"}


def read_study(path: Path) -> Study:
    """The study in a TOML file, or in the `study.json` of a run.

    Raises ValueError, in one line, for a file that is absent or unreadable, for a key that no section knows (with the
    nearest that it does know), and for a value that a setting does not allow.
    """
    if not path.is_file():
        raise ValueError(
            f"no study at {path}; give a TOML file, or make one: featdiff init --base PATH --tuned NAME=PATH"
        )
    try:
        text = path.read_text(encoding="utf-8")
        tree = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from None
    study = validated(tree, str(path))
    return study if path.suffix == ".json" else _with_absolute_paths(study, path.resolve().parent)


def validated(tree: object, origin: str) -> Study:
    """`tree` as a study; `origin` is named in the error."""
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        raise ValueError(f"{origin}: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with settings, in one line, and how many more there are."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] not in UNKNOWN)
    first, more = problems[0], len(problems) - 1
    where = ".".join(str(part) for part in first["loc"]) or "the study"
    match first["type"]:
        case kind if kind in UNKNOWN:
            text = f"unknown setting {where}" + _nearest(first["loc"])
        case "missing":
            text = f"{where} is missing; it has no default"
        case _:
            found = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
            text = f"{where}{found}: {first['msg'].removeprefix('Value error, ')}"
    return text + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _nearest(location: tuple[int | str, ...]) -> str:
    names = _known_names(location[:-1])
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(names)}"


def _known_names(location: tuple[int | str, ...]) -> list[str]:
    """Names of the settings in the section at `location`; union tags and keys of mappings are stepped over."""
    sections: list[type] = [Study]
    for part in location:
        inner = [
            model
            for section in sections
            if isinstance(part, str) and part in _fields(section)
            for model in _models_in(_fields(section)[part].annotation)
        ]
        tagged = [model for model in sections if (kind := _fields(model).get("kind")) and kind.default == part]
        sections = inner or tagged or sections
    return sorted({name for section in sections for name in _fields(section)})


def _fields(section: type) -> dict[str, FieldInfo]:
    return section.__pydantic_fields__  # of models and of pydantic's dataclasses


def _models_in(annotation: object) -> list[type]:
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_pydantic_dataclass(annotation)):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def is_hub_id(path: str) -> bool:
    """Whether `path` has the form `owner/name` (or `name`) of a hub repository and is nothing on this disk."""
    parts = path.split("/")
    local_form = path.startswith((".", "/", "~")) or Path(path).suffix in FILE_ENDINGS
    return not local_form and len(parts) <= 2 and all(parts) and not Path(path).exists()


def _with_absolute_paths(study: Study, folder: Path) -> Study:
    def absolute(path: str | None) -> str | None:
        if path is None or path.startswith(DEMO_PREFIX):
            return path
        local = (folder / Path(path).expanduser()).resolve()
        return str(local) if local.exists() or not is_hub_id(path) else path

    def replaced(section: Section, **values: object) -> Section:
        return section.model_copy(update=values)

    lineup, posttrain, evaluation = study.lineup, study.posttrain, study.evaluation
    checkpoints = {name: tuple(map(absolute, paths)) for name, paths in lineup.checkpoints.items()}
    tuned = {name: absolute(path) for name, path in lineup.tuned.items()}
    sources = tuple(replaced(source, path=absolute(source.path)) for source in study.corpus.sources)
    cache = study.activations.cache and str((folder / Path(study.activations.cache).expanduser()).resolve())
    data = {name: absolute(getattr(evaluation, name)) for name in ("task_folder", "data_folder")}
    made_from = {name: absolute(getattr(posttrain, name, None)) for name in ("prompts", "teacher", "teacher_model")}
    return replaced(
        study,
        lineup=replaced(lineup, base=absolute(lineup.base), tuned=tuned, checkpoints=checkpoints),
        posttrain=posttrain and replaced(posttrain, **made_from),
        corpus=replaced(study.corpus, sources=sources),
        activations=replaced(study.activations, cache=cache),
        evaluation=replaced(evaluation, **data),
    )
