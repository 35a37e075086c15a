"""The fused softmax against torch's own; the sampled one against the full: exact where nothing is left out, right on
average where something is."""

import math

import pytest
import torch
import torch.nn.functional as F

from ulmfit import models
from ulmfit.softmax import (HEAD, ROWS, SAMPLES, Buffers, DecoderLoss, linear_cross_entropy, loss_and_correct,
                            sampled_cross_entropy, skip_decoder)

torch.set_num_threads(1)
VOCAB, SIZE, HEAD_WORDS = 40, 6, 5


def problem(rows: int = 7, bias: bool = True) -> tuple:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, SIZE, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(VOCAB, SIZE, generator=generator, dtype=torch.float64, requires_grad=True)
    added = torch.randn(VOCAB, generator=generator, dtype=torch.float64, requires_grad=True) if bias else None
    # One frequent target, the others rare; one of them twice.
    targets = torch.tensor([2, 30, 17, 17, 39, 8, 21])[:rows]
    return hidden, targets, weight, added


def full(hidden, targets, weight, bias) -> torch.Tensor:
    return F.cross_entropy(F.linear(hidden, weight, bias), targets)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("head, samples", [(HEAD_WORDS, 30), (HEAD_WORDS, 1000), (0, 34), (VOCAB, 1), (1000, 10)])
def test_it_is_exact_when_nothing_is_left_out(head, samples, bias):
    # 5 head words and 5 other targets leave 30; without a head, 6 targets leave 34.
    found, expected = problem(bias=bias), problem(bias=bias)
    loss, whole = sampled_cross_entropy(*found, head, samples), full(*expected)
    torch.testing.assert_close(loss, whole, rtol=1e-6, atol=1e-6)
    loss.backward()
    whole.backward()
    for ours, theirs in zip((found[0], *found[2:]), (expected[0], *expected[2:])):
        if ours is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)


def partition(loss: torch.Tensor, hidden, targets, weight, bias) -> torch.Tensor:
    """The sum under the fraction, of a loss on one row."""
    return (loss + F.linear(hidden, weight[targets], bias[targets]).squeeze()).exp()


def test_a_draw_stands_for_all_the_words_that_were_left_out():
    hidden, targets, weight, bias = (tensor.detach() for tensor in problem(rows=1))
    terms = F.linear(hidden, weight, bias).exp().squeeze()
    rest = [word for word in range(VOCAB) if word >= HEAD_WORDS]
    possible = {word: (terms[:HEAD_WORDS].sum() + len(rest) * terms[word]).item() for word in rest}
    torch.manual_seed(0)
    found = [partition(sampled_cross_entropy(hidden, targets, weight, bias, HEAD_WORDS, 1), hidden, targets, weight,
                       bias).item() for _ in range(600)]
    drawn = {word for word in rest if any(value == pytest.approx(possible[word], rel=1e-6) for value in found)}
    assert drawn == set(rest)
    assert all(any(value == pytest.approx(other, rel=1e-6) for other in possible.values()) for value in found)


@pytest.mark.parametrize("target", [2, 30])
def test_the_partition_function_is_right_on_average(target):
    hidden, _, weight, bias = (tensor.detach() for tensor in problem(rows=1))
    targets = torch.tensor([target])
    whole = F.linear(hidden, weight, bias).exp().sum()
    torch.manual_seed(0)
    draws = torch.stack([partition(sampled_cross_entropy(hidden, targets, weight, bias, HEAD_WORDS, 8), hidden, targets,
                                   weight, bias) for _ in range(4000)])
    error = draws.std() / math.sqrt(len(draws))
    # The bound must be tight enough to show a term that is missing or counted twice.
    assert 0 < error < 0.02 * whole
    assert (draws.mean() - whole).abs() < 4 * error


def test_draws_follow_the_torch_seed():
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(sampled_cross_entropy(*problem(), HEAD_WORDS, 8).item())
    assert losses[0] == losses[1] != losses[2]


def test_gradients_reach_head_targets_and_drawn_words_and_no_others():
    hidden, targets, weight, bias = problem()
    torch.manual_seed(0)
    sampled_cross_entropy(hidden, targets, weight, bias, HEAD_WORDS, 8).backward()
    assert (hidden.grad.abs().sum(1) > 0).all()
    touched = set(weight.grad.abs().sum(1).nonzero().flatten().tolist())
    assert touched == set(bias.grad.nonzero().flatten().tolist())
    certain = {*range(HEAD_WORDS), *targets.tolist()}
    assert certain < touched and len(touched) == len(certain) + 8


def test_every_rare_word_is_drawn_equally_often():
    hidden, targets, weight, bias = problem()
    counts = torch.zeros(VOCAB)
    torch.manual_seed(0)
    draws = 1500
    for _ in range(draws):
        bias.grad = None
        sampled_cross_entropy(hidden.detach(), targets, weight.detach(), bias, HEAD_WORDS, 8).backward()
        counts += bias.grad != 0
    certain = sorted({*range(HEAD_WORDS), *targets.tolist()})
    rest = [word for word in range(VOCAB) if word not in certain]
    assert (counts[certain] == draws).all()
    p = 8 / len(rest)
    assert (counts[rest] / draws - p).abs().max() < 4.5 * math.sqrt(p * (1 - p) / draws)


def language_model() -> torch.nn.Module:
    torch.manual_seed(1)
    return models.language_model(VOCAB, emb_sz=SIZE, n_hid=8, n_layers=1, dropmult=1.0)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randint(0, VOCAB, (3, 5), generator=generator) for _ in range(2))


def stock_loss(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(x)[0].flatten(0, 1), y.flatten())


def test_validation_is_that_of_the_whole_logits(monkeypatch):
    monkeypatch.setattr("ulmfit.softmax.VALIDATION_ROWS", 4)
    plain, model = language_model().eval(), language_model().eval()
    skip_decoder(model)
    # Sampling is for training alone.
    loss = DecoderLoss(model[1].decoder, head=1, samples=1)
    x, y = batch()
    with torch.no_grad():
        logits = plain(x)[0]
        y[0] = logits[0].argmax(-1)
        torch.testing.assert_close(loss(model(x)[0], y), F.cross_entropy(logits.flatten(0, 1), y.flatten()))
    assert loss.correct == (logits.argmax(-1) == y).sum() >= 5


@pytest.mark.parametrize("scale", [1, 1e3])
@pytest.mark.parametrize("with_bias", [True, False])
def test_validation_of_logits_of_any_size(monkeypatch, scale, with_bias):
    monkeypatch.setattr("ulmfit.softmax.VALIDATION_ROWS", 5)
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(23, 7) * scale, torch.randn(11, 7), torch.randn(11) * scale
    bias = bias if with_bias else None
    logits = F.linear(hidden.double(), weight.double(), None if bias is None else bias.double())
    targets = torch.where(torch.arange(23) % 2 == 0, logits.argmax(1), torch.randint(11, (23,)))
    loss, correct = loss_and_correct(hidden, targets, weight, bias)
    assert loss.item() == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)
    assert correct == (logits.argmax(1) == targets).sum() >= 12


@pytest.mark.parametrize("samples", [0, 4])
def test_the_logits_are_never_made_in_the_model(samples):
    model = language_model().train()
    skip_decoder(model)
    x, y = batch()
    predicted, states, dropped = model(x)
    assert predicted is dropped and predicted.shape == states.shape == (3, 5, SIZE)
    loss = DecoderLoss(model[1].decoder, head=3, samples=samples)(predicted, y)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("samples", [0, VOCAB])
def test_training_is_that_of_stock_logits(samples):
    x, y = batch()
    found = []
    for fused in (False, True):
        model = language_model().train()
        if fused:
            skip_decoder(model)
            criterion = DecoderLoss(model[1].decoder, head=3, samples=samples)
        torch.manual_seed(5)
        value = criterion(model(x)[0], y) if fused else stock_loss(model, x, y)
        value.backward()
        found.append([value, *(parameter.grad for parameter in model.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_loss_has_no_weights_of_its_own_and_the_model_keeps_its_names():
    model = language_model()
    names = list(model.state_dict())
    skip_decoder(model)
    loss = DecoderLoss(model[1].decoder)
    assert not list(loss.parameters()) and not loss.state_dict() and list(model.state_dict()) == names
    assert (loss.head, loss.samples) == (HEAD, 0) and SAMPLES > HEAD


# -- the fused one -----------------------------------------------------------------------------------------------------

def large_problem(rows: int, words: int, size: int, dtype: torch.dtype, spread: float = 1.0) -> tuple:
    generator = torch.Generator().manual_seed(rows + words + size)
    hidden, weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64) * spread
                            for shape in ((rows, size), (words, size), (words,)))
    targets = torch.randint(0, words, (rows,), generator=generator)
    return *(tensor.to(dtype).requires_grad_() for tensor in (hidden, weight, bias)), targets


def with_gradients(loss: torch.Tensor, *tensors: torch.Tensor) -> list[torch.Tensor]:
    return [loss, *torch.autograd.grad(loss, tensors)]


# Rows fewer than a piece, of several pieces, and with one row left over; sizes below and above the one at which pieces
# get larger; words on and off the border of a block.
SHAPES = [(1, 7, 3), (5, 256, 32), (ROWS + 1, 300, 20), (2 * ROWS, 257, 29), (3 * ROWS + 1, 90, 260)]


@pytest.mark.parametrize("rows, words, size", SHAPES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_fused_loss_and_gradients_are_those_of_torch(rows, words, size, dtype, tolerance):
    hidden, weight, bias, targets = large_problem(rows, words, size, dtype)
    ours = with_gradients(linear_cross_entropy(hidden, targets, weight, bias), hidden, weight, bias)
    theirs = with_gradients(F.cross_entropy(F.linear(hidden, weight, bias), targets), hidden, weight, bias)
    for found, expected in zip(ours, theirs):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("rows, words, size", SHAPES)
def test_fused_products_of_16_bits_are_close_in_loss_and_gradients(rows, words, size):
    hidden, weight, bias, targets = large_problem(rows, words, size, torch.float32, spread=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = with_gradients(linear_cross_entropy(hidden, targets, weight, bias), hidden, weight, bias)
    theirs = with_gradients(F.cross_entropy(F.linear(hidden, weight, bias), targets), hidden, weight, bias)
    assert all(tensor.dtype == torch.float32 for tensor in ours)
    torch.testing.assert_close(ours[0], theirs[0], rtol=4e-3, atol=0)
    for found, expected in zip(ours[1:], theirs[1:]):
        assert (found - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("above", [60, 68, 70, 79, 82, 87, 89, 95])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_any_loss_keeps_its_gradient(dtype, above):
    """One of the many rows of a batch: its sum of exponentials, times their number, is beyond what a float holds."""
    hidden, weight, bias, targets = large_problem(ROWS + 100, 40, 8, torch.float32)
    with torch.no_grad():
        bias.zero_()
        hidden[1] = 0
        hidden[1, 0] = above / 8
        weight[:, 0] = 0
        weight[3, 0] = 8
        targets[1] = 5
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        ours = with_gradients(linear_cross_entropy(hidden, targets, weight, bias), hidden, weight, bias)
    theirs = with_gradients(F.cross_entropy(F.linear(hidden, weight, bias), targets), hidden, weight, bias)
    close = 1e-5 if dtype == torch.float32 else 0.02
    # The row and the word that it is about, which the others would hide.
    for found, expected in ((ours[1][1], theirs[1][1]), (ours[2][3], theirs[2][3]), (ours[3], theirs[3])):
        assert (found - expected).norm() <= close * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_far_above_the_targets_do_not_overflow(dtype):
    hidden, weight, bias, targets = large_problem(6, 40, 8, torch.float32)
    with torch.no_grad():
        # One row whose most likely word is 300 above its target, one whose target is 300 above all others.
        bias.zero_()
        hidden[1] = 0
        hidden[1, 0] = 30
        hidden[2] = -hidden[1]
        weight[:, 0] = 0
        weight[3, 0] = 10
        targets[1], targets[2] = 5, 4
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        ours = with_gradients(linear_cross_entropy(hidden, targets, weight, bias), hidden, weight, bias)
    theirs = with_gradients(F.cross_entropy(F.linear(hidden, weight, bias), targets), hidden, weight, bias)
    assert theirs[0] > 50
    close = 1e-5 if dtype == torch.float32 else 0.02
    for found, expected in zip(ours, theirs):
        assert found.isfinite().all() and (found - expected).norm() <= close * expected.norm()


def test_frozen_weights_get_no_gradient_and_the_rest_is_the_same():
    hidden, weight, bias, targets = large_problem(9, 30, 5, torch.float64)
    expected = with_gradients(linear_cross_entropy(hidden, targets, weight, bias), hidden, weight, bias)
    for frozen in range(3):
        tensors = [tensor.detach().requires_grad_(number != frozen) for number, tensor in
                   enumerate((hidden, weight, bias))]
        linear_cross_entropy(tensors[0], targets, *tensors[1:]).backward()
        for number, tensor in enumerate(tensors):
            assert (tensor.grad is None) == (number == frozen)
            if number != frozen:
                torch.testing.assert_close(tensor.grad, expected[1 + number])


def test_a_scaled_loss_scales_the_gradients():
    hidden, weight, bias, targets = large_problem(9, 30, 5, torch.float64)
    plain = with_gradients(linear_cross_entropy(hidden, targets, weight, bias), hidden, weight, bias)
    scaled = with_gradients(1024 * linear_cross_entropy(hidden, targets, weight, bias), hidden, weight, bias)
    for once, often in zip(plain, scaled):
        torch.testing.assert_close(often, 1024 * once)


def test_memory_that_is_used_again_holds_nothing_of_the_batch_before():
    memory = Buffers()
    for rows, words, size in [(40, 300, 20), (11, 90, 7), (ROWS + 3, 300, 20), (5, 600, 33)]:
        hidden, weight, bias, targets = large_problem(rows, words, size, torch.float32)
        found = with_gradients(linear_cross_entropy(hidden, targets, weight, bias, memory), hidden, weight, bias)
        expected = with_gradients(linear_cross_entropy(hidden, targets, weight, bias), hidden, weight, bias)
        for ours, fresh in zip(found, expected):
            assert torch.equal(ours, fresh)
