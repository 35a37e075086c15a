"""The LSTM in bfloat16 on a CPU, with a backward pass of our own.

torch hands it to oneDNN, whose forward pass is quick and right. Its backward pass in bfloat16 is wrong at hidden sizes
of 1024, 1152 and 1280 (torch 2.13, oneDNN 3.12, a processor with AMX: the gradient of the inputs has no likeness to the
true one), silently, and it is slow at all. So only the forward pass is oneDNN's; the backward pass computes the gates
again, of all steps at once, and goes back through time in torch's own operations.
"""

import torch
from torch import Tensor, nn


class QuickLSTM(nn.LSTM):
    """An `nn.LSTM` of one layer, batch first, that trains in bfloat16 on a CPU by `BFloat16LSTM`."""

    def forward(self, inputs: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Args: inputs (batch, steps, n_in), hidden: h and c (1, batch, n_out). Returns the states (batch, steps,
        n_out) and the last h and c."""
        if not (torch.is_autocast_enabled("cpu") and torch.is_grad_enabled() and inputs.device.type == "cpu"
                and torch.get_autocast_dtype("cpu") == torch.bfloat16):
            return super().forward(inputs, hidden)
        weights = [self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0]
        states, h, c = BFloat16LSTM.apply(inputs, *hidden, *weights)
        return states, (h, c)


class BFloat16LSTM(torch.autograd.Function):
    """inputs (batch, steps, n_in), h and c (1, batch, n_out), weight_ih (4 n_out, n_in), weight_hh (4 n_out, n_out), two
    biases (4 n_out,) -> the states (batch, steps, n_out) and the last h and c, all in bfloat16.

    The initial and the last h and c carry no gradient: truncated back-propagation cuts there.
    """

    @staticmethod
    def forward(ctx, inputs: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast("cpu", enabled=False):
            inputs, h, c, *weights = (tensor.detach().to(torch.bfloat16) for tensor in (inputs, h, c, *weights))
            states, last_h, last_c = torch.lstm(inputs, (h, c), weights, True, 1, 0.0, False, False, True)
        ctx.save_for_backward(inputs, states, h, c, *weights)
        ctx.mark_non_differentiable(last_h, last_c)
        return states, last_h, last_c

    @staticmethod
    def backward(ctx, dstates: Tensor, *_) -> tuple:
        inputs, states, h, c, weight_ih, weight_hh, bias_ih, bias_hh = ctx.saved_tensors
        batch, steps, n_in = inputs.shape
        n_out = states.shape[2]
        # Every step as (features, batch): products whose left side is the large matrix need not rearrange it.
        before = torch.empty(steps, n_in + n_out, batch, dtype=torch.bfloat16)
        before[:, :n_in] = inputs.permute(1, 2, 0)
        before[0, n_in:] = h[0].T
        before[1:, n_in:] = states[:, :-1].permute(1, 2, 0)
        dgates = _gradients_of_gates(before, c[0].T, dstates.permute(1, 2, 0), torch.cat([weight_ih, weight_hh], 1),
                                     weight_hh, bias_ih + bias_hh)
        dinputs = dweight_ih = dweight_hh = dbias = None
        if ctx.needs_input_grad[0]:
            dinputs = _each(weight_ih.T.contiguous(), dgates).permute(2, 0, 1)
        if any(ctx.needs_input_grad[3:]):
            # All steps side by side: the sum over them is part of one product.
            beside = dgates.permute(1, 0, 2).reshape(4 * n_out, steps * batch)
            dweights = torch.mm(beside, before.permute(0, 2, 1).reshape(steps * batch, n_in + n_out)).float()
            dweight_ih, dweight_hh = dweights[:, :n_in], dweights[:, n_in:]
            dbias = beside.sum(1, dtype=torch.float32)
        return dinputs, None, None, dweight_ih, dweight_hh, dbias, dbias


def _gradients_of_gates(before: Tensor, c: Tensor, dstates: Tensor, weights: Tensor, weight_hh: Tensor,
                        bias: Tensor) -> Tensor:
    """Gradients by the gates before their activation, (steps, 4 n_out, batch) bfloat16, in torch's order i, f, g, o.

    Args: before (steps, n_in + n_out, batch): inputs and the state before each step; c (n_out, batch); dstates (steps,
    n_out, batch); weights (4 n_out, n_in + n_out).
    """
    steps, n_out, batch = dstates.shape
    gates = _each(weights, before)
    gates += bias[:, None]
    gates = gates.view(steps, 4, n_out, batch)
    # 1 - sigmoid(x) as sigmoid(-x): in 16 bits the difference would lose what matters near saturation.
    opened, closed = gates.sigmoid(), gates.neg().sigmoid_()
    i, f, _, o = opened.unbind(1)
    g = gates[:, 2].tanh()
    # Of the sum over time alone the rounding adds up.
    cells = torch.empty(steps + 1, n_out, batch)
    cells[0] = c
    forget = f.float()
    for step, (added, kept) in enumerate(zip((i * g).float().unbind(0), forget.unbind(0))):
        torch.addcmul(added, kept, cells[step], out=cells[step + 1])
    tanh_c = cells[1:].tanh().to(torch.bfloat16)
    # What turns a cell's gradient into those of i, f, g and of the cell before; a state's into those of the cell and o.
    by_cell = torch.empty(steps, 4, n_out, batch)
    by_cell[:, 0] = opened[:, 0] * closed[:, 0] * g
    by_cell[:, 1] = opened[:, 1] * closed[:, 1] * cells[:-1]
    by_cell[:, 2] = i * (1 - g * g)
    by_cell[:, 3] = forget
    cell_by_state = (o * (1 - tanh_c * tanh_c)).float()
    o_by_state = (o * closed[:, 3] * tanh_c).float()
    dstates = dstates.float()
    dgates = torch.empty(steps, 4, n_out, batch, dtype=torch.bfloat16)
    back = weight_hh.T.contiguous()
    from_later = torch.zeros(n_out, batch, dtype=torch.bfloat16)
    of_cell, dstate, dcell = torch.zeros(4, n_out, batch), torch.empty(n_out, batch), torch.empty(n_out, batch)
    every_step = list(zip(dstates.unbind(0), cell_by_state.unbind(0), o_by_state.unbind(0), by_cell.unbind(0),
                          dgates.unbind(0)))
    for of_state, to_cell, to_o, factors, gradients in reversed(every_step):
        torch.add(of_state, from_later, out=dstate)
        torch.addcmul(of_cell[3], dstate, to_cell, out=dcell)
        torch.mul(dcell, factors, out=of_cell)
        gradients[:3] = of_cell[:3]
        torch.mul(dstate, to_o, out=gradients[3])
        torch.mm(back, gradients.view(4 * n_out, batch), out=from_later)
    return dgates.view(steps, 4 * n_out, batch)


def _each(left: Tensor, right: Tensor) -> Tensor:
    """left (n, k) times each step of right (steps, k, batch). torch's own product of such would copy left for each."""
    out = right.new_empty(len(right), len(left), right.shape[2])
    for of_step, made in zip(right.unbind(0), out.unbind(0)):
        torch.mm(left, of_step, out=made)
    return out
