"""Figures: each function draws one result and computes nothing."""

from featdiff.report.figures.accuracy import accuracy_bars
from featdiff.report.figures.effects import effect_plot
from featdiff.report.figures.heatmap import share_heatmap
from featdiff.report.figures.quality import quality_dots
from featdiff.report.figures.rank_shift import rank_shifts
from featdiff.report.figures.specificity import specificity_histogram

__all__ = ["accuracy_bars", "effect_plot", "quality_dots", "rank_shifts", "share_heatmap", "specificity_histogram"]
