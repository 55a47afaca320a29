"""Cost of SFT, GRPO, and SFT on GRPO's own right answers. All tune every parameter, on one device.

A prompt and its completion attend to half of themselves on average. On an accelerator activations inside the blocks are
computed twice, so a step takes four forward passes instead of three.
"""

from math import ceil, comb

from featdiff.config.posttraining import PosttrainSettings, SFTSettings
from featdiff.costs.estimate import TUNED, Cost, CostInputs, Part
from featdiff.crosscoder.sizes import FLOAT
from featdiff.run.sizes import Bytes, fullest

TEXT_BYTES = 4
"""On the disk, per token of a teacher's trace."""
TEACHER_BATCH = 16
VLLM_SHARE = 0.3
"""Of the memory, that TRL lets vLLM take beside the training."""


def sft(inputs: CostInputs) -> Cost:
    """The teacher's traces, where a model writes them; one pass over prompts and traces."""
    posttrain, assumed = _settings(inputs), inputs.assumed
    prompts, prompt = assumed.prompts_of(inputs.plan), assumed.prompt_tokens
    training, memory = _tuned(inputs, posttrain.sft, prompts, prompt + assumed.trace_tokens)
    if inputs.teacher is None:
        return _with_checkpoints(inputs, {"training": training}, memory)
    teacher, most, batch = inputs.teacher, posttrain.teacher_max_tokens, min(TEACHER_BATCH, prompts)
    taught = inputs.sampling(prompts, batch, prompt, most, shape=teacher)
    full: Bytes = {
        "teacher": teacher.parameters * inputs.value,
        "cached keys and values": TEACHER_BATCH * (prompt + most) * teacher.cached_values * inputs.value,
    }
    written = TEXT_BYTES * prompts * min(most, assumed.trace_tokens)
    parts = {"teacher's traces": taught, "training": training}
    return _with_checkpoints(inputs, parts, fullest(memory, full), written)


def grpo(inputs: CostInputs) -> Cost:
    """Rollouts, the passes that price them under the old and the reference policy, and training on them."""
    assumed, settings = inputs.assumed, _settings(inputs).grpo
    seen = assumed.prompts_of(inputs.plan) * settings.epochs
    prompts = int(seen // settings.prompts_per_generation) * settings.prompts_per_generation
    rollouts, prompt = prompts * settings.rollouts, assumed.prompt_tokens
    length = prompt + min(settings.max_completion_length, assumed.completion_tokens)
    longest = prompt + settings.max_completion_length
    # Where the policy moves between sampling and training, TRL prices the rollouts under the policy that drew them.
    priced = settings.vllm or settings.prompts_per_generation != settings.prompts_per_step
    training = inputs.tuning(
        rollouts * length,
        attended=length / 2,
        calls=rollouts / settings.micro_batch_size,
        steps=prompts / settings.prompts_per_step,
        passes=3 + inputs.on_gpu + priced + (settings.beta > 0),
    )
    memory = inputs.tuning_memory(settings.micro_batch_size * longest)
    at_once, per_token = settings.prompts_per_generation * settings.rollouts, inputs.shape.cached_values * inputs.value
    if settings.vllm:  # a sequence that ends makes room for another, as many as fit vLLM's share
        pool = VLLM_SHARE * inputs.hardware.memory
        batch = min(at_once, max(pool - inputs.whole, per_token * longest) / (per_token * length))
        sampled = inputs.sampling(rollouts, batch, prompt, length - prompt, recorded=True)
        memory["vLLM"] = pool
    else:  # a batch runs until its longest completion ends, and one of so many reaches the limit
        sampled = inputs.sampling(rollouts, at_once, prompt, longest - prompt, weight=FLOAT)
        memory["cached keys and values"] = at_once * longest * per_token
    if settings.beta > 0:
        memory["reference model"] = FLOAT * inputs.shape.parameters
    return _with_checkpoints(inputs, {"rollouts": sampled, "training": training}, memory)


def rft(inputs: CostInputs) -> Cost:
    """Completions in rounds until enough are right, each batch to its limit; one pass over those that are."""
    posttrain, assumed = _settings(inputs), inputs.assumed
    settings = posttrain.rejection
    assert settings is not None
    prompts, prompt = assumed.prompts_of(inputs.plan), assumed.prompt_tokens
    drawn = ceil(prompts * sum(_lacking(settings.kept, tries, assumed.right) for tries in range(settings.samples)))
    # Each of the first `kept` right ones is there unless fewer than that are right in all.
    kept = prompts * sum(1 - _lacking(k, settings.samples, assumed.right) for k in range(1, settings.kept + 1))
    longest, written = settings.max_completion_length, min(settings.max_completion_length, assumed.completion_tokens)
    batch = min(settings.batch_size, prompts)
    training, memory = _tuned(inputs, posttrain.sft, ceil(kept), prompt + written)
    cached = batch * (prompt + longest) * inputs.shape.cached_values * inputs.value
    sampled = inputs.sampling(drawn, batch, prompt, longest)
    full: Bytes = {"model": inputs.whole, "cached keys and values": cached}
    parts = {"samples": sampled, "training": training}
    return _with_checkpoints(inputs, parts, fullest(memory, full), TEXT_BYTES * drawn * written)


def _settings(inputs: CostInputs) -> PosttrainSettings:
    settings = inputs.plan.study.posttrain
    assert settings is not None
    return settings


def _lacking(kept: int, tries: int, right: float) -> float:
    """Probability that fewer than `kept` of so many tries are right."""
    return sum(comb(tries, k) * right**k * (1 - right) ** (tries - k) for k in range(min(kept, tries + 1)))


def _tuned(inputs: CostInputs, settings: SFTSettings, traces: int, tokens: int) -> tuple[Part, Bytes]:
    """SFT's passes over so many traces, each with its prompt of so many tokens or their limit, and its memory."""
    seen, length = traces * settings.epochs, min(settings.max_length, tokens)
    training = inputs.tuning(
        seen * length,
        attended=length / 2,
        calls=seen / settings.micro_batch_size,
        steps=ceil(seen / settings.batch_size),
        passes=3 + inputs.on_gpu,
    )
    return training, inputs.tuning_memory(settings.micro_batch_size * settings.max_length)


def _with_checkpoints(inputs: CostInputs, parts: dict[str, Part], memory: Bytes, written: float = 0.0) -> Cost:
    """Published checkpoints in the models' precision; two states, since a new one is whole before the old one goes."""
    parameters, posttrain = inputs.shape.parameters, _settings(inputs)
    state, stays = (TUNED - FLOAT) * parameters, written + posttrain.checkpoints * inputs.whole
    saved = Part(seconds=(stays + posttrain.checkpoints * state) / inputs.hardware.disk)
    return Cost({**parts, "loading, checkpoints": saved + inputs.loading(1)}, memory, stays, passing=2 * state)
