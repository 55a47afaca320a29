"""What a study asks for: its models by name, its crosscoders, and its stages in order with what each is made from.

Nothing here imports torch, so that `featdiff show` answers at once.
"""

from collections.abc import Mapping
from pathlib import Path

from featdiff.config.crosscoder import CrosscoderPlan, check_blocks
from featdiff.config.study import BASE, LineupSettings, Study
from featdiff.config.study_file import DEMO_PREFIX
from featdiff.run.folder import Run
from featdiff.run.lineups import PER_CHECKPOINT, lineups_of, seeds_of

MADE_BY = {"sft": "sft", "rl": "grpo"}  # tuned model -> the paradigm of `posttrain` that makes it
REJECTION = "rft"
"""The control of drift: SFT on RL's own right answers. It has the name of its stage, and no part in the lineup."""


class Plan:
    """A study laid out over a run folder; of a variant of the study some folders lie `elsewhere`."""

    def __init__(self, study: Study, elsewhere: Mapping[str, Path] | None = None) -> None:
        self.study = study
        self.run = Run(Path(study.runs) / study.name, elsewhere)
        self.tuned: tuple[str, ...] = tuple(study.lineup.tuned) or (tuple(MADE_BY) if study.posttrain else ())
        if not self.tuned:
            raise ValueError("the study names no tuned model; give lineup.tuned (name = path), or posttrain")
        if study.lineup.tuned and study.posttrain:
            raise ValueError("the study gives both lineup.tuned and posttrain; keep the one that makes the models")
        self.models = (BASE, *self.tuned)
        self.checkpoints = {name: self._checkpoint_names(name) for name in self.tuned}
        self.paths = self._paths()
        self.seeds, self.crosscoders = self._crosscoders()
        self._check_names()

    def located(self, path: str) -> str:
        """A path of the study; what begins with `demo:` lies in the inputs that the run was given."""
        if path.startswith(DEMO_PREFIX):
            return str(self.run.path("inputs", path.removeprefix(DEMO_PREFIX)))
        return path

    @property
    def uses_demo(self) -> bool:
        """Whether any path of the study lies in the inputs that ship with featdiff."""
        return f'"{DEMO_PREFIX}' in self.study.model_dump_json()

    @property
    def harvested(self) -> tuple[str, ...]:
        """The models that some crosscoder reads, in the order of the study: one pass over the corpus serves all."""
        return self.models_of(tuple(self.crosscoders))

    @property
    def joint(self) -> str:
        """Name of the crosscoder over all models, which supplies the features (Sec. 6)."""
        return self.study.selection.lineup or self._lineup_of(self.models) or next(iter(self.crosscoders))

    @property
    def lineups(self) -> tuple[str, ...]:
        """The crosscoders that stand for themselves: the first seed of each lineup, but for those of the base and one
        checkpoint, which only dynamics compares."""
        single = {(BASE, name) for names in self.checkpoints.values() for name in names}
        return tuple(name for name in self.seeds if self.crosscoders[name].models not in single)

    @property
    def drifting(self) -> tuple[str, ...]:
        """What moved away from the base: the tuned models, and the control where the study makes it."""
        made = self.study.posttrain is not None and self.study.posttrain.rejection is not None
        return (*self.tuned, *([REJECTION] if made else []))

    def trail(self, name: str) -> dict[str, str]:
        """Folders of the checkpoints of a tuned model or of the control, by name, and last of the model itself."""
        if name != REJECTION or name in self.tuned:
            return {of: self.paths[of] for of in (*self.checkpoints[name], name)}
        names = self._checkpoint_names(name)
        folder = self.run.path("posttrain", REJECTION)
        made = {of: str(folder / f"checkpoint-{number}") for number, of in enumerate(names, 1)}
        return made | {name: made[names[-1]]}

    def pair(self, tuned: str) -> str | None:
        """Name of the crosscoder of the base and one tuned model, if the study has one."""
        return self._lineup_of((BASE, tuned))

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the crosscoders whose features are shown one by one: each tuned model's pair, then the joint one."""
        pairs = [pair for tuned in self.tuned if (pair := self.pair(tuned)) is not None and pair != self.joint]
        return (*pairs, self.joint)

    def models_of(self, crosscoders: tuple[str, ...]) -> tuple[str, ...]:
        """The models that any of these crosscoders reads, in the order of the study."""
        wanted = {model for name in crosscoders for model in self.crosscoders[name].models}
        return tuple(name for name in self.paths if name in wanted)

    def dynamics(self, tuned: str) -> str | None:
        """Name of the crosscoder of the base and the checkpoints of one tuned model, if the study has one."""
        return self._lineup_of((BASE, *self.checkpoints[tuned])) if self.checkpoints[tuned] else None

    def swap(self, tuned: str) -> str | None:
        """Name of the crosscoder of the base and one tuned model into which checkpoints are put; that of the base and
        the last checkpoint where this is the tuned model and has more seeds. Checkpoints must be harvested: which of
        their tokens are sinks is known from there."""
        if not set(self.checkpoints[tuned]) <= set(self.harvested):
            return None
        last = self.checkpoints[tuned][-1:]
        same = [name for name in (tuned, *last) if self.paths[name] == self.paths[tuned]]
        found = [name for model in same if (name := self._lineup_of((BASE, model))) is not None]
        return max(found, key=lambda name: len(self.seeds[name]), default=None)

    def per_checkpoint(self, tuned: str) -> tuple[str, ...]:
        """Names of the crosscoders of the base and each checkpoint of one tuned model; empty unless all are there."""
        found = [self._lineup_of((BASE, name)) for name in self.checkpoints[tuned]]
        return () if None in found else tuple(name for name in found if name is not None)

    @property
    def follows(self) -> tuple[str, ...]:
        """Tuned models whose checkpoints are compared under some alignment."""
        wanted = set(self.study.dynamics.alignments)
        return tuple(
            tuned
            for tuned, names in self.checkpoints.items()
            if names
            and (
                ("joint" in wanted and self.dynamics(tuned))
                or (wanted & PER_CHECKPOINT and self.per_checkpoint(tuned))
                or ("swap" in wanted and self.swap(tuned))
            )
        )

    def _lineup_of(self, models: tuple[str, ...]) -> str | None:
        return next((name for name in self.seeds if self.crosscoders[name].models == models), None)

    def _checkpoint_names(self, tuned: str) -> tuple[str, ...]:
        if self.study.posttrain:
            count = self.study.posttrain.checkpoints
        else:
            count = len(self.study.lineup.checkpoints.get(tuned, ()))
        return tuple(f"{tuned}-{number}" for number in range(1, count + 1))

    def _paths(self) -> dict[str, str]:
        lineup: LineupSettings = self.study.lineup
        paths = {BASE: self.located(lineup.base)}
        for tuned in self.tuned:
            if self.study.posttrain:
                folder = self.run.path("posttrain", MADE_BY[tuned])
                numbers = range(1, self.study.posttrain.checkpoints + 1)
                made = [str(folder / f"checkpoint-{number}") for number in numbers]
                paths |= {tuned: made[-1]} | dict(zip(self.checkpoints[tuned], made, strict=True))
            else:
                given = [self.located(path) for path in lineup.checkpoints.get(tuned, ())]
                paths[tuned] = self.located(lineup.tuned[tuned])
                paths |= dict(zip(self.checkpoints[tuned], given, strict=True))
        return paths

    def _crosscoders(self) -> tuple[dict[str, tuple[str, ...]], dict[str, CrosscoderPlan]]:
        """The crosscoders of every lineup, one for each seed, and all of them by name."""
        seeds, crosscoders = dict[str, tuple[str, ...]](), dict[str, CrosscoderPlan]()
        for name, lineup in lineups_of(self.study, self.tuned, self.checkpoints).items():
            made = seeds_of(self.study, name, lineup)
            if taken := [other for other in made if other in crosscoders]:
                raise ValueError(f"two crosscoders would be called {taken[0]}; give a lineup another name")
            seeds[name] = tuple(made)
            crosscoders |= {of_seed: self.study.crosscoder.plan(lineup, seed) for of_seed, seed in made.items()}
        return seeds, crosscoders

    def _check_names(self) -> None:
        for name, plan in self.crosscoders.items():
            if unknown := [model for model in plan.models if model not in self.paths]:
                raise ValueError(
                    f"crosscoder.lineups.{name} names {', '.join(unknown)}, which the study does not have; "
                    f"it has {', '.join(self.paths)}"
                )
            if plan.models[0] != BASE or len(set(plan.models)) != len(plan.models):
                raise ValueError(f"crosscoder.lineups.{name}.models must begin with {BASE} and name each model once")
            try:
                check_blocks(plan.models, plan.features, plan.sparsity, plan)
            except ValueError as error:
                raise ValueError(f"crosscoder {name}: {error}") from error
        for key in self.study.crosscoder.partition:
            if unknown := [model for model in key.split("+") if model not in self.paths]:
                raise ValueError(
                    f"crosscoder.partition names {', '.join(unknown)}, which the study does not have; "
                    f"it has {', '.join(self.paths)}"
                )
        if self.joint not in self.seeds:
            raise ValueError(f"selection.lineup is {self.joint}; give one of {', '.join(self.seeds)}")
        selecting = {task.role for task in self.study.evaluation.tasks} - {"unseen"}
        if selecting and self.study.selection.model not in self.crosscoders[self.joint].models:
            raise ValueError(
                f"selection.model is {self.study.selection.model}, but the crosscoder {self.joint} aligns "
                f"{', '.join(self.crosscoders[self.joint].models)}; set selection.model to one of these"
            )
