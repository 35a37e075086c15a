"""The LSTM in bfloat16 against single precision: torch's own gradients are wrong at some sizes, ours must not be."""

import pytest
import torch
from torch import nn

from ulmfit import lstm as lstms
from ulmfit import models
from ulmfit.lstm import LSTM, BFloat16LSTM

torch.set_num_threads(1)


def gradients(lstm: nn.LSTM, batch: int, steps: int, bf16: bool) -> dict[str, torch.Tensor]:
    """States, last h and c, and the gradients of a fixed weighted sum of the states."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape) -> torch.Tensor:
        return torch.randn(shape, generator=generator).bfloat16().float()

    inputs = drawn(batch, steps, lstm.input_size).requires_grad_()
    h, c = drawn(1, batch, lstm.hidden_size), drawn(1, batch, lstm.hidden_size)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        states, (last_h, last_c) = lstm(inputs, (h, c))
    (states.float() * drawn(*states.shape)).sum().backward()
    found = {"states": states, "h": last_h, "c": last_c, "inputs": inputs.grad,
             **{name: parameter.grad for name, parameter in lstm.named_parameters()}}
    lstm.zero_grad()
    return {name: tensor.detach().float() for name, tensor in found.items()}


# Around the border, on and off the multiples, and the paper's size in its three places.
@pytest.mark.parametrize("n_in, n_out", [(20, 40), (16, 992), (16, 1008), (16, 1024), (16, 1056), (16, 1100), (400, 1152),
                                         (1152, 1152), (1152, 400), (16, 1280), (8, 2048)])
@pytest.mark.parametrize("batch, steps", [(3, 4), (1, 1)])
def test_gradients_in_bfloat16_are_those_of_single_precision(n_in, n_out, batch, steps):
    torch.manual_seed(0)
    lstm = LSTM(n_in, n_out, batch_first=True)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.copy_(parameter.bfloat16().float())
    full, half = (gradients(lstm, batch, steps, bf16) for bf16 in (False, True))
    for name, expected in full.items():
        assert half[name].shape == expected.shape
        assert (half[name] - expected).norm() < 0.02 * expected.norm(), name


def test_in_single_precision_it_is_torchs_own():
    torch.manual_seed(0)
    ours = LSTM(5, 1024, batch_first=True)
    theirs = nn.LSTM(5, 1024, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    for name, expected in gradients(theirs, 2, 3, False).items():
        assert torch.equal(gradients(ours, 2, 3, False)[name], expected)


def test_every_lstm_of_the_models_is_safe():
    sizes = {"emb_sz": 4, "n_hid": 6, "n_layers": 3, "dropmult": 1.0}
    encoders = models.language_model(20, **sizes)[0], models.classifier(20, 2, **sizes, bptt=5, max_len=10)[0].module
    for encoder in encoders:
        assert [type(dropped.module) for dropped in encoder.rnns] == [LSTM] * 3


def test_bfloat16_gradients_of_a_paper_sized_encoder_are_right():
    """With weight dropout's own attribute in the place of the parameter, and hidden states handed on."""
    torch.manual_seed(0)
    model = models.language_model(30, emb_sz=8, n_hid=1152, n_layers=2, dropmult=0.0).train()
    words = torch.randint(0, 30, (2, 6))
    found = {}
    for precision in ("full", "bf16"):
        model.reset()
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            states = model[0](words)
            states = model[0](words.flip(1))
        states.float().pow(2).sum().backward()
        found[precision] = {name: parameter.grad.clone() for name, parameter in model[0].named_parameters()}
    for name, expected in found["full"].items():
        assert (found["bf16"][name] - expected).norm() < 0.05 * expected.norm(), name


@pytest.mark.parametrize("packed", [True, False], ids=["laid out", "as it is"])
@pytest.mark.parametrize("n_in, size, batch, steps", [(7, 5, 3, 4), (5, 7, 1, 1), (16, 32, 4, 9)])
def test_gradients_by_every_argument_and_result(monkeypatch, n_in, size, batch, steps, packed):
    """By inputs, first states and weights, through the states and the last h and c, each alone and all together."""
    if not packed:
        monkeypatch.setattr(lstms, "_linear", lambda weight, rows: lambda x: x @ weight.T)
    torch.manual_seed(0)
    theirs = nn.LSTM(n_in, size, batch_first=True)
    values = [torch.randn(batch, steps, n_in), torch.randn(1, batch, size), torch.randn(1, batch, size),
              *(weight.detach() for weight in theirs._flat_weights)]
    values = [value.bfloat16().float() for value in values]
    by_states, by_h, by_c = torch.randn(batch, steps, size), torch.randn(1, batch, size), torch.randn(1, batch, size)
    for used in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)):
        found = []
        for ours in (True, False):
            arguments = [value.clone().requires_grad_() for value in values]
            if ours:
                results = BFloat16LSTM.apply(*arguments)
            else:
                inputs, h, c, *weights = arguments
                results = torch.lstm(inputs, (h, c), weights, True, 1, 0.0, True, False, True)
            loss = sum((result.float() * by).sum() for result, by, use in zip(results, (by_states, by_h, by_c), used) if use)
            found.append([*results, *torch.autograd.grad(loss, arguments)])
        for ours, expected in zip(*found):
            assert ours.shape == expected.shape
            assert (ours.float() - expected).norm() < 0.02 * expected.norm()


def test_only_large_ones_in_bfloat16_are_ours(monkeypatch):
    called = []
    monkeypatch.setattr(lstms, "HAS_BFLOAT16", True)
    monkeypatch.setattr(nn.LSTM, "forward", lambda self, inputs, hidden: (inputs, hidden))
    monkeypatch.setattr(BFloat16LSTM, "apply", lambda *arguments: called.append(arguments) or arguments[:3])
    half, full = torch.bfloat16, torch.float32
    for size, kind, grad, frozen, ours in ((800, half, True, False, True), (600, half, True, False, False),
                                           (800, full, True, False, False), (800, half, False, False, False),
                                           (800, half, True, True, False)):
        called.clear()
        lstm = LSTM(4, size, batch_first=True).to(kind).requires_grad_(not frozen)
        with torch.set_grad_enabled(grad):
            lstm(torch.zeros(1, 2, 4, dtype=kind), (torch.zeros(1, 1, size, dtype=kind),) * 2)
        assert bool(called) == ours


def test_without_bfloat16_in_hardware_they_run_in_single_precision(monkeypatch):
    monkeypatch.setattr(lstms, "HAS_BFLOAT16", False)
    lstm = LSTM(4, 6, batch_first=True)
    inputs, state = torch.randn(2, 5, 4).bfloat16(), torch.zeros(1, 2, 6).bfloat16()
    expected, _ = nn.LSTM.forward(lstm, inputs.float(), (state.float(),) * 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, (h, c) = lstm(inputs, (state,) * 2)
    assert states.dtype == h.dtype == c.dtype == torch.bfloat16
    assert torch.equal(states, expected.bfloat16())
    states.float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in lstm.parameters())
    with torch.no_grad():
        predicted, _ = lstm.bfloat16()(inputs, (state,) * 2)
    assert (predicted.float() - expected).norm() < 0.02 * expected.norm()


def test_what_is_not_wanted_is_not_made():
    """The frozen groups of gradual unfreezing."""
    weights = [torch.randn(4 * 6, n).requires_grad_(n == 6) for n in (3, 6)] + [torch.randn(24), torch.randn(24)]
    states, _, _ = BFloat16LSTM.apply(torch.randn(2, 5, 3), torch.zeros(1, 2, 6), torch.zeros(1, 2, 6), *weights)
    states.sum().backward()
    assert weights[1].grad.abs().sum() > 0 and all(weight.grad is None for weight in (weights[0], *weights[2:]))
