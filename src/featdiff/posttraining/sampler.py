"""A model that completes prompts, batch by batch: the teacher's traces, and the RL model's own samples."""

from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from featdiff.models.loading import load_model, load_tokenizer
from featdiff.posttraining.policy import context_length, end_tokens, require_end_token


@dataclass(frozen=True)
class Sampler:
    """Completes prompts; temperature 0 is greedy, any other samples from the model's own distribution at it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    temperature: float

    @staticmethod
    def load(
        path: str, *, max_tokens: int, temperature: float, dtype: str, device: str, trust_remote_code: bool
    ) -> "Sampler":
        """The model and the tokenizer of a folder or hub id. ValueError where its tokenizer has no end token."""
        model = load_model(path, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
        tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
        require_end_token(tokenizer, path)
        return Sampler(model, tokenizer, max_tokens, temperature)

    def complete(self, prompts: list[str], seed: int) -> list[str]:
        """Completions of a batch. A prompt that leaves no room in the model's context gets an empty one."""
        context = context_length(self.model)
        fits = [len(ids) < context for ids in self.tokenizer(prompts)["input_ids"]]
        written = iter(
            self._generate([prompt for prompt, fit in zip(prompts, fits, strict=True) if fit], context, seed)
        )
        return [next(written) if fit else "" for fit in fits]

    def _generate(self, prompts: list[str], context: int, seed: int) -> list[str]:
        if not prompts:
            return []
        inputs = self.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt").to(self.model.device)
        length = inputs["input_ids"].shape[1]
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(seed)
            outputs = self.model.generate(  # pyright: ignore[reportCallIssue]: torch types it as a Tensor
                inputs=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                generation_config=self._generation_config(min(self.max_tokens, context - length)),
            )
        return self.tokenizer.batch_decode(outputs[:, length:], skip_special_tokens=True)

    def _generation_config(self, tokens: int) -> GenerationConfig:
        # transformers would cut every distribution to its 50 likeliest tokens, or as the model's folder says.
        whole = {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0} if self.temperature > 0 else {}
        return GenerationConfig(
            max_new_tokens=tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=end_tokens(self.model, self.tokenizer),
            do_sample=self.temperature > 0,
            temperature=self.temperature or None,
            **whole,
        )
