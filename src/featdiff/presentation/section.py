"""One analysis on the page of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featdiff.presentation.picture import Picture


@dataclass(frozen=True, eq=False)
class Section:
    """What the report shows of one analysis.

    `template` is an HTML template, by its path under analyses/ or, for an analysis from elsewhere, as a file. It is
    rendered with `values`, and with the figures by the name of their place (`Picture.section`) as `pictures`.
    """

    anchor: str
    title: str
    template: str | Path
    values: Mapping[str, object] = field(default_factory=dict[str, object])
    figures: Sequence[Picture] = ()
    findings: Sequence[str] = ()
    """Sentences for the first lines of the page."""
    caveats: Sequence[str] = ()
    """What the analysis does not show."""
