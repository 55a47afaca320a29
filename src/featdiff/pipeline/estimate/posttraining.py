"""What SFT and GRPO cost. Both tune every parameter, on one device.

A prompt and its completion attend to half of themselves on average. On an accelerator activations inside the blocks are
computed twice, so a step takes four forward passes instead of three.
"""

from math import ceil

from featdiff.pipeline.estimate.costs import FLOAT, TUNED, sampling, tuning, tuning_memory
from featdiff.pipeline.estimate.ground import Cost, Ground, fullest
from featdiff.pipeline.estimate.hardware import Work
from featdiff.study import GRPOSettings, PosttrainSettings, SFTSettings

TEXT_BYTES = 4
"""On the disk, per token of a teacher's trace."""
TEACHER_BATCH = 16
VLLM_SHARE = 0.3
"""Of the memory, that TRL lets vLLM take beside the training."""


def sft(ground: Ground, posttrain: PosttrainSettings, settings: SFTSettings) -> Cost:
    """The teacher's traces, where a model writes them; one pass over prompts and traces."""
    assumed, prompts = ground.assumed, ground.assumed.prompts_of(ground.plan)
    length = min(settings.max_length, assumed.prompt_tokens + assumed.trace_tokens)
    traces = prompts * settings.epochs
    work = tuning(
        ground.model,
        traces * length,
        attended=length / 2,
        calls=traces / settings.micro_batch_size,
        steps=ceil(traces / settings.batch_size),
        passes=3 + ground.on_gpu,
    )
    memory = tuning_memory(ground.model, settings.micro_batch_size * settings.max_length, again=ground.on_gpu)
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
