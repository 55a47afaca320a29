"""What settings say of a result: their values, less those that no result depends on, and what lies at their paths."""

from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from pathlib import Path

from pydantic import BaseModel

from featdiff.config.base import CONTENT, IMMATERIAL
from featdiff.files import Json, content_fingerprint


def described(settings: BaseModel, path: str) -> Json:
    """The setting at a dotted path, for a fingerprint; None where it is immaterial, or a section on the way absent."""
    value: object = settings
    content = False
    for name in path.split("."):
        if not isinstance(value, BaseModel):
            return None
        metadata = type(value).model_fields[name].metadata
        if IMMATERIAL in metadata:
            return None
        content = CONTENT in metadata
        value = getattr(value, name)
    return material(value, content)


def outside(path: str) -> str:
    """What a path outside the run holds now; of what is not on this disk (a hub id, a missing file) just its name."""
    return content_fingerprint(Path(path)) if Path(path).exists() else path


def material(value: object, content: bool = False) -> Json:
    """What a value says of a result: settings less the immaterial ones; of paths, with `content`, what lies there."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        kept = {name: field.metadata for name, field in fields.items() if IMMATERIAL not in field.metadata}
        return {name: material(getattr(value, name), CONTENT in metadata) for name, metadata in kept.items()}
    if is_dataclass(value):
        return {field.name: material(getattr(value, field.name)) for field in fields_of(value)}
    if isinstance(value, str):
        return outside(value) if content else value
    if isinstance(value, Mapping):
        return {str(key): material(item, content) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [material(item, content) for item in value]
    assert value is None or isinstance(value, int | float), f"a setting of type {type(value).__name__}"
    return value
