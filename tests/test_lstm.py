"""The LSTM in bfloat16 against single precision: torch's own gradients are wrong at some sizes, ours must not be."""

import pytest
import torch
from torch import nn

from ulmfit import models
from ulmfit.lstm import SafeLSTM

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
    lstm = SafeLSTM(n_in, n_out, batch_first=True)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.copy_(parameter.bfloat16().float())
    full, half = (gradients(lstm, batch, steps, bf16) for bf16 in (False, True))
    for name, expected in full.items():
        assert half[name].shape == expected.shape
        assert (half[name] - expected).norm() < 0.02 * expected.norm(), name


def test_in_single_precision_it_is_torchs_own():
    torch.manual_seed(0)
    ours = SafeLSTM(5, 1024, batch_first=True)
    theirs = nn.LSTM(5, 1024, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    for name, expected in gradients(theirs, 2, 3, False).items():
        assert torch.equal(gradients(ours, 2, 3, False)[name], expected)


def test_every_lstm_of_the_models_is_safe():
    sizes = {"emb_sz": 4, "n_hid": 6, "n_layers": 3, "dropmult": 1.0}
    encoders = models.language_model(20, **sizes)[0], models.classifier(20, 2, **sizes, bptt=5, max_len=10)[0].module
    for encoder in encoders:
        assert [type(dropped.module) for dropped in encoder.rnns] == [SafeLSTM] * 3


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
