"""What is said of accuracies follows from their intervals."""

from made_up_accuracy import made_up

from featdiff.analyses.accuracy.text import caveats, findings, section_of

MODELS = ("base", "sft", "rl")
UP, DOWN, SAME = (0.01, 0.19), (-0.19, -0.01), (-0.01, 0.0)


def test_gains_are_counted_on_untrained_tasks_by_the_paired_interval() -> None:
    base = made_up(0.35)
    table = {
        "caesar": {"base": made_up(0.35, role="train"), "sft": made_up(0.9, UP), "rl": made_up(0.9, UP)},
        "counting": {"base": base, "sft": made_up(0.1, DOWN), "rl": made_up(0.5, UP)},
        "dice": {"base": base, "sft": made_up(0.35, SAME), "rl": made_up(0.5, UP)},
    }
    (sentence,) = findings(table, MODELS, 0.95)
    assert "sft beats base on 0 of 2 tasks and falls below it on 1" in sentence
    assert "rl beats base on 2 of 2 tasks and falls below it on 0" in sentence
    assert list(findings({"caesar": table["caesar"]}, MODELS, 0.95)) == []


def test_a_task_that_no_model_masters_is_named() -> None:
    hopeless, easy = {"base": made_up(0.25), "rl": made_up(0.3)}, {"base": made_up(0.25), "rl": made_up(0.31)}
    (caveat,) = caveats({"hopeless": hopeless, "easy": easy})
    assert "on hopeless:" in caveat and "easy" not in caveat
    assert list(caveats({"easy": easy})) == []


def test_without_tasks_there_is_no_section() -> None:
    assert section_of({}, MODELS, 0.95) is None
