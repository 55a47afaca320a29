"""What all sections of a study have in common."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True)
class Immaterial:
    """Marks a setting that no result depends on beyond rounding: placement, speed, memory, logging."""


@dataclass(frozen=True)
class Content:
    """Marks a path of which a result depends on what lies there, and not on the path."""


IMMATERIAL, CONTENT = Immaterial(), Content()

Share = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Settings(BaseModel):
    """A frozen section of a study; a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
