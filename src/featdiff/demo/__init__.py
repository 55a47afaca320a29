"""The base that ships with featdiff (made by studies/demo_base.py) and the inputs of the demo study."""

from pathlib import Path

from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write the demo's base model, prompts, teacher traces, texts and tasks."""
    from featdiff.demo.inputs import write_inputs

    write_inputs(folder, plan.study.seed)
