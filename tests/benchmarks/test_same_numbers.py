"""Two summaries are compared value by value."""

from same_numbers import compared, difference


def test_equal_trees_differ_nowhere() -> None:
    tree = {"a": [1, 2.5, None], "b": {"c": "x"}}
    differences, alone = compared(tree, tree)
    assert set(differences.values()) == {0.0} and len(differences) == 5 and not alone  # four values, one length


def test_a_number_a_type_and_a_place_that_differ_are_found() -> None:
    differences, alone = compared({"a": 1.0, "b": "x", "c": [1]}, {"a": 1.5, "b": None, "c": [1, 2]})
    assert differences["/a"] == 0.5 / 1.5 and differences["/b"] == float("inf")
    assert differences["/c/length"] == 0.5 and alone == ["/c/1"]


def test_an_integer_is_not_the_float_of_its_value_but_differs_by_nothing() -> None:
    assert difference(1, 1.0) == 0.0 and difference(True, "True") == float("inf")
