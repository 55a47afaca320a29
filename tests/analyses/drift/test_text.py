"""The answers at equal drift: by rule, with counts and intervals, beside what was learned."""

from dataclasses import replace

from equal_drift_record import EQUAL, WAYS, questions

from featdiff.analyses.drift.text import equal_drift_verdicts

MINUS = "\N{MINUS SIGN}"


def answers(**orders: object) -> list[str]:
    asked = [question for way in WAYS for question in (questions(way, **orders) if way == WAYS[1] else questions(way))]  # pyright: ignore
    return equal_drift_verdicts(replace(EQUAL, questions=asked), "rl", 0.95)


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
    assert "are not known" in equal_drift_verdicts(replace(EQUAL, questions=[]), "rl", 0.95)[0]
