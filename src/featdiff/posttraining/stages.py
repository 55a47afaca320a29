"""`sft`, `grpo` and `rft`: one base, identical prompts, two paradigms and a control, checkpoints of each."""

from pathlib import Path

from featdiff.config.study import PosttrainSettings
from featdiff.data.prompts import load_prompts
from featdiff.files import write_json
from featdiff.posttraining.rejection import draw_samples
from featdiff.posttraining.rewards import reward_function
from featdiff.posttraining.teacher import Traces, load_traces, write_traces
from featdiff.run.plan import Plan


def sft(plan: Plan, folder: Path) -> None:
    """Tune the base on the teacher traces whose final answer is right; write checkpoint-1, checkpoint-2, ..."""
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
    _tune(plan, folder, traces, settings)


def grpo(plan: Plan, folder: Path) -> None:
    """Tune the base by GRPO on the same prompts; write checkpoint-1, checkpoint-2, ..."""
    from featdiff.posttraining.grpo import train_grpo

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


def rft(plan: Plan, folder: Path) -> None:
    """Tune the base as `sft` does, on right answers that the RL model gives to the same prompts."""
    settings = _settings(plan)
    assert settings.rejection is not None, "the plan has this stage only where the setting is given"
    prompts = load_prompts(settings)
    lineup = plan.study.lineup
    samples = draw_samples(
        plan.paths["rl"],
        settings.rejection,
        prompts,
        reward_function(settings.reward),
        folder / "samples.jsonl",
        seed=plan.study.seed,
        dtype=lineup.dtype,
        device=lineup.device,
        trust_remote_code=lineup.trust_remote_code,
    )
    counts = {"kept": len(samples.traces.kept), "wrong": samples.traces.wrong, "repeated": samples.repeated}
    asked = {"prompts": len(prompts), "unanswered": samples.unanswered, "drawn": samples.drawn}
    write_json(folder / "traces.json", asked | counts)
    try:
        _tune(plan, folder, samples.traces, settings)
    except ValueError as error:
        raise ValueError(f"SFT on RL's own right answers: {error}") from error


def _tune(plan: Plan, folder: Path, traces: Traces, settings: PosttrainSettings) -> None:
    from featdiff.posttraining.sft import train_sft

    lineup = plan.study.lineup
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


def _settings(plan: Plan) -> PosttrainSettings:
    settings = plan.study.posttrain
    assert settings is not None
    prompts = plan.located(settings.prompts)
    return settings.model_copy(
        update={"prompts": prompts, "teacher": settings.teacher and plan.located(settings.teacher)}
    )
