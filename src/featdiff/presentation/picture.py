"""One figure of a report: what is drawn, the finding in words, and the numbers behind it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from featdiff.presentation.style import Drawing
else:  # what says that an analysis has a figure is imported where none is drawn
    Axes = Figure = Drawing = object

__all__ = ["Axes", "Picture", "file_name"]

Numbers = Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Picture:
    """One figure. `name` is that of its files, `section` its place on the page, `finding` its text alternative."""

    name: str
    section: str
    figure: Figure
    title: str
    finding: str
    numbers: Numbers

    def draw(self) -> Drawing:
        """The figure as SVG."""
        from featdiff.presentation.style import draw

        return draw(self.figure, self.name, self.title, self.finding)


def file_name(kind: str, position: int, *words: str) -> str:
    """A file name that is distinct by its position and legible by its words."""
    legible = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
    return f"{kind.lower()}-{position + 1}-{legible}"
