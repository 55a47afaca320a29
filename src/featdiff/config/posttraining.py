"""The settings of post-training: SFT and GRPO from one base on identical prompts (Sec. 4, A.2, A.3)."""

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import Field, model_validator

from featdiff.config.base import CONTENT, Count, Positive, Settings, Share

RewardName = Literal["exact_match", "math_verify", "contains"]


class SFTSettings(Settings):
    """Supervised fine-tuning on teacher traces (Sec. 4, A.3)."""

    lr: Positive = 5e-5
    """Learning rate (A.3)."""
    batch_size: Count = 128
    """Traces per optimizer step (A.3)."""
    micro_batch_size: Count = 8
    """Traces per forward pass on one device; gradients are accumulated up to `batch_size`."""
    epochs: Positive = 1.0
    """Passes over the traces (A.3: one)."""
    max_length: Count = 16384
    """Longest prompt and trace together, in tokens."""
    warmup: Share = 0.0
    """Share of the steps over which the learning rate rises linearly."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Learning rate after the warm-up (the paper is silent)."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """AdamW's weight decay."""
    clip: Positive = 1.0
    """Largest gradient norm."""


class GRPOSettings(Settings):
    """Group relative policy optimization with an outcome reward (Sec. 4, A.3)."""

    lr: Positive = 1e-6
    """Learning rate (A.3)."""
    prompts_per_generation: Count = 128
    """Prompts whose rollouts are sampled by one policy (A.3: overall batch size 128)."""
    prompts_per_step: Count = 64
    """Prompts per optimizer step (A.3: mini-batches of 64); divides `prompts_per_generation`."""
    micro_batch_size: Count = 8
    """Rollouts per forward pass on one device; gradients are accumulated up to `prompts_per_step * rollouts`."""
    rollouts: Annotated[int, Ge(2)] = 8
    """Completions sampled per prompt (A.3)."""
    max_completion_length: Count = 16384
    """Longest completion, in tokens (A.3: up to 16k)."""
    temperature: Positive = 1.0
    """Sampling temperature of the rollouts."""
    clip_low: Positive = 0.22
    """Lower clipping threshold (A.3)."""
    clip_high: Positive = 0.28
    """Upper clipping threshold (A.3)."""
    beta: Annotated[float, Ge(0)] = 0.0
    """Weight of the KL penalty towards the base (A.3: off). There is no entropy term."""
    loss: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "grpo"
    """How TRL averages the token losses."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Whether advantages are divided by the standard deviation of their group."""
    epochs: Positive = 1.0
    """Passes over the prompts (A.3: one)."""
    warmup: Share = 0.0
    """Share of the steps over which the learning rate rises linearly."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up."""
    clip: Positive = 1.0
    """Largest gradient norm."""
    vllm: bool = False
    """Sample rollouts with vLLM, where it is installed."""

    @model_validator(mode="after")
    def _batches_divide(self) -> "GRPOSettings":
        if self.prompts_per_generation % self.prompts_per_step:
            raise ValueError(
                f"prompts_per_generation {self.prompts_per_generation} must be a multiple of "
                f"prompts_per_step {self.prompts_per_step}"
            )
        if (self.prompts_per_step * self.rollouts) % self.micro_batch_size:
            raise ValueError(
                f"prompts_per_step x rollouts = {self.prompts_per_step * self.rollouts} must be a multiple of "
                f"micro_batch_size {self.micro_batch_size}"
            )
        return self


class RejectionSettings(Settings):
    """SFT on the RL model's own right answers: RL's data, SFT's loss. A control of drift, no part of the paper."""

    samples: Count = 4
    """Completions drawn for a prompt at most; none is drawn any more once `kept` distinct ones are right."""
    kept: Count = 1
    """Distinct right completions of a prompt that are trained on (A.2 has one trace of the teacher for each)."""
    temperature: Positive = 1.0
    """Sampling temperature; that of GRPO's rollouts."""
    max_completion_length: Count = 16384
    """Longest completion, in tokens; one that is cut off counts by what it says until there."""
    batch_size: Count = 64
    """Prompts that are completed at a time."""

    @model_validator(mode="after")
    def _as_many_as_are_drawn(self) -> "RejectionSettings":
        if self.kept > self.samples:
            raise ValueError(f"kept {self.kept} exceeds samples {self.samples}; draw more, or keep fewer")
        return self


class PosttrainSettings(Settings):
    """One base, identical prompts, two paradigms, checkpoints of each (Sec. 4, A.2)."""

    prompts: Annotated[str, CONTENT]
    """JSONL or parquet of prompts with answers; both paradigms see exactly these."""
    prompt_field: str = "prompt"
    """Column that holds the prompt."""
    answer_field: str = "answer"
    """Column that holds the gold answer."""
    limit: Count | None = None
    """Use only the first prompts."""
    teacher: Annotated[str | None, CONTENT] = None
    """JSONL or parquet of teacher traces (columns `id` or the prompt, and `completion`)."""
    teacher_model: Annotated[str | None, CONTENT] = None
    """Teacher that writes the traces where `teacher` is not given (A.2: Qwen3-32B)."""
    teacher_max_tokens: Count = 16384
    """Longest trace that the teacher may write."""
    reward: RewardName | Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] = "exact_match"
    """Outcome reward: exact_match, math_verify, contains (the answer is in the text), or your own `module:function`."""
    checkpoints: Count = 5
    """Checkpoints per paradigm, at equal parts of the run (Sec. 5.2: every fifth of the epoch)."""
    sft: SFTSettings = SFTSettings()
    """Supervised fine-tuning."""
    grpo: GRPOSettings = GRPOSettings()
    """Reinforcement learning."""
    rejection: RejectionSettings | None = None
    """A third model beside the two, by SFT (with the settings of `sft`) on RL's own right answers. It takes part in no
    crosscoder; `drift` compares it with both at equal KL. Unset: none is made."""

    @model_validator(mode="after")
    def _one_teacher(self) -> "PosttrainSettings":
        if (self.teacher is None) == (self.teacher_model is None):
            raise ValueError("give exactly one of posttrain.teacher (a file of traces) and posttrain.teacher_model")
        return self
