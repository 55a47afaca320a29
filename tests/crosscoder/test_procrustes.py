from pathlib import Path

import pytest
import torch
from torch import Tensor

from featdiff.activations.stream import Activations
from featdiff.attribution import model_attribution_score
from featdiff.config.crosscoder import MLP, Design, Procrustes, ReLU
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.procrustes import rotations, turn_back, turned

MODELS = ("base", "sft", "rl")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthogonal(width: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(width, width, seed=seed)).Q


def aligned(tokens: int = 100, encoder: MLP | None = None) -> Crosscoder:
    design = Design(align=Procrustes(tokens)) if encoder is None else Design(align=Procrustes(tokens), encoder=encoder)
    return Crosscoder(MODELS, 6, 20, ReLU(), seed=1, design=design)


def batches(values: Tensor, size: int) -> list[Activations]:
    return [Activations(MODELS, part, torch.zeros(len(part), dtype=torch.int64)) for part in values.split(size)]


def test_the_planted_rotation_is_found_whatever_the_scales_and_means() -> None:
    planted = torch.stack([torch.eye(6), orthogonal(6, 1), orthogonal(6, 2)])
    base = normal(400, 6) * torch.arange(1.0, 7.0) + 3.0
    scales, means = torch.tensor([1.0, 5.0, 0.2]), normal(3, 6, seed=3)
    values = torch.einsum("td,med->tme", base, planted) * scales[:, None] + means  # a[m] planted[m] = a[0]
    made = aligned(400)
    made.scale.copy_(scales)
    found = rotations({"joint": made}, batches(values, 100), 100, Ranks())["joint"]
    torch.testing.assert_close(found, planted, atol=1e-5, rtol=0)
    seen = turned((values - means) / scales[:, None], found)
    torch.testing.assert_close(seen, base[:, None].expand(-1, 3, -1), atol=1e-4, rtol=0)


def test_only_so_many_tokens_are_read_as_are_wanted() -> None:
    values = normal(400, 3, 6)
    others = torch.cat([values[:100], normal(300, 3, 6, seed=1)])
    found = [rotations({"joint": aligned(100)}, batches(each, 50), 50, Ranks())["joint"] for each in (values, others)]
    assert torch.equal(found[0], found[1])
    assert not rotations({"plain": Crosscoder(MODELS, 6, 4)}, batches(values, 50), 50, Ranks())


@pytest.mark.parametrize("encoder", [None, MLP(5)])
def test_turning_back_gives_the_same_crosscoder_in_the_models_own_bases(encoder: MLP | None) -> None:
    rotation = torch.stack([torch.eye(6), orthogonal(6, 1), orthogonal(6, 2)])
    made, back = aligned(encoder=encoder), aligned(encoder=encoder)
    with torch.no_grad():
        for one in (made, back):
            one.b_dec.copy_(normal(3, 6))
            if one.W_hidden is not None:
                one.W_hidden.copy_(normal(5, 20, seed=7))
    values = normal(30, 3, 6, seed=5)
    turn_back(back, rotation)
    codes = made.encode(turned(values, rotation))
    torch.testing.assert_close(back.encode(values), codes)
    torch.testing.assert_close(turned(back.decode(codes), rotation), made.decode(codes))
    torch.testing.assert_close(float(back.loss(values).total), float(made.loss(turned(values, rotation)).total))
    mas = [model_attribution_score(one.W_dec, p=2) for one in (back, made)]
    torch.testing.assert_close(mas[0], mas[1])


def test_too_few_tokens_and_broken_ones_are_refused() -> None:
    with pytest.raises(ValueError, match=r"saw 5 tokens, fewer than d_model 6; raise crosscoder\.align\.tokens"):
        rotations({"joint": aligned()}, batches(normal(5, 3, 6), 5), 5, Ranks())
    values = normal(50, 3, 6)
    values[3, 1, 2] = torch.nan
    with pytest.raises(ValueError, match="procrustes saw activations that are NaN"):
        rotations({"joint": aligned()}, batches(values, 50), 50, Ranks())


def test_a_folder_keeps_that_models_were_aligned(tmp_path: Path) -> None:
    aligned(77).save(tmp_path)
    assert Crosscoder.load(tmp_path).design.align == Procrustes(77)
