"""The settings of evaluation: which benchmarks, how they are asked, and how answers are checked (Sec. 4, A.4)."""

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import Field

from featdiff.config.base import CONTENT, IMMATERIAL, Count, Settings

DATA_FILES = {
    "openbookqa": "openbookqa.jsonl",
    "commonsense_qa": "commonsenseqa.jsonl",
    "commonsense_qa_text": "commonsenseqa.jsonl",
    "headqa_en": "headqa_en.jsonl",
    "sciq": "sciq.jsonl",
    "arc_challenge": "arc_challenge.jsonl",
    "logiqa": "logiqa.jsonl",
    "piqa": "piqa.jsonl",
    "hendrycks_math500": "math500.jsonl",
    "aime24": "aime24.jsonl",
    "aime25": "aime25.jsonl",
}
"""Tasks of the paper that `data_folder` can hold, and the name of each one's file there."""

MATHEMATICS = ("hendrycks_math500", "aime24", "aime25")
"""Tasks whose answers math-verify checks unless the study says otherwise."""


class TaskSettings(Settings):
    """One evaluation task."""

    name: str
    """lm-eval's name of the task, or of a task file in `evaluation.task_folder`."""
    role: Literal["train", "near", "far", "unseen"] = "far"
    """Relation to the post-training prompts; `unseen` tasks take no part in the selection of features (B.4)."""
    limit: Count | None = None
    """Evaluate only the first items of this task. Unset: `evaluation.limit`."""
    repeats: Count | None = None
    """Generated answers per item, whose accuracy is averaged (A.4: MATH500 3, AIME 10). Unset: what the task says."""
    temperature: Annotated[float, Ge(0)] | None = None
    """Of generated answers; 0 is greedy. Unset: what the task says."""
    max_new_tokens: Count | None = None
    """Longest generated answer. Unset: what the task says."""
    check: Literal["auto", "task", "math_verify"] = "auto"
    """How a generated answer is compared with the right one: by the task's own rule, or by math-verify. auto:
    math-verify for MATH500 and AIME."""

    @property
    def generates(self) -> bool:
        """Whether its answers are known to be generated; of other tasks only their files tell."""
        return self.name in MATHEMATICS or (self.repeats, self.temperature, self.max_new_tokens) != (None, None, None)

    @property
    def uses_math_verify(self) -> bool:
        return self.check == "math_verify" or (self.check == "auto" and self.name in MATHEMATICS)


class EvaluationSettings(Settings):
    """Accuracy through lm-eval, with per-sample records (Sec. 4, A.4)."""

    tasks: tuple[TaskSettings, ...] = ()
    """Tasks in the order of the tables."""
    task_folder: Annotated[str | None, CONTENT] = None
    """Folder of lm-eval task files (YAML) of your own; their data may be local."""
    data_folder: Annotated[str | None, IMMATERIAL] = Field(default=None, min_length=1)
    """Folder of JSONL files with the paper's benchmarks, one `openbookqa.jsonl` and so on; those tasks then ask the
    same questions of these files, and nothing is fetched."""
    limit: Count | None = None
    """Evaluate only the first items of every task that has no limit of its own."""
    fewshot: Annotated[int, Ge(0)] = 0
    """Worked examples before each question."""
    batch_size: Annotated[Count, IMMATERIAL] = 32
    """Sequences per forward pass."""
    metric: Literal["acc", "acc_norm"] = "acc"
    """What the predicted choice has the highest of: log-likelihood, or log-likelihood per character (as lm-eval)."""

    def limit_of(self, task: str) -> int | None:
        """So many of a task's first items are evaluated; None: all."""
        return next((one.limit for one in self.tasks if one.name == task), None) or self.limit

    @property
    def data_paths(self) -> tuple[str, ...]:
        """Files of `data_folder` that the tasks read."""
        names = {DATA_FILES[task.name] for task in self.tasks if task.name in DATA_FILES}
        return () if self.data_folder is None else tuple(f"{self.data_folder}/{name}" for name in sorted(names))
