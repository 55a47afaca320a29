"""Progress goes to stderr: a bar on a terminal, a line a minute elsewhere, nothing for short work."""

import io

import pytest

from featdiff import progress
from featdiff.progress import Progress


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def test_short_work_is_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("training", total=3, unit="step") as bar:
        for _ in range(3):
            clock.now += 1
            bar.advance()
    said = capsys.readouterr()
    assert said.out == said.err == ""


def test_long_work_says_a_line_a_minute_with_rate_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", total=1000, unit="step") as bar:
        for _ in range(13):
            clock.now += 10
            bar.advance(2)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "training: 12/1000 steps, 0.2 a second, 4940 s left",
        "training: 24/1000 steps, 0.2 a second, 4880 s left",
    ]


def test_of_several_processes_only_the_first_speaks(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, lines in (("1", 0), ("0", 1)):
        monkeypatch.setenv("RANK", rank)
        with Progress("training", total=1000, unit="step") as bar:
            clock.now += 60
            bar.advance()
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_work_that_goes_on_counts_its_rate_from_where_it_went_on(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", total=1000, unit="step", done=900) as bar:
        clock.now += 100
        bar.advance(50)
    assert capsys.readouterr().err == "training: 950/1000 steps, 0.5 a second, 100 s left\n"


def test_more_than_was_planned_leaves_no_time_rather_than_less(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("tokenising", total=10, unit="token") as bar:
        clock.now += 60
        bar.advance(12)
    assert capsys.readouterr().err.endswith("12/10 tokens, 0.2 a second, 0 s left\n")


def test_on_a_terminal_there_is_a_bar_and_it_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress("training", total=2, unit="step") as bar:
        bar.advance(2)
    assert "training" in terminal.getvalue() and terminal.getvalue().endswith("\r")


def test_an_error_within_passes_through(clock: Clock) -> None:
    with pytest.raises(ValueError, match="within"), Progress("training", total=2, unit="step"):
        raise ValueError("within")
