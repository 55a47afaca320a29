"""Teacher traces for SFT, kept only where the final answer is right (A.2)."""

from dataclasses import dataclass
from pathlib import Path

from featdiff.config.study import PosttrainSettings
from featdiff.data.prompts import Prompt, read_rows, text_of
from featdiff.models.loading import ModelSource
from featdiff.posttraining.policy import quiet_trl
from featdiff.posttraining.rewards import Reward
from featdiff.posttraining.sampler import CompletionFile, Sampler
from featdiff.progress import Progress


@dataclass(frozen=True)
class Trace:
    """Completion of one prompt by the teacher."""

    id: str
    prompt: str
    completion: str


@dataclass(frozen=True)
class Traces:
    """Traces that end in the right answer, and how many were left out."""

    kept: tuple[Trace, ...]
    wrong: int
    """Traces with another final answer."""
    unmatched: int
    """Traces of prompts that the study does not have."""


def load_traces(
    settings: PosttrainSettings, prompts: list[Prompt], reward: Reward, *, path: Path | None = None
) -> Traces:
    """The right traces of `posttrain.teacher`, or of `path`, which `write_traces` has written.

    A row belongs to the prompt with its `id` or, without that column, to the prompt with its text. A prompt may have
    several traces. ValueError when the file cannot be read or no trace is right.
    """
    source = str(path) if path is not None else settings.teacher
    assert source is not None, "write_traces makes the file where posttrain.teacher is unset"
    rows = read_rows(source, setting="posttrain.teacher")
    by_id = {prompt.id: prompt for prompt in prompts}
    by_text = {prompt.prompt: prompt for prompt in prompts}
    kept: list[Trace] = []
    wrong = unmatched = 0
    for number, row in enumerate(rows):
        if "id" in row:
            prompt = by_id.get(text_of(row, "id", source, number))
        elif column := next((name for name in (settings.prompt_field, "prompt") if name in row), None):
            prompt = by_text.get(text_of(row, column, source, number))
        else:
            raise ValueError(
                f"{source}: row {number} has neither the column 'id' nor {settings.prompt_field!r}; "
                "a trace needs one of them"
            )
        if prompt is None:
            unmatched += 1
            continue
        # A teacher that says nothing is wrong, not a broken file.
        completion = "" if row.get("completion") == "" else text_of(row, "completion", source, number)
        if reward(completion, prompt.answer) > 0:
            kept.append(Trace(prompt.id, prompt.prompt, completion))
        else:
            wrong += 1
    if not kept:
        raise ValueError(
            f"posttrain.teacher: none of the {len(rows)} traces in {source} can be used: {wrong} end wrongly by the "
            f"reward {settings.reward}, {unmatched} belong to no prompt; check the reward, the ids and the prompts"
        )
    return Traces(tuple(kept), wrong, unmatched)


def write_traces(
    teacher: ModelSource,
    prompts: list[Prompt],
    path: Path,
    *,
    max_tokens: int,
    seed: int,
    temperature: float = 0.0,
    batch_size: int = 16,
) -> None:
    """Let a model answer every prompt, in a `CompletionFile`; temperature 0 is greedy."""
    completions = CompletionFile(path, Sampler(teacher, max_tokens, temperature), seed)
    with quiet_trl(), Progress("teacher", total=len(prompts), unit="trace") as progress:
        for first in range(0, len(prompts), batch_size):
            completions.complete(batch := prompts[first : first + batch_size])
            progress.advance(len(batch))
