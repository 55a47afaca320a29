"""SFT's data where RL's own model is the teacher: its right answers to the same prompts (rejection sampling).

RL learns from what its policy writes, SFT from what a teacher writes. A base that SFT tunes on texts of the RL model
has the data of the one and the loss of the other; what sets it apart from SFT is whose texts they were.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from featdiff.config.study import RejectionSettings
from featdiff.data.prompts import Prompt
from featdiff.posttraining.policy import quiet
from featdiff.posttraining.rewards import Reward
from featdiff.posttraining.sampler import Sampler
from featdiff.posttraining.teacher import Trace, Traces
from featdiff.progress import Progress


@dataclass(frozen=True)
class Samples:
    """Right completions, and what was drawn for them."""

    traces: Traces
    drawn: int
    """Completions in all: those kept, those that are wrong, and those that repeat one kept."""
    repeated: int
    """Right ones that say the same as one that is kept."""
    unanswered: int
    """Prompts without a right one."""


def draw_samples(
    model_path: str,
    settings: RejectionSettings,
    prompts: list[Prompt],
    reward: Reward,
    path: Path,
    *,
    seed: int,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> Samples:
    """Let a model answer prompts until `kept` distinct completions of each are right, `samples` times at most.

    In rounds: each asks once for every prompt that still lacks one, so what is kept is what drawing all samples and
    keeping the first right ones would keep. One JSON line a completion is appended to `path`; killed and started
    again, a batch that is there whole is read, and the file ends with the same bytes. ValueError where none is right.
    """

    @cache
    def sampler() -> Sampler:
        return Sampler.load(
            model_path,
            max_tokens=settings.max_completion_length,
            temperature=settings.temperature,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
        )

    answers = _Answers(path, lambda texts, seed: sampler().complete(texts, seed))
    kept = {prompt.id: _Kept(prompt) for prompt in prompts}
    with quiet():
        for number in range(1, settings.samples + 1):
            lacking = [prompt for prompt in prompts if len(kept[prompt.id].completions) < settings.kept]
            with Progress(f"samples {number}", total=len(lacking), unit="prompt") as progress:
                for start in range(0, len(lacking), settings.batch_size):
                    batch = lacking[start : start + settings.batch_size]
                    for prompt, completion in zip(batch, answers.of(batch, seed), strict=True):
                        kept[prompt.id].judge(completion, reward)
                    progress.advance(len(batch))
    return _counted(list(kept.values()), answers.given, model_path)


@dataclass
class _Kept:
    """What one prompt has so far."""

    prompt: Prompt
    completions: list[str] = field(default_factory=list)
    wrong: int = 0
    repeated: int = 0

    def judge(self, completion: str, reward: Reward) -> None:
        if reward(completion, self.prompt.answer) <= 0:
            self.wrong += 1
        elif completion.strip() in [one.strip() for one in self.completions]:
            self.repeated += 1
        else:
            self.completions.append(completion)


class _Answers:
    """Completions batch after batch: those that an earlier attempt wrote, then new ones, which are written.

    write: completes texts under a seed; every batch has its own.
    """

    def __init__(self, path: Path, write: Callable[[list[str], int], list[str]]) -> None:
        self._path, self._write = path, write
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        self._found = [line for line in lines if line.endswith(b"\n")]
        self._whole = 0  # bytes of the batches that were asked for
        self.given = 0
        path.parent.mkdir(parents=True, exist_ok=True)

    def of(self, batch: Sequence[Prompt], seed: int) -> list[str]:
        first, self.given = self.given, self.given + len(batch)
        lines = self._found[first : self.given]
        if len(lines) < len(batch):
            completions = self._write([prompt.prompt for prompt in batch], seed + first)
            rows = [{"id": prompt.id, "completion": text} for prompt, text in zip(batch, completions, strict=True)]
            lines = [json.dumps(row).encode() + b"\n" for row in rows]
            with self._path.open("ab") as file:
                file.truncate(self._whole)  # what an earlier attempt wrote of this batch
                file.writelines(lines)
        self._whole += sum(len(line) for line in lines)
        return [json.loads(line)["completion"] for line in lines]


def _counted(kept: list[_Kept], drawn: int, model_path: str) -> Samples:
    wrong = sum(one.wrong for one in kept)
    traces = [Trace(one.prompt.id, one.prompt.prompt, text) for one in kept for text in one.completions]
    if not traces:
        raise ValueError(
            f"posttrain.rejection: none of the {drawn} completions of {model_path} is right by the study's reward; "
            f"raise posttrain.rejection.samples or max_completion_length, or check what GRPO has learned"
        )
    return Samples(
        traces=Traces(tuple(traces), wrong, unmatched=0),
        drawn=drawn,
        repeated=sum(one.repeated for one in kept),
        unanswered=sum(not one.completions for one in kept),
    )
