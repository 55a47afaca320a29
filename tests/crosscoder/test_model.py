import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import BatchTopK, ReLU

MODELS = ("base", "sft", "rl")


def crosscoder(sparsity: ReLU | BatchTopK = ReLU(weight=2.0), seed: int = 0) -> Crosscoder:  # noqa: B008
    made = Crosscoder(models=MODELS, d_model=8, features=20, sparsity=sparsity, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        made.scale.copy_(torch.tensor([0.5, 2.0, 3.0]))
    return made


def activations(tokens: int = 12, seed: int = 5) -> Tensor:
    return torch.randn(tokens, 3, 8, generator=torch.Generator().manual_seed(seed))


def test_the_loss_of_a_small_example_is_the_one_on_paper() -> None:
    made = Crosscoder(models=("base", "rl"), d_model=2, features=1, sparsity=ReLU(weight=2.0))
    with torch.no_grad():
        made.W_enc.copy_(torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]]))
        made.W_dec.copy_(torch.tensor([[[3.0, 4.0], [0.0, 1.0]]]))
        made.b_enc.fill_(-1.0)
    # token 1: f = 1 + 2 - 1 = 2, reconstruction ((6, 8), (0, 2)); token 2: f = max(0, 0 + 0 - 1) = 0
    tokens = torch.tensor([[[1.0, 5.0], [7.0, 2.0]], [[0.0, 1.0], [2.0, 0.0]]])
    loss = made.loss(tokens)
    # errors: 25 + 9 + 49 + 0 = 83, and 1 + 4 = 5; penalty: 2 * (5 + 1) = 12, and 0
    assert loss.reconstruction.item() == pytest.approx((83 + 5) / 2)
    assert loss.sparsity.item() == pytest.approx(12 / 2)
    assert loss.total.item() == pytest.approx(44 + 2 * 6)


def loss_in_plain_loops(made: Crosscoder, values: Tensor) -> float:
    """Eq. 7 with beta, in Python floats."""
    total, b_enc, b_dec = 0.0, made.b_enc.tolist(), made.b_dec.tolist()
    W_enc, W_dec = made.W_enc.tolist(), made.W_dec.tolist()
    for token in values.tolist():
        x = [[entry / float(made.scale[m]) for entry in token[m]] for m in range(3)]
        error, penalty, hat = 0.0, 0.0, [[b_dec[m][i] for i in range(8)] for m in range(3)]
        for k in range(made.features):
            pre = b_enc[k]
            for m in range(3):
                for i in range(8):
                    pre += x[m][i] * W_enc[m][i][k]
            f = max(0.0, pre)
            for m in range(3):
                row = W_dec[k][m]
                penalty += f * math.sqrt(sum(entry * entry for entry in row))
                for i in range(8):
                    hat[m][i] += f * row[i]
        for m in range(3):
            error += sum((x[m][i] - hat[m][i]) ** 2 for i in range(8))
        total += error + 2.0 * penalty
    return total / len(values)


def test_the_loss_equals_one_written_in_plain_loops() -> None:
    made = crosscoder()
    assert made.loss(activations()).total.item() == pytest.approx(loss_in_plain_loops(made, activations()), rel=1e-6)


def test_the_weight_of_the_penalty_can_be_ramped() -> None:
    loss = crosscoder().loss(activations(), sparsity_weight=0.5)
    assert loss.total.item() == pytest.approx((loss.reconstruction + 0.5 * loss.sparsity).item())
    assert loss.sparsity_weight == 0.5


def test_decoder_rows_start_with_the_norm_asked_for_and_the_encoder_as_their_transpose() -> None:
    made = Crosscoder(models=MODELS, d_model=16, features=64, decoder_init_norm=0.08)
    torch.testing.assert_close(made.W_dec.norm(dim=-1), torch.full((64, 3), 0.08))
    assert torch.equal(made.W_enc, made.W_dec.permute(1, 2, 0))
    assert not made.b_enc.any() and not made.b_dec.any()


def test_no_two_weights_share_memory() -> None:
    made = Crosscoder(models=("base", "rl"), d_model=2, features=1)  # one feature: the transpose is contiguous as it is
    assert len({parameter.data_ptr() for parameter in made.parameters()}) == 4


def test_a_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (Crosscoder(models=MODELS, d_model=4, features=6, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.W_dec, again.W_dec)
    assert not torch.equal(first.W_dec, other.W_dec)


def test_the_branches_and_the_bias_add_up_to_the_joint_pre_activation() -> None:
    made, values = crosscoder(), activations()
    with torch.no_grad():
        made.b_enc.fill_(100.0)  # far above zero the activation function is the identity
    branches = [made.encode_branch(values[:, m], model) - made.b_enc for m, model in enumerate(MODELS)]
    torch.testing.assert_close(sum(branches) + made.b_enc, made.encode(values), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("sparsity", [ReLU(), BatchTopK(k=3)])
def test_units_do_not_matter_where_the_scale_goes_with_them(sparsity: ReLU | BatchTopK) -> None:
    made, values = crosscoder(sparsity), activations()
    features, reconstruction, loss = made.encode(values), made.decode(made.encode(values)), made.loss(values)
    made.scale.mul_(4.0)
    assert torch.equal(made.encode(4.0 * values), features)
    assert torch.equal(made.decode(features), 4.0 * reconstruction)
    assert torch.equal(made.loss(4.0 * values).total, loss.total)


@pytest.mark.parametrize("sparsity", [ReLU(), BatchTopK(k=3)])
def test_the_canonical_gauge_forgets_how_features_were_scaled(sparsity: ReLU | BatchTopK) -> None:
    """Acceptance test T10: powers of two make the rescaling exact in floating point."""
    plain, rescaled = crosscoder(sparsity), crosscoder(sparsity)
    factors = 2.0 ** torch.randint(-3, 4, (20,), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        plain.threshold.fill_(0.4)
        rescaled.threshold.fill_(0.4)
        rescaled.W_enc.mul_(factors)
        rescaled.b_enc.mul_(factors)
        rescaled.W_dec.div_(factors[:, None, None])
    plain.canonicalise()
    rescaled.canonicalise()
    for (name, tensor), other in zip(plain.state_dict().items(), rescaled.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name
    assert torch.equal(plain.encode(activations()), rescaled.encode(activations()))


@pytest.mark.parametrize("sparsity", [ReLU(), BatchTopK(k=3)])
def test_the_canonical_gauge_changes_no_reconstruction_and_no_loss(sparsity: ReLU | BatchTopK) -> None:
    made, values = crosscoder(sparsity), activations()
    made.threshold.fill_(0.4)
    reconstruction, loss = made.decode(made.encode(values)), made.loss(values)
    made.canonicalise()
    torch.testing.assert_close(made.decoder_norms(), torch.ones(20))
    torch.testing.assert_close(made.decode(made.encode(values)), reconstruction, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made.loss(values).total, loss.total)


def test_a_feature_without_a_decoder_is_left_alone_by_the_gauge() -> None:
    made = crosscoder()
    with torch.no_grad():
        made.W_dec[7] = 0.0
    before = made.W_enc[:, :, 7].clone()
    made.canonicalise()
    assert torch.equal(made.W_enc[:, :, 7], before)
    assert not made.W_dec[7].any()


def test_batch_top_k_is_trained_on_the_largest_contributions_of_the_batch() -> None:
    made, values = crosscoder(BatchTopK(k=2)), activations(10)
    pre = made.pre_activations(values)
    contributions = pre.clamp(min=0) * made.decoder_norms()
    cut = contributions.flatten().sort(descending=True).values[19]
    kept = torch.where(contributions >= cut, pre, torch.zeros(()))
    residual = (values - made.decode(kept)) / made.scale[:, None]
    assert int((kept > 0).sum()) == 20
    torch.testing.assert_close(made.loss(values).reconstruction, residual.square().sum() / 10)


def test_auxk_rebuilds_the_residual_from_dead_features_alone() -> None:
    made, values = crosscoder(BatchTopK(k=2, aux_weight=0.25, aux_k=1)), activations()
    dead = torch.zeros(20, dtype=torch.bool)
    dead[4] = True
    loss = made.loss(values, dead=dead)
    kept = values - _residual_of_training(made, values) * made.scale[:, None]
    residual = (values - kept) / made.scale[:, None]
    code = made.pre_activations(values)[:, 4].clamp(min=0)
    expected = (residual - code[:, None, None] * made.W_dec[4]).square().sum() / len(values)
    torch.testing.assert_close(loss.sparsity, expected)
    torch.testing.assert_close(loss.total, loss.reconstruction + 0.25 * expected)


def _residual_of_training(made: Crosscoder, values: Tensor) -> Tensor:
    pre = made.pre_activations(values)
    contributions = pre.clamp(min=0) * made.decoder_norms()
    cut = contributions.flatten().topk(2 * len(values)).values.min()
    return values / made.scale[:, None] - made.decode(pre * (contributions >= cut)) / made.scale[:, None]


@pytest.mark.parametrize("sparsity", [ReLU(weight=1.5, warmup=0.1), BatchTopK(k=3, aux_k=2)])
def test_a_crosscoder_comes_back_from_disk_as_it_was(tmp_path: Path, sparsity: ReLU | BatchTopK) -> None:
    made = crosscoder(sparsity, seed=4)
    made.threshold.fill_(0.7)
    made.provenance = {"commit": "abc", "steps": 12}
    made.canonicalise().save(tmp_path / "joint")
    loaded = Crosscoder.load(tmp_path / "joint")
    assert (loaded.models, loaded.sparsity, loaded.seed) == (MODELS, sparsity, 4)
    assert loaded.provenance == {"commit": "abc", "steps": 12}
    assert all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert json.loads((tmp_path / "joint" / "config.json").read_text())["gauge"] == "sum_norm"
    assert {path.name for path in (tmp_path / "joint").iterdir()} == {"config.json", "crosscoder.safetensors"}
    assert torch.equal(Crosscoder.from_pretrained(tmp_path / "joint").W_dec, made.W_dec)


def test_a_crosscoder_before_the_gauge_says_so_on_disk(tmp_path: Path) -> None:
    crosscoder().save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["gauge"] == "none"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        Crosscoder.load(tmp_path)
    crosscoder().save(tmp_path)
    (tmp_path / "crosscoder.safetensors").unlink()
    with pytest.raises(ValueError, match=r"crosscoder\.safetensors is missing"):
        Crosscoder.load(tmp_path)


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    crosscoder().save(tmp_path)
    weights, config = tmp_path / "crosscoder.safetensors", tmp_path / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged") as caught:
        Crosscoder.load(tmp_path)
    assert "\n" not in str(caught.value)
    weights.write_bytes(whole)
    config.write_text(config.read_text().replace('"features": 20', '"features": 21'))
    with pytest.raises(ValueError, match="calls for"):
        Crosscoder.load(tmp_path)
    config.write_text('{"models": ["base"], "d_model": 8}')
    with pytest.raises(ValueError, match="does not describe a crosscoder"):
        Crosscoder.load(tmp_path)
    config.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        Crosscoder.load(tmp_path)


def test_an_unknown_sparsity_on_disk_is_refused(tmp_path: Path) -> None:
    crosscoder().save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("relu", "gated"))
    with pytest.raises(ValueError, match="'gated' is unknown"):
        Crosscoder.load(tmp_path)


def test_a_name_that_is_neither_a_folder_nor_a_repository_is_refused() -> None:
    with pytest.raises(ValueError, match="neither a folder here nor a hub repository"):
        Crosscoder.from_pretrained("no/such/crosscoder/here")


def test_activations_that_do_not_fit_are_refused_in_words() -> None:
    made = crosscoder()
    with pytest.raises(ValueError, match=r"activations hold 2 models; this crosscoder reads \['base', 'sft', 'rl'\]"):
        made.encode(torch.zeros(4, 2, 8))
    with pytest.raises(ValueError, match="width 9; this crosscoder was made for d_model 8"):
        made.encode(torch.zeros(4, 3, 9))
    with pytest.raises(ValueError, match="width 9"):
        made.encode_branch(torch.zeros(4, 9), "rl")
    with pytest.raises(ValueError, match="knows no model 'dpo'"):
        made.encode_branch(torch.zeros(4, 8), "dpo")
    with pytest.raises(ValueError, match="got 19 features; this crosscoder has 20"):
        made.decode(torch.zeros(4, 19))


def test_columns_follow_names_and_not_positions() -> None:
    made = Crosscoder(models=("base", "rl"), d_model=4, features=4)
    assert made.columns(("base", "sft", "rl")) == [0, 2]
    assert made.columns(("rl", "base")) == [1, 0]
    with pytest.raises(ValueError, match="add rl to the lineup"):
        made.columns(("base", "sft"))


@pytest.mark.parametrize("models", [(), ("base", "base")])
def test_models_must_be_named_once_each(models: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="name at least one model, and each of them once"):
        Crosscoder(models=models, d_model=4, features=4)


def test_pushing_uploads_exactly_the_two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str]]] = []

    class Hub:
        def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
            calls.append((repo, [f"private={private}"]))

        def upload_folder(self, *, repo_id: str, folder_path: str) -> None:
            calls.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))

    monkeypatch.setattr("featdiff.crosscoder.model.HfApi", Hub)
    crosscoder().push_to_hub("me/diff")
    assert calls == [("me/diff", ["private=True"]), ("me/diff", ["config.json", "crosscoder.safetensors"])]
