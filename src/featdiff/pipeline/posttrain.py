"""`sft` and `grpo`: one base, identical prompts, two paradigms, checkpoints of each."""

from pathlib import Path

from featdiff.pipeline.plan import Plan
from featdiff.posttrain.prompts import load_prompts
from featdiff.posttrain.rewards import reward_function
from featdiff.runs import write_json
from featdiff.study import PosttrainSettings


def sft(plan: Plan, folder: Path) -> None:
    """Tune the base on the teacher traces whose final answer is right; write checkpoint-1, checkpoint-2, ..."""
    from featdiff.posttrain.sft import train_sft
    from featdiff.posttrain.teacher import load_traces, write_traces

    settings = _settings(plan)
    prompts = load_prompts(settings)
    lineup = plan.study.lineup
    written = folder / "teacher.jsonl" if settings.teacher_model else None
    if written:
        write_traces(
            settings,
            prompts,
            written,
            seed=plan.study.seed,
            dtype=lineup.dtype,
            device=lineup.device,
            trust_remote_code=lineup.trust_remote_code,
        )
    traces = load_traces(settings, prompts, reward_function(settings.reward), path=written)
    counts = {"kept": len(traces.kept), "wrong": traces.wrong, "unmatched": traces.unmatched}
    write_json(folder / "traces.json", {"prompts": len(prompts), **counts})
    train_sft(
        plan.paths["base"],
        traces,
        settings.sft,
        checkpoints=settings.checkpoints,
        folder=folder,
        seed=plan.study.seed,
        dtype=lineup.dtype,
        device=lineup.device,
        trust_remote_code=lineup.trust_remote_code,
    )


def grpo(plan: Plan, folder: Path) -> None:
    """Tune the base by GRPO on the same prompts; write checkpoint-1, checkpoint-2, ..."""
    from featdiff.posttrain.grpo import train_grpo

    settings = _settings(plan)
    lineup = plan.study.lineup
    train_grpo(
        plan.paths["base"],
        load_prompts(settings),
        settings.grpo,
        reward=reward_function(settings.reward),
        checkpoints=settings.checkpoints,
        folder=folder,
        seed=plan.study.seed,
        dtype=lineup.dtype,
        device=lineup.device,
        trust_remote_code=lineup.trust_remote_code,
    )


def _settings(plan: Plan) -> PosttrainSettings:
    settings = plan.study.posttrain
    assert settings is not None
    prompts = plan.located(settings.prompts)
    return settings.model_copy(
        update={"prompts": prompts, "teacher": settings.teacher and plan.located(settings.teacher)}
    )
