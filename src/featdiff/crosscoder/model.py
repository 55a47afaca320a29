"""The crosscoder: one sparse dictionary that reads and writes several models at once (Eq. 1-3 and 5-7, any number of
models).

f      = act(sum_m W_enc[m] a[m] + b_enc)                      features, shared by all models
a^[m]  = sum_k f_k W_dec[k, m] + b_dec[m]                      reconstruction of model m

Activations come in and go out raw. Inside, each model's are divided by its `scale`, so that their mean norm is
sqrt(d_model); weights, features and loss live in these normalised units. The loss (Eq. 3 and 7) is in `loss.py`.
"""

import math
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from einops import einsum
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor, nn

from featdiff.config.crosscoder import (
    DECODER_INIT_NORM,
    MLP,
    BatchTopK,
    CrosscoderConfig,
    DeltaMSE,
    Design,
    JumpReLU,
    ReLU,
    Sparsity,
    check_blocks,
)
from featdiff.crosscoder.feature_blocks import Blocks
from featdiff.crosscoder.files import CONFIG, QUALITY, WEIGHTS, read_config, read_density, read_weights, write_files
from featdiff.crosscoder.loss import Loss, loss
from featdiff.crosscoder.sparsity import inference_features


class Crosscoder(nn.Module):
    """A dictionary of `features` over the residual streams of `models`, base first.

    At the start every row W_dec[k, m] is a random direction of norm `decoder_init_norm`, drawn independently for every
    model: no feature begins shared, so what ends up shared was learned. W_enc starts as the transpose, biases at 0.

    >>> crosscoder = Crosscoder(models=("base", "sft", "rl"), d_model=16, features=64, sparsity=ReLU(weight=2.0),
    seed=0)
    >>> crosscoder.encode(torch.zeros(5, 3, 16)).shape
    torch.Size([5, 64])
    """

    W_enc: nn.Parameter
    """[models d_model features]"""
    b_enc: nn.Parameter
    """[features]"""
    W_dec: nn.Parameter
    """[features models d_model]"""
    b_dec: nn.Parameter
    """[models d_model]"""
    scale: Tensor
    """[models]; raw = scale * normalised."""
    threshold: Tensor
    """[]; the smallest contribution that BatchTopK keeps at inference; else 0."""
    density: Tensor | None
    """[features]; share of held-out tokens on which each feature fires, as training measured it; None where unknown."""
    history: list[dict[str, float]]
    """Records of its training, as in metrics.jsonl; empty for one that was not trained here."""
    log_threshold: nn.Parameter | None
    """[features]; log of the threshold theta of every feature under JumpReLU; else None, and absent from files."""
    W_in: nn.Parameter | None
    """[models d_model hidden]; with b_hidden and W_hidden the hidden layer of an MLP; else None, and not in files."""
    b_hidden: nn.Parameter | None
    """[hidden]"""
    W_hidden: nn.Parameter | None
    """[hidden features]"""

    def __init__(
        self,
        models: tuple[str, ...],
        d_model: int,
        features: int,
        sparsity: Sparsity = ReLU(),  # noqa: B008 -- frozen
        seed: int = 0,
        decoder_init_norm: float = DECODER_INIT_NORM,
        design: Design = Design(),  # noqa: B008 -- frozen
    ) -> None:
        super().__init__()
        if not models or len(set(models)) != len(models):
            raise ValueError(f"models are {list(models)}; name at least one model, and each of them once")
        if d_model < 1 or features < 1 or decoder_init_norm <= 0:
            raise ValueError(f"{d_model=}, {features=} and {decoder_init_norm=} must all be positive")
        self.models, self.d_model, self.features = tuple(models), d_model, features
        self.sparsity, self.seed, self.design = sparsity, seed, design
        self.blocks = self._blocks()
        self.provenance: dict[str, object] = {}
        self.history = []
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(features, len(models), d_model, generator=generator)
        rows = decoder_init_norm * directions / directions.norm(dim=-1, keepdim=True)
        if self.blocks is not None:
            self.blocks.begin(rows)
        self.W_dec = nn.Parameter(rows)
        # In memory both hold one row of models x d_model per feature: training reads and writes whole rows.
        self.W_enc = nn.Parameter(rows.clone().permute(1, 2, 0))
        self.b_enc = nn.Parameter(torch.zeros(features))
        self.b_dec = nn.Parameter(torch.zeros(len(models), d_model))
        self.register_buffer("scale", torch.ones(len(models)))
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("density", None, persistent=False)
        match sparsity:
            case JumpReLU(threshold=theta):
                self.log_threshold = nn.Parameter(torch.full((features,), math.log(theta)))
            case ReLU() | BatchTopK():
                self.register_parameter("log_threshold", None)
        hidden: dict[str, Tensor | None] = dict.fromkeys(("W_in", "b_hidden", "W_hidden"))
        if isinstance(design.encoder, MLP):
            width = design.encoder.width
            entries = torch.randn(len(models), d_model, width, generator=generator) / math.sqrt(len(models) * d_model)
            hidden = {"W_in": entries, "b_hidden": torch.zeros(width), "W_hidden": torch.zeros(width, features)}
        for name, tensor in hidden.items():
            self.register_parameter(name, None if tensor is None else nn.Parameter(tensor))

    def encode(self, activations: Float[Tensor, "tokens models d_model"]) -> Float[Tensor, "tokens features"]:
        """Features of raw activations, each token by itself, from all models jointly (Eq. 1 and 5)."""
        return self._active(self.pre_activations(activations))

    def encode_branch(
        self, activations: Float[Tensor, "tokens d_model"], model: str
    ) -> Float[Tensor, "tokens features"]:
        """Features that `model`'s branch reads from its own raw activations: its W_enc alone, and all of b_enc (Sec.
        3.2).

        A feature that M models share reads about 1/M of its joint value here, since the other terms of the sum are
        missing; under BatchTopK the joint threshold applies all the same.
        """
        index = self.index(model)
        self._check_width(activations.shape[-1])
        normalised = activations / self.scale[index]
        return self._active(self._encoded(normalised[:, None], self.W_enc, slice(index, index + 1)))

    def decode(self, features: Float[Tensor, "tokens features"]) -> Float[Tensor, "tokens models d_model"]:
        """Raw reconstruction of every model's activations (Eq. 2 and 6)."""
        if features.shape[-1] != self.features:
            raise ValueError(f"got {features.shape[-1]} features; this crosscoder has {self.features}")
        return (einsum(features, self.W_dec, "t f, f m d -> t m d") + self.b_dec) * self.scale[:, None]

    def pre_activations(self, activations: Float[Tensor, "tokens models d_model"]) -> Float[Tensor, "tokens features"]:
        """sum_m W_enc[m] a[m] / scale[m] + b_enc, of raw activations; an MLP adds its hidden layer."""
        return self._encoded(self.normalise(activations), self.W_enc)

    def normalise(self, activations: Float[Tensor, "tokens models d_model"]) -> Float[Tensor, "tokens models d_model"]:
        """Raw activations in the units of the loss."""
        if activations.shape[1] != len(self.models):
            raise ValueError(
                f"activations hold {activations.shape[1]} models; this crosscoder reads {list(self.models)}"
            )
        self._check_width(activations.shape[-1])
        return activations / self.scale[:, None]

    def decoder_norms(self) -> Float[Tensor, " features"]:
        """sum_m |W_dec[k, m]|_2, the weight of feature k in the penalty."""
        return self.W_dec.norm(dim=-1).sum(dim=-1)

    def thresholds(self) -> Float[Tensor, " features"] | None:
        """theta = exp(log_threshold), the pre-activation above which a feature is active; None unless JumpReLU."""
        return None if self.log_threshold is None else self.log_threshold.exp()

    def loss(
        self,
        activations: Float[Tensor, "tokens models d_model"],
        sparsity_weight: float | None = None,
        dead: Bool[Tensor, " features"] | None = None,
    ) -> Loss:
        """The loss of Eq. 3 and 7 (`loss.py`) on raw activations, in normalised units; differentiable.

        `sparsity_weight` stands in for the weight of `sparsity` (beta, AuxK's, or that of tanh) while that ramps up.
        `dead` features take part in AuxK; without them it is 0. BatchTopK keeps the largest contributions of this
        batch, as in training. The gradient of `log_threshold` is JumpReLU's straight-through estimate. Shared rows and
        rows that a model lacks get the gradients that keep them so (`Blocks`).
        """
        blocks, W_enc, W_dec = self.blocks, self.W_enc, self.W_dec
        if blocks is not None:
            blocks = blocks.to(W_dec.device)
            W_enc, W_dec = blocks.free(W_enc, W_dec)
        normalised = self.normalise(activations)
        return loss(
            self.sparsity,
            self.design.objective,
            normalised,
            self._encoded(normalised, W_enc),
            W_dec,
            self.b_dec,
            threshold=self.thresholds(),
            price=1.0 if blocks is None else blocks.price,
            sparsity_weight=sparsity_weight,
            dead=dead,
        )

    @torch.no_grad()
    def canonicalise(self) -> "Crosscoder":
        """Put every feature into the gauge sum_m |W_dec[k, m]|_2 = 1, in place, and return the crosscoder.

        Encoder columns, biases and JumpReLU's thresholds grow by what the decoder rows lose, so reconstruction,
        penalties and BatchTopK's threshold stay as they are. A feature without a decoder is left alone.
        """
        norms = self.decoder_norms()
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        self.W_dec.div_(norms[:, None, None])
        self.W_enc.mul_(norms)
        self.b_enc.mul_(norms)
        if self.W_hidden is not None:
            self.W_hidden.mul_(norms)
        if self.log_threshold is not None:
            self.log_threshold.add_(norms.log())
        return self

    def index(self, model: str) -> int:
        """Position of `model` on the models axis."""
        if model not in self.models:
            raise ValueError(f"this crosscoder knows no model {model!r}; it reads {list(self.models)}")
        return self.models.index(model)

    def columns(self, models: tuple[str, ...]) -> list[int]:
        """Where this crosscoder's models lie on the models axis of activations that hold `models`."""
        if missing := [model for model in self.models if model not in models]:
            raise ValueError(
                f"the crosscoder reads {list(self.models)}, but the activations hold {list(models)}; "
                f"add {', '.join(missing)} to the lineup"
            )
        return [models.index(model) for model in self.models]

    def config(self) -> CrosscoderConfig:
        """What this crosscoder was made with and comes from, as config.json holds it."""
        norms = self.decoder_norms()
        unit = bool(((norms - 1).abs() < 1e-4).logical_or(norms == 0).all())
        return CrosscoderConfig(
            **dict(self.design),
            models=self.models,
            d_model=self.d_model,
            features=self.features,
            sparsity=self.sparsity,
            seed=self.seed,
            gauge="sum_norm" if unit else "none",
            provenance=self.provenance,
        )

    def save(self, folder: str | Path) -> None:
        """Write config.json and crosscoder.safetensors; each is complete or absent, the config last.

        `density` is not written: it lies in quality.safetensors, which training writes beside them.
        """
        write_files(Path(folder), self.state_dict(), self.config())

    @staticmethod
    def load(folder: str | Path) -> "Crosscoder":
        """Read what `save` wrote, and `density` where training measured it in the same folder.

        ValueError where a file is missing, damaged, or at odds with the other.
        """
        folder = Path(folder)
        crosscoder = _empty(read_config(folder / CONFIG), folder)
        weights, wanted = read_weights(folder / WEIGHTS), crosscoder.state_dict()
        found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
        if found != shapes:
            raise ValueError(
                f"{folder / WEIGHTS} holds {found}, but {CONFIG} calls for {shapes}; restore or retrain it"
            )
        crosscoder.load_state_dict(weights)
        crosscoder.density = read_density(folder / QUALITY, crosscoder.features)
        return crosscoder

    @staticmethod
    def from_pretrained(path_or_repo: str | Path) -> "Crosscoder":
        """Load from a local folder, or else from a Hugging Face repository such as `owner/name`."""
        if Path(path_or_repo).is_dir():
            return Crosscoder.load(path_or_repo)
        try:
            files = [Path(hf_hub_download(str(path_or_repo), name)) for name in (WEIGHTS, CONFIG)]
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            raise ValueError(
                f"no crosscoder at {str(path_or_repo)!r}: neither a folder here nor a hub repository"
            ) from error
        with suppress(EntryNotFoundError):  # repositories of crosscoders whose density was not measured lack it
            hf_hub_download(str(path_or_repo), QUALITY)
        return Crosscoder.load(files[0].parent)

    def push_to_hub(self, repo: str, *, private: bool = True) -> None:
        """Upload to a Hugging Face repository, which is made if it is new; `density` too, where it is known."""
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save(folder)
            if self.density is not None:
                save_file({"density": self.density.cpu()}, Path(folder) / QUALITY)
            api.upload_folder(repo_id=repo, folder_path=folder)

    def _active(self, pre: Float[Tensor, "tokens features"]) -> Float[Tensor, "tokens features"]:
        return inference_features(self.sparsity, pre, self.decoder_norms(), self.threshold, self.thresholds())

    def _encoded(
        self,
        normalised: Float[Tensor, "tokens some d_model"],
        W_enc: Float[Tensor, "models d_model features"],
        models: slice = slice(None),
    ) -> Float[Tensor, "tokens features"]:
        """Pre-activations from the given models alone."""
        pre = einsum(normalised, W_enc[models], "t m d, m d f -> t f") + self.b_enc
        if self.W_in is None or self.b_hidden is None or self.W_hidden is None:
            return pre
        hidden = torch.relu(einsum(normalised, self.W_in[models], "t m d, m d h -> t h") + self.b_hidden)
        return pre + hidden @ self.W_hidden

    def _blocks(self) -> Blocks | None:
        """The features that the design sets apart; ValueError where it cannot."""
        models, design = self.models, self.design
        if isinstance(design.objective, DeltaMSE) and len(models) < 2:
            raise ValueError(f"the objective mse_delta compares models, and {list(models)} is one; use mse")
        check_blocks(models, self.features, self.sparsity, design)
        return Blocks.of(models, self.features, design)

    def _check_width(self, width: int) -> None:
        if width != self.d_model:
            raise ValueError(f"activations have width {width}; this crosscoder was made for d_model {self.d_model}")


def _empty(config: CrosscoderConfig, folder: Path) -> Crosscoder:
    """A crosscoder as `config` describes it, with weights yet to come."""
    try:
        made = Crosscoder(
            config.models, config.d_model, config.features, config.sparsity, config.seed, design=config.design
        )
    except ValueError as error:
        raise ValueError(
            f"{folder / CONFIG} does not describe a crosscoder ({error}); restore or retrain it"
        ) from error
    made.provenance = dict(config.provenance)
    return made
