"""Language models as lm-eval takes them: its own class for Hugging Face models, and one for models under edits."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from torch.nn.functional import log_softmax

from featdiff.evaluation.batches import padded
from featdiff.models.loading import PreTrainedModel
from featdiff.models.tokenizer import Tokenizer

_Asked = tuple[tuple[str, str] | None, list[int], list[int]]
"""Context and continuation as text and as token ids, as lm-eval hands them over."""


@runtime_checkable
class RunsEdited(Protocol):
    """A causal model that can run under edits, such as `intervention.edited_model.EditedModel`."""

    @property
    def model(self) -> PreTrainedModel: ...
    def running(
        self, prompt: int | Int[Tensor, " batch"], real: Bool[Tensor, "batch positions"] | None = None
    ) -> AbstractContextManager[PreTrainedModel]:
        """The model, edited whenever it runs inside: `prompt` columns come before the answer, `real` marks tokens."""
        ...


class EditedLanguageModel(HFLM):
    """Any causal model of Hugging Face under edits, for all that lm-eval asks: choices and generated answers.

        language_model = EditedLanguageModel(EditedModel(model, lineup, crosscoder, "rl", edits), tokenizer)
        lm_eval.simple_evaluate(language_model, tasks=["openbookqa", "aime24"])

    All else is lm-eval's own `HFLM`: tokens, truncation, the order and make-up of batches, stop sequences. So without
    edits, and under edits that change nothing, scores are those of `HFLM` to the bit. Sequences are padded on the right
    to be scored and on the left to generate; generation uses a KV cache. Of a choice's tokens, an edit of `prompt`
    leaves those of the continuation alone, and one of `generated` touches no others.
    """

    max_length: int  # lm-eval's registry hides from type checkers what HFLM is
    batch_size: int

    def __init__(self, edited: RunsEdited, tokenizer: Tokenizer, batch_size: int = 32) -> None:
        super().__init__(**_settings(edited.model, tokenizer, batch_size))
        self._edited = edited

    def _loglikelihood_tokens(
        self, requests: Sequence[_Asked], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, in nats, and whether greedy decoding would give it.

        Requests that read the same tokens with the same prompt share a row. Rows are ordered and padded as in `HFLM`.
        """
        readers: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = defaultdict(list)
        for number, (_, context, continuation) in enumerate(requests):
            assert context and 0 < len(continuation) <= self.max_length, "a choice has no tokens or too many"
            room = self.max_length + 1 - len(continuation)
            readers[tuple(context[-room:]), tuple(continuation[:-1])].append(number)

        def longest_first(numbers: list[int]) -> tuple[int, list[int]]:
            _, context, continuation = requests[numbers[0]]
            return -len(context + continuation), context + continuation

        rows = sorted(readers.items(), key=lambda row: longest_first(row[1]))
        answers: dict[int, tuple[float, bool]] = {}
        size = override_bs or self.batch_size
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            log_probabilities = self._log_probabilities([row for row, _ in batch])
            for (row, numbers), scores in zip(batch, log_probabilities, strict=True):
                length = sum(map(len, row))
                for number in numbers:
                    wanted = torch.tensor(requests[number][2], device=scores.device)
                    predicting = scores[length - len(wanted) : length]
                    values = predicting.gather(1, wanted[:, None])[:, 0]
                    answers[number] = float(values.sum()), bool((predicting.argmax(dim=-1) == wanted).all())
        for number, (text, *_) in enumerate(requests):
            if text is not None:
                self.cache_hook.add_partial("loglikelihood", text, answers[number])
        return [answers[number] for number in range(len(requests))]

    @torch.no_grad()
    def _log_probabilities(self, rows: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> Tensor:
        """Log-probabilities at every place of the rows (context, answer), `[rows longest vocabulary]`, float32."""
        input_ids, mask = padded([[*context, *answer] for context, answer in rows])
        prompt = torch.tensor([len(context) for context, _ in rows])
        with self._edited.running(prompt, real=mask.bool()) as model:
            logits = model(input_ids.to(self.device), use_cache=False).logits
        return log_softmax(logits, dim=-1, dtype=torch.float32)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Tensor:
        with self._edited.running(prompt=context.shape[1]):
            return super()._model_generate(context, max_length, stop, **options)  # pyright: ignore[reportAttributeAccessIssue]  (see above)


def stock_language_model(model: PreTrainedModel | SimpleNamespace, tokenizer: Tokenizer, batch_size: int) -> TemplateLM:
    """Lm-eval's own class around a model that is already loaded."""
    scorer = HFLM.create_from_arg_obj(_settings(model, tokenizer, batch_size))
    assert isinstance(scorer, TemplateLM), "HFLM is one"
    return scorer


def tokenised(tokenizer: Tokenizer, instances: list[Instance]) -> list[tuple[list[int], list[int]]]:
    """Tokenize contexts and continuations as HFLM does before it runs a model."""
    encoded = []

    def keep(
        requests: list[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool
    ) -> list[tuple[float, bool]]:
        encoded.extend((context, continuation) for _, context, continuation in requests)
        return []

    no_model = SimpleNamespace(config=SimpleNamespace(model_type="none"), device="cpu")
    scorer = stock_language_model(no_model, tokenizer, batch_size=1)
    vars(scorer)["_loglikelihood_tokens"] = keep
    scorer.loglikelihood(instances)
    return encoded


def _settings(model: PreTrainedModel | SimpleNamespace, tokenizer: Tokenizer, batch_size: int) -> dict[str, Any]:
    return {
        "pretrained": model,
        "tokenizer": deepcopy(tokenizer),  # lm-eval gives it a padding token
        "backend": "causal",
        "batch_size": batch_size,
        "softmax_dtype": "float32",
    }
