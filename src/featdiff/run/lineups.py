"""Which crosscoders a study has: by its own list, or those that its analyses need; each as often as it has seeds."""

from featdiff.config.crosscoder import CrosscoderLineup
from featdiff.config.study import BASE, Study

JOINT = "joint"
PER_CHECKPOINT = {"matched", "same_seed_index"}  # alignments that take a crosscoder of the base and each checkpoint


def lineups_of(
    study: Study, tuned: tuple[str, ...], checkpoints: dict[str, tuple[str, ...]]
) -> dict[str, CrosscoderLineup]:
    """The lineups by name: all models; the base with each of them, with all its checkpoints, and with each of those."""
    if study.crosscoder.lineups:
        return study.crosscoder.lineups
    wanted, alignments = {JOINT: (BASE, *tuned)}, set(study.dynamics.alignments)
    if len(tuned) > 1:
        wanted |= {f"{BASE}-{name}": (BASE, name) for name in tuned}
    if "joint" in alignments:
        wanted |= {f"dynamics-{name}": (BASE, *names) for name, names in checkpoints.items() if names}
    if alignments & PER_CHECKPOINT:
        wanted |= {f"{BASE}-{name}": (BASE, name) for names in checkpoints.values() for name in names}
    return {name: CrosscoderLineup(models=models) for name, models in wanted.items()}


def seeds_of(study: Study, name: str, lineup: CrosscoderLineup) -> dict[str, int]:
    """Name and seed of each crosscoder of one lineup: the first is called as the lineup, the second NAME-seed1."""
    if lineup.seed is not None and lineup.seeds:
        raise ValueError(f"crosscoder.lineups.{name} gives both seed and seeds; keep one of them")
    alone = (study.seed,) if lineup.seed is None else (lineup.seed,)
    seeds = lineup.seeds or (study.crosscoder.seeds if lineup.seed is None else ()) or alone
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"the seeds of crosscoder {name} are {', '.join(map(str, seeds))}; give each of them once")
    return {name if position == 0 else f"{name}-seed{seed}": seed for position, seed in enumerate(seeds)}
