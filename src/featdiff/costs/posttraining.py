"""What SFT, GRPO, and SFT on GRPO's own right answers cost. All tune every parameter, on one device.

A prompt and its completion attend to half of themselves on average. On an accelerator activations inside the blocks are
computed twice, so a step takes four forward passes instead of three.
"""

from math import ceil, comb

from featdiff.config.study import GRPOSettings, PosttrainSettings, RejectionSettings, SFTSettings
from featdiff.costs.costs import FLOAT, TUNED, sampling, tuning, tuning_memory
from featdiff.costs.estimate_inputs import Cost, Ground, fullest
from featdiff.costs.hardware import Work

TEXT_BYTES = 4
"""On the disk, per token of a teacher's trace."""
TEACHER_BATCH = 16
VLLM_SHARE = 0.3
"""Of the memory, that TRL lets vLLM take beside the training."""


def sft(ground: Ground, posttrain: PosttrainSettings, settings: SFTSettings) -> Cost:
    """The teacher's traces, where a model writes them; one pass over prompts and traces."""
    assumed, prompts = ground.assumed, ground.assumed.prompts_of(ground.plan)
    length = min(settings.max_length, assumed.prompt_tokens + assumed.trace_tokens)
    work, memory = _tuned(ground, settings, prompts, length)
    if ground.teacher is None:
        return _with_checkpoints(ground, posttrain, {"training": work}, memory)
    taught, full = _teacher(ground, posttrain, prompts)
    written = TEXT_BYTES * prompts * min(posttrain.teacher_max_tokens, assumed.trace_tokens)
    return _with_checkpoints(
        ground, posttrain, {"teacher's traces": (taught,), "training": work}, fullest(memory, full), written
    )


def grpo(ground: Ground, posttrain: PosttrainSettings, settings: GRPOSettings) -> Cost:
    """Rollouts, the passes that price them under the old and the reference policy, and training on them."""
    assumed, model = ground.assumed, ground.model
    seen = ground.assumed.prompts_of(ground.plan) * settings.epochs
    prompts = int(seen // settings.prompts_per_generation) * settings.prompts_per_generation
    rollouts = prompts * settings.rollouts
    length = assumed.prompt_tokens + min(settings.max_completion_length, assumed.completion_tokens)
    longest = assumed.prompt_tokens + settings.max_completion_length
    # Where the policy moves between sampling and training, TRL prices the rollouts under the policy that drew them.
    priced = settings.vllm or settings.prompts_per_generation != settings.prompts_per_step
    work = tuning(
        model,
        rollouts * length,
        attended=length / 2,
        calls=rollouts / settings.micro_batch_size,
        steps=prompts / settings.prompts_per_step,
        passes=3 + ground.on_gpu + priced + (settings.beta > 0),
    )
    sampled, full = _rollouts(ground, settings, rollouts, length, longest)
    memory = tuning_memory(model, settings.micro_batch_size * longest, again=ground.on_gpu) | full
    if settings.beta > 0:
        memory["reference model"] = FLOAT * model.shape.parameters
    return _with_checkpoints(ground, posttrain, {"rollouts": (sampled,), "training": work}, memory)


def rft(ground: Ground, posttrain: PosttrainSettings, settings: RejectionSettings) -> Cost:
    """Completions in rounds until enough are right, each batch to its limit; one pass over those that are."""
    assumed, model = ground.assumed, ground.model
    prompts, prompt = assumed.prompts_of(ground.plan), assumed.prompt_tokens
    drawn = ceil(prompts * sum(_lacking(settings.kept, tries, assumed.right) for tries in range(settings.samples)))
    # Each of the first `kept` right ones is there unless fewer than that are right in all.
    kept = prompts * sum(1 - _lacking(k, settings.samples, assumed.right) for k in range(1, settings.kept + 1))
    longest, written = settings.max_completion_length, min(settings.max_completion_length, assumed.completion_tokens)
    batch = min(settings.batch_size, prompts)
    work, memory = _tuned(ground, posttrain.sft, ceil(kept), min(posttrain.sft.max_length, prompt + written))
    sampled = sampling(model, drawn, batch, prompt, longest, weight=model.value, recorded=False)
    full = {"model": ground.whole, "cached keys and values": batch * (prompt + longest) * model.cached_bytes}
    parts = {"samples": (sampled,), "training": work}
    return _with_checkpoints(ground, posttrain, parts, fullest(memory, full), TEXT_BYTES * drawn * written)


def _lacking(kept: int, tries: int, right: float) -> float:
    """Probability that fewer than `kept` of so many tries are right."""
    return sum(comb(tries, k) * right**k * (1 - right) ** (tries - k) for k in range(min(kept, tries + 1)))


def _tuned(
    ground: Ground, settings: SFTSettings, traces: int, length: int
) -> tuple[tuple[Work, ...], dict[str, float]]:
    """SFT's passes over so many traces, each with its prompt of so many tokens, and its memory."""
    seen = traces * settings.epochs
    work = tuning(
        ground.model,
        seen * length,
        attended=length / 2,
        calls=seen / settings.micro_batch_size,
        steps=ceil(seen / settings.batch_size),
        passes=3 + ground.on_gpu,
    )
    return work, tuning_memory(ground.model, settings.micro_batch_size * settings.max_length, again=ground.on_gpu)


def _rollouts(
    ground: Ground, settings: GRPOSettings, rollouts: int, length: int, longest: int
) -> tuple[Work, dict[str, float]]:
    model, prompt = ground.model, ground.assumed.prompt_tokens
    at_once, per_token = settings.prompts_per_generation * settings.rollouts, model.cached_bytes
    if settings.vllm:  # a sequence that ends makes room for another, as many as fit vLLM's share
        pool = VLLM_SHARE * ground.hardware.memory
        batch = min(at_once, max(pool - ground.whole, per_token * longest) / (per_token * length))
        return sampling(model, rollouts, batch, prompt, length - prompt, weight=model.value, recorded=True), {
            "vLLM": pool
        }
    # A batch runs until its longest completion ends, and one of so many reaches the limit. Weights stay in float32.
    work = sampling(model, rollouts, at_once, prompt, longest - prompt, weight=FLOAT, recorded=False)
    return work, {"cached keys and values": at_once * longest * per_token}


def _teacher(ground: Ground, posttrain: PosttrainSettings, prompts: int) -> tuple[Work, dict[str, float]]:
    teacher, prompt, most = ground.teacher, ground.assumed.prompt_tokens, posttrain.teacher_max_tokens
    assert teacher is not None
    work = sampling(teacher, prompts, min(TEACHER_BATCH, prompts), prompt, most, weight=teacher.value, recorded=False)
    return work, {
        "teacher": teacher.shape.parameters * teacher.value,
        "cached keys and values": TEACHER_BATCH * (prompt + most) * teacher.cached_bytes,
    }


def _with_checkpoints(
    ground: Ground,
    posttrain: PosttrainSettings,
    parts: dict[str, tuple[Work, ...]],
    memory: dict[str, float],
    written: float = 0.0,
) -> Cost:
    """Published checkpoints in the models' precision; two states, since a new one is whole before the old one goes."""
    state = (TUNED - FLOAT) * ground.model.shape.parameters
    return Cost(parts, memory, written + posttrain.checkpoints * ground.whole, passing=2 * state)
