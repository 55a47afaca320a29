"""Rejection sampling: right answers of the RL model to the same prompts, as data for SFT.

RL learns from what its policy writes, SFT from what a teacher writes. A base that SFT tunes on texts of the RL model
has the data of the one and the loss of the other; what sets it apart from SFT is whose texts they were.
"""

from dataclasses import dataclass, field
from pathlib import Path

from featdiff.config.study import RejectionSettings
from featdiff.data.prompts import Prompt
from featdiff.models.loading import ModelSource
from featdiff.posttraining.policy import quiet_trl
from featdiff.posttraining.rewards import Reward
from featdiff.posttraining.sampler import CompletionFile, Sampler
from featdiff.posttraining.teacher import Trace, Traces
from featdiff.progress import Progress


@dataclass(frozen=True)
class Samples:
    """Right completions, and counts of what was drawn for them."""

    traces: Traces
    drawn: int
    """Completions in all: those kept, those that are wrong, and those that repeat one kept."""
    repeated: int
    """Right ones that say the same as one that is kept."""
    unanswered: int
    """Prompts without a right one."""


def draw_samples(
    model: ModelSource, settings: RejectionSettings, prompts: list[Prompt], reward: Reward, path: Path, *, seed: int
) -> Samples:
    """Let a model answer prompts until `kept` distinct completions of each are right, `samples` times at most.

    In rounds: each asks once for every prompt that still lacks one, so what is kept is what drawing all samples and
    keeping the first right ones would keep. All completions lie in a `CompletionFile` at `path`. ValueError where none
    is right.
    """
    sampler = Sampler(model, settings.max_completion_length, settings.temperature)
    completions = CompletionFile(path, sampler, seed)
    kept = {prompt.id: _Kept(prompt) for prompt in prompts}
    with quiet_trl():
        for number in range(1, settings.samples + 1):
            lacking = [prompt for prompt in prompts if len(kept[prompt.id].completions) < settings.kept]
            with Progress(f"samples {number}", total=len(lacking), unit="prompt") as progress:
                for start in range(0, len(lacking), settings.batch_size):
                    batch = lacking[start : start + settings.batch_size]
                    for prompt, completion in zip(batch, completions.complete(batch), strict=True):
                        kept[prompt.id].judge(completion, reward)
                    progress.advance(len(batch))
    traces = [Trace(one.prompt.id, one.prompt.prompt, text) for one in kept.values() for text in one.completions]
    if not traces:
        raise ValueError(
            f"posttrain.rejection: none of the {completions.given} completions of {model.path} is right by the study's "
            f"reward; raise posttrain.rejection.samples or max_completion_length, or check what GRPO has learned"
        )
    return Samples(
        traces=Traces(tuple(traces), sum(one.wrong for one in kept.values()), unmatched=0),
        drawn=completions.given,
        repeated=sum(one.repeated for one in kept.values()),
        unanswered=sum(not one.completions for one in kept.values()),
    )


@dataclass
class _Kept:
    """Completions of one prompt so far."""

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
