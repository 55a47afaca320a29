"""Settings of a study, filled by arguments of a call."""

from typing import TypeVar

from pydantic import ValidationError

from featdiff.config.base import Settings
from featdiff.config.study_file import first_problem

Section = TypeVar("Section", bound=Settings)


def settings_of(kind: type[Section], **values: object) -> Section:
    """Settings of one kind. ValueError, in one line, for a name or a value that they do not allow."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
