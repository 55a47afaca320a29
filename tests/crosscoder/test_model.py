import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from featdiff.config.crosscoder import BatchTopK, JumpReLU, ReLU, Sparsity
from featdiff.crosscoder.model import Crosscoder

MODELS = ("base", "sft", "rl")
SPARSITIES = [ReLU(), BatchTopK(k=3), JumpReLU(pre_weight=0.3)]


def crosscoder(sparsity: Sparsity = ReLU(weight=2.0), seed: int = 0) -> Crosscoder:  # noqa: B008
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


def test_the_loss_of_jump_relu_is_the_one_on_paper() -> None:
    sparsity = JumpReLU(weight=2.0, c=0.1, pre_weight=0.5, threshold=3.0)
    made = Crosscoder(models=("base", "rl"), d_model=1, features=2, sparsity=sparsity)
    with torch.no_grad():
        made.W_enc.copy_(torch.tensor([[[1.0, 2.0]], [[1.0, -1.0]]]))
        made.W_dec.copy_(torch.tensor([[[3.0], [-1.0]], [[0.0], [2.0]]]))
    # pre-activations 4 + 1 = 5 and 8 - 1 = 7, both active; then 1 + 1 = 2 and 2 - 1 = 1, both below the threshold of 3
    loss = made.loss(torch.tensor([[[4.0], [1.0]], [[1.0], [1.0]]]))
    # reconstruction (15, -5 + 14) against (4, 1), then (0, 0) against (1, 1); summed decoder norms 4 and 2
    assert loss.reconstruction.item() == pytest.approx((121 + 64 + 2) / 2)
    assert loss.sparsity.item() == pytest.approx((math.tanh(0.1 * 5 * 4) + math.tanh(0.1 * 7 * 2)) / 2)
    assert loss.pre_activation.item() == pytest.approx((1 * 4 + 2 * 2) / 2)
    assert (loss.sparsity_weight, loss.pre_weight) == (2.0, 0.5)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_the_total_is_the_sum_of_its_terms(sparsity: Sparsity) -> None:
    loss = crosscoder(sparsity).loss(activations(), sparsity_weight=0.7, dead=torch.arange(20) < 3)
    weighted = loss.reconstruction + 0.7 * loss.sparsity + loss.pre_weight * loss.pre_activation
    torch.testing.assert_close(loss.total, weighted)
    assert loss.sparsity > 0
    assert (loss.pre_activation.item() > 0) == (loss.pre_weight > 0) == isinstance(sparsity, JumpReLU)


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


def test_without_a_jump_nearby_the_gradient_of_jump_relu_is_that_of_finite_differences() -> None:
    made = crosscoder(JumpReLU(weight=1.5, pre_weight=0.4, bandwidth=1e-6)).double()
    values = activations().double()
    made.loss(values).total.backward()
    generator = torch.Generator().manual_seed(9)
    for name, parameter in made.named_parameters():
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        with torch.no_grad():
            parameter.add_(1e-6 * direction)
            above = made.loss(values).total
            parameter.sub_(2e-6 * direction)
            below = made.loss(values).total
            parameter.add_(1e-6 * direction)
        assert parameter.grad is not None
        slope = float((parameter.grad * direction).sum())
        assert float(above - below) / 2e-6 == pytest.approx(slope, rel=1e-6), name


def test_jump_relu_alone_has_thresholds() -> None:
    made = Crosscoder(models=MODELS, d_model=4, features=6, sparsity=JumpReLU(threshold=0.2))
    assert made.thresholds() is not None
    torch.testing.assert_close(made.thresholds(), torch.full((6,), 0.2))
    assert "log_threshold" in made.state_dict()
    for sparsity in (ReLU(), BatchTopK()):
        other = Crosscoder(models=MODELS, d_model=4, features=6, sparsity=sparsity)
        assert other.thresholds() is None and other.log_threshold is None
        assert set(other.state_dict()) == {"W_enc", "b_enc", "W_dec", "b_dec", "scale", "threshold"}


def test_features_of_jump_relu_exceed_their_thresholds() -> None:
    made, values = crosscoder(JumpReLU()), activations()
    theta, pre = made.thresholds(), made.pre_activations(values)
    assert theta is not None
    features = made.encode(values)
    assert torch.equal(features, torch.where(pre > theta, pre, 0.0))
    assert ((pre > 0) & (pre <= theta)).any() and features.any()
    alone = made.encode_branch(values[:, 1], "sft")
    assert bool(((alone == 0) | (alone > theta)).all()) and alone.any()


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


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_units_do_not_matter_where_the_scale_goes_with_them(sparsity: Sparsity) -> None:
    made, values = crosscoder(sparsity), activations()
    features, reconstruction, loss = made.encode(values), made.decode(made.encode(values)), made.loss(values)
    made.scale.mul_(4.0)
    assert torch.equal(made.encode(4.0 * values), features)
    assert torch.equal(made.decode(features), 4.0 * reconstruction)
    assert torch.equal(made.loss(4.0 * values).total, loss.total)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_the_canonical_gauge_forgets_how_features_were_scaled(sparsity: Sparsity) -> None:
    """Acceptance test T10: powers of two make the rescaling exact in floating point."""
    plain, rescaled = crosscoder(sparsity), crosscoder(sparsity)
    factors = 2.0 ** torch.randint(-3, 4, (20,), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        plain.threshold.fill_(0.4)
        rescaled.threshold.fill_(0.4)
        rescaled.W_enc.mul_(factors)
        rescaled.b_enc.mul_(factors)
        rescaled.W_dec.div_(factors[:, None, None])
        if rescaled.log_threshold is not None:
            rescaled.log_threshold.add_(factors.log())
    plain.canonicalise()
    rescaled.canonicalise()
    for (name, tensor), other in zip(plain.state_dict().items(), rescaled.state_dict().values(), strict=True):
        rounding = 1e-6 if name == "log_threshold" else 0.0  # the logarithm of a power of two is not exact
        torch.testing.assert_close(other, tensor, rtol=0, atol=rounding, msg=name)
    assert torch.equal(plain.encode(activations()), rescaled.encode(activations()))


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_the_canonical_gauge_changes_no_reconstruction_and_no_loss(sparsity: Sparsity) -> None:
    made, values = crosscoder(sparsity), activations()
    made.threshold.fill_(0.4)
    contributions = made.encode(values) * made.decoder_norms()
    reconstruction, loss = made.decode(made.encode(values)), made.loss(values)
    made.canonicalise()
    torch.testing.assert_close(made.decoder_norms(), torch.ones(20))
    torch.testing.assert_close(made.encode(values), contributions, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made.decode(made.encode(values)), reconstruction, rtol=1e-5, atol=1e-5)
    for term in ("reconstruction", "sparsity", "pre_activation", "total"):
        torch.testing.assert_close(getattr(made.loss(values), term), getattr(loss, term), msg=term)


def test_a_feature_without_a_decoder_is_left_alone_by_the_gauge() -> None:
    made = crosscoder(JumpReLU())
    assert made.log_threshold is not None
    with torch.no_grad():
        made.W_dec[7] = 0.0
    before, threshold = made.W_enc[:, :, 7].clone(), made.log_threshold[7].clone()
    made.canonicalise()
    assert torch.equal(made.W_enc[:, :, 7], before)
    assert torch.equal(made.log_threshold[7], threshold)
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


@pytest.mark.parametrize("sparsity", [ReLU(weight=1.5, warmup=0.1), BatchTopK(k=3, aux_k=2), JumpReLU(c=3.0)])
def test_a_crosscoder_comes_back_from_disk_as_it_was(tmp_path: Path, sparsity: Sparsity) -> None:
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


def test_the_density_that_training_measured_comes_along(tmp_path: Path) -> None:
    made = crosscoder()
    made.save(tmp_path)
    assert Crosscoder.load(tmp_path).density is None
    density = torch.arange(made.features) / made.features
    save_file({"density": density, "mean": torch.zeros(3, 8)}, tmp_path / "quality.safetensors")
    loaded = Crosscoder.from_pretrained(tmp_path)
    assert loaded.density is not None and torch.equal(loaded.density, density)
    assert "density" not in loaded.state_dict()
    save_file({"density": density[1:]}, tmp_path / "quality.safetensors")
    with pytest.raises(ValueError, match="no density of 20 features"):
        Crosscoder.load(tmp_path)


def test_a_crosscoder_before_the_gauge_says_so_on_disk(tmp_path: Path) -> None:
    crosscoder().save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["gauge"] == "none"


def test_thresholds_are_on_disk_under_jump_relu_alone(tmp_path: Path) -> None:
    for sparsity in SPARSITIES:
        crosscoder(sparsity).save(tmp_path)
        saved = load_file(tmp_path / "crosscoder.safetensors")
        assert ("log_threshold" in saved) == isinstance(sparsity, JumpReLU)
    crosscoder(ReLU()).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"sparsity": {"kind": "jumprelu"}}))
    with pytest.raises(ValueError, match=r"calls for .*log_threshold"):
        Crosscoder.load(tmp_path)


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
    with pytest.raises(ValueError, match="Invalid JSON"):
        Crosscoder.load(tmp_path)


def test_an_unknown_sparsity_on_disk_is_refused(tmp_path: Path) -> None:
    crosscoder().save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("relu", "gated"))
    with pytest.raises(ValueError, match="sparsity: Input tag 'gated'"):
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
    known = crosscoder()
    known.density = torch.zeros(known.features)
    known.push_to_hub("me/diff")
    assert calls[-1] == ("me/diff", ["config.json", "crosscoder.safetensors", "quality.safetensors"])
