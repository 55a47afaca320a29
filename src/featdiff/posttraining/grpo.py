"""Group relative policy optimization with an outcome reward (Sec. 4, A.3)."""

from importlib.util import find_spec
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from featdiff.config.study import GRPOSettings
from featdiff.data.prompts import Prompt
from featdiff.files import write_json
from featdiff.models.loading import load_tokenizer
from featdiff.posttraining.arguments import SharedArguments, in_order, shared_arguments
from featdiff.posttraining.checkpoints import Checkpoints, drop_states, is_finished
from featdiff.posttraining.policy import context_length, load_policy, quiet
from featdiff.posttraining.rewards import Reward


def train_grpo(
    model_path: str,
    prompts: list[Prompt],
    settings: GRPOSettings,
    *,
    reward: Reward,
    checkpoints: int,
    folder: Path,
    seed: int,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    state_minutes: float = 10.0,
) -> None:
    """Train on the prompts and write `checkpoint-1` to `checkpoint-N`, `log.jsonl` and `examples.json` into `folder`.

    Killed and started again with the same arguments, training goes on from its last state in `folder` and ends with the
    same bytes. Prompts that leave no room for a completion in the model's context, and those after the last full
    generation, are left out and counted in `examples.json`. ValueError when nothing is left, when there are fewer
    steps than checkpoints, or when the loss is no number.
    """
    if is_finished(folder, checkpoints):
        drop_states(folder)
        return
    _require_vllm(settings)
    with quiet():
        model, tokenizer = load_policy(model_path, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
        fitting = _fitting(prompts, model, tokenizer, settings.max_completion_length)
        data = _whole_generations(in_order(fitting, epochs=settings.epochs, seed=seed), settings)
        steps = len(data) // settings.prompts_per_step
        keeper = Checkpoints(
            "grpo",
            folder,
            load_tokenizer(model_path, trust_remote_code=trust_remote_code),
            steps=steps,
            count=checkpoints,
            boundary=settings.prompts_per_generation // settings.prompts_per_step,
            minutes=state_minutes,
            dtype=dtype,
        )
        counts = {"used": len(fitting), "too_long": len(prompts) - len(fitting), "seen": len(data), "steps": steps}
        write_json(folder / "examples.json", counts)
        arguments = shared_arguments(
            settings,
            batch_size=settings.prompts_per_step * settings.rollouts,
            weight_decay=0.0,
            steps=steps,
            folder=folder,
            seed=seed,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        keeper.train(_trainer(arguments, settings, model, tokenizer, data, reward))


def _require_vllm(settings: GRPOSettings) -> None:
    if settings.vllm and find_spec("vllm") is None:
        raise ValueError("posttrain.grpo.vllm is on, but vllm is not installed; install it, or set it to false")


def _fitting(
    prompts: list[Prompt], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_completion_length: int
) -> list[Prompt]:
    longest = context_length(model) - max_completion_length
    lengths = [len(ids) for ids in tokenizer([prompt.prompt for prompt in prompts])["input_ids"]]
    fitting = [prompt for prompt, length in zip(prompts, lengths, strict=True) if length <= longest]
    if not fitting:
        raise ValueError(
            f"posttrain.grpo: no prompt leaves room for a completion of {max_completion_length} tokens in the model's "
            f"{context_length(model)}; lower posttrain.grpo.max_completion_length, or give shorter prompts"
        )
    return fitting


def _whole_generations(prompts: list[Prompt], settings: GRPOSettings) -> list[Prompt]:
    size = settings.prompts_per_generation
    if len(prompts) < size:
        raise ValueError(
            f"posttrain.grpo.prompts_per_generation is {size}, but training sees only {len(prompts)} prompts; "
            f"lower it, or give more prompts or epochs"
        )
    return prompts[: len(prompts) // size * size]


def _trainer(
    arguments: SharedArguments,
    settings: GRPOSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: list[Prompt],
    reward: Reward,
) -> GRPOTrainer:
    configuration = GRPOConfig(
        **arguments,
        shuffle_dataset=False,
        # Without dropout the ratio of new to old policy is exactly 1 until the policy changes.
        disable_dropout=True,
        generation_batch_size=settings.prompts_per_generation * settings.rollouts,
        num_generations=settings.rollouts,
        max_completion_length=settings.max_completion_length,
        temperature=settings.temperature,
        epsilon=settings.clip_low,
        epsilon_high=settings.clip_high,
        beta=settings.beta,
        loss_type=settings.loss,
        scale_rewards=settings.scale_rewards,
        use_vllm=settings.vllm,
    )

    def outcome(completions: list[str], answer: list[str], **columns: object) -> list[float | None]:
        return [reward(completion, gold) for completion, gold in zip(completions, answer, strict=True)]

    dataset = Dataset.from_dict({"prompt": [p.prompt for p in data], "answer": [p.answer for p in data]})
    return GRPOTrainer(
        model=model, reward_funcs=outcome, args=configuration, train_dataset=dataset, processing_class=tokenizer
    )
