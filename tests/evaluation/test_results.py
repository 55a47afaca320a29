from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from featdiff.evaluation.results import NO_CHOICE, Requests, Sample, TaskResult


def sample(number: int, target: int = 0, acc: int = 0, acc_norm: int = 0, correct: bool = True) -> Sample:
    choices = ("yes", "nó", "perhaps\n")
    return Sample(
        sample_id=f"{number}-abc",
        prompt_hash="abc",
        prompt="is it so?",
        choices=choices,
        target=target,
        target_text=choices[target],
        log_likelihoods=(-1.5, -0.1234567890123456789, float("-inf")),
        prediction_acc=acc,
        prediction_acc_norm=acc_norm,
        prediction_text=choices[acc],
        correct=correct,
    )


def written(number: int, target: str, answer: str) -> Sample:
    """An item whose answer is generated."""
    return replace(
        sample(number, correct=target == answer),
        choices=(),
        target=NO_CHOICE,
        target_text=target,
        log_likelihoods=(),
        prediction_acc=NO_CHOICE,
        prediction_acc_norm=NO_CHOICE,
        prediction_text=answer,
    )


RESULT = TaskResult(
    task="riddles",
    kind="multiple_choice",
    metric="acc",
    samples=(
        sample(0, target=0, acc=0, acc_norm=1, correct=True),
        sample(1, target=1, acc=0, acc_norm=1, correct=False),
        sample(2, target=1, acc=2, acc_norm=1, correct=False),
        sample(3, target=1, acc=1, acc_norm=0, correct=True),
    ),
)


def test_accuracy_predictions_and_baseline_by_hand() -> None:
    assert RESULT.accuracy == RESULT.accuracy_by("acc") == 0.5
    assert RESULT.accuracy_by("acc_norm") == 0.5
    assert RESULT.prediction.tolist() == [0, 0, 2, 1]
    assert replace(RESULT, metric="acc_norm").prediction.tolist() == [1, 1, 1, 0]
    assert RESULT.correct.tolist() == [True, False, False, True]
    assert RESULT.constant_baseline == 0.75  # always the second choice


def test_a_histogram_counts_predicted_positions() -> None:
    assert RESULT.histogram == (2, 1, 1)
    assert replace(RESULT, metric="acc_norm").histogram == (1, 3, 0)


def test_where_the_right_choice_always_stands_last_the_baseline_is_chance() -> None:
    """By hand: four choices of their own once, three choices otherwise. Letters are answers, so they count."""
    samples = [replace(sample(n, target=2), choices=(f"a{n}", f"b{n}", f"c{n}")) for n in range(3)]
    samples.append(replace(sample(3, target=2), choices=("w", "x", "y", "z")))
    assert replace(RESULT, samples=tuple(samples)).constant_baseline == pytest.approx((3 / 3 + 1 / 4) / 4)
    letters = tuple(replace(sample(n, target=2), choices=("A", "B", "C")) for n in range(4))
    assert replace(RESULT, samples=letters).constant_baseline == 1


def test_repetitions_count_by_their_share() -> None:
    """By hand: one of three, and two of three."""
    answers = (
        replace(written(0, "5", "5"), answers=("5", "6", "7"), rights=(True, False, False), correct=False),
        replace(written(1, "5", "5"), answers=("5", "6", "5"), rights=(True, False, True), correct=True),
    )
    result = TaskResult("sums", "generate_until", "exact_match", answers)
    assert (result.accuracy, result.correct.tolist()) == (0.5, [False, True])
    assert result.histogram == ()


def test_the_baseline_of_generated_answers_is_the_commonest_text() -> None:
    answers = (written(0, "5", "5"), written(1, "7", "5"), written(2, "5", "6"), written(3, "5", "5"))
    result = TaskResult("sums", "generate_until", "exact_match", answers)
    assert (result.constant_baseline, result.accuracy, result.accuracy_by("exact_match")) == (0.75, 0.5, 0.5)
    with pytest.raises(ValueError, match="has no acc"):
        result.accuracy_by("acc")


def test_what_is_loaded_is_what_was_saved_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "rl" / "riddles.parquet"
    RESULT.save(path)
    assert TaskResult.load(path) == RESULT
    assert [file.name for file in path.parent.iterdir()] == ["riddles.parquet"]


def test_a_failed_save_leaves_the_former_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "riddles.parquet"
    RESULT.save(path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        replace(RESULT, samples=RESULT.samples[:1]).save(path)
    assert TaskResult.load(path) == RESULT


def test_an_absent_a_damaged_and_a_foreign_file_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "riddles.parquet"
    with pytest.raises(ValueError, match=r"no evaluation lies at .*; evaluate the model first"):
        TaskResult.load(path)
    RESULT.save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read") as error:
        TaskResult.load(path)
    assert "\n" not in str(error.value)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ValueError, match="holds no records of an evaluation"):
        TaskResult.load(path)


def test_a_result_without_items_is_refused() -> None:
    with pytest.raises(ValueError, match="has no items"):
        TaskResult("riddles", "multiple_choice", "acc", ())


def test_selected_requests_are_those_of_the_chosen_samples_in_the_chosen_order() -> None:
    requests = Requests(
        task="riddles",
        sample_ids=("a", "b", "c"),
        choice_counts=torch.tensor([2, 3, 1]),
        target=torch.tensor([1, 2, 0]),
        context_ids=[[1], [1], [2], [2], [2], [3]],
        continuation_ids=[[10], [11], [20], [21], [22], [30]],
        choice_characters=torch.arange(6.0) + 1,
    )
    chosen = requests.select(torch.tensor([2, 0]))
    assert chosen.sample_ids == ("c", "a")
    assert chosen.continuation_ids == [[30], [10], [11]]
    assert chosen.context_ids == [[3], [1], [1]]
    assert chosen.sample_of.tolist() == [0, 1, 1]
    assert chosen.choice_of.tolist() == [0, 0, 1]
    assert chosen.target.tolist() == [0, 1]
    assert chosen.choice_counts.tolist() == [1, 2]
    assert chosen.choice_characters.tolist() == [6.0, 1.0, 2.0]
    everything = requests.select(torch.arange(3))
    assert everything.continuation_ids == requests.continuation_ids
    assert torch.equal(everything.sample_of, requests.sample_of)
    assert requests.select(torch.tensor([], dtype=torch.long)).sample_ids == ()
