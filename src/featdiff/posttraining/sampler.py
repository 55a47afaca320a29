"""Completions of prompts by a model, for traces of a teacher and samples of the RL model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel

from featdiff.data.prompts import Prompt
from featdiff.models.loading import ModelSource
from featdiff.models.tokenizer import Tokenizer
from featdiff.posttraining.policy import context_length, end_tokens, require_end_token


@dataclass(frozen=True)
class Sampler:
    """Model that completes prompts; it is loaded when the first is asked.

    Temperature 0 is greedy, any other samples from the model's own distribution at it. ValueError where the tokenizer
    has no end token.
    """

    source: ModelSource
    max_tokens: int
    temperature: float

    @cached_property
    def tokenizer(self) -> Tokenizer:
        tokenizer = self.source.tokenizer()
        require_end_token(tokenizer, self.source.path)
        return tokenizer

    @cached_property
    def model(self) -> PreTrainedModel:
        return self.source.model()

    def complete(self, prompts: list[str], seed: int) -> list[str]:
        """Completions of a batch. A prompt that leaves no room in the model's context gets an empty one."""
        context = context_length(self.model)
        fits = [len(ids) < context for ids in self.tokenizer(prompts)["input_ids"]]
        fitting = list(compress(prompts, fits))
        written = iter(self._generate(fitting, context, seed) if fitting else [])
        return [next(written) if fit else "" for fit in fits]

    def _generate(self, prompts: list[str], context: int, seed: int) -> list[str]:
        inputs = self.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt").to(self.model.device)
        length = inputs["input_ids"].shape[1]
        # transformers would cut every distribution to its 50 likeliest tokens, or as the model's folder says.
        whole = {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0} if self.temperature > 0 else {}
        config = GenerationConfig(
            max_new_tokens=min(self.max_tokens, context - length),
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=end_tokens(self.model, self.tokenizer),
            do_sample=self.temperature > 0,
            temperature=self.temperature or None,
            **whole,
        )
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(seed)
            outputs = self.model.generate(  # pyright: ignore[reportCallIssue]: torch types it as a Tensor
                inputs=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                generation_config=config,
            )
        return self.tokenizer.batch_decode(outputs[:, length:], skip_special_tokens=True)


class CompletionFile:
    """Completions of a sampler in a JSONL file, batch after batch, with `id` and `completion`.

    Batches that an earlier attempt wrote whole are read; the others are asked for, each under a seed of its own, and
    appended. So a run that is killed and started again with the same arguments ends with the same bytes.
    """

    def __init__(self, path: Path, sampler: Sampler, seed: int) -> None:
        self._path, self._sampler, self._seed = path, sampler, seed
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        self._found = [line for line in lines if line.endswith(b"\n")]
        self._bytes = 0  # of the batches that were asked for
        self.given = 0
        """Completions given so far."""
        path.parent.mkdir(parents=True, exist_ok=True)

    def complete(self, batch: Sequence[Prompt]) -> list[str]:
        """Completions of the next batch."""
        first, self.given = self.given, self.given + len(batch)
        lines = self._found[first : self.given]
        if len(lines) < len(batch):
            completions = self._sampler.complete([prompt.prompt for prompt in batch], self._seed + first)
            rows = [{"id": prompt.id, "completion": text} for prompt, text in zip(batch, completions, strict=True)]
            lines = [json.dumps(row).encode() + b"\n" for row in rows]
            with self._path.open("ab") as file:
                file.truncate(self._bytes)  # what an earlier attempt wrote of this batch
                file.writelines(lines)
        self._bytes += sum(len(line) for line in lines)
        return [json.loads(line)["completion"] for line in lines]
