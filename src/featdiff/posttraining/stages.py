"""`sft`, `grpo` and `rft`: one base, identical prompts, two paradigms and a control, checkpoints of each."""

from pathlib import Path

from featdiff.config.study import PosttrainSettings
from featdiff.data.prompts import load_prompts
from featdiff.files import save
from featdiff.models.loading import ModelSource
from featdiff.posttraining.arguments import Training
from featdiff.posttraining.rejection import draw_samples
from featdiff.posttraining.rewards import reward_function
from featdiff.posttraining.teacher import Traces, load_traces, write_traces
from featdiff.run.plan import Plan
from featdiff.run.results import SampleCounts, TraceCounts


def sft(plan: Plan, folder: Path) -> None:
    """Tune the base on the teacher traces whose final answer is right; write checkpoint-1, checkpoint-2, ..."""
    settings = _settings(plan)
    prompts = load_prompts(settings)
    written = None
    if settings.teacher_model:
        teacher, written = _source(plan, settings.teacher_model), folder / "teacher.jsonl"
        write_traces(teacher, prompts, written, max_tokens=settings.teacher_max_tokens, seed=plan.study.seed)
    traces = load_traces(settings, prompts, reward_function(settings.reward), path=written)
    counts = TraceCounts(len(prompts), len(traces.kept), traces.wrong, traces.unmatched)
    save(counts, folder / "traces.json")
    _tune(plan, folder, traces)


def grpo(plan: Plan, folder: Path) -> None:
    """Tune the base by GRPO on the same prompts; write checkpoint-1, checkpoint-2, ..."""
    from featdiff.posttraining.grpo import train_grpo

    settings = _settings(plan)
    reward = reward_function(settings.reward)
    train_grpo(_training(plan, folder), load_prompts(settings), settings.grpo, reward)


def rft(plan: Plan, folder: Path) -> None:
    """Tune the base as `sft` does, on right answers that the RL model gives to the same prompts."""
    settings = _settings(plan)
    assert settings.rejection is not None, "the plan has this stage only where the setting is given"
    prompts, reward = load_prompts(settings), reward_function(settings.reward)
    rl, path = _source(plan, plan.paths["rl"]), folder / "samples.jsonl"
    samples = draw_samples(rl, settings.rejection, prompts, reward, path, seed=plan.study.seed)
    kept, wrong = len(samples.traces.kept), samples.traces.wrong
    counts = SampleCounts(len(prompts), samples.unanswered, samples.drawn, kept, wrong, samples.repeated)
    save(counts, folder / "traces.json")
    try:
        _tune(plan, folder, samples.traces)
    except ValueError as error:
        raise ValueError(f"SFT on RL's own right answers: {error}") from error


def _tune(plan: Plan, folder: Path, traces: Traces) -> None:
    from featdiff.posttraining.sft import train_sft

    train_sft(_training(plan, folder), traces, _settings(plan).sft)


def _training(plan: Plan, folder: Path) -> Training:
    return Training(_source(plan, plan.paths["base"]), folder, plan.study.seed, _settings(plan).checkpoints)


def _source(plan: Plan, path: str) -> ModelSource:
    lineup = plan.study.lineup
    return ModelSource(path, lineup.dtype, lineup.device, lineup.trust_remote_code)


def _settings(plan: Plan) -> PosttrainSettings:
    settings = plan.study.posttrain
    assert settings is not None
    prompts = plan.located(settings.prompts)
    return settings.model_copy(
        update={"prompts": prompts, "teacher": settings.teacher and plan.located(settings.teacher)}
    )
