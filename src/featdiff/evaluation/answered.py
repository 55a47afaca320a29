"""Generated answers as token ids, for reading features on the tokens that a model generated."""

import torch

from featdiff.evaluation.results import NO_CHOICE, Requests, TaskResult
from featdiff.models.tokenizer import Tokenizer, token_ids


def answered(result: TaskResult, tokenizer: Tokenizer, max_length: int) -> Requests:
    """Turn the generated answers of a task into requests: each prompt followed by one of its answers and an end token.

    The texts are tokenized anew, so tokens at the seams need not be those that the model chose; the end token is not
    read. Prompts are cut from the left so that a model of `max_length` positions can read them with the answer.
    """
    answers = [answer for sample in result.samples for answer in sample.answers]
    counts = torch.tensor([len(sample.answers) for sample in result.samples])
    end = eos if isinstance(eos := tokenizer.eos_token_id, int) else 0
    continuations = [[*token_ids(tokenizer, answer, special=False), end] for answer in answers]
    prompts = [ids for sample in result.samples for ids in [token_ids(tokenizer, sample.prompt)] * len(sample.answers)]
    contexts = [
        prompt[-max(1, max_length + 1 - len(continuation)) :]
        for prompt, continuation in zip(prompts, continuations, strict=True)
    ]
    return Requests(
        task=result.task,
        sample_ids=result.sample_ids,
        choice_counts=counts,
        target=torch.full_like(counts, NO_CHOICE),
        context_ids=contexts,
        continuation_ids=continuations,
        choice_characters=torch.tensor([float(len(answer)) for answer in answers]),
    )
