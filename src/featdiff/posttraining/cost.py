"""Cost of SFT, GRPO, and SFT on GRPO's own right answers. All tune every parameter, on one device.

A prompt and its completion attend to half of themselves on average. Training takes three forward passes, and on an
accelerator one more, since activations inside the blocks are computed twice.
"""

from featdiff.config.posttraining import PosttrainSettings
from featdiff.costs.estimate import Cost, CostInputs, Work
from featdiff.crosscoder.sizes import FLOAT
from featdiff.run.sizes import Bytes, fullest

TUNED = 16  # bytes per parameter of a model that is tuned: weight, gradient and two moments, in float32
TEXT_BYTES = 4  # on the disk, per token of a teacher's trace
TEACHER_BATCH = 16
VLLM_SHARE = 0.3  # of the memory, that TRL lets vLLM take beside the training


def sft(inputs: CostInputs) -> Cost:
    """The teacher's traces, where a model writes them; passes over prompts and traces."""
    settings, assumed = _settings(inputs), inputs.assumed
    prompts, prompt, most = assumed.prompts_of(inputs.plan), assumed.prompt_tokens, settings.teacher_max_tokens
    work, memory = _tuned_on(inputs, prompts, prompt + assumed.trace_tokens)
    if (teacher := inputs.teacher) is None:
        return _with_checkpoints(inputs, work, memory)
    batch = min(TEACHER_BATCH, prompts)
    taught = inputs.sampling(prompts, batch, prompt, most, teacher)
    cached = batch * (prompt + most) * teacher.cached_values * inputs.value
    full: Bytes = {"teacher": teacher.parameters * inputs.value, "cached keys and values": cached}
    return _with_checkpoints(
        inputs, work + taught, fullest(memory, full), TEXT_BYTES * prompts * min(most, assumed.trace_tokens)
    )


def grpo(inputs: CostInputs) -> Cost:
    """Rollouts, the passes that price them under the old and the reference policy, and training on them."""
    assumed, settings, prompt = inputs.assumed, _settings(inputs).grpo, inputs.assumed.prompt_tokens
    rollouts = assumed.prompts_of(inputs.plan) * settings.epochs * settings.rollouts
    written, longest = min(settings.max_completion_length, assumed.completion_tokens), settings.max_completion_length
    # Where the policy moves between sampling and training, TRL prices the rollouts under the policy that drew them.
    priced = settings.vllm or settings.prompts_per_generation != settings.prompts_per_step
    micro, passes = settings.micro_batch_size, 3 + inputs.on_gpu + priced + (settings.beta > 0)
    work, memory = _tuning(inputs, rollouts, prompt + written, micro, micro * (prompt + longest), passes)
    at_once, cached = settings.prompts_per_generation * settings.rollouts, inputs.shape.cached_values * inputs.value
    if settings.vllm:  # a sequence that ends makes room for another, as many as fit vLLM's share
        pool = VLLM_SHARE * inputs.hardware.memory
        fit = max(pool - inputs.whole, cached * (prompt + longest)) / (cached * (prompt + written))
        work += inputs.sampling(rollouts, min(at_once, fit), prompt, written)
        memory["vLLM"] = pool
    else:  # a batch runs until its longest completion ends, and one of so many reaches the limit
        work += inputs.sampling(rollouts, at_once, prompt, longest)
        memory["cached keys and values"] = at_once * (prompt + longest) * cached
    if settings.beta > 0:
        memory["reference model"] = FLOAT * inputs.shape.parameters
    return _with_checkpoints(inputs, work, memory)


def rft(inputs: CostInputs) -> Cost:
    """Completions in rounds until enough are right, each batch to its limit; passes over those that are."""
    settings, assumed, prompt = _settings(inputs).rejection, inputs.assumed, inputs.assumed.prompt_tokens
    assert settings is not None
    prompts, longest = assumed.prompts_of(inputs.plan), settings.max_completion_length
    drawn = prompts * min(settings.samples, settings.kept / max(assumed.right, 1e-9))
    kept, batch = prompts * min(settings.kept, settings.samples * assumed.right), min(settings.batch_size, prompts)
    written = min(longest, assumed.completion_tokens)
    work, memory = _tuned_on(inputs, kept, prompt + written)
    cached = batch * (prompt + longest) * inputs.shape.cached_values * inputs.value
    full: Bytes = {"model": inputs.whole, "cached keys and values": cached}
    work += inputs.sampling(drawn, batch, prompt, longest)
    return _with_checkpoints(inputs, work, fullest(memory, full), TEXT_BYTES * drawn * written)


def _settings(inputs: CostInputs) -> PosttrainSettings:
    settings = inputs.plan.study.posttrain
    assert settings is not None
    return settings


def _tuned_on(inputs: CostInputs, traces: float, tokens: int) -> tuple[Work, Bytes]:
    """SFT on so many traces, each with its prompt of so many tokens or their limit."""
    settings = _settings(inputs).sft
    length, micro = min(settings.max_length, tokens), settings.micro_batch_size
    return _tuning(inputs, traces * settings.epochs, length, micro, micro * settings.max_length, 3 + inputs.on_gpu)


def _tuning(
    inputs: CostInputs, sequences: float, length: int, micro_batch: int, most_tokens: int, passes: int
) -> tuple[Work, Bytes]:
    """Training on sequences, `passes` in units of a forward pass, and its memory with the most tokens in one of them.

    On an accelerator only what enters a block is kept, in float32, and the rest computed once more. TRL sums the
    gradient of the LM head over tiles, and never holds all logits.
    """
    shape, block = inputs.shape, inputs.shape.block_values * inputs.value
    kept = shape.layers * (FLOAT * shape.d_model if inputs.on_gpu else block) + 2 * block
    copies = shape.parameters * 2 if inputs.value < FLOAT else 0
    return inputs.forward(sequences * length * passes, length / 2, micro_batch * length), {
        "weights, gradients, moments": TUNED * shape.parameters + copies,
        "activations": most_tokens * kept,
        "gradient of the LM head": FLOAT * shape.d_model * shape.vocabulary,
    }


def _with_checkpoints(inputs: CostInputs, work: Work, memory: Bytes, written: float = 0.0) -> Cost:
    """Published checkpoints in the models' precision; two states, since a new one is whole before the old one goes."""
    stays = written + _settings(inputs).checkpoints * inputs.whole
    passing = 2 * (TUNED - FLOAT) * inputs.shape.parameters
    saved = stays + _settings(inputs).checkpoints * passing / 2
    return Cost(work + inputs.loading(1) + Work(seconds=saved / inputs.hardware.disk), memory, stays, passing)
