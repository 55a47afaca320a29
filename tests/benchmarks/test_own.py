import pytest
import torch
from data import mixture
from own import start_near_the_truth
from task import Shape

from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import BatchTopK, ReLU

SHAPE = Shape(models=2, d_model=64, features=512, tokens=512)


@pytest.mark.parametrize("l0", [8, 0.3 * 512])
@pytest.mark.parametrize("sparsity", [ReLU(), BatchTopK(k=8)])
def test_the_start_has_the_wanted_number_of_active_features_and_fits_better_than_the_mean(sparsity, l0) -> None:
    rows, batches = mixture(SHAPE, 8, 1)
    batch = next(batches)
    crosscoder = Crosscoder(("base", "tuned"), SHAPE.d_model, SHAPE.features, sparsity)
    start_near_the_truth(crosscoder, rows, batch, l0)
    with torch.no_grad():
        features = crosscoder.encode(batch)
        left = (crosscoder.decode(features) - batch).square().sum() / (batch - batch.mean(dim=0)).square().sum()
    assert float((features > 0).sum() / len(batch)) == pytest.approx(l0, rel=0.01)
    assert float(left) < 0.9
