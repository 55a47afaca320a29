"""Supervised fine-tuning on teacher traces: every parameter, loss on the completion only (Sec. 4, A.3)."""

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from featdiff.config.study import SFTSettings
from featdiff.files import write_json
from featdiff.models.loading import load_tokenizer
from featdiff.posttraining.arguments import SharedArguments, in_order, shared_arguments
from featdiff.posttraining.checkpoints import Checkpoints, drop_states, is_finished
from featdiff.posttraining.policy import context_length, load_policy, quiet
from featdiff.posttraining.teacher import Trace, Traces

Example = dict[str, list[int]]

IGNORED = -100  # torch's label of a position without loss


def train_sft(
    model_path: str,
    traces: Traces,
    settings: SFTSettings,
    *,
    checkpoints: int,
    folder: Path,
    seed: int,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    state_minutes: float = 10.0,
) -> None:
    """Train on the traces and write `checkpoint-1` to `checkpoint-N`, `log.jsonl` and `examples.json` into `folder`.

    Killed and started again with the same arguments, training goes on from its last state in `folder` and ends with the
    same bytes. Traces that are too long with their prompts are left out and counted in `examples.json`. ValueError when
    nothing is left, when there are fewer steps than checkpoints, or when the loss is no number.
    """
    if is_finished(folder, checkpoints):
        drop_states(folder)
        return
    _require_whole_batches(settings)
    with quiet():
        model, tokenizer = load_policy(model_path, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
        fitting = _fitting(traces, model, tokenizer, settings.max_length)
        data = in_order(fitting, epochs=settings.epochs, seed=seed)
        steps = -(-len(data) // settings.batch_size)
        keeper = Checkpoints(
            "sft",
            folder,
            load_tokenizer(model_path, trust_remote_code=trust_remote_code),
            steps=steps,
            count=checkpoints,
            boundary=1,
            minutes=state_minutes,
            dtype=dtype,
        )
        counts = {"used": len(fitting), "too_long": len(traces.kept) - len(fitting), "seen": len(data), "steps": steps}
        write_json(folder / "examples.json", counts)
        arguments = shared_arguments(
            settings,
            batch_size=settings.batch_size,
            weight_decay=settings.weight_decay,
            steps=steps,
            folder=folder,
            seed=seed,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        keeper.train(_trainer(arguments, model, tokenizer, data))


def tokenized(trace: Trace, tokenizer: PreTrainedTokenizerBase) -> Example:
    """Token ids and labels of one trace: the prompt as the tokenizer takes any text, the completion, the end token.

    Prompt and completion are tokenized apart, as when the model is asked: it reads a prompt's tokens and adds its own.
    """
    prompt = tokenizer(trace.prompt)["input_ids"]
    completion = tokenizer(trace.completion, add_special_tokens=False)["input_ids"]
    if completion[-1:] != [tokenizer.eos_token_id]:
        completion = [*completion, tokenizer.eos_token_id]
    return {"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion}


def _require_whole_batches(settings: SFTSettings) -> None:
    if settings.batch_size % settings.micro_batch_size:
        raise ValueError(
            f"posttrain.sft.batch_size {settings.batch_size} must be a multiple of "
            f"micro_batch_size {settings.micro_batch_size}"
        )


def _fitting(
    traces: Traces, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Example]:
    longest = min(max_length, context_length(model))
    examples = [tokenized(trace, tokenizer) for trace in traces.kept]
    fitting = [example for example in examples if len(example["input_ids"]) <= longest]
    if not fitting:
        raise ValueError(
            f"posttrain.sft: all {len(examples)} traces are longer than {longest} tokens with their prompts; raise "
            f"posttrain.sft.max_length, or give shorter traces or a base with a longer context"
        )
    return fitting


def _trainer(
    arguments: SharedArguments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: list[Example]
) -> SFTTrainer:
    configuration = SFTConfig(
        **arguments, dataset_kwargs={"skip_prepare_dataset": True}, train_sampling_strategy="sequential"
    )
    return SFTTrainer(
        model=model, args=configuration, train_dataset=Dataset.from_list(data), processing_class=tokenizer
    )
