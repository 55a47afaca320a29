"""One look for all figures: colours that follow the reader's light or dark theme, and the same bytes every time.

Figures are drawn in the light palette. On the way to SVG each colour becomes a CSS variable, which the page, or the
file itself when it stands alone, defines for both themes. Shading is opacity over the paper, so heatmaps follow too.
"""

import html
import io
import re
import textwrap
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

PALETTE = {
    "ink": ("#1b1f24", "#e6edf3"),
    "muted": ("#57606a", "#9da7b1"),
    "paper": ("#ffffff", "#14181d"),
    "line": ("#d0d7de", "#3a424c"),
    "orange": ("#b5500a", "#f0a15e"),
    "blue": ("#0b62a8", "#6db5f2"),
    "green": ("#1a7f5a", "#5fcf9f"),
    "purple": ("#8250a8", "#c79df0"),
}
"""Colour by name, on light and on dark paper. Orange and blue stay apart for colour-blind eyes; shape says it again."""

INK, MUTED, PAPER, LINE = (PALETTE[name][0] for name in ("ink", "muted", "paper", "line"))
ORANGE, BLUE, GREEN, PURPLE = (PALETTE[name][0] for name in ("orange", "blue", "green", "purple"))

WIDTH = 4.7
"""Width of every figure in inches: readable at the width of a phone, two abreast on a desk."""
TITLE = 44
"""Characters of a title that fit this width."""

LOOK: dict[RcKeyType, str | float | bool | list[str]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "svg.fonttype": "none",
}

styled = matplotlib.rc_context(LOOK)
"""Decorates every function that draws: matplotlib looks some settings up when a text or a tick is made."""

NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


_new_figure: ContextVar[Callable[..., Figure]] = ContextVar("new_figure", default=Figure)


def canvas(height: float) -> tuple[Figure, Axes]:
    """A figure of the common width, `height` in inches, with one pair of axes."""
    figure = _new_figure.get()(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


@contextmanager
def on_screen() -> Generator[None]:
    """Hand the figures that are drawn inside to pyplot: a notebook shows them at the end of the cell."""
    from matplotlib import pyplot

    token = _new_figure.set(pyplot.figure)
    try:
        yield
    finally:
        _new_figure.reset(token)


def fitted(text: str, width: int = 20) -> str:
    """A name of any length on at most two lines of `width` characters; the page and the numbers have it in full."""
    return "\n".join(textwrap.wrap(text, width, max_lines=2, placeholder="…"))


def colour_of(model: str, models: Sequence[str]) -> str:
    """A model's colour everywhere: the base is grey, tuned models follow in a fixed order."""
    tuned = (ORANGE, BLUE, GREEN, PURPLE)
    position = list(models).index(model)
    return MUTED if position == 0 else tuned[(position - 1) % len(tuned)]


@dataclass(frozen=True)
class Drawing:
    """A figure drawn once, with its text alternative, ready for its own file or for a page."""

    svg: str
    name: str
    title: str
    description: str

    def standalone(self) -> str:
        """An SVG file that knows both themes by itself."""
        width, height = self._size()
        style = f"<style>{theme_css()}svg{{background:var(--paper)}}</style>"
        return self._opened(f'width="{width}pt" height="{height}pt" ', style)

    def inline(self) -> str:
        """An element for a page that defines the colours; as wide as its container."""
        return self._opened("", "")

    def _opened(self, size: str, style: str) -> str:
        width, height = self._size()
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
            f'aria-labelledby="{self.name}-title {self.name}-description" {size}'
            f'viewBox="0 0 {width} {height}" style="stroke-linejoin:round">'
            f'<title id="{self.name}-title">{html.escape(self.title)}</title>'
            f'<desc id="{self.name}-description">{html.escape(self.description)}</desc>{style}'
        )
        return head + self.svg[self.svg.index(">") + 1 :]

    def _size(self) -> tuple[str, str]:
        found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', self.svg)
        assert found, "matplotlib always writes a viewBox"
        return found[1], found[2]


def draw(figure: Figure, name: str, title: str, description: str) -> Drawing:
    """The figure as SVG with real text and no dates; ids are prefixed, since a page holds many figures."""
    buffer = io.StringIO()
    with matplotlib.rc_context(LOOK), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    for variable, (light, _) in PALETTE.items():
        svg = svg.replace(light, f"var(--{variable})")
    return Drawing(svg, name, title, description)


def theme_css() -> str:
    """The palette as CSS variables, for light paper and for readers who prefer dark."""
    light, dark = (";".join(f"--{name}:{shades[i]}" for name, shades in PALETTE.items()) for i in (0, 1))
    return f":root{{color-scheme:light dark;{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
