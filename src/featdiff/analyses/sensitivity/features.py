"""Of a sensitivity analysis, what follows from features: which each crosscoder chooses, and what its edits do."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch

from featdiff.analyses.sensitivity.layer_context import Bed, choose, edited, matched, whole_model
from featdiff.analyses.sensitivity.variants import Place
from featdiff.attribution.robustness import bracketing_points
from featdiff.config.sensitivity import SensitivitySettings
from featdiff.files import Record, read_json, write_json
from featdiff.progress import Progress
from featdiff.run.intervention_context import paper_edits
from featdiff.selection.similarity import selection_similarity


def choose_features(settings: SensitivitySettings, places: Sequence[Place], own: Place, folder: Path) -> None:
    """A file for each crosscoder: the features that it chooses, and how alike they are to those of the study's own."""
    missing = [place for place in places if not choice_file(place, folder).is_file()]
    if not missing:
        return
    p, draws, seed = settings.rbo_p, own.plan.study.selection.null_draws, own.plan.study.seed
    own_bed = Bed.of(own.plan)
    reference = choose(own.plan, own_bed, own.name, p)
    with Progress("choosing features", len(places), "crosscoder", len(places) - len(missing)) as progress:
        for here in _by_layer(missing):
            bed = own_bed if here[0].point.choice.layer == own.point.choice.layer else Bed.of(here[0].plan)
            for place in here:
                found = reference if place == own else choose(place.plan, bed, place.name, p)
                pairs = matched((own.plan, own.name), (place.plan, place.name), (own_bed, bed), settings.tokens)
                alike = selection_similarity(reference.choice, found.choice, pairs, p, draws, seed)
                record = found.to_json() | alike.to_json() | {"matched": pairs.share(pairs.acceptance)}
                write_json(choice_file(place, folder), record)
                progress.advance()


def edit_features(places: Sequence[Place], own: Place, folder: Path) -> None:
    """A file for each crosscoder from which an effect is read, and each of the two edits that the paper makes."""
    wanted = [place for place in _read_from(places, own) if read_json(choice_file(place, folder))["chosen"]]
    tests = paper_edits(own.plan)
    missing = [place for place in wanted if not all(effect_file(place, test.model, folder).is_file() for test in tests)]
    with Progress("editing features", len(wanted), "crosscoder", len(wanted) - len(missing)) as progress:
        for here in _by_layer(missing):
            bed = Bed.of(here[0].plan)
            uppers = [whole_model(here[0].plan, bed, test.model) for test in tests]
            for place in here:
                record = read_json(choice_file(place, folder))
                chosen, half = (torch.tensor(record[key], dtype=torch.long) for key in ("chosen", "without_held_out"))
                for test, upper in zip(tests, uppers, strict=True):
                    if not effect_file(place, test.model, folder).is_file():
                        found = edited(place.plan, bed, place.name, test, upper, chosen, half)
                        write_json(effect_file(place, test.model, folder), found)
                progress.advance()


def choice_file(place: Place, folder: Path) -> Path:
    """Of the features that a crosscoder chooses."""
    return folder / "choices" / f"{place.name}.json"


def effect_file(place: Place, model: str, folder: Path) -> Path:
    """Of the edit of one model with a crosscoder's features."""
    return folder / "effects" / place.name / f"{model}.json"


def curves(places: Sequence[Place]) -> list[list[Place]]:
    """The crosscoders of each choice, from the weakest sparsity to the strongest."""
    found = dict[str, list[Place]]()
    for place in places:
        found.setdefault(place.point.choice.name, []).append(place)
    return [sorted(here, key=lambda place: place.point.strength) for here in found.values()]


def bases_of(quality: Record) -> dict[str, float]:
    """What choices are compared at: L0, and the share of variance that is left over, the mean over models."""
    return {"l0": quality["l0"], "variance_explained": 1 - mean(quality["variance_explained"].values())}


def _read_from(places: Sequence[Place], own: Place) -> list[Place]:
    """Crosscoders between which a number is read at equal L0 or variance explained; of the study's own choice, all."""
    wanted, target = list[Place](), bases_of(own.quality())
    for curve in curves(places):
        bases = [bases_of(place.quality()) for place in curve]
        found = {at for base, x in target.items() for at in bracketing_points([one[base] for one in bases], x)}
        wanted += [place for at, place in enumerate(curve) if place.point.choice.kind == "reference" or at in found]
    return wanted


def _by_layer(places: Sequence[Place]) -> list[list[Place]]:
    layers = dict.fromkeys(place.point.choice.layer for place in places)
    return [[place for place in places if place.point.choice.layer == layer] for layer in layers]
