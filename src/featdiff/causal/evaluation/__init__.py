"""The door to lm-eval: a model on benchmarks, item by item (P9), edited or not, and the items as token ids."""

from featdiff.causal.evaluation.answered import answered
from featdiff.causal.evaluation.answers import is_found
from featdiff.causal.evaluation.language_model import EditedLanguageModel
from featdiff.causal.evaluation.scoring import build_requests, evaluate
from featdiff.causal.records import Requests, Sample, TaskResult

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
