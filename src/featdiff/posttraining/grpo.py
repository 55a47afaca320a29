"""Group relative policy optimization with an outcome reward (Sec. 4, A.3)."""

from collections.abc import Callable
from importlib.util import find_spec

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from featdiff.config.study import GRPOSettings
from featdiff.data.prompts import Prompt
from featdiff.files import write_json
from featdiff.posttraining.arguments import Training, in_order, trainer_config
from featdiff.posttraining.checkpoints import Checkpoints, is_finished
from featdiff.posttraining.policy import context_length, load_policy, quiet_trl
from featdiff.posttraining.rewards import Reward


def train_grpo(training: Training, prompts: list[Prompt], settings: GRPOSettings, reward: Reward) -> None:
    """Train on the prompts; write `checkpoint-1` to `checkpoint-N`, `log.jsonl` and `examples.json` into the folder.

    Killed and started again with the same arguments, training goes on from its last state in the folder and ends with
    the same bytes. Prompts that leave no room for a completion in the model's context, and those after the last full
    generation, are left out and counted in `examples.json`. ValueError when nothing is left, when there are fewer
    steps than checkpoints, or when the loss is no number.
    """
    if is_finished(training):
        return
    if settings.vllm and find_spec("vllm") is None:
        raise ValueError("posttrain.grpo.vllm is on, but vllm is not installed; install it, or set it to false")
    with quiet_trl():
        model, tokenizer = load_policy(training.base)
        fitting = _fitting(prompts, model, tokenizer, settings.max_completion_length)
        order, size = in_order(fitting, epochs=settings.epochs, seed=training.seed), settings.prompts_per_generation
        if len(order) < size:
            raise ValueError(
                f"posttrain.grpo.prompts_per_generation is {size}, but training sees only {len(order)} prompts; "
                f"lower it, or give more prompts or epochs"
            )
        data = order[: len(order) // size * size]
        steps = len(data) // settings.prompts_per_step
        checkpoints = Checkpoints("grpo", training, steps=steps, boundary=size // settings.prompts_per_step)
        counts = {"used": len(fitting), "too_long": len(prompts) - len(fitting), "seen": len(data), "steps": steps}
        write_json(training.folder / "examples.json", counts)
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=_outcome(reward),
            args=_config(training, settings, steps),
            train_dataset=Dataset.from_dict({"prompt": [p.prompt for p in data], "answer": [p.answer for p in data]}),
            processing_class=tokenizer,
        )
        checkpoints.train(trainer)


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


def _config(training: Training, settings: GRPOSettings, steps: int) -> GRPOConfig:
    return trainer_config(
        GRPOConfig,
        training,
        settings,
        batch_size=settings.prompts_per_step * settings.rollouts,
        weight_decay=0.0,
        steps=steps,
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


def _outcome(reward: Reward) -> Callable[..., list[float | None]]:
    """Reward function in the form of TRL: of a batch of completions, given the columns of the data set."""

    def outcome(completions: list[str], answer: list[str], **columns: object) -> list[float | None]:
        return [reward(completion, gold) for completion, gold in zip(completions, answer, strict=True)]

    return outcome
