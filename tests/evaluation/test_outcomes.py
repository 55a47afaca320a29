from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from featdiff.evaluation.outcomes import McNemar, Outcomes, save_outcomes
from featdiff.evaluation.results import Sample, TaskResult


def result(predictions: list[int], targets: list[int] | None = None, **changes: object) -> TaskResult:
    """A result whose right answers are all the first choice, unless said otherwise."""
    targets = targets or [0] * len(predictions)
    samples = tuple(
        Sample(
            sample_id=f"{number}-hash",
            prompt_hash=f"hash of {number}",
            prompt="?",
            choices=("a", "b", "c"),
            target=target,
            target_text="abc"[target],
            log_likelihoods=(0.0, 0.0, 0.0),
            prediction_acc=prediction,
            prediction_acc_norm=0,
            prediction_text="abc"[prediction],
            correct=prediction == target,
        )
        for number, (prediction, target) in enumerate(zip(predictions, targets, strict=True))
    )
    return replace(TaskResult("riddles", "multiple_choice", "acc", samples), **changes)


OUTCOMES = Outcomes.of({"base": result([0, 1, 2, 0, 1]), "rl": result([0, 0, 1, 2, 0]), "sft": result([1, 1, 1, 1, 0])})


def test_the_four_sets_by_hand() -> None:
    assert OUTCOMES.critical("base", "rl").tolist() == [1, 4]
    assert OUTCOMES.mirror("base", "rl").tolist() == [3]
    assert OUTCOMES.both_right("base", "rl").tolist() == [0]
    assert OUTCOMES.both_wrong("base", "rl").tolist() == [2]
    assert OUTCOMES.critical(tuned="sft").tolist() == [4]


def test_accuracies_predictions_and_ids_by_hand() -> None:
    assert [OUTCOMES.accuracy(model) for model in ("base", "rl", "sft")] == pytest.approx([0.4, 0.6, 0.2])
    assert OUTCOMES.models == ("base", "rl", "sft")
    assert OUTCOMES.prediction[0].tolist() == [0, 1, 2, 0, 1]
    assert OUTCOMES["rl"].tolist() == [True, True, False, False, True]
    assert OUTCOMES.sample_ids[2] == "2-hash"


def test_mcnemar_counts_gains_and_losses() -> None:
    base, tuned = result([1] * 9 + [0] * 3), result([0] * 8 + [1] * 2 + [0] * 2)
    comparison = Outcomes.of({"base": base, "rl": tuned}).mcnemar()
    assert comparison == McNemar(gained=8, lost=1, p=comparison.p)
    assert comparison.p == pytest.approx(binomtest(8, 9).pvalue)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_the_sets_part_the_items_and_swapping_the_models_swaps_gains_and_losses(pairs: list[tuple[bool, bool]]) -> None:
    base, rl = (result([0 if right else 1 for right in column]) for column in zip(*pairs, strict=True))
    outcomes = Outcomes.of({"base": base, "rl": rl})
    sets = [outcomes.critical(), outcomes.mirror(), outcomes.both_right(), outcomes.both_wrong()]
    assert torch.cat(sets).sort().values.tolist() == list(range(len(pairs)))
    assert outcomes.critical("rl", "base").tolist() == outcomes.mirror().tolist()
    difference = (len(sets[0]) - len(sets[1])) / len(pairs)
    assert outcomes.accuracy("rl") - outcomes.accuracy("base") == pytest.approx(difference)


def test_models_that_were_asked_different_things_are_refused_in_one_line() -> None:
    base = result([0, 1])
    first, second = base.samples
    other_prompt = replace(base, samples=(first, replace(second, prompt_hash="other", sample_id="1-other")))
    for wrong, words in (
        (result([0]), "base has 2 samples, rl has 1"),
        (other_prompt, "base was asked 1-hash where rl was asked 1-other"),
        (result([0, 1], targets=[0, 2]), "different right answers to 1-hash"),
        (replace(base, task="sums"), "on riddles by acc, rl on sums by acc"),
        (replace(base, metric="acc_norm"), "by acc, rl on riddles by acc_norm"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            Outcomes.of({"base": base, "rl": wrong})
        assert "\n" not in str(error.value)


def test_a_model_without_outcomes_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="has outcomes of base, rl, sft, none of grpo"):
        OUTCOMES.critical(tuned="grpo")
    with pytest.raises(ValueError, match="at least one model"):
        Outcomes.of({})


@pytest.mark.parametrize(
    ("base", "rl", "sentence"),
    [
        (
            "0" * 6 + "1" * 5,
            "1" * 6 + "0" * 5,
            "rl gained 6 of 11 items and lost 5 (p = 1): its critical items may be churn.",
        ),
        (
            "0" * 9 + "1",
            "1" * 10,
            "rl gained 9 of 10 items and lost 0 (p = 0.0039): its critical items are more than churn.",
        ),
        ("1" * 10, "0" * 9 + "1", "rl gained 0 of 10 items and lost 9 (p = 0.0039): it lost more than it gained."),
        ("01", "01", "rl and base are right on the same items, so there is no set to explain."),
    ],
)
def test_whether_the_critical_set_is_churn_is_said_in_one_sentence(base: str, rl: str, sentence: str) -> None:
    """By hand: 9 flips of 9 one way have the exact p 2/512."""
    correct = torch.tensor([[bit == "1" for bit in bits] for bits in (base, rl)])
    ids = tuple(str(number) for number in range(len(base)))
    outcomes = Outcomes("toy", ("base", "rl"), ids, correct, correct.long())
    assert outcomes.churn() == sentence
    assert [outcomes.sets().count("critical"), outcomes.sets().count("mirror")] == [
        outcomes.mcnemar().gained,
        outcomes.mcnemar().lost,
    ]


def test_the_table_holds_every_item_of_every_model_and_its_set(tmp_path: Path) -> None:
    results = {"base": result([1, 1, 0, 0]), "rl": result([1, 0, 1, 0])}
    save_outcomes(tmp_path / "new" / "riddles.parquet", results, "base")
    rows = pq.read_table(tmp_path / "new" / "riddles.parquet").to_pylist()
    assert [row["set"] for row in rows] == ["", "", "", "", "both wrong", "critical", "mirror", "both right"]
    assert [row["prompt_hash"] for row in rows] == [f"hash of {number}" for number in range(4)] * 2
    assert [row["share"] for row in rows[:4]] == [0.0, 0.0, 1.0, 1.0]
    assert [row["model"] for row in rows] == ["base"] * 4 + ["rl"] * 4
