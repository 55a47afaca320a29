"""The words after `featdiff plan STUDY`: options of the estimate, and settings of the study, which are left alone."""

import pytest

from featdiff.costs.options import PlanOptions, read_options


def test_options_are_taken_out_and_settings_are_left() -> None:
    words = ["--gpus", "8", "--training.lr", "3e-4", "--kind", "H100", "--json", "--shape", "layers=36,d_model=2560"]
    options, rest = read_options([*words, "--assume", "l0=60.5", "--hardware", "memory=94"])
    assert rest == ["--training.lr", "3e-4"]
    assert options == PlanOptions(
        8, "H100", True, {"layers": 36.0, "d_model": 2560.0}, {}, {"memory": 94.0}, {"l0": 60.5}
    )


def test_nothing_said_is_one_device_of_the_studys_kind() -> None:
    assert read_options([]) == (PlanOptions(), [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus"], "--gpus has no value; usage: featdiff plan STUDY"),
        (["--gpus", "two"], "--gpus is 'two'; give a number"),
        (["--shape", "layer=3"], "--shape knows no 'layer'; it takes layers, d_model"),
        (["--assume", "l0"], "--assume 'l0' is no NAME=NUMBER; write for example --assume prompts=1"),
        (["--assume", "l0=many"], "is no NAME=NUMBER"),
        (["--assume", ""], "is no NAME=NUMBER"),
        (["--hardware", "memory=nan"], "--hardware 'memory=nan' is no number that can be reckoned with"),
        (["--teacher-shape", "layers=1,layers"], "--teacher-shape 'layers' is no NAME=NUMBER"),
    ],
)
def test_a_malformed_option_is_refused_in_one_line(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        read_options(words)
    assert "\n" not in str(refused.value)
