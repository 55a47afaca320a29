"""What a direction says directly: by the model's own weights, for models with either kind of norm."""

import pytest
import torch
from tiny_study import random_model
from transformers import GPT2Config, GPT2LMHeadModel

from featdiff.models.residual import token_logits


def test_it_is_the_final_norm_and_the_unembedding_and_nothing_else() -> None:
    model = random_model(seed=0)
    with torch.no_grad():
        model.model.norm.weight.uniform_(0.5, 2.0)
    directions = torch.randn(3, 32)
    rms = directions / directions.square().mean(dim=1, keepdim=True).sqrt()
    wanted = (rms * model.model.norm.weight) @ model.lm_head.weight.T
    torch.testing.assert_close(token_logits(model, directions), wanted, rtol=1e-4, atol=1e-4)


def test_a_bias_of_the_norm_says_nothing_about_a_direction() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=8)).eval()
    with torch.no_grad():
        model.transformer.ln_f.weight.uniform_(0.5, 2.0)
        model.transformer.ln_f.bias.normal_()
    directions = torch.randn(2, 16)
    centred = directions - directions.mean(dim=1, keepdim=True)
    wanted = (centred / centred.std(dim=1, correction=0, keepdim=True) * model.transformer.ln_f.weight) @ (
        model.lm_head.weight.T
    )
    torch.testing.assert_close(token_logits(model, directions), wanted, rtol=1e-3, atol=1e-3)


def test_the_row_of_a_token_raises_that_token_most() -> None:
    model = random_model(seed=0)
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.nn.functional.normalize(torch.randn(512, 32), dim=1))
        model.model.norm.weight.fill_(1.0)
    assert token_logits(model, model.lm_head.weight[:20]).argmax(dim=1).tolist() == list(range(20))
    assert token_logits(model, 7.5 * model.lm_head.weight[:1])[0, 0] == pytest.approx(
        float(token_logits(model, model.lm_head.weight[:1])[0, 0]), rel=1e-4
    )
