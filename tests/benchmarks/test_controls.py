"""The benchmark runs; what it counts is what it says."""

from controls import Cost, Shape, made_requests, measure


def test_items_have_four_choices_of_the_length_asked_for() -> None:
    requests = made_requests(Shape(items=6, context=8, choice=2))
    assert len(requests.context_ids) == 24 and {len(choice) for choice in requests.continuation_ids} == {2}
    assert all(requests.context_ids[4 * item] is requests.context_ids[4 * item + 3] for item in range(6))


def test_ratios_are_seconds_over_those_of_one_evaluation() -> None:
    assert Cost(2.0, {0.0: 60.0, 3.0: 90.0}).ratios == {0.0: 30.0, 3.0: 45.0}


def test_a_tiny_measurement_runs() -> None:
    cost = measure(Shape(64, 2, 64, items=4, context=8, draws=3, features=32, chosen=2), rounds=1)
    assert set(cost.controls) == {0.0, 3.0} and all(ratio > 0 for ratio in cost.ratios.values())
