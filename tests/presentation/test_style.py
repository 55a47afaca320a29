"""SVG that follows the theme, tells what it shows, and is the same every time."""

import xml.etree.ElementTree as ElementTree

from matplotlib.figure import Figure

from featdiff.presentation.style import BLUE, INK, MUTED, PALETTE, canvas, colour_of, draw, fitted, styled, theme_css

SVG = "{http://www.w3.org/2000/svg}"


@styled
def example(text: str = "words") -> Figure:
    figure, axes = canvas(2.0)
    axes.plot([0, 1], [0, 1], "o-", color=BLUE)
    axes.set_title(text)
    return figure


def test_colours_become_variables_of_the_theme() -> None:
    svg = draw(example(), "example", "An example", "A line rises.").inline()

    assert "var(--blue)" in svg and "var(--ink)" in svg
    assert BLUE not in svg and INK not in svg
    assert "#000000" not in svg


def test_every_colour_differs_between_the_themes_and_from_the_others() -> None:
    assert all(light != dark for light, dark in PALETTE.values())
    assert len({light for light, _ in PALETTE.values()}) == len(PALETTE)
    assert all(f"--{name}:{shade}" in theme_css() for name, shades in PALETTE.items() for shade in shades)


def test_text_is_legible_on_paper_in_both_themes() -> None:
    for theme in (0, 1):
        paper = luminance(PALETTE["paper"][theme])
        for name in ("ink", "muted", "orange", "blue", "green", "purple"):
            brighter, darker = sorted((luminance(PALETTE[name][theme]), paper), reverse=True)
            assert (brighter + 0.05) / (darker + 0.05) >= 4.5, name


def test_a_figure_says_what_it_shows() -> None:
    root = ElementTree.fromstring(draw(example(), "example", "An <example>", "A line & rises.").standalone())

    assert root.get("role") == "img"
    assert [element.text for element in root[:2]] == ["An <example>", "A line & rises."]
    assert (root.get("aria-labelledby") or "").split() == [element.get("id") for element in root[:2]]


def test_text_stays_text_whatever_it_holds() -> None:
    text = "<b>&$x^2$"
    root = ElementTree.fromstring(draw(example(text), "example", "t", "d").standalone())

    assert text in [element.text for element in root.iter(f"{SVG}text")]


def test_the_same_figure_gives_the_same_bytes_without_a_date() -> None:
    one, two = (draw(example(), "example", "t", "d").standalone() for _ in range(2))

    assert one == two
    assert "<metadata" not in one


def test_ids_of_two_figures_on_one_page_do_not_meet() -> None:
    ids = [
        {element.get("id") for element in ElementTree.fromstring(draw(example(), name, "t", "d").inline()).iter()}
        - {None}
        for name in ("one", "two")
    ]

    assert ids[0] and not ids[0] & ids[1]


def test_the_base_is_grey_and_tuned_models_keep_their_colours() -> None:
    assert colour_of("base", ("base", "sft", "rl")) == MUTED
    assert colour_of("rl", ("base", "sft", "rl")) == BLUE
    assert colour_of("sft", ("base", "sft")) == colour_of("sft", ("base", "sft", "rl"))


def test_long_names_are_fitted_on_two_lines() -> None:
    assert fitted("sorting") == "sorting"
    assert fitted("a_task_whose_name_never_ends_and_goes_on_and_on", 20).count("\n") == 1
    assert max(len(line) for line in fitted("word " * 40, 20).split("\n")) <= 20


def luminance(colour: str) -> float:
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
