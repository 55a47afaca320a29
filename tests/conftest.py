"""What every test shares: one thread, and the same random numbers in each."""

import os

# Also for the processes that tests start. Tensors here are tiny: a second thread only costs. Nothing may be downloaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import random

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
# Without a GPU, programs written in Triton run on the CPU; triton looks at this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed the global generators, on which no code of ours should depend."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
