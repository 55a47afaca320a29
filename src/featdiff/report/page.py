"""`report.html`: one file that opens offline, on a phone, in light and dark, with every figure and its numbers."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from featdiff.presentation import words
from featdiff.presentation.picture import Picture
from featdiff.presentation.section import Section
from featdiff.presentation.style import Drawing, theme_css

WRITTEN_BY = (
    words.percent,
    words.edited,
    words.points,
    words.percent_interval,
    words.points_interval,
    words.probability,
    words.count,
    words.listing,
    words.plural,
    words.nats,
    words.ratio,
    words.tokens,
    words.tokens_change,
    words.tokens_interval,
    words.mean,
    words.sparsity,
)
"""What templates call as filters."""


@dataclass(frozen=True)
class Heading:
    """What stands above the sections: the study, and its models, base first."""

    study: str
    models: Sequence[str]


def write_report(
    heading: Heading, folder: Path, sections: Sequence[Section] = (), provenance: Section | None = None
) -> Path:
    """Write `report.html` and `figures/<name>.svg` with `<name>.json` into `folder`; the path of the page.

    The sections' findings stand at the top, the last of them in bold; their caveats after the sections, and
    `provenance` at the end. The same sections give the same bytes.
    """
    pictures = [picture for section in sections for picture in section.figures]
    names = [picture.name for picture in pictures]
    assert len(set(names)) == len(names), f"two figures share a name: {', '.join(sorted(names))}"
    drawings = {picture.name: picture.draw() for picture in pictures}
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        (figures / f"{picture.name}.svg").write_text(drawings[picture.name].standalone(), encoding="utf-8")
        (figures / f"{picture.name}.json").write_text(_json(picture.numbers) + "\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(_page(heading, sections, provenance, drawings), encoding="utf-8")
    return page


def _page(
    heading: Heading, sections: Sequence[Section], provenance: Section | None, drawings: Mapping[str, Drawing]
) -> str:
    environment = _environment(drawings)
    bodies = {section.anchor: _rendered(environment, section) for section in sections}
    return environment.get_template("page.html").render(
        heading=heading,
        sections=sections,
        bodies=bodies,
        findings=[finding for section in sections for finding in section.findings],
        caveats=[caveat for section in sections for caveat in section.caveats],
        provenance=provenance,
        origin=_rendered(environment, provenance) if provenance else "",
        theme=Markup(theme_css()),
    )


def _rendered(environment: Environment, section: Section) -> Markup:
    """The body of a section; its template escapes whatever comes from data."""
    figures: defaultdict[str, list[Picture]] = defaultdict(list)
    for picture in section.figures:
        figures[picture.section].append(picture)
    match section.template:
        case Path() as file:
            template = environment.from_string(file.read_text(encoding="utf-8"))
        case name:
            template = environment.get_template(name)
    return Markup(template.render(**section.values, pictures=figures))


def _environment(drawings: Mapping[str, Drawing]) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("featdiff.report"), PackageLoader("featdiff", "analyses")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    # Safe: matplotlib and Drawing escape every label. Jinja types its tables by what they hold at first.
    def svg(picture: Picture) -> Markup:
        return Markup(drawings[picture.name].inline())

    environment.globals.update({"svg": svg, "numbers": _embedded})  # pyright: ignore[reportArgumentType, reportCallIssue]
    environment.filters.update({write.__name__: write for write in WRITTEN_BY})  # pyright: ignore[reportArgumentType, reportCallIssue]
    return environment


def _embedded(picture: Picture) -> Markup:
    """The numbers as JSON that no text in them can break out of: the characters of markup are written as escapes."""
    text = _json(picture.numbers)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _json(numbers: Mapping[str, object]) -> str:
    return json.dumps(numbers, ensure_ascii=False, allow_nan=False)
