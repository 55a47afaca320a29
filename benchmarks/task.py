"""What a worker process is asked to measure, as JSON on its command line. Imports no torch: the controller stays small.

A child's peak memory is at least its parent's at the fork, so a controller that held torch would lift every figure.
"""

import json
from dataclasses import asdict, dataclass

LR = 1e-4
BETAS = (0.9, 0.999)
CLIP = 1.0
L1 = 0.1
"""For every trainer whose code lets one choose them. Under this weight of L1 the number of active features stays where
it was for the few steps of a run, at 50 per token as well as at 30 %; the cost of a step does not depend on the
weight."""


@dataclass(frozen=True)
class Shape:
    """Size of a crosscoder and of its batches."""

    models: int
    d_model: int
    features: int
    tokens: int
    """Tokens in a batch."""

    @property
    def width(self) -> int:
        """models x d_model: how wide a plain autoencoder on the concatenated activations is."""
        return self.models * self.d_model


SHAPES = {
    "tiny": Shape(models=2, d_model=32, features=256, tokens=128),
    "small": Shape(models=2, d_model=256, features=4096, tokens=1024),
    "medium": Shape(models=3, d_model=1024, features=16384, tokens=1024),
}
"""`tiny` only shows that everything runs."""


@dataclass(frozen=True)
class Task:
    """One trainer, as one worker process runs it."""

    trainer: str
    """featdiff, or the name of a peer."""
    variant: str
    """Path and sparsity of featdiff, or what the peer calls its variant; empty: its plain L1 or TopK."""
    tuned: bool
    """Whether the switches of `switches.py` are thrown."""
    source: str
    """Folder of the peer's code; empty for what is installed."""
    data: str
    """Folder that `data.py` wrote."""
    shape: Shape
    l0: float
    """Active features per token, on average."""

    def json(self) -> str:
        """This task for a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """The task that `json` gave."""
        fields = json.loads(text)
        return Task(**{**fields, "shape": Shape(**fields["shape"])})
