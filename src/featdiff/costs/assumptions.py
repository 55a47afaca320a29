"""How much text a study reads and writes: what its files say, and what has to be assumed before a run."""

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from featdiff.config.study import Study
from featdiff.run.plan import Plan


@dataclass(frozen=True)
class Assumptions:
    """What no setting says. Lengths are means, in tokens."""

    prompts: int = 47_000
    """Prompts of post-training, where their file is not on this disk (A.2)."""
    prompt_tokens: int = 128
    trace_tokens: int = 4096
    """Of a teacher's trace; at most what its limit allows."""
    completion_tokens: int = 2048
    """Of a rollout; at most what its limit allows."""
    right: float = 0.5
    """Share of the RL model's completions that are right, on the prompts it was trained on."""
    items: int = 1000
    """Items of a task whose size is not public."""
    choices: int = 4
    item_tokens: int = 100
    """Of an item with one of its choices."""
    l0: float = 100.0
    """Active features per token, once trained; BatchTopK keeps its k."""

    def prompts_of(self, plan: Plan) -> int:
        """Prompts that post-training sees in one pass: the rows of their file, where it is here."""
        settings = plan.study.posttrain
        assert settings is not None
        file, count = Path(plan.located(settings.prompts)), self.prompts
        if file.suffix == ".jsonl" and file.is_file():
            count = sum(1 for line in file.read_bytes().splitlines() if line.strip())
        return min(count, settings.limit or count)

    def items_of(self, task: str) -> int:
        """Items of a task by lm-eval's name."""
        public = json.loads((files("featdiff.costs") / "task_items.json").read_text(encoding="utf-8"))
        return public.get(task, self.items)


# The demo's are known: its inputs are made by featdiff.demo.inputs.
DEMO = Assumptions(
    prompts=3840, prompt_tokens=9, trace_tokens=31, completion_tokens=6, right=0.75, items=400, item_tokens=15, l0=80.0
)


def assumptions_of(study: Study) -> Assumptions:
    """The assumptions for a study."""
    return DEMO if Plan(study).uses_demo else Assumptions()


def checked(assumed: Assumptions) -> Assumptions:
    """The same. ValueError for a negative number, and for a share above 1."""
    for name, value in asdict(assumed).items():
        if value < 0:
            raise ValueError(f"--assume.{name} {value:g} is negative; give a number that is not")
    if assumed.right > 1:
        raise ValueError(f"--assume.right {assumed.right:g} is a share; give a number from 0 to 1")
    return assumed
