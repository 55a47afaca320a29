"""The help names the settings that a verb reads, and no others."""

from pathlib import Path

import pytest

from featdiff.config.study import Study
from featdiff.config.study_file import read_study
from featdiff.workflow.help import help_text, verb_help, verbs
from featdiff.workflow.registry import STAGES

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def demo() -> Study:
    return read_study(STUDIES / "demo.toml")


def test_every_verb_is_in_the_help() -> None:
    assert all(f"  {verb} " in help_text() for verb in verbs())
    assert {stage.name for stage in STAGES} - {"inputs"} <= verbs().keys()


@pytest.mark.parametrize("verb", [verb for verb in verbs() if verb not in ("init", "verify", "show", "plan", "report")])
def test_the_help_of_a_verb_fits_two_hundred_lines_unless_it_runs_all(verb: str, demo: Study) -> None:
    lines = verb_help(verb, demo).splitlines()
    assert verb in ("run", "demo") or len(lines) <= 200
    assert max(map(len, lines)) <= 120


def test_a_verb_lists_what_it_reads_with_the_values_of_the_study(demo: Study) -> None:
    text = verb_help("train", demo)
    assert f"--training.lr {demo.training.lr:g}\n" in text and "--corpus.context" in text
    assert "--intervention." not in text and "--selection." not in text


def test_a_setting_that_is_marked_immaterial_is_listed_and_changes_no_fingerprint(demo: Study) -> None:
    assert "--training.log_every" in verb_help("train", demo)
