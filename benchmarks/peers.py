"""Adapters: each lets a peer's own, unmodified code train on our activations; only their source is replaced.

An adapter imports the peer and returns a builder, so that what the imports cost in memory can be told apart. A built
trainer takes one real training step for every batch that it pulls: forward, backward, clipping where the peer clips,
optimizer, schedule, and its own bookkeeping. Logging and saving are off.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from subprocess import run
from types import SimpleNamespace

import torch
from standins import stand_in_for
from task import BETAS, L1, LR, Shape, Task
from torch import Tensor

FOREVER = 10**9
"""Steps of a run that never reaches the end of its schedules."""

Train = Callable[[Iterator[Tensor]], None]
"""Takes one training step for every batch [tokens models d_model]."""
Rebuild = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From a batch to its reconstruction, shaped as the peer shapes it, and the features [tokens features]."""


@dataclass(frozen=True)
class Trainer:
    """A trainer that is ready for its first step."""

    train: Train
    rebuild: Rebuild


@dataclass(frozen=True)
class Loaded:
    """An imported trainer: which version it is, and how to build it."""

    version: str
    build: Callable[[], Trainer]


def load(task: Task) -> Loaded:
    """Import the peer that `task` names."""
    match task.trainer:
        case "ckkissane":
            return ckkissane(task)
        case "crosscoder_learning":
            return crosscoder_learning(task)
        case "crosscode":
            return crosscode(task)
        case "sae-lens":
            return sae_lens(task)
        case _:
            return sparsify(task)


def ckkissane(task: Task) -> Loaded:
    """ckkissane/crosscoder-model-diff-replication: L1. Its two models are written into the code, and so any number of
    models is given as two of the same total width."""
    stand_in_for("IPython", "datasets", "pandas", "plotly", "transformer_lens", "wandb")
    sys.path.insert(0, task.source)
    module = import_module("trainer")

    def build() -> Trainer:
        source = SimpleNamespace(next=None)
        vars(module)["Buffer"] = lambda *_: source
        trainer = module.Trainer(_ckkissane_settings(task.shape), None, None, None)

        def train(batches: Iterator[Tensor]) -> None:
            source.next = lambda: halves(next(batches))
            while True:
                trainer.step()

        def rebuild(batch: Tensor) -> tuple[Tensor, Tensor]:
            features = trainer.crosscoder.encode(halves(batch))
            return trainer.crosscoder.decode(features), features

        return Trainer(train, rebuild)

    def halves(batch: Tensor) -> Tensor:
        return batch.view(len(batch), 2, -1)

    return Loaded(_revision(task.source), build)


def _ckkissane_settings(shape: Shape) -> dict[str, object]:
    return {
        "seed": 0,
        "batch_size": shape.tokens,
        "num_tokens": FOREVER * shape.tokens,
        "lr": LR,
        "beta1": BETAS[0],
        "beta2": BETAS[1],
        "l1_coeff": L1,
        "d_in": shape.width // 2,
        "dict_size": shape.features,
        "dec_init_norm": 0.08,
        "enc_dtype": "fp32",
        "device": "cpu",
        "wandb_project": "",
        "wandb_entity": "",
    }


def crosscoder_learning(task: Task) -> Loaded:
    """science-of-finetuning/crosscoder_learning: L1 on the squared error (it does not clip), or BatchTopK."""
    stand_in_for("datasets", "nnsight", "wandb", "zstandard")
    sys.path.insert(0, task.source)
    module = import_module("dictionary_learning.trainers.crosscoder")
    shape = task.shape
    common = {
        "num_layers": shape.models,
        "activation_dim": shape.d_model,
        "dict_size": shape.features,
        "lr": LR,
        "seed": 0,
        "device": "cpu",
        "layer": 0,
        "lm_name": "",
    }

    def build() -> Trainer:
        if task.variant == "batchtopk":
            trainer = module.BatchTopKCrossCoderTrainer(steps=FOREVER, k=round(task.l0), warmup_steps=0, **common)
        else:
            trainer = module.CrossCoderTrainer(
                l1_penalty=L1 / shape.models, use_mse_loss=True, warmup_steps=1, **common
            )

        def train(batches: Iterator[Tensor]) -> None:
            for step, batch in enumerate(batches):
                trainer.update(step, batch)

        def rebuild(batch: Tensor) -> tuple[Tensor, Tensor]:
            options = {"use_threshold": False} if task.variant == "batchtopk" else {}
            features = trainer.ae.encode(batch, normalize_activations=False, **options)
            return trainer.ae.decode(features, denormalize_activations=False), features

        return Trainer(train, rebuild)

    return Loaded(_revision(task.source), build)


def crosscode(task: Task) -> Loaded:
    """oli-clive-griffin/crosscode: L1, or BatchTopK (whose trainer leaves AuxK out of the loss that it returns)."""
    stand_in_for("datasets", "plotly", "schedulefree", "transformer_lens", "transformers", "wandb", "yaml")
    sys.path.insert(0, task.source)
    models = import_module("crosscode.models")
    batch_of = import_module("crosscode.data.activations_dataloader").ModelHookpointActivationsBatch
    adam = import_module("crosscode.trainers.config_common").AdamConfig
    shape, k = task.shape, round(task.l0)
    common = {
        "batch_size": shape.tokens,
        "num_steps": FOREVER,
        "log_every_n_steps": FOREVER,
        "optimizer": adam(learning_rate=LR, betas=BETAS, warmup_pct=0.0, warmdown_pct=0.0),
    }
    if task.variant == "batchtopk":
        trainer_class = import_module("crosscode.trainers.topk_crosscoder.trainer").TopKStyleAcausalCrosscoderTrainer
        settings_class = import_module("crosscode.trainers.topk_crosscoder.config").TopKTrainConfig
        settings = partial(settings_class, topk_style="batch_topk", k_aux=shape.d_model // 2)
        activation = partial(models.BatchTopkActivation, k)
    else:
        trainer_class = import_module("crosscode.trainers.l1_crosscoder.trainer").L1CrosscoderTrainer
        settings_class = import_module("crosscode.trainers.l1_crosscoder.config").L1TrainConfig
        settings, activation = partial(settings_class, final_lambda_s=L1), models.ReLUActivation

    def build() -> Trainer:
        crosscoder = models.ModelHookpointAcausalCrosscoder(
            n_models=shape.models,
            n_hookpoints=1,
            d_model=shape.d_model,
            n_latents=shape.features,
            activation_fn=activation(),
            init_strategy=models.AnthropicTransposeInit(dec_init_norm=0.1),
        )
        source = SimpleNamespace(n_models=shape.models, n_hookpoints=1, hookpoints=["residual"])
        log = SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
        trainer = trainer_class(settings(**common), source, crosscoder, log, torch.device("cpu"), task.data)
        # Step 0 would write logs, and those fail for more than two models.
        trainer.step = 1

        def train(batches: Iterator[Tensor]) -> None:
            source.get_activations_iterator = lambda: (batch_of(batch[:, :, None]) for batch in batches)
            trainer.train()

        def rebuild(batch: Tensor) -> tuple[Tensor, Tensor]:
            result = crosscoder.forward_train(batch[:, :, None])
            return result.recon_acts_BMPD, result.latents_BL

        return Trainer(train, rebuild)

    return Loaded(_revision(task.source), build)


def sae_lens(task: Task) -> Loaded:
    """SAELens on the concatenated activations: standard L1, the same under bfloat16 autocast (whose gradients are a few
    percent off), or BatchTopK."""
    saes = import_module("sae_lens")
    module = import_module("sae_lens.training.sae_trainer")
    settings = import_module("sae_lens.config").SAETrainerConfig
    shape = task.shape

    def build() -> Trainer:
        size = {"d_in": shape.width, "d_sae": shape.features, "device": "cpu"}
        if task.variant == "batchtopk":
            sae = saes.BatchTopKTrainingSAE(saes.BatchTopKTrainingSAEConfig(k=task.l0, **size))
        else:
            sae = saes.StandardTrainingSAE(saes.StandardTrainingSAEConfig(l1_coefficient=L1, **size))
        chosen = settings(
            total_training_samples=FOREVER * shape.tokens,
            train_batch_size_samples=shape.tokens,
            lr=LR,
            lr_end=LR,
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            autocast=task.variant == "autocast",
        )

        def train(batches: Iterator[Tensor]) -> None:
            module.SAETrainer(chosen, sae, (batch.flatten(1) for batch in batches)).fit()

        def rebuild(batch: Tensor) -> tuple[Tensor, Tensor]:
            features = sae.encode(batch.flatten(1))
            return sae.decode(features), features

        return Trainer(train, rebuild)

    return Loaded(version("sae-lens"), build)


def sparsify(task: Task) -> Loaded:
    """EleutherAI's sparsify on the concatenated activations: TopK with Adam, decoder rows of unit norm; no clipping."""
    module = import_module("sparsify")
    shape, k = task.shape, round(task.l0)

    class Source(torch.nn.Module):
        """Takes the place of the language model: it shows the next batch at its tap."""

        device = torch.device("cpu")
        dummy_inputs: dict[str, Tensor] = {}  # noqa: RUF012 -- the peer's interface

        def __init__(self) -> None:
            super().__init__()
            self.tap = torch.nn.Identity()
            self.batches: Iterator[Tensor] = iter(())

        @property
        def base_model(self) -> torch.nn.Module:
            return self

        def forward(self, tokens: Tensor | None = None) -> Tensor:
            batch = torch.zeros(1, shape.width) if tokens is None else next(self.batches).flatten(1)
            return self.tap(batch[None])

    class Tokens:
        """As many batches of tokens as anybody asks for; the source does not look at them."""

        def __len__(self) -> int:
            return FOREVER

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"input_ids": torch.zeros(shape.tokens, dtype=torch.int64)}

    def build() -> Trainer:
        settings = module.TrainConfig(
            sae=module.SaeConfig(num_latents=shape.features, k=k),
            batch_size=1,
            optimizer="adam",
            lr=LR,
            lr_warmup_steps=0,
            hookpoints=["tap"],
            log_to_wandb=False,
            save_every=FOREVER,
            save_dir=task.data,
        )
        source = Source()
        trainer = module.Trainer(settings, Tokens(), source)

        def train(batches: Iterator[Tensor]) -> None:
            source.batches = batches
            trainer.fit()

        def rebuild(batch: Tensor) -> tuple[Tensor, Tensor]:
            result = trainer.saes["tap"](batch.flatten(1))
            return result.sae_out, result.latent_acts

        return Trainer(train, rebuild)

    return Loaded(version("eai-sparsify"), build)


def _revision(folder: str) -> str:
    """The commit of a checkout, shortened; of a bare copy nothing is known."""
    if not (Path(folder) / ".git").exists():
        return "unknown"
    found = run(["git", "-C", folder, "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
