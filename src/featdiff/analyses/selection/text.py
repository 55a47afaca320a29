"""The selection in the report."""

from featdiff.analyses.selection.result import SelectionResult
from featdiff.presentation.heatmap import share_heatmap
from featdiff.presentation.picture import Picture
from featdiff.presentation.section import Section
from featdiff.presentation.style import BLUE
from featdiff.presentation.words import count, listing, plural


def section_of(found: SelectionResult) -> Section:
    """Critical items and features by task, their overlaps, and what is selected elsewhere and under other seeds."""
    return Section(
        anchor="selection",
        title="Which features were selected",
        template="selection/section.html",
        values={"found": found},
        figures=[overlap_picture(found)],
        caveats=caveats(found),
    )


def overlap_picture(found: SelectionResult) -> Picture:
    """Overlap of the features of each two tasks (Fig. 4)."""
    counts = listing([f"{count(number)} in {task}" for task, number in found.per_task.items()])
    chosen = plural(len(found.chosen), "feature")
    return Picture(
        name="selection-overlap",
        section="selection",
        figure=share_heatmap(found.overlap, found.tasks, BLUE, "Jaccard overlap of selected features", "task"),
        title="Overlap of the selected features between tasks",
        finding=f"Selected: {counts}; {chosen} in the final set ({found.rule}).",
        numbers={
            "tasks": found.tasks,
            "per_task": found.per_task,
            "chosen": found.chosen,
            "overlap": found.overlap,
        },
    )


def caveats(found: SelectionResult) -> list[str]:
    """What the critical items alone do not show."""
    critical, tuned = sum(found.critical.values()), found.model
    if not critical:
        return []
    return [
        f"The {count(critical)} critical items were chosen because the base fails and {tuned} succeeds. On such "
        f"items any disturbance lowers {tuned} and raises the base, so the change by itself proves nothing; only "
        f"its distance from that by random features does. The mirror set (base right, {tuned} wrong) holds "
        f"{plural(sum(found.mirror.values()), 'item')}; the closer the two numbers, the more of the critical set is "
        "chance."
    ]
