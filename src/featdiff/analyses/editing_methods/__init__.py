"""Features, a steering vector, neurons and tuned weights as editing methods compared (Han et al., EMNLP 2025)."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from featdiff.analyses.editing_methods.result import EditingMethods
    from featdiff.evaluation.outcomes import Outcomes
    from featdiff.intervention.editing_methods import TaskItems
    from featdiff.models.loading import Lineup
    from featdiff.run.splice import Part

Which = Literal["choosing", "held out", "unseen"]


def run(plan: Plan, folder: Path) -> None:
    """Write `<method>.json` and `<method>.safetensors` (its shift of each neuron) for every method, and `ways.json`."""
    import torch

    from featdiff.analyses.editing_methods.compute import compare
    from featdiff.analyses.selection.result import SelectionResult
    from featdiff.config.study import BASE
    from featdiff.files import load, save
    from featdiff.intervention.editing_methods import MethodMaker, method_names
    from featdiff.run.intervention_context import load_experiment
    from featdiff.run.models import load_whole

    selection = load(SelectionResult, plan.run.path("selection", "selection.json"))
    names = method_names(plan.tuned, plan.study.selection.model)
    experiment = load_experiment(plan, BASE)
    items = {which: items_of(plan, experiment.lineup, which) for which in ("choosing", "held out", "unseen")}
    choosing, held_out = items["choosing"], items["held out"]
    assert choosing and held_out, "features were selected, so some task took part"
    features = torch.tensor(selection.without_held_out.chosen, dtype=torch.long)
    maker = MethodMaker(
        experiment, plan.study.ways, features, choosing, lambda name: load_whole(plan, plan.paths[name])
    )
    save(compare(maker, names, held_out, items["unseen"], _text(plan), folder), folder / "ways.json")


def summary(plan: Plan) -> dict[str, Json]:
    """The editing methods by name, and the overlaps of the neurons that they move."""
    found = _result(plan)
    return {} if found is None else found.summary()


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    from featdiff.analyses.editing_methods.text import section_of

    found = _result(plan)
    return None if found is None else section_of(found)


def _result(plan: Plan) -> "EditingMethods | None":
    from featdiff.analyses.editing_methods.result import EditingMethods
    from featdiff.files import load

    path = plan.run.path("ways", "ways.json")
    return load(EditingMethods, path) if path.is_file() else None


def items_of(plan: Plan, lineup: "Lineup", which: Which) -> "TaskItems | None":
    """One half of every task that took part in the selection, or every unseen task; None where there is none.

    Of each half at most `ways.items` are taken, at random; of an unseen task, which is not halved, twice as many.
    """
    from featdiff.config.study import BASE
    from featdiff.intervention.editing_methods import TaskItems
    from featdiff.run.evaluation import choice_tasks, outcomes_of, requests_of

    tasks = [task.name for task in choice_tasks(plan) if (task.role == "unseen") == (which == "unseen")]
    if not tasks:
        return None
    outcomes = [outcomes_of(plan, task) for task in tasks]
    rows = [_rows(plan, one, which) for one in outcomes]
    requests = [requests_of(plan, task, lineup) for task in tasks]
    return TaskItems.of(outcomes, requests, rows, BASE, plan.study.selection.model)


def _rows(plan: Plan, outcomes: "Outcomes", which: Which) -> "Tensor":
    """The items of one task by index.

    Critical items are parted as the selection of features parted them, all other items in the same proportion; so
    whatever is chosen on one half, of features or of strengths, has seen nothing of the other.
    """
    import torch

    from featdiff.config.study import BASE
    from featdiff.intervention.experiment import sampled
    from featdiff.selection.scores import split_held_out

    every, most = torch.arange(len(outcomes.sample_ids)), plan.study.ways.items
    seed, share = plan.study.seed, plan.study.selection.held_out
    if which == "unseen":
        return every[sampled(len(every), 2 * most, seed)]
    critical = outcomes.critical(BASE, plan.study.selection.model)
    parts = [split_held_out(some, share, seed) for some in (critical, every[~torch.isin(every, critical)])]
    half = torch.cat([one.choosing if which == "choosing" else one.held_out for one in parts]).sort().values
    return half[sampled(len(half), most, seed)]


def _text(plan: Plan) -> "list[Part]":
    """So many rows of held-out text as hold the tokens that the study wants; all where there are fewer."""
    import torch

    from featdiff.run.held_out import held_out_corpus
    from featdiff.run.splice import packed_parts

    corpus = held_out_corpus(plan)
    rows = -(-plan.study.intervention.neutral_tokens // corpus.input_ids.shape[1])
    some = corpus.select(torch.arange(min(rows, len(corpus.input_ids))))
    return packed_parts(some, plan.study.activations.batch_size) if rows else []
