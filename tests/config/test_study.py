"""The settings: the paper's values where it states them, a sentence for each, and nothing that cannot be."""

from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from featdiff.config.study import (
    ActivationSettings,
    AttributionSettings,
    BatchTopK,
    CorpusSettings,
    CrosscoderSettings,
    DynamicsSettings,
    GRPOSettings,
    InterventionSettings,
    LineupSettings,
    PosttrainSettings,
    ReLU,
    SelectionSettings,
    SFTSettings,
    SourceSettings,
    Study,
    TrainingSettings,
)

HALVES = [{"path": "a", "share": 0.5}, {"path": "b", "share": 0.5}]


def sections(kind: type[BaseModel] = Study) -> Iterator[type[BaseModel]]:
    """A section and all sections in it."""
    yield kind
    for field in kind.model_fields.values():
        for inner in models_in(field.annotation):
            yield from sections(inner)


def models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def study(**settings: object) -> Study:
    least: dict[str, object] = {"name": "least", "lineup": {"base": "b"}, "corpus": {"sources": HALVES}}
    return Study.model_validate(least | settings)


def test_defaults_are_the_values_of_the_paper() -> None:
    sft, grpo = SFTSettings(), GRPOSettings()
    assert (sft.lr, sft.batch_size, sft.epochs) == (5e-5, 128, 1.0)  # A.3
    assert (grpo.lr, grpo.prompts_per_generation, grpo.prompts_per_step, grpo.rollouts) == (1e-6, 128, 64, 8)  # A.3
    assert (grpo.clip_low, grpo.clip_high, grpo.beta, grpo.max_completion_length) == (0.22, 0.28, 0.0, 16384)  # A.3
    assert PosttrainSettings(prompts="p", teacher="t").checkpoints == 5  # Sec. 5.2
    assert CorpusSettings(sources=(SourceSettings(path="a", share=1.0),)).tokens == 400_000_000  # A.1
    assert CrosscoderSettings().features == 32768 and CrosscoderSettings().sparsity == ReLU(weight=2.0)  # A.1
    assert (TrainingSettings().batch_size, TrainingSettings().lr, TrainingSettings().epochs) == (1024, 1e-4, 1)  # A.1
    assert AttributionSettings().norm_p == 1 and AttributionSettings().tails[0] == 0.8  # Eq. 4, Sec. 5.1
    assert DynamicsSettings().top == 50 and SelectionSettings().threshold == 0.2  # Sec. 5.2, Sec. 7
    assert InterventionSettings().amplify == 3.0 and InterventionSettings().controls == 100  # Sec. 7.1


def test_every_setting_has_a_sentence() -> None:
    without = [
        f"{section.__name__}.{name}"
        for section in sections()
        for name, field in section.model_fields.items()
        if not (field.description or "").endswith(".")
    ]
    assert without == []


def test_every_section_is_frozen_and_refuses_what_it_does_not_know() -> None:
    for section in sections():
        assert section.model_config.get("frozen") and section.model_config.get("extra") == "forbid"
    with pytest.raises(ValidationError, match="frozen"):
        setattr(study(), "seed", 1)  # noqa: B010 -- an assignment would not pass the type checker


def test_the_least_study_names_models_and_text() -> None:
    least = study()
    assert least.posttrain is None and least.evaluation.tasks == () and least.crosscoder.lineups == {}
    assert Study.model_validate_json(least.model_dump_json()) == least


def test_the_kind_of_sparsity_decides_which_settings_it_has() -> None:
    batchtopk = CrosscoderSettings.model_validate({"sparsity": {"kind": "batchtopk", "k": 3}})
    assert batchtopk.sparsity == BatchTopK(k=3)
    with pytest.raises(ValidationError, match="weight"):
        CrosscoderSettings.model_validate({"sparsity": {"kind": "batchtopk", "weight": 2.0}})


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        (LineupSettings, {"base": ""}),
        (LineupSettings, {"base": "b", "layer": 0}),
        (LineupSettings, {"base": "b", "tuned": {"base": "x"}}),
        (LineupSettings, {"base": "b", "checkpoints": {"rl": ["x"]}}),
        (LineupSettings, {"base": "b", "tuned": {"a/b": "x"}}),
        (SFTSettings, {"lr": 0.0}),
        (SFTSettings, {"lr": float("inf")}),
        (GRPOSettings, {"rollouts": 1}),
        (GRPOSettings, {"prompts_per_generation": 100, "prompts_per_step": 64}),
        (GRPOSettings, {"micro_batch_size": 7}),
        (PosttrainSettings, {"prompts": "p"}),
        (PosttrainSettings, {"prompts": "p", "teacher": "t", "teacher_model": "m"}),
        (PosttrainSettings, {"prompts": "p", "teacher": "t", "reward": "two words"}),
        (CorpusSettings, {"sources": []}),
        (CorpusSettings, {"sources": [{"path": "a", "share": 0.5}]}),
        (ActivationSettings, {"sink_multiple": 0}),
        (TrainingSettings, {"beta1": 1.0}),
        (AttributionSettings, {"norm_p": 3}),
        (SelectionSettings, {"held_out": 1.0}),
        (InterventionSettings, {"confidence": 0.5}),
        (Study, {"name": "../up", "lineup": {"base": "b"}, "corpus": {"sources": HALVES}}),
    ],
)
def test_what_cannot_be_is_refused(section: type[BaseModel], settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        section.model_validate(settings)
