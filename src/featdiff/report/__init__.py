"""The result of a study on one page."""

from featdiff.report.data import (
    AccuracyCell,
    ControlDraws,
    CorpusCard,
    DynamicsPanel,
    EffectRow,
    ModelCard,
    QualityRow,
    ReportData,
    SelectionPanel,
    SetChange,
    SpecificityPanel,
)
from featdiff.report.page import write_report

__all__ = [
    "AccuracyCell",
    "ControlDraws",
    "CorpusCard",
    "DynamicsPanel",
    "EffectRow",
    "ModelCard",
    "QualityRow",
    "ReportData",
    "SelectionPanel",
    "SetChange",
    "SpecificityPanel",
    "write_report",
]
