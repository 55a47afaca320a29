"""The door to lm-eval: a model on benchmarks, item by item (P9), edited or not, and the items as token ids."""

from featdiff.evaluation.answered import answered
from featdiff.evaluation.answers import is_found
from featdiff.evaluation.harness import build_requests, evaluate
from featdiff.evaluation.language_model import EditedLanguageModel
from featdiff.evaluation.results import Requests, Sample, TaskResult

__all__ = [
    "EditedLanguageModel",
    "Requests",
    "Sample",
    "TaskResult",
    "answered",
    "build_requests",
    "evaluate",
    "is_found",
]
