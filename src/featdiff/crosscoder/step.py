"""One crosscoder in training: gradients of a batch, clipping, Adam, and who has been silent for how long.

How a step is computed follows the share of active pairs (token, feature) of the step before (`kernels/borders.py`).
The path is part of the state, so that a resumed run takes the same one; it changes results by no more than rounding.
"""

from dataclasses import replace
from importlib.util import find_spec
from math import sqrt

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from featdiff.config.crosscoder import MLP, BatchTopK, Sparsity
from featdiff.crosscoder.kernels.borders import PATHS, Path, next_path
from featdiff.crosscoder.kernels.cpu.step import Cpu
from featdiff.crosscoder.kernels.cpu.threads import Workers
from featdiff.crosscoder.kernels.dense import dense_gradients, feature_squares, grad_of, reference_gradients
from featdiff.crosscoder.kernels.parameter_rows import Batch, Found, Rates, Rows, step_weight
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.kernels.sparse_step import SparseStep
from featdiff.crosscoder.matmul import fast_int8
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import updated_threshold

GUESS = 0.95
"""Share of the last batch's cut at which BatchTopK looks for its cut; a high guess is a risk of a dense step, a low one
costs time."""


class Learner:
    """A crosscoder in training: its weights, Adam's moments, and how long each feature has been silent.

    `path` fixes how steps are computed; None follows the share of active pairs. `threads` share a step on a CPU, and
    `ranks` its tokens or its features: then the crosscoder holds some of the features only. All processes take the same
    decisions.
    """

    def __init__(
        self,
        crosscoder: Crosscoder,
        *,
        lr: float,
        betas: tuple[float, float],
        clip: float,
        path: Path | None = None,
        threads: int = 1,
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = Ranks() if ranks is None else ranks
        if isinstance(crosscoder.design.encoder, MLP):
            path = "reference"
            if self.ranks.count > 1:
                raise ValueError("the encoder mlp trains in one process; use linear, or start it without torchrun")
        self.crosscoder, self._clip, self._betas, self._fixed = crosscoder, clip, betas, path
        self.features = crosscoder.features * self.ranks.feature_shards
        self.parameters = dict(crosscoder.named_parameters())
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self._means = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}
        self._squares = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}
        device = crosscoder.W_dec.device
        self._steps = torch.zeros((), dtype=torch.int64)
        self._last_cut = torch.zeros(())
        self._path = torch.tensor(PATHS.index("dense" if path is None else path))
        self.silent_tokens = torch.zeros(crosscoder.features, dtype=torch.int64, device=device)
        self._weights = Rows.of({name: parameter.detach() for name, parameter in self.parameters.items()})
        self._gradients = Rows.of({name: grad_of(parameter) for name, parameter in self.parameters.items()})
        self._blocks = None if crosscoder.blocks is None else crosscoder.blocks.to(device)
        self._workers = Workers(threads)
        self._kernel: SparseStep | None = None
        if path != "reference":
            models = len(crosscoder.models)
            self._kernel = kernel_for(crosscoder.sparsity, self._weights, self._gradients, models, self._workers)
        self._adam: torch.optim.Adam | None = None  # only where needed: it loads some 140 MB of torch's compiler
        if self._kernel is None:
            self._adam = torch.optim.Adam(self.parameters.values(), lr=lr, betas=betas, fused=path != "reference")

    @property
    def path(self) -> Path:
        """How the next step will be computed."""
        return PATHS[int(self._path)]

    def gradients(self, normalised: Float[Tensor, "tokens models d_model"], ramp: float, total: int = 0) -> Found:
        """Fill the parameters' `grad` for one batch; `ramp` in [0, 1] multiplies the weight of L1 or of tanh.

        `total` is the number of tokens over all processes; 0: there is one process.
        """
        return self._workers.lead(lambda: self._find(normalised, ramp, total))

    def apply(self, found: Found, tokens: int, lr: float) -> None:
        """Clip the gradients to their largest global norm, take one Adam step, and count who was silent."""
        self._workers.lead(lambda: self._apply(found, tokens, lr))

    def dead(self) -> Bool[Tensor, " features"]:
        """Features that take part in AuxK; only BatchTopK has it."""
        match self.crosscoder.sparsity:
            case BatchTopK(dead_after_tokens=tokens):
                return self.silent_tokens >= tokens
            case _:
                return torch.zeros_like(self.silent_tokens, dtype=torch.bool)

    def tensors(self) -> dict[str, Tensor]:
        """All that a resumed run needs, under stable names."""
        means = {f"adam.{name}.exp_avg": tensor for name, tensor in self._means.items()}
        squares = {f"adam.{name}.exp_avg_sq": tensor for name, tensor in self._squares.items()}
        rest = {
            "adam.step": self._steps,
            "silent_tokens": self.silent_tokens,
            "last_cut": self._last_cut,
            "path": self._path,
        }
        margin = {} if self._kernel is None else {"margin": self._kernel.screen.margin}
        return {**self.crosscoder.state_dict(), **means, **squares, **rest, **margin}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
        if self._kernel is not None:
            self._kernel.refresh()

    @torch.no_grad()
    def _find(self, normalised: Float[Tensor, "tokens models d_model"], ramp: float, total: int) -> Found:
        batch = Batch(
            x=normalised.flatten(start_dim=1).contiguous(),
            total=total or len(normalised),
            weight=step_weight(self.crosscoder.sparsity, ramp),
            dead=self.dead(),
            guess=GUESS * float(self._last_cut),
            step=int(self._steps),
            objective=self.crosscoder.design.objective,
            price=None if self._blocks is None else self._blocks.price.to(normalised),
        )
        return self._kept_within(self._shared(self._found(batch)))

    def _found(self, batch: Batch) -> Found:
        if self._kernel is not None:
            return self._kernel.find(batch, self.path, self.ranks)
        if self.path == "reference":
            return reference_gradients(self.crosscoder, self._gradients, batch)
        norms = self._weights.norms(len(self.crosscoder.models))
        return dense_gradients(self.crosscoder.sparsity, self._weights, self._gradients, norms, batch, self.ranks)

    @torch.no_grad()
    def _apply(self, found: Found, tokens: int, lr: float) -> None:
        self._steps += 1
        square = self.ranks.sum_over_features(found.square_norm) + self._gradients.b_dec.double().square().sum()
        coefficient = min(1.0, self._clip / (sqrt(float(square)) + 1e-6))
        rates = Rates(lr, self._betas, int(self._steps), coefficient)
        if self._kernel is not None:
            self._kernel.update(Rows.of(self._means), Rows.of(self._squares), rates)
        else:
            self._torch_update(rates)
        if self._blocks is not None and self._blocks.tie(self.crosscoder.W_dec) and self._kernel is not None:
            self._kernel.refresh()
        self.silent_tokens += tokens
        self.silent_tokens.masked_fill_(found.fired, 0)
        if isinstance(self.crosscoder.sparsity, BatchTopK):
            self.crosscoder.threshold.copy_(updated_threshold(self.crosscoder.threshold, found.cut))
            self._last_cut.copy_(found.cut.nan_to_num(posinf=0.0))
        if self._fixed is None and self._kernel is not None:
            share = found.considered / (tokens * self.features)
            path = next_path(share, self.path, on_gpu=self.silent_tokens.is_cuda, fast_int8=fast_int8())
            self._path.fill_(PATHS.index(path))

    def _shared(self, found: Found) -> Found:
        """What all processes found together. Gradients are summed over those that hold other tokens."""
        ranks, gradients = self.ranks, self._gradients
        if ranks.count == 1:
            return found
        counts = found.fired.new_tensor([found.active, found.considered, float(found.sparsity)], dtype=torch.float64)
        ranks.sum_over_features(counts)
        if isinstance(self.crosscoder.sparsity, BatchTopK):
            counts[2] = found.sparsity  # AuxK is no sum over features
        if ranks.count > ranks.feature_shards:
            small = [counts, found.reconstruction, found.squared_error, found.fired, gradients.b_enc, gradients.b_dec]
            small += [] if gradients.log_threshold is None else [gradients.log_threshold]
            sums = ranks.sum_over_tokens(torch.cat([part.double().view(-1) for part in small]))
            for part, total in zip(small, sums.split([part.numel() for part in small]), strict=True):
                part.copy_(total.view(part.shape))
            ranks.sum_over_tokens(gradients.enc)
            ranks.sum_over_tokens(gradients.dec)
            found = replace(found, square_norm=feature_squares(gradients).sum())
            if self._kernel is not None:
                self._kernel.take_over_gradients()
        return replace(found, active=int(counts[0]), considered=int(counts[1]), sparsity=counts[2].float())

    def _kept_within(self, found: Found) -> Found:
        """Project the gradients onto what the blocks leave free, as autograd's are; their norm is what is left."""
        if self._blocks is None or self.path == "reference":
            return found
        shape = (len(self._gradients.b_enc), len(self.crosscoder.models), -1)
        self._blocks.keep_within(self._gradients.enc.view(shape), self._gradients.dec.view(shape))
        return replace(found, square_norm=feature_squares(self._gradients).sum())

    def _torch_update(self, rates: Rates) -> None:
        assert self._adam is not None
        for name, parameter in self.parameters.items():
            grad_of(parameter).mul_(rates.coefficient)
            self._adam.state[parameter] = {
                "step": (self._steps - 1).to(parameter.device, torch.float32),
                "exp_avg": self._means[name],
                "exp_avg_sq": self._squares[name],
            }
        self._adam.param_groups[0]["lr"] = rates.lr
        self._adam.step()


def kernel_for(sparsity: Sparsity, weights: Rows, gradients: Rows, models: int, workers: Workers) -> SparseStep | None:
    """The kernel for these parameters; None where there is none: then torch's dense products do all the work.

    Kernels compute in float32. A GPU must multiply bfloat16, and triton be installed, as it is with torch for CUDA.
    """
    if weights.enc.dtype != torch.float32:
        return None
    match weights.enc.device.type:
        case "cpu":
            return Cpu(sparsity, weights, gradients, models, workers)
        case "cuda" if find_spec("triton") and torch.cuda.is_bf16_supported(including_emulation=False):
            # Not at the top: where there is no GPU, triton need not be installed.
            from featdiff.crosscoder.kernels.triton.step import Triton

            return Triton(sparsity, weights, gradients, models)
        case _:
            return None
