"""The page is one offline file, the same every time, and nothing in the data can break out of its place."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_accuracy import made_up

from featdiff.activations.chunk_writer import StreamCounts
from featdiff.analyses.accuracy.text import section_of as accuracy_section
from featdiff.presentation.section import Section
from featdiff.report.data import ControlDraws, ReportData, SetChange
from featdiff.report.page import write_report
from featdiff.run.folder import StageNote
from featdiff.run.results import StreamRecord

HOSTILE = '</script><script>alert(1)</script>&<b>"x" $\\frac{1}{2}$ -->'
MODELS = {
    "paths": {HOSTILE: HOSTILE},
    "stream": StreamRecord(StreamCounts(), 1, 2, 32, {}, {}),
    "blocks": 4,
    "sources": {HOSTILE: 1.0},
    "held_out": 10,
}
NOTE = StageNote(HOSTILE, "3.11", HOSTILE, {"featdiff": HOSTILE}, "0a", "2026", 1.0)
PROVENANCE = {"notes": {HOSTILE: NOTE}, "seed": 0, "libraries": {HOSTILE: {HOSTILE: HOSTILE}}}
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Outline(HTMLParser):
    """Tags, ids, visible text and JSON scripts of a page; complains when a tag is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for key, value in attrs if key == "id" and value]
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] == "script" else self.text).append(data)


def outline(page: Path) -> Outline:
    parser = Outline()
    parser.feed(page.read_text(encoding="utf-8"))
    parser.close()
    assert not parser.open
    return parser


@pytest.fixture(scope="module")
def page(study: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(study, tmp_path_factory.mktemp("report"))


def test_the_page_is_well_formed_and_has_its_sections_in_order(page: Path) -> None:
    found = outline(page)

    sections = ["headline", "dynamics", "effects", "limits"]
    assert [name for name in found.ids if name in sections] == sections


def test_ids_are_unique_and_every_reference_stays_on_the_page(page: Path) -> None:
    found = outline(page)

    assert len(set(found.ids)) == len(found.ids)
    assert all(address.startswith("#") and address[1:] in found.ids for address in found.addresses)


def test_the_page_asks_nothing_of_the_network(page: Path) -> None:
    text = (
        page.read_text(encoding="utf-8")
        .replace("http://www.w3.org/2000/svg", "")
        .replace("http://www.w3.org/1999/xlink", "")
    )

    assert "http" not in text
    assert not re.search(r"@import|@font-face|url\((?!#)", text)


def test_every_figure_has_a_text_alternative_and_its_numbers(page: Path) -> None:
    found = outline(page)
    figures = found.tags.count("figure")

    assert figures == found.tags.count("desc") == found.tags.count("figcaption") == len(found.scripts) == 6
    assert all(json.loads(script) for script in found.scripts)
    assert page.read_text().count('role="img"') == figures


def test_each_figure_lies_beside_the_page_with_the_same_numbers(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = sorted((page.parent / "figures").glob("*.svg"))

    assert len(files) == 6
    for file in files:
        assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        embedded = re.search(rf'id="{file.stem}-numbers">(.*?)</script>', text, flags=re.DOTALL)
        assert embedded
        assert json.loads(embedded[1]) == json.loads(file.with_suffix(".json").read_text())


def test_light_and_dark_define_every_colour_that_is_used(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    used = set(re.findall(r"var\(--([a-z]+)\)", text))
    theme = re.search(r":root\{(.*?)\}@media screen and \(prefers-color-scheme:dark\)\{:root\{(.*?)\}\}", text)

    assert theme
    for definitions in (theme[1], theme[2]):
        assert used <= set(re.findall(r"--([a-z]+):", definitions))


def test_the_same_study_gives_the_same_bytes(study: ReportData, tmp_path: Path) -> None:
    part = replace(study, dynamics=study.dynamics[:1])
    one, two = write_report(part, tmp_path / "one"), write_report(part, tmp_path / "two")

    assert one.read_bytes() == two.read_bytes()
    for file in (tmp_path / "one" / "figures").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / "figures" / file.name).read_bytes()


def test_names_from_outside_are_shown_and_never_run(study: ReportData, tmp_path: Path) -> None:
    page = write_report(
        replace(
            study,
            study=HOSTILE,
            effects=[replace(effect, task=HOSTILE, edit=HOSTILE, verdict=HOSTILE) for effect in study.effects],
            dynamics=[replace(panel, paradigm=HOSTILE) for panel in study.dynamics],
        ),
        tmp_path,
        [
            accuracy_section(
                {HOSTILE: {"base": made_up(0.5), HOSTILE: made_up(0.6, (0.0, 0.2))}}, ("base", HOSTILE), 0.95
            ),
            Section("models", HOSTILE, "models.html", {**MODELS, "origins": {HOSTILE: (HOSTILE, {HOSTILE: HOSTILE})}}),
        ],
        Section("provenance", "Provenance", "provenance.html", PROVENANCE),
    )
    found = outline(page)

    assert "alert(1)" not in "".join(script for script in found.scripts if not script.startswith("{"))
    assert found.tags.count("script") == found.tags.count("figure")
    assert HOSTILE in "".join(found.text)
    assert HOSTILE in json.loads(found.scripts[0])


def test_a_bare_study_says_what_is_missing(study: ReportData, tmp_path: Path) -> None:
    bare = replace(study, dynamics=[], effects=[])
    page = write_report(bare, tmp_path)
    text = " ".join(outline(page).text)

    assert "This study has no checkpoints" in text
    assert "there is no causal evidence in this study" in text
    assert not list((tmp_path / "figures").iterdir())


def test_a_task_without_critical_items_is_shown_as_such(study: ReportData, tmp_path: Path) -> None:
    effect = study.effects[0]
    nothing = replace(
        effect,
        sets={
            **effect.sets,
            "critical": SetChange(None, None, 0, [-1, 1]),
            "held_out": SetChange(None, None, 0, [-1, 1]),
        },
        control=ControlDraws(0, None, [None, None], [], "held_out"),
        p=1.0,
        verdict="underpowered",
    )
    part = replace(study, dynamics=[], effects=[nothing, study.effects[1]])
    text = " ".join(outline(write_report(part, tmp_path)).text)

    assert text.count("no items") == 2


def test_effects_stand_in_the_tables_of_the_paper(page: Path, study: ReportData) -> None:
    text = " ".join(outline(page).text)
    change = study.effects[0].sets["critical"].change

    assert change
    for number in (2, 3, 4, 5):
        assert f"(the paper's Table {number})" in text
    assert f"−{100 * abs(change):.1f}" in text
    assert "−46.2" in text
