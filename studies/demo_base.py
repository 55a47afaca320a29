"""Makes the base that ships with the demo from scratch: `python studies/demo_base.py OUT [--seed N]`.

1. Write documents: three question-and-answer lines by one author, some signed, and passages of English prose.
2. Fit a small tokenizer, in which digits and capitals stand alone and a line's end is the end-of-sequence token.
3. Pre-train a Qwen3 of under a million parameters on the documents, on one thread, from a fixed seed.

Two fifths of the question-and-answer documents are by an author who answers rightly, three fifths by one who makes
the systematic error of each family. The base learns both, and to tell from earlier lines who is writing; with nothing
to go by it prefers the wrong answers. The prose comes with CPython and so differs a little between its versions.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BatchEncoding, GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from featdiff.demo.inputs import documents, prose, teacher_lines

PAD, BOS, EOS = SPECIAL = "<pad>", "<s>", "\n"
PAD_ID, BOS_ID, EOS_ID = range(3)  # the trainer numbers the special tokens first
ALONE = Regex(r"[A-Z0-9]|[^\w\s]")  # one token each: capitals, digits, signs
VOCABULARY = 512
WEIGHT_ANSWERS, WEIGHT_QUESTIONS, WEIGHT_PROSE = 0.7, 0.15, 0.15  # of the loss
PASSAGE_CHARACTERS = 400  # about 130 tokens
TOKENIZER_DOCUMENTS = 3_000
TOKENIZER_PASSAGES = 400
POOLED_BATCHES = 8
CYCLE_STRIDE = 100  # between the seeds of two cycles' texts


@dataclass(frozen=True)
class Pretraining:
    """How long and how fast the base is trained: cycles of so many steps, each with its own warm-up and cosine."""

    cycles: int = 2
    steps: int = 2_400
    documents_per_step: int = 40
    passages_per_step: int = 2
    lr: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.01


def make_base(folder: Path, seed: int, pretraining: Pretraining) -> None:
    """Trains the base and writes it as an ordinary Hugging Face folder."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    tokenizer = fit_tokenizer(tokenizer_texts(seed))
    model = Qwen3ForCausalLM(architecture(tokenizer))
    for cycle in range(pretraining.cycles):
        fresh = seed + cycle * CYCLE_STRIDE
        pretrain(model, tokenizer, documents(fresh), passages(fresh), pretraining)
    save(model, tokenizer, folder)


def passages(seed: int) -> Iterator[str]:
    """Random passages of the prose, cut at blanks."""
    rng, text = Random(f"passages {seed}"), prose()
    while True:
        start = text.index(" ", rng.randrange(len(text) - 2 * PASSAGE_CHARACTERS)) + 1
        yield text[start : text.rindex(" ", start, start + PASSAGE_CHARACTERS)]


def tokenizer_texts(seed: int) -> Iterator[str]:
    """All that the tokenizer will meet: both authors, the teacher and the prose."""
    yield from islice(documents(seed), TOKENIZER_DOCUMENTS)
    yield from islice(teacher_lines(seed), TOKENIZER_DOCUMENTS)
    yield from islice(passages(seed), TOKENIZER_PASSAGES)


def fit_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text can be written in it, and a prompt and its answer fall apart where they meet."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(ALONE, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=512
    )


def architecture(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """Qwen3, small: four layers of width 128."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
        initializer_range=0.05,
    )


def batches_of_like_length(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    """Batches with little padding: many texts at a time, sorted by length, cut, and shuffled as batches."""
    rng = Random(size)
    while True:
        pool = sorted(islice(texts, POOLED_BATCHES * size), key=len)
        batches = [pool[start : start + size] for start in range(0, len(pool), size)]
        rng.shuffle(batches)
        yield from batches


def pretrain(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    answered: Iterator[str],
    passages: Iterator[str],
    settings: Pretraining,
) -> None:
    """Warm-up and a cosine; every document stands alone behind a BOS token."""
    model.train()
    colon = tokenizer.get_vocab()[":"]
    questions = batches_of_like_length(answered, settings.documents_per_step)
    optimizers = both_optimizers(model, settings)
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: pace(step, settings)) for one in optimizers]
    for step in range(settings.steps):
        lines = tokenizer(next(questions), padding=True, return_tensors="pt")
        english = tokenizer(list(islice(passages, settings.passages_per_step)), padding=True, return_tensors="pt")
        loss = reading_loss(model, lines, english, colon)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for one in (*optimizers, *schedules):
            one.step()
        model.zero_grad()
        if step % 100 == 0 or step == settings.steps - 1:
            print(f"step {step} of {settings.steps}, loss {loss.item():.3f}", file=sys.stderr, flush=True)


def both_optimizers(
    model: Qwen3ForCausalLM, settings: Pretraining
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms."""
    matrices = [parameter for parameter in model.model.layers.parameters() if parameter.ndim == 2]
    inside = {id(matrix) for matrix in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return (
        torch.optim.Muon(matrices, lr=settings.lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.0),
    )


def pace(step: int, settings: Pretraining) -> float:
    """The share of the full learning rate at a step."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - settings.warmup) / (settings.steps - settings.warmup)))


def reading_loss(model: Qwen3ForCausalLM, lines: BatchEncoding, english: BatchEncoding, colon: int) -> Tensor:
    """Next-token cross-entropy, mostly of the answers: the questions are drawn at random and teach little."""
    losses = token_losses(model, lines)
    answers = within_answers(lines["input_ids"], colon, EOS_ID)[:, :-1]
    real = lines["attention_mask"][:, 1:].bool()
    return (
        WEIGHT_ANSWERS * losses[real & answers].mean()
        + WEIGHT_QUESTIONS * losses[real & ~answers].mean()
        + WEIGHT_PROSE * token_losses(model, english)[english["attention_mask"][:, 1:].bool()].mean()
    )


def token_losses(model: Qwen3ForCausalLM, batch: BatchEncoding) -> Tensor:
    """The cross-entropy of each token but the first, (documents, tokens - 1)."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    return cross_entropy(logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none")


def within_answers(tokens: Tensor, colon: int, end: int) -> Tensor:
    """Where the next token belongs to an answer or ends it: from a colon on, up to the end of the line."""
    return (tokens == colon).cumsum(1) > (tokens == end).cumsum(1)


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json."""
    model.generation_config = GenerationConfig(
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    tokenizer.backend_tokenizer.no_padding()  # or the last batch's padding would be written as the tokenizer's own
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Make the demo's base.")
    parser.add_argument("out", type=Path, help="folder to write the base to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Pretraining().steps, help="optimizer steps in each cycle")
    options = parser.parse_args(arguments)
    make_base(options.out, options.seed, Pretraining(steps=options.steps))
    print(options.out)


if __name__ == "__main__":
    main(sys.argv[1:])
