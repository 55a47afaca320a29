"""The answers at equal drift, by rule, with counts and intervals; and drift on the page."""

from dataclasses import replace
from pathlib import Path

from made_up_drift import CONTROLLED, DRIFT, EQUAL, MATCHINGS, SAMPLES, questions

from featdiff.analyses.drift.result import Drift
from featdiff.analyses.drift.text import drift_section, equal_drift_verdicts
from featdiff.report.page import Heading, write_report

MINUS = "\N{MINUS SIGN}"


def answers(**orders: object) -> list[str]:
    as_trained, mixed, nearest = MATCHINGS
    asked = questions(as_trained) + questions(mixed, **orders) + questions(nearest)  # pyright: ignore
    return equal_drift_verdicts(replace(EQUAL, questions=asked), "rl", 0.95)


def page_of(study: Heading, drift: Drift, folder: Path) -> str:
    """What the page says of drift."""
    section = drift_section(drift, ("base", "sft", "rl"), 0.95, SAMPLES)
    page = write_report(study, folder, [section]).read_text()
    return page[page.index('<section id="drift">') :].partition("</section>")[0]


def test_one_sentence_answers_both_questions_with_their_counts() -> None:
    assert answers()[0].replace(MINUS, "-") == (
        "At equal drift (KL 0.25 nats per token on the tasks, that of rl, reached by mixing with the base), sft still "
        "has more specific features than rl (31 of 700 against 12 of 700 above 0.8, +2.7 [+1.7, +3.7] points) and "
        "training on RL's own right answers (rft) makes fewer specific features than training on the teacher's (sft) "
        "(through sft's crosscoder 12 of 700 against 31 of 700, -2.7 [-3.7, -1.7] points; "
        "through rl's crosscoder 9 of 700 against 30 of 700, -3.0 [-4.0, -2.0] points)."
    )


def test_a_control_whose_readings_disagree_cannot_be_told_apart() -> None:
    said = answers(control=("fewer", "undecided"))[0]
    assert "(rft) cannot be told apart in this from training on the teacher's (sft) (through" in said
    assert "sft has fewer specific features than rl" in answers(own="fewer")[0]
    assert "sft cannot be told apart in this from rl (31 of 700" in answers(own="undecided")[0]


def test_what_was_learned_stands_beside_it() -> None:
    learned = answers()[1]
    assert "+20.0 [+17.0, +23.0] for sft, +35.0 [+32.0, +38.0] for rl and +30.0 [+27.0, +33.0] for rft" in learned
    assert "rft less sft is +10.0 [+5.0, +15.0]" in learned and "(10 tasks, 1,000 items)" in learned


def test_checkpoints_of_nearest_kl_say_whether_they_agree() -> None:
    assert answers()[2] == (
        "With the checkpoints of nearest KL instead (sft-1 at 0.25 and rft-2 at 0.25): more for sft against rl and "
        "fewer for rft against sft."
    )
    assert (
        "fewer for rft against sft (not as above: no difference that can be told)"
        in answers(control=("fewer", "more"))[2]
    )


def test_it_says_by_which_rule_and_what_would_change_it() -> None:
    last = answers()[3]
    assert "95 % interval over features leaves out 0, for the control in both crosscoders" in last
    assert "sft's favours sft and rl's favours what imitates rl" in last
    assert "22 features of rft in sft's crosscoder instead of 12" in last and "(n = 1)" in last


def test_without_pair_crosscoders_it_says_that_nothing_is_known() -> None:
    assert "are not known" in equal_drift_verdicts(replace(EQUAL, questions=()), "rl", 0.95)[0]


def test_the_page_escapes_names_and_shows_every_row(study: Heading, tmp_path: Path) -> None:
    section = page_of(study, DRIFT, tmp_path)
    assert "&lt;sft&gt; matched" in section and "<sft>" not in section and section.count("of 700 measured") == 5 + 9 * 2
    assert "5.0<small>attention 10.0</small>" in section and ">20.0<" in section


def test_the_page_says_what_the_control_is_and_shows_it_in_every_place(study: Heading, tmp_path: Path) -> None:
    section = page_of(study, CONTROLLED, tmp_path)
    assert "3,605 kept of 5,102 drawn for 3,840 prompts" in section
    assert "4<small>of 700 in sft's place</small>7<small>of 690 in rl's place</small>" in section
    for matching in MATCHINGS:
        assert section.count(f">{matching}</th>") == 1
    assert "fewer specific features than training on the teacher" in section
    assert "is the base after SFT" not in page_of(study, DRIFT, tmp_path)
