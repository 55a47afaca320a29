"""The page is one offline file, the same every time, and nothing in the data can break out of its place."""

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_accuracy import made_up
from made_up_dynamics import of, one_seed

from featdiff.activations.buffer import StreamCounts
from featdiff.analyses.accuracy.text import section_of as accuracy_section
from featdiff.analyses.dynamics.text import dynamics_section
from featdiff.presentation.section import Section
from featdiff.report.page import Heading, write_report
from featdiff.run.folder import StageNote
from featdiff.run.results import StreamRecord

HOSTILE = '</script><script>alert(1)</script>&<b>"x" $\\frac{1}{2}$ -->'
MODELS = {
    "stream": StreamRecord(StreamCounts(), 1, 2, 32, {}, {}),
    "blocks": 4,
    "sources": {HOSTILE: 1.0},
    "held_out": 10,
}
NOTE = StageNote(HOSTILE, "3.11", HOSTILE, {"featdiff": HOSTILE}, "0a", "2026", 1.0)
PROVENANCE = {"notes": {HOSTILE: NOTE}, "seed": 0, "libraries": {HOSTILE: {HOSTILE: HOSTILE}}}
SNAPSHOT = Path(__file__).with_name("page.txt")
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


def sections(name: str) -> list[Section]:
    """Accuracy, dynamics and the models of a study of the base and one tuned model."""
    values = {**MODELS, "paths": {name: name}, "origins": {name: (name, {name: name})}}
    dynamics = dynamics_section({name: of(one_seed())}, ("base", name))
    accuracy = accuracy_section({name: {"base": made_up(0.5), name: made_up(0.6, (0.0, 0.2))}}, ("base", name), 0.95)
    assert dynamics is not None and accuracy is not None
    return [Section("models", "Models", "models.html", values), accuracy, dynamics]


@pytest.fixture(scope="module")
def page(study: Heading, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(study, tmp_path_factory.mktemp("report"), sections("rl"))


def test_the_page_is_well_formed_and_has_its_sections_in_order(page: Path) -> None:
    found = outline(page)

    order = ["headline", "models", "accuracy", "dynamics", "limits"]
    assert [name for name in found.ids if name in order] == order


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

    assert figures == found.tags.count("desc") == found.tags.count("figcaption") == len(found.scripts) > 1
    assert all(json.loads(script) for script in found.scripts)
    assert page.read_text().count('role="img"') == figures


def test_each_figure_lies_beside_the_page_with_the_same_numbers(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = sorted((page.parent / "figures").glob("*.svg"))

    assert len(files) > 1
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


def test_the_same_sections_give_the_same_bytes(study: Heading, tmp_path: Path) -> None:
    one, two = (write_report(study, tmp_path / name, sections("rl")) for name in ("one", "two"))

    assert one.read_bytes() == two.read_bytes()
    for file in (tmp_path / "one" / "figures").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / "figures" / file.name).read_bytes()


def test_names_from_outside_are_shown_and_never_run(tmp_path: Path) -> None:
    heading, provenance = Heading(HOSTILE, ("base", HOSTILE)), Section("provenance", "P", "provenance.html", PROVENANCE)
    said = Section("said", HOSTILE, "models.html", sections(HOSTILE)[0].values, findings=[HOSTILE], caveats=[HOSTILE])
    found = outline(write_report(heading, tmp_path, [*sections(HOSTILE), said], provenance))

    assert "alert(1)" not in "".join(script for script in found.scripts if not script.startswith("{"))
    assert found.tags.count("script") == found.tags.count("figure")
    assert HOSTILE in "".join(found.text)
    assert HOSTILE in json.loads(found.scripts[0])


def test_a_study_of_which_nothing_was_made_says_so(study: Heading, tmp_path: Path) -> None:
    text = " ".join(outline(write_report(study, tmp_path)).text)

    assert "Nothing was measured of which limits could be stated." in text
    assert not list((tmp_path / "figures").iterdir())


def test_findings_stand_at_the_top_and_caveats_at_the_end(study: Heading, tmp_path: Path) -> None:
    models = sections("rl")[0]
    said = Section("said", "Said", "models.html", models.values, findings=["First.", "Last."], caveats=["But."])
    page = write_report(study, tmp_path, [said]).read_text()

    assert "First. <strong>Last.</strong>" in page and page.index("<li>But.</li>") > page.index('id="said"')


def test_two_figures_of_one_name_are_a_mistake_of_ours(study: Heading, tmp_path: Path) -> None:
    accuracy = sections("rl")[1]

    with pytest.raises(AssertionError, match="share a name"):
        write_report(study, tmp_path, [accuracy, accuracy])


def test_the_text_of_a_page_is_as_it_was_read_last(page: Path) -> None:
    """After a change of wording: `FEATDIFF_WRITE_SNAPSHOT=1 pytest tests/report`, then read page.txt in the diff."""
    lines = [line.strip() for text in outline(page).text for line in text.splitlines() if line.strip()]
    shown = "\n".join(lines[lines.index("demo") :]) + "\n"  # behind the title and the style sheet
    if os.environ.get("FEATDIFF_WRITE_SNAPSHOT"):
        SNAPSHOT.write_text(shown, encoding="utf-8")
    assert shown == SNAPSHOT.read_text(encoding="utf-8")
