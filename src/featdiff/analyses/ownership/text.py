"""Who owns the features, in the report: the tails of every tuned model, and what latent scaling leaves of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from featdiff.analyses.ownership.figures import scaling_histogram, specificity_histogram
from featdiff.analyses.ownership.result import Ownership
from featdiff.config.crosscoder import ReLU
from featdiff.config.study import BASE
from featdiff.files import as_json, load
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.section import Section
from featdiff.presentation.style import colour_of
from featdiff.presentation.words import count, listing, plural, sparsity
from featdiff.run.plan import Plan

Row = tuple[str, str]
"""Name of a crosscoder, and a tuned model of it."""


@dataclass(frozen=True)
class Shown:
    """What the page shows of a run's crosscoders."""

    found: Mapping[str, Ownership]
    """By name of the crosscoder."""
    names: Sequence[str]
    """Those of each tuned model with the base (Fig. 1), then that of all models (Fig. 3)."""
    peers: Mapping[str, str]
    """By name of a crosscoder with a penalty, one by BatchTopK over the same models, which shrinks no feature."""
    sparsity: Mapping[str, str]
    models: Sequence[str]
    """Of the study, base first."""
    l1: float | None
    """Largest weight of an L1 penalty."""
    seeds: int
    """Crosscoders of each kind that were trained from different seeds."""

    @property
    def rows(self) -> list[Row]:
        """The tuned models of the crosscoders that are shown."""
        return self._rows(self.names)

    @property
    def tails(self) -> list[Row]:
        """The same and their peers, where the study has cuts."""
        names = dict.fromkeys([*self.names, *self.peers.values()])
        return [(name, model) for name, model in self._rows(names) if self.found[name].of[model].scaled]

    def _rows(self, names: Sequence[str] | Mapping[str, None]) -> list[Row]:
        return [(name, model) for name in names for model in self.found[name].models if model != BASE]


def section_of(plan: Plan) -> Section | None:
    """The part of the report; nothing before the stage has been made."""
    if not plan.run.path("attribution").is_dir():
        return None
    peers = {name: peer for name in plan.shown if (peer := _peer(plan, name)) is not None}
    names = dict.fromkeys([*plan.shown, *peers.values()])
    weights = [one.sparsity.weight for one in plan.crosscoders.values() if isinstance(one.sparsity, ReLU)]
    return report_section(
        Shown(
            found={name: load(Ownership, plan.run.path("attribution", f"{name}.json")) for name in names},
            names=plan.shown,
            peers=peers,
            sparsity={name: sparsity(plan.crosscoders[name].sparsity) for name in names},
            models=plan.models,
            l1=max(weights, default=None),
            seeds=len(plan.seeds[plan.joint]),
        )
    )


def report_section(shown: Shown) -> Section:
    """Histograms and tables of what is shown."""
    return Section(
        anchor="owners",
        title="Who owns the features",
        template="ownership/section.html",
        values={"shown": shown},
        figures=[*_specificity_pictures(shown), *_scaling_pictures(shown)],
        findings=list(findings(shown)),
        caveats=list(caveats(shown)),
    )


def findings(shown: Shown) -> Iterator[str]:
    """The tail of each tuned model in its crosscoder with the base, above the first cut."""
    pairs = [(shown.found[name], model) for name, model in shown.rows if shown.found[name].score == "NRN"]
    tails = [(model, found.alive, found.of[model].specificity.tails) for found, model in pairs]
    if tails and tails[0][2]:
        cut = next(iter(tails[0][2]))
        said = [f"{count(above[cut])} of {count(alive)} for {model}" for model, alive, above in tails]
        yield f"Alive features that belong to the tuned model by more than {cut} of their norm: {listing(said)}."


def caveats(shown: Shown) -> Iterator[str]:
    """What shrinkage, the norm, and a single seed leave open."""
    if shown.l1 is not None:
        yield (
            f"An L1 penalty erases contributions below {shown.l1 / 2:g} (where activations have mean norm "
            f"sqrt(d_model)) from a model, and so makes features look more specific than they are; {_scaled(shown)}."
        )
    if moved := [text for row in shown.rows if (text := _moved_by_norm(shown, row))]:
        yield f"L1 norms depend on the basis of the residual stream: {listing(moved)}."
    unknown = "was not measured" if shown.seeds == 1 else "is known for the crosscoder only"
    yield (
        f"{plural(shown.seeds, 'crosscoder seed')} and one run of each model: how much of this another seed would "
        f"repeat {unknown}."
    )


def tail_sentence(found: Ownership, name: str, model: str) -> str:
    """What latent scaling leaves of the tail at the lowest cut, and of truly absent directions, in one sentence."""
    tail = found.of[model].lowest
    kept = "–" if tail.random_absent is None else f"{100 * tail.random_absent:.0f} %"
    return (
        f"{model} in {name}: of {plural(tail.before, 'feature')} above {tail.cut:g}, "
        f"{count(tail.absent)} absent elsewhere, {count(tail.shrunk)} only shrunk, "
        f"{count(tail.rebuilt)} rebuilt by others, {count(tail.unmeasured)} too rare to tell. "
        f"Of random directions in their place, {kept} would be called absent."
    )


def _scaled(shown: Shown) -> str:
    """What latent scaling leaves of all tails at the lowest cut."""
    lowest = [shown.found[name].of[model].lowest for name, model in shown.tails]
    if not sum(tail.before for tail in lowest):
        return "latent scaling, which tells the two apart, found no tail to test"
    left, before = sum(tail.absent for tail in lowest), sum(tail.before for tail in lowest)
    return f"latent scaling leaves {count(left)} of {plural(before, 'feature')} in the tails above {lowest[0].cut:g}"


def _moved_by_norm(shown: Shown, row: Row) -> str:
    """How the first tail differs between the two norms; nothing where it does not."""
    name, model = row
    one = shown.found[name].of[model].specificity
    for cut, tail in one.tails.items():
        l2 = one.tails_l2[cut]
        return f"{tail} by L1 but {l2} by L2 above {cut} for {model} in {name}" if l2 != tail else ""
    return ""


def _peer(plan: Plan, name: str) -> str | None:
    """The first BatchTopK crosscoder over the same models, unless `name` is one itself."""
    own = plan.crosscoders[name]
    if own.sparsity.kind == "batchtopk":
        return None
    peers = (other for other, one in plan.crosscoders.items() if one.sparsity.kind == "batchtopk")
    return next((other for other in peers if plan.crosscoders[other].models == own.models), None)


def _specificity_pictures(shown: Shown) -> Iterator[Picture]:
    for position, (name, model) in enumerate(shown.rows):
        found = shown.found[name]
        one, score = found.of[model].specificity, found.score
        alike = [(shown.found[other], of) for other, of in shown.rows if shown.found[other].score == score]
        largest = max(max(other.of[of].specificity.counts) for other, of in alike)
        tails = listing([f"{plural(number, 'feature')} above {cut}" for cut, number in one.tails.items()])
        yield Picture(
            name=file_name(score, position, name, model),
            section=score,
            figure=specificity_histogram(found, model, colour_of(model, shown.models), largest),
            title=f"{score} of {model} in the crosscoder {name}",
            finding=f"{score} of {model}, crosscoder of {listing(found.models)}: {tails}, "
            f"of {count(found.alive)} alive ({count(found.features)} in all).",
            numbers={"lineup": name, "model": model, "alive": found.alive, "features": found.features}
            | {"score": score, "specificity": as_json(one)},
        )


def _scaling_pictures(shown: Shown) -> Iterator[Picture]:
    """A histogram of nu_eps for every tail that holds a feature that was measured."""
    for position, (name, model) in enumerate(shown.tails):
        found = shown.found[name]
        one = found.of[model]
        if one.nu is not None and any(one.nu.beyond):
            yield Picture(
                name=file_name("scaling", position, name, model),
                section="scaling",
                figure=scaling_histogram(found, name, model, colour_of(model, shown.models)),
                title=f"Latent scaling of the features of {model} in the crosscoder {name}",
                finding=tail_sentence(found, name, model),
                numbers={"lineup": name, "model": model, "nu": as_json(one.nu), "tails": as_json(one.scaled)}
                | {"scaling": as_json(found.scaling)},
            )
