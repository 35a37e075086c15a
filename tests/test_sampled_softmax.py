"""The sampled softmax against the full one: exact where nothing is left out, right on average where something is."""

import math

import pytest
import torch
import torch.nn.functional as F

from ulmfit import models
from ulmfit.sampled_softmax import HEAD, SAMPLES, SampledSoftmax, sample_in_training, sampled_cross_entropy

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


def test_validation_is_by_the_full_softmax():
    plain, model = language_model(), language_model()
    sample_in_training(model)
    loss = SampledSoftmax(model[1].decoder, head=1, samples=1)
    x, y = batch()
    with torch.no_grad():
        logits = [each.eval()(x)[0] for each in (plain, model)]
    assert logits[1].shape == (3, 5, VOCAB)
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=0)
    expected = F.cross_entropy(logits[0].flatten(0, 1), y.flatten())
    assert loss(logits[1], y) == expected == loss(logits[1], y)


def test_training_never_makes_the_full_logits():
    model = language_model().train()
    sample_in_training(model)
    x, y = batch()
    predicted, states, dropped = model(x)
    assert predicted is dropped and predicted.shape == states.shape == (3, 5, SIZE)
    loss = SampledSoftmax(model[1].decoder, head=3, samples=4)(predicted, y)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_with_enough_samples_training_is_that_of_the_full_softmax():
    x, y = batch()
    found = []
    for sampled in (False, True):
        model = language_model().train()
        loss = F.cross_entropy
        if sampled:
            sample_in_training(model)
            loss = SampledSoftmax(model[1].decoder, head=3, samples=VOCAB)
        torch.manual_seed(5)
        predicted = model(x)[0]
        value = loss(predicted, y) if sampled else loss(predicted.flatten(0, 1), y.flatten())
        value.backward()
        found.append([value, *(parameter.grad for parameter in model.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_loss_has_no_weights_of_its_own_and_the_model_keeps_its_names():
    model = language_model()
    names = list(model.state_dict())
    sample_in_training(model)
    loss = SampledSoftmax(model[1].decoder)
    assert not list(loss.parameters()) and not loss.state_dict() and list(model.state_dict()) == names
    assert (loss.head, loss.samples) == (HEAD, SAMPLES)
