"""What a stage of a study is, and what one is made from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from featdiff.config.fingerprint import described
from featdiff.costs.estimate import Cost, CostInputs
from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.folder import StagePlan
from featdiff.run.plan import Plan


def always(plan: Plan) -> bool:
    """Every study has the stage."""
    return True


def nothing(plan: Plan) -> dict[str, Json]:
    """No key."""
    return {}


def free(inputs: CostInputs) -> Cost:
    """Seconds, and a few megabytes."""
    return Cost()


@dataclass(frozen=True)
class Stage:
    """One step of a study: what it is called, made by, made from, and what is said of it.

    `settings` are the dotted paths of the settings that the stage reads: they are what `featdiff VERB STUDY --help`
    lists, and, but for those marked immaterial, what its fingerprint is taken of. The fingerprint also holds `method`,
    the seed, and those of the stages in `after` that the study has.
    """

    name: str
    """The verb on the command line."""
    help: str
    """One sentence in the imperative."""
    method: int
    """Raised by hand when the numbers of the stage change, so that nothing old passes for new."""
    settings: tuple[str, ...]
    after: tuple[str, ...]
    """The stages that it reads."""
    run: Callable[[Plan, Path], None]
    """Write the stage of a study into a folder."""
    cost: Callable[[CostInputs], Cost] = free
    """What the stage takes on given devices."""
    section: Callable[[Plan], Section | None] | None = None
    """The stage's part of the report; None where there is nothing to say."""
    summary: Callable[[Plan], Mapping[str, Json]] = nothing
    """The stage's keys of summary.json, from whatever has been made."""
    folder: str = ""
    """In the run; the stage's name unless it is given."""
    in_study: Callable[[Plan], bool] = always
    reads: Callable[[Plan], dict[str, Json]] = nothing
    """What else the stage is made from; a setting's path as the key replaces its value."""
    resumable: bool = False
    """Whether a killed attempt is gone on with."""

    def planned(self, plan: Plan, made: Mapping[str, StagePlan]) -> StagePlan:
        """The stage of one study, given those before it."""
        before = {f"stage {name}": made[name].fingerprint for name in self.after if name in made}
        values = {path: described(plan.study, path) for path in self.settings}
        made_from = {"method": self.method, **before, "seed": plan.study.seed, **values, **self.reads(plan)}
        return StagePlan(self.name, self.folder or self.name, made_from)
