import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featdiff.evaluation.comparison import Comparison, compare_outcomes, save_outcomes
from featdiff.evaluation.results import Sample, TaskResult


def result(right: str, questions: str) -> TaskResult:
    """One item per letter of `questions`; the model is right where `right` has a 1."""
    samples = tuple(
        Sample(
            sample_id=f"{number}-{question}",
            prompt_hash=question,
            prompt=question,
            choices=("x", "y"),
            target=1,
            target_text="y",
            log_likelihoods=(0.0, 1.0),
            prediction_acc=int(bit),
            prediction_acc_norm=int(bit),
            prediction_text="xy"[int(bit)],
            correct=bit == "1",
        )
        for number, (bit, question) in enumerate(zip(right, questions, strict=True))
    )
    return TaskResult("toy", "multiple_choice", "acc", samples)


def write(run: Path, questions: str, **right: str) -> Path:
    results = {model: result(bits, questions) for model, bits in right.items()}
    save_outcomes(run / "evaluation" / "outcomes" / "toy.parquet", results, "base")
    return run


def test_the_table_holds_every_item_of_every_model_and_its_set(tmp_path: Path) -> None:
    write(tmp_path, "abcd", base="0011", rl="0101")
    rows = pq.read_table(tmp_path / "evaluation" / "outcomes" / "toy.parquet").to_pylist()
    assert [row["set"] for row in rows] == ["", "", "", "", "both wrong", "critical", "mirror", "both right"]
    assert [row["prompt_hash"] for row in rows] == list("abcdabcd")
    assert [row["share"] for row in rows[:4]] == [0.0, 0.0, 1.0, 1.0]


def test_two_studies_meet_on_the_questions_that_both_asked(tmp_path: Path) -> None:
    """By hand: b to e are common, in another order; of rl's critical items {b, c} and {c, d} one is shared."""
    first = write(tmp_path / "a", "abcde", base="00011", rl="01110")
    second = write(tmp_path / "b", "edcbf", base="10000", rl="01100", sft="00000")
    base, rl = compare_outcomes(first, second)
    assert rl == Comparison(
        task="toy",
        model="rl",
        items=4,
        only_a=1,
        only_b=1,
        accuracy_a=0.75,
        accuracy_b=0.5,
        agreement=0.75,
        gained=0,
        lost=1,
        p=1.0,
        critical_a=2,
        critical_b=2,
        critical_both=1,
    )
    assert rl.critical_overlap == 1 / 3
    assert (base.accuracy_a, base.accuracy_b, base.lost) == (0.5, 0.25, 1)
    assert math.isnan(base.critical_overlap)


def test_a_question_that_is_asked_twice_meets_itself_in_order(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", "aab", base="010"), write(tmp_path / "b", "baa", base="001")
    (base,) = compare_outcomes(first, second)
    assert (base.items, base.agreement) == (3, 1.0)


def test_a_study_agrees_with_itself(tmp_path: Path) -> None:
    run = write(tmp_path, "abcd", base="0011", rl="0101")
    assert all(
        one.agreement == 1 and one.p == 1 and one.only_a == one.only_b == 0 for one in compare_outcomes(run, run)
    )


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    run = write(tmp_path / "a", "ab", base="01")
    with pytest.raises(ValueError, match="no outcomes lie in"):
        compare_outcomes(run, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no model of one name the same question"):
        compare_outcomes(run, write(tmp_path / "c", "xy", base="01"))
