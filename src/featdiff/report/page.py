"""`report.html`: one file that opens offline, on a phone, in light and dark, with every figure and its numbers."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from featdiff.analyses.drift.text import equal_drift_verdicts
from featdiff.analyses.dynamics.result import READINGS, TITLES
from featdiff.analyses.editing_methods.text import ways_verdicts
from featdiff.presentation import words
from featdiff.presentation.picture import Picture
from featdiff.presentation.section import Section
from featdiff.presentation.style import Drawing, theme_css
from featdiff.report.data import UNSEEN, ReportData
from featdiff.report.findings import caveats, groups, headline
from featdiff.report.pictures import pictures


def write_report(
    data: ReportData, folder: Path, analyses: Sequence[Section] = (), provenance: Section | None = None
) -> Path:
    """Write `report.html` and `figures/<name>.svg` with `<name>.json` into `folder`; the path of the page.

    `provenance` stands at the end, after what the analyses do not show. The same data give the same bytes.
    """
    found = [*pictures(data), *(picture for section in analyses for picture in section.figures)]
    drawings = {picture.name: picture.draw() for picture in found}
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for picture in found:
        (figures / f"{picture.name}.svg").write_text(drawings[picture.name].standalone(), encoding="utf-8")
        (figures / f"{picture.name}.json").write_text(_json(picture.numbers) + "\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(_page(data, found, drawings, analyses, provenance), encoding="utf-8")
    return page


def _page(
    data: ReportData,
    found: list[Picture],
    drawings: Mapping[str, Drawing],
    analyses: Sequence[Section],
    provenance: Section | None,
) -> str:
    sections: defaultdict[str, list[Picture]] = defaultdict(list)
    for picture in found:
        sections[picture.section].append(picture)
    environment = _environment(drawings)
    return environment.get_template("page.html").render(
        data=data,
        analyses=analyses,
        provenance=provenance,
        html=lambda section: _rendered(environment, section),
        causal=data.causal,
        sections=sections,
        headline=[*(finding for section in analyses for finding in section.findings), *headline(data)],
        caveats=[*(caveat for section in analyses for caveat in section.caveats), *caveats(data)],
        groups=groups(data.effects),
        equal_drift_verdicts=equal_drift_verdicts,
        ways_verdicts=ways_verdicts,
        unseen_role=UNSEEN,
        theme=Markup(theme_css()),
        alignment_titles=TITLES,
        alignment_readings=READINGS,
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
    # Safe: matplotlib and Drawing escape every label.
    environment.globals |= {"svg": lambda picture: Markup(drawings[picture.name].inline()), "numbers": _embedded}
    environment.filters |= {
        "percent": words.percent,
        "edited": words.edited,
        "points": words.points,
        "percent_interval": words.percent_interval,
        "points_interval": words.points_interval,
        "probability": words.probability,
        "count": words.count,
        "listing": words.listing,
        "plural": words.plural,
        "nats": words.nats,
        "ratio": words.ratio,
        "tokens": words.tokens,
        "tokens_change": words.tokens_change,
        "tokens_interval": words.tokens_interval,
        "mean": words.mean,
        "sparsity": words.sparsity,
    }
    return environment


def _embedded(picture: Picture) -> Markup:
    """The numbers as JSON that no text in them can break out of: the characters of markup are written as escapes."""
    text = _json(picture.numbers)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _json(numbers: Mapping[str, object]) -> str:
    return json.dumps(numbers, ensure_ascii=False, allow_nan=False)
