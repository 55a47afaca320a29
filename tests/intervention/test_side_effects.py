from dataclasses import asdict

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from featdiff.intervention.side_effects import text_shift


def test_drift_is_torchs_kl_and_cross_entropy_on_what_has_a_label() -> None:
    plain, edited = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    labels = torch.randint(7, (2, 5))
    labels[0, 3] = -100
    found = asdict(text_shift(plain, edited, labels).record())
    flat = [logits.flatten(0, 1)[labels.flatten() != -100].log_softmax(-1) for logits in (plain, edited)]
    assert found["tokens"] == 9
    assert found["kl"] == pytest.approx(
        float(kl_div(flat[1], flat[0], reduction="batchmean", log_target=True)), rel=1e-4
    )
    wanted = {
        name: float(cross_entropy(logits.flatten(0, 1), labels.flatten()))
        for name, logits in (("before", plain), ("after", edited))
    }
    assert found["cross_entropy"] == pytest.approx(wanted, rel=1e-4)


def test_an_edit_that_changes_nothing_drifts_nowhere_and_parts_add_up() -> None:
    logits, labels = torch.randn(4, 3, 6), torch.randint(6, (4, 3))
    assert text_shift(logits, logits, labels).kl == 0.0
    other = torch.randn(4, 3, 6)
    whole = text_shift(logits, other, labels)
    first, second = (text_shift(logits[part], other[part], labels[part]) for part in (slice(0, 2), slice(2, 4)))
    assert (first + second).kl == pytest.approx(whole.kl) and (first + second).tokens == whole.tokens
