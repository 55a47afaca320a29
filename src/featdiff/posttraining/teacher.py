"""Teacher traces for SFT, kept only where the final answer is right (A.2)."""

import json
from dataclasses import dataclass
from pathlib import Path

from featdiff.config.study import PosttrainSettings
from featdiff.data.prompts import Prompt, Row, read_rows, text_of
from featdiff.posttraining.policy import quiet
from featdiff.posttraining.rewards import Reward
from featdiff.posttraining.sampler import Sampler
from featdiff.progress import Progress


@dataclass(frozen=True)
class Trace:
    """What the teacher wrote after one prompt."""

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
        prompt = _prompt_of(row, number, source, settings.prompt_field, by_id, by_text)
        if prompt is None:
            unmatched += 1
        elif reward(completion := _completion_of(row, number, source), prompt.answer) > 0:
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
    settings: PosttrainSettings,
    prompts: list[Prompt],
    path: Path,
    *,
    seed: int,
    temperature: float = 0.0,
    batch_size: int = 16,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> None:
    """Let `posttrain.teacher_model` answer every prompt; one JSON line each, with `id` and `completion`.

    Temperature 0 is greedy. Batches are appended as they are done; killed and started again, the teacher goes on with
    the first batch that is not whole, and the file ends with the same bytes.
    """
    assert settings.teacher_model is not None
    done = _whole_batches(path, batch_size, len(prompts))
    if done >= len(prompts):
        return
    teacher = Sampler.load(
        settings.teacher_model,
        max_tokens=settings.teacher_max_tokens,
        temperature=temperature,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with quiet(), Progress("teacher", total=len(prompts), unit="trace", done=done) as progress, path.open("a") as file:
        for first in range(done, len(prompts), batch_size):
            batch = prompts[first : first + batch_size]
            completions = teacher.complete([prompt.prompt for prompt in batch], seed + first)
            for prompt, completion in zip(batch, completions, strict=True):
                file.write(json.dumps({"id": prompt.id, "completion": completion}, ensure_ascii=True) + "\n")
            file.flush()
            progress.advance(len(batch))


def _prompt_of(
    row: Row, number: int, source: str, prompt_field: str, by_id: dict[str, Prompt], by_text: dict[str, Prompt]
) -> Prompt | None:
    if "id" in row:
        return by_id.get(text_of(row, "id", source, number))
    for column in (prompt_field, "prompt"):
        if column in row:
            return by_text.get(text_of(row, column, source, number))
    raise ValueError(
        f"{source}: row {number} has neither the column 'id' nor {prompt_field!r}; a trace needs one of them"
    )


def _completion_of(row: Row, number: int, source: str) -> str:
    # A teacher that says nothing is wrong, not a broken file.
    return "" if row.get("completion") == "" else text_of(row, "completion", source, number)


def _whole_batches(path: Path, batch_size: int, total: int) -> int:
    """Cut the file after its last whole batch; the number of traces left."""
    if not path.exists():
        return 0
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    kept = lines if len(lines) >= total else lines[: len(lines) // batch_size * batch_size]
    with path.open("r+b") as file:
        file.truncate(sum(len(line) for line in kept))
    return len(kept)
