"""Checks that cost nothing, made before the first byte is written."""

from pathlib import Path

from featdiff.analyses.sensitivity.variants import choices_of, rescorings_of
from featdiff.config.study import Study
from featdiff.config.study_file import DEMO_PREFIX, is_hub_id
from featdiff.run.plan import Plan


def check_inputs(plan: Plan) -> None:
    """ValueError, in one line, for a path of the study that does not exist."""
    study = plan.study
    _demand_model("lineup.base", study.lineup.base)
    for name, path in study.lineup.tuned.items():
        _demand_model(f"lineup.tuned.{name}", path)
    for name, paths in study.lineup.checkpoints.items():
        for number, path in enumerate(paths):
            _demand_model(f"lineup.checkpoints.{name}.{number}", path)
    for number, source in enumerate(study.corpus.sources):
        if source.kind != "hub":
            _demand(f"corpus.sources.{number}.path", source.path, hub=True)
    if study.evaluation.task_folder:
        _demand("evaluation.task_folder", study.evaluation.task_folder, hub=False)
    if study.evaluation.data_folder:
        _demand("evaluation.data_folder", study.evaluation.data_folder, hub=False)
    if study.posttrain:
        _demand("posttrain.prompts", study.posttrain.prompts, hub=False)
        if study.posttrain.teacher:
            _demand("posttrain.teacher", study.posttrain.teacher, hub=False)
        if study.posttrain.teacher_model:
            _demand_model("posttrain.teacher_model", study.posttrain.teacher_model)
    if study.sensitivity:
        choices_of(plan)
        rescorings_of(plan)
    if unknown := [name for name in study.lineup.devices if name not in plan.paths]:
        raise ValueError(f"lineup.devices names {', '.join(unknown)}; the models are {', '.join(plan.paths)}")
    _check_generation(study)
    _check_device("lineup.device", study.lineup.device)
    for name, device in study.lineup.devices.items():
        _check_device(f"lineup.devices.{name}", device)


def _demand(setting: str, path: str, hub: bool) -> None:
    if path.startswith(DEMO_PREFIX) or (hub and is_hub_id(path)) or Path(path).exists():
        return
    or_hub = " or a hub id owner/name" if hub else ""
    raise ValueError(f"{setting}: nothing at {path}; give a path that exists{or_hub}")


def _demand_model(setting: str, path: str) -> None:
    _demand(setting, path, hub=True)
    place = Path(path)
    if place.is_dir() and not (place / "config.json").is_file():
        raise ValueError(f"{setting}: {path} holds no config.json; give a model folder in Hugging Face form")
    if place.is_file():
        raise ValueError(f"{setting}: {path} is a file; give a model folder in Hugging Face form")


def _check_generation(study: Study) -> None:
    written = [task.name for task in study.evaluation.tasks if task.generates]
    settings = study.intervention
    if study.lineup.turns and written and settings.generated_controls and settings.reading == "joint":
        raise ValueError(
            f"{', '.join(written)}: no answers can be generated under edits while models take turns (lineup.turns) and "
            "are all read; set lineup.turns = false, intervention.reading, or intervention.generated_controls = 0"
        )


def _check_device(setting: str, device: str) -> None:
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{setting} = {device} cannot be used here ({reason}); give cpu or another") from None
