"""`attribute`: read the crosscoders, write who owns their features and what latent scaling says of it."""

from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from featdiff.attribution import Attribution, LatentScaling, latent_scalings
from featdiff.attribution.latent_scaling import Ratios
from featdiff.crosscoder import Crosscoder
from featdiff.files import Json, write_json
from featdiff.run.held_out import held_out_activations
from featdiff.run.models import load_lineup
from featdiff.run.ownership import RATIOS, scaled_tails_of
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of


def attribute(plan: Plan, folder: Path) -> None:
    """Write `<crosscoder>.safetensors` (scores, nu) and `<crosscoder>.json` (tails) for every crosscoder.

    One pass of the models over held-out tokens serves the latent scaling of all crosscoders.
    """
    settings, device = plan.study.attribution, plan.study.lineup.device
    batches = held_out_activations(plan, load_lineup(plan, plan.harvested), settings.scaling.tokens)
    scalings = latent_scalings(
        [Crosscoder.load(plan.run.path("crosscoders", name)).to(device) for name in plan.crosscoders],
        batches,
        space=settings.space,
        min_active=settings.scaling.min_active,
        seed=plan.study.seed,
    )
    for name, scaling in zip(plan.crosscoders, scalings, strict=True):
        attribution = attribution_of(plan, name)
        tensors = {key: getattr(attribution, key) for key in ("mas", "mas_l2", "cosine", "density", "alive")}
        tensors |= _scaling_tensors(scaling)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
        tails = {model: _tails(plan, attribution, scaling, model) for model in attribution.models}
        record = {"space": scaling.space, "tokens": scaling.tokens, "min_active": scaling.min_active}
        record |= settings.scaling.model_dump(include={"max_error", "max_reconstruction"})
        record |= {"uncounted": scaling.uncounted}
        write_json(folder / f"{name}.json", {"models": list(attribution.models), "tails": tails, "scaling": record})


def _scaling_tensors(scaling: LatentScaling) -> dict[str, Tensor]:
    tensors = {"beta_error": scaling.beta_error, "beta_reconstruction": scaling.beta_reconstruction}
    tensors["active"] = scaling.active
    for kind in RATIOS:
        ratios: Ratios = getattr(scaling, kind)
        tensors |= {f"{kind}_nu_error": ratios.error, f"{kind}_nu_reconstruction": ratios.reconstruction}
    return tensors


def _tails(plan: Plan, attribution: Attribution, scaling: LatentScaling, model: str) -> dict[str, Json]:
    """The tails of one model; under "scaled" what latent scaling leaves of each, and what it took out and why."""
    found = {f"{tail.cut:g}": asdict(tail) for tail in scaled_tails_of(plan, attribution, scaling, model)}
    scaled: dict[str, Json] = {cut: tail["absent"] for cut, tail in found.items()}
    for why in ("shrunk", "rebuilt", "unmeasured"):
        scaled[why] = {cut: tail[why] for cut, tail in found.items()}
    for control in ("random_absent", "other_absent"):
        scaled[control] = {
            cut: tail[control] if tail[control] == tail[control] else None for cut, tail in found.items()
        }
    return {**attribution.tails(model, plan.study.attribution.tails), "scaled": scaled}
