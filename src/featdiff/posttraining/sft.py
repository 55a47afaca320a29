"""Supervised fine-tuning on teacher traces: every parameter, loss on the completion only (Sec. 4, A.3)."""

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from featdiff.config.study import SFTSettings
from featdiff.files import write_json
from featdiff.models.tokenizer import token_ids
from featdiff.posttraining.arguments import Training, in_order, trainer_config
from featdiff.posttraining.checkpoints import Checkpoints, is_finished
from featdiff.posttraining.policy import context_length, load_policy, quiet_trl
from featdiff.posttraining.teacher import Trace, Traces

Example = dict[str, list[int]]
IGNORED = -100  # torch's label of a position without loss


def train_sft(training: Training, traces: Traces, settings: SFTSettings) -> None:
    """Train on the traces; write `checkpoint-1` to `checkpoint-N`, `log.jsonl` and `examples.json` into the folder.

    Killed and started again with the same arguments, training goes on from its last state in the folder and ends with
    the same bytes. Traces that are too long with their prompts are left out and counted in `examples.json`. ValueError
    when nothing is left, when there are fewer steps than checkpoints, or when the loss is no number.
    """
    if is_finished(training):
        return
    if settings.batch_size % settings.micro_batch_size:
        raise ValueError(
            f"posttrain.sft.batch_size {settings.batch_size} must be a multiple of "
            f"micro_batch_size {settings.micro_batch_size}"
        )
    with quiet_trl():
        model, tokenizer = load_policy(training.base)
        fitting = _fitting(traces, model, tokenizer, settings.max_length)
        data = in_order(fitting, epochs=settings.epochs, seed=training.seed)
        steps = -(-len(data) // settings.batch_size)
        checkpoints = Checkpoints("sft", training, steps=steps, boundary=1)
        too_long = len(traces.kept) - len(fitting)
        counts = {"used": len(fitting), "too_long": too_long, "seen": len(data), "steps": steps}
        write_json(training.folder / "examples.json", counts)
        config = trainer_config(
            SFTConfig,
            training,
            settings,
            batch_size=settings.batch_size,
            weight_decay=settings.weight_decay,
            steps=steps,
            dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="sequential",
        )
        dataset = Dataset.from_list(data)
        checkpoints.train(SFTTrainer(model=model, args=config, train_dataset=dataset, processing_class=tokenizer))


def tokenized(trace: Trace, tokenizer: PreTrainedTokenizerBase) -> Example:
    """Token ids and labels of one trace: the prompt as the tokenizer takes any text, the completion, the end token.

    Prompt and completion are tokenized apart, as when the model is asked: it reads a prompt's tokens and adds its own.
    """
    prompt = token_ids(tokenizer, trace.prompt)
    completion = token_ids(tokenizer, trace.completion, special=False)
    end = tokenizer.eos_token_id
    assert isinstance(end, int), "load_policy refuses a tokenizer without end token"
    if completion[-1:] != [end]:
        completion = [*completion, end]
    return {"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion}


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
