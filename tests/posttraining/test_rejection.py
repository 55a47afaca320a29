"""Rejection sampling: right completions only, as many as asked, the same ones from the same seed, killed or not."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from featdiff.config.study import RejectionSettings
from featdiff.config.study_file import validated
from featdiff.data.prompts import Prompt
from featdiff.models.loading import ModelSource
from featdiff.posttraining.rejection import Samples, draw_samples

PROMPTS = [Prompt(str(n), "what is " * (n % 3) + f"{n}+1=", answer) for n, answer in enumerate("aeiou0123")]
SETTINGS = RejectionSettings(samples=5, kept=2, max_completion_length=6, batch_size=4)


def has_answer(completion: str, answer: str) -> float:
    return float(answer in completion)


def draw(base: str, path: Path, settings: RejectionSettings = SETTINGS, seed: int = 3) -> Samples:
    return draw_samples(ModelSource(base), settings, PROMPTS, has_answer, path, seed=seed)


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def drawn(base: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Samples, Path]:
    path = tmp_path_factory.mktemp("drawn") / "samples.jsonl"
    return draw(base, path), path


def test_only_right_completions_are_kept_and_every_one_is_counted(drawn: tuple[Samples, Path]) -> None:
    samples, path = drawn
    answers = {prompt.id: prompt.answer for prompt in PROMPTS}
    assert samples.traces.kept and all(has_answer(one.completion, answers[one.id]) for one in samples.traces.kept)
    assert samples.traces.wrong == sum(not has_answer(row["completion"], answers[row["id"]]) for row in rows(path)) > 0
    assert samples.drawn == len(rows(path)) == len(samples.traces.kept) + samples.traces.wrong + samples.repeated
    assert samples.unanswered == len(PROMPTS) - len({one.id for one in samples.traces.kept}) > 0


def test_what_is_kept_are_the_first_distinct_right_ones_and_no_prompt_is_asked_after_them(
    drawn: tuple[Samples, Path],
) -> None:
    samples, path = drawn
    for prompt in PROMPTS:
        said = [row["completion"] for row in rows(path) if row["id"] == prompt.id]
        right = list(dict.fromkeys(text.strip() for text in said if has_answer(text, prompt.answer)))
        kept = [one.completion.strip() for one in samples.traces.kept if one.id == prompt.id]
        assert kept == right[: SETTINGS.kept] and len(right) <= SETTINGS.kept
        assert len(said) == SETTINGS.samples or (len(kept) == SETTINGS.kept and has_answer(said[-1], prompt.answer))


def test_a_right_completion_that_repeats_one_is_not_kept_twice(base: str, tmp_path: Path) -> None:
    cold = SETTINGS.model_copy(update={"temperature": 1e-4})  # always says the same
    samples = draw_samples(ModelSource(base), cold, PROMPTS, lambda text, answer: 1.0, tmp_path / "s.jsonl", seed=0)
    assert len(samples.traces.kept) == len(PROMPTS) and samples.repeated == 4 * len(PROMPTS)


def test_samples_are_the_seeds_and_leave_the_global_generator_alone(
    base: str, drawn: tuple[Samples, Path], tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    assert draw(base, tmp_path / "again") == drawn[0]
    assert (tmp_path / "again").read_bytes() == drawn[1].read_bytes()
    draw(base, tmp_path / "other", seed=4)
    assert (tmp_path / "other").read_bytes() != drawn[1].read_bytes()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("share", [0.0, 0.13, 0.5, 0.77, 1.0])
def test_a_killed_run_ends_with_the_same_bytes_and_the_same_samples(
    base: str, drawn: tuple[Samples, Path], tmp_path: Path, share: float
) -> None:
    whole = drawn[1].read_bytes()
    path = tmp_path / "samples.jsonl"
    path.write_bytes(whole[: round(share * len(whole))])
    assert draw(base, path) == drawn[0] and path.read_bytes() == whole


def test_a_finished_run_is_read_without_the_model(drawn: tuple[Samples, Path]) -> None:
    assert draw("no/such/model", drawn[1]) == drawn[0]


def test_the_whole_distribution_is_sampled_whatever_the_models_folder_says(
    base: str, drawn: tuple[Samples, Path], tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "greedy")
    said = {"do_sample": True, "top_k": 1, "repetition_penalty": 5.0, "eos_token_id": 1, "bos_token_id": 2}
    (tmp_path / "greedy" / "generation_config.json").write_text(json.dumps(said))
    draw(str(tmp_path / "greedy"), tmp_path / "samples.jsonl")
    assert (tmp_path / "samples.jsonl").read_bytes() == drawn[1].read_bytes()


def test_a_model_that_is_never_right_is_refused(base: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of the 45 completions of .* is right by the study's reward; raise"):
        draw_samples(ModelSource(base), SETTINGS, PROMPTS, lambda text, answer: 0.0, tmp_path / "s.jsonl", seed=0)


@pytest.mark.parametrize(
    ("rejection", "says"),
    [
        ({"kept": 5}, "posttrain.rejection: kept 5 exceeds samples 4; draw more, or keep fewer"),
        ({"sample": 5}, "unknown setting posttrain.rejection.sample; did you mean samples?"),
        ({"temperature": 0}, "posttrain.rejection.temperature = 0: Input should be greater than 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(rejection: dict[str, object], says: str) -> None:
    tree = {
        "name": "x",
        "lineup": {"base": "b"},
        "corpus": {"sources": [{"path": "t.txt", "share": 1.0}]},
        "posttrain": {"prompts": "p.jsonl", "teacher": "t.jsonl", "rejection": rejection},
    }
    with pytest.raises(ValueError, match=re.escape(says)):
        validated(tree, "test")
