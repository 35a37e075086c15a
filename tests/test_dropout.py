"""Dropout by 16 random bits a weight: the right share, the right scale, the gradient of what was kept."""

import pytest
import torch

from ulmfit import models
from ulmfit.dropout import quick_dropout


@pytest.mark.parametrize("p", [0.02, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype, precision", [(torch.float32, 2**-22), (torch.bfloat16, 2**-8)])
def test_share_and_mean(p, dtype, precision):
    torch.manual_seed(0)
    weight = torch.ones(700, 1001)
    dropped = quick_dropout(weight, p, dtype)
    assert dropped.dtype == dtype
    dropped = dropped.float()
    share = (dropped == 0).double().mean()
    assert abs(share - p) < 5 * (p * (1 - p) / weight.numel()) ** 0.5 + 2**-16
    # Of the kept ones each is 1 / (1 - p), p being of 16 bits.
    assert (dropped[dropped != 0] * (1 - p) - 1).abs().max() < precision + 2**-16 / (1 - p)


def test_weights_are_dropped_independently():
    torch.manual_seed(0)
    kept = (quick_dropout(torch.ones(512, 512), 0.5) != 0).double() * 2 - 1
    # Neighbours share a random number of 64 bits; rows, columns and draws do not.
    for other in (kept.roll(1, 1), kept.roll(2, 1), kept.roll(3, 1), kept.roll(1, 0),
                  (quick_dropout(torch.ones(512, 512), 0.5) != 0).double() * 2 - 1):
        assert abs((kept * other).mean()) < 5 / 512


@pytest.mark.parametrize("p, share", [(0.0, 1.0), (1.0, 0.0)])
def test_all_or_none(p, share):
    assert (quick_dropout(torch.ones(9, 7), p) == share).all()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_gradient_is_that_of_what_was_kept(dtype, tolerance):
    torch.manual_seed(0)
    weight = torch.randn(33, 7, requires_grad=True)
    dropped = quick_dropout(weight, 0.25, dtype)
    by = torch.randn(33, 7).to(dtype)
    given = by.clone()
    dropped.backward(given)
    expected = torch.where(dropped != 0, by.float() / 0.75, torch.zeros(()))
    torch.testing.assert_close(weight.grad, expected, rtol=tolerance, atol=0)
    assert torch.equal(given, by)


def test_a_seed_gives_the_same_and_the_generator_goes_on():
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append([quick_dropout(torch.ones(50, 50), 0.5) for _ in range(2)])
    assert torch.equal(draws[0][0], draws[1][0]) and torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(*draws[0])


@pytest.mark.parametrize("bf16", [True, False])
def test_weight_dropout_of_the_models_in_training_alone(bf16):
    torch.manual_seed(0)
    model = models.language_model(20, emb_sz=4, n_hid=60, n_layers=1, dropmult=1.0, dropouts=models.Dropouts())
    dropped = model[0].rnns[0]
    words = torch.randint(0, 20, (2, 3))
    for train in (True, False, True):
        model.train(train)
        model.reset()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            model[0](words)
        weight, raw = dropped.module.weight_hh_l0, dropped.weight_hh_l0_raw
        share = (weight == 0).float().mean()
        assert abs(share - (dropped.weight_p if train else 0)) < 0.2
        assert weight.dtype == (torch.bfloat16 if bf16 and train else torch.float32)
        kept = weight != 0
        scale = 1 / (1 - dropped.weight_p) if train else 1
        torch.testing.assert_close(weight[kept].float(), raw[kept] * scale, rtol=2**-7, atol=0)
