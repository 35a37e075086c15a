"""Large LSTMs in bfloat16 on a CPU, trained by products of whole matrices.

torch's (oneDNN's) backward pass adds to the gradient of the whole recurrent matrix at every step. Where that matrix is
larger than the cache, this is more memory traffic than there is arithmetic in bfloat16. `BFloat16LSTM` goes through the
steps with one small product each way, and makes the gradients of the matrices at the end, of all steps at once. And
they are right: on a processor with AMX, torch's gradients of a bfloat16 LSTM have no likeness to the true ones when the
hidden size is a multiple of 32 from 1,024 on, fastai's 1,152 among them; the relative error of the inputs' gradient is
above 1, without a word (seen with torch 2.13, oneDNN 3.12). Its forward pass is right.

Smaller LSTMs, single precision, and everything on a GPU are torch's own. A processor without bfloat16 runs a model in it
with LSTMs of single precision: so that it runs, not for speed.
"""

from typing import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .buffers import Buffers, Pool

# Weights of an LSTM from which on ours is the faster one, as they no longer fit in a core's cache: 72 steps of 16 rows
# from 1,152 to 400 (2.5 million) take 30 ms by ours and 46 by torch's, of 32 rows from 200 to 400 (a million) 37 and 31.
LARGE = 2_000_000
# Torch has the gates as input, forget, cell, output; here the three sigmoids lie side by side.
GATES = (0, 1, 3, 2)
_buffers, _pool = Buffers(), Pool()
# Without AVX512 torch (oneDNN) has no LSTM in bfloat16, and a product in it takes hundreds of times as long.
HAS_BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()


class LSTM(nn.LSTM):
    """fastai's `nn.LSTM` (one layer, one direction, batch first), by `BFloat16LSTM` where that is the better one."""

    @property
    def n_weights(self) -> int:
        """Elements of its two matrices."""
        return 4 * self.hidden_size * (self.input_size + self.hidden_size)

    def forward(self, inputs: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Args: inputs (batch, steps, input_size), hidden: h and c (1, batch, hidden_size). Returns the states (batch,
        steps, hidden_size) and the last h and c."""
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.weight_ih_l0.dtype
        if kind == torch.bfloat16 and inputs.device.type == "cpu" and not HAS_BFLOAT16:
            return self._in_single_precision(inputs, hidden)
        arguments = inputs, *hidden, self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0
        # A frozen one has no backward pass, and torch's forward pass is right and quick.
        backward = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arguments)
        if not (self.n_weights >= LARGE and backward and kind == torch.bfloat16 and inputs.device.type == "cpu"):
            return super().forward(inputs, hidden)
        states, h, c = BFloat16LSTM.apply(*arguments)
        return states, (h, c)

    def _in_single_precision(self, inputs: Tensor, hidden: tuple[Tensor, Tensor]) \
            -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Takes and returns bfloat16."""
        weights = self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0
        with torch.autocast("cpu", enabled=False):
            states, h, c = torch._VF.lstm(inputs.float(), [state.float() for state in hidden],
                                          [weight.float() for weight in weights], True, 1, 0.0, self.training, False,
                                          True)
        return states.bfloat16(), (h.bfloat16(), c.bfloat16())


class BFloat16LSTM(torch.autograd.Function):
    """States (batch, steps, size) and the last h and c (1, batch, size) of an LSTM, in bfloat16.

    Args: inputs (batch, steps, n_in), h, c (1, batch, size), and torch's four weights. Products are of bfloat16, what
    lies between them, and the cells, of single precision.

    With i, f, g, o for the gates' values and dh for a state's gradient, backward goes through the steps by
    dc += dh o (1 - tanh(c)^2), do = dh tanh(c), di = dc g, df = dc c_before, dg = dc i, each times its activation's
    derivative; then dc_before = dc f, and dh_before is the gates' gradient times the recurrent weights.
    """

    @staticmethod
    def forward(ctx, inputs: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor,
                bias_hh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast("cpu", enabled=False):
            inputs = inputs.to(torch.bfloat16)
            batch, steps, _ = inputs.shape
            size = h.shape[-1]
            weights = [_pool.get(matrix.shape, torch.bfloat16) for matrix in (weight_ih, weight_hh)]
            for weight, out in zip((weight_ih, weight_hh), weights):
                _reorder(weight, out)
            bias = torch.empty(4 * size, dtype=torch.bfloat16)
            _reorder(bias_ih + bias_hh, bias)

            gates = torch.empty(steps, batch, 4 * size, dtype=torch.bfloat16)
            by_step = inputs.transpose(0, 1).reshape(steps * batch, -1)
            torch.addmm(bias, by_step, weights[0].T, out=gates.view(steps * batch, -1))
            cells = torch.empty(steps + 1, batch, size)
            cells[0] = c[0]
            states = torch.empty(steps, batch, size, dtype=torch.bfloat16)
            # One step's gates in single precision: small enough for the cache.
            now, tanh_c = _buffers.get("now", batch, 4 * size), _buffers.get("tanh_c", batch, size)
            i, f, o, g = now.split(size, 1)
            sigmoids, recurrent = now[:, :3 * size], _linear(weights[1], batch)
            state = h[0].to(torch.bfloat16)
            for step in range(steps):
                now.copy_(recurrent(state)).add_(gates[step])
                sigmoids.sigmoid_()
                g.tanh_()
                gates[step] = now
                torch.mul(f, cells[step], out=cells[step + 1]).addcmul_(i, g)
                torch.tanh(cells[step + 1], out=tanh_c)
                state = torch.mul(o, tanh_c, out=states[step])
        ctx.save_for_backward(inputs, h, states, gates, cells)
        ctx.weights = weights
        ctx.set_materialize_grads(False)
        return states.transpose(0, 1), state[None].clone(), cells[-1][None].to(torch.bfloat16)

    @staticmethod
    @once_differentiable
    def backward(ctx, dstates: Tensor | None, dlast_h: Tensor | None, dlast_c: Tensor | None) -> tuple:
        inputs, h, states, gates, cells = ctx.saved_tensors
        weight_ih, weight_hh = ctx.weights
        batch, steps, n_in = inputs.shape
        size, wanted = h.shape[-1], ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            dgates = _buffers.get("dgates", steps * batch, 4 * size, torch.bfloat16)
            # The same laid out for a product with `joined`, which takes half as long so.
            across = _buffers.get("across", 4 * size, steps * batch, torch.bfloat16)
            dh, dc = _through_time(gates, cells, dstates, dlast_h, dlast_c, weight_hh, dgates.view_as(gates),
                                   across.view(4 * size, steps, batch))
            dinputs = dweight_ih = dweight_hh = dbias = None
            if wanted[0]:
                dinputs = (dgates @ weight_ih).view(steps, batch, n_in).transpose(0, 1)
            if wanted[3] or wanted[4]:
                # What each step's gates are made of: its input and the state before.
                joined = _buffers.get("joined", steps * batch, n_in + size, torch.bfloat16)
                parts = joined.view(steps, batch, -1)
                parts[:, :, :n_in] = inputs.transpose(0, 1)
                parts[0, :, n_in:] = h[0]
                parts[1:, :, n_in:] = states[:-1]
                dweight = across @ joined
                dweight_ih, dweight_hh = _restored(dweight[:, :n_in]), _restored(dweight[:, n_in:])
            if wanted[5] or wanted[6]:
                dbias = _restored((dgates.new_ones(1, len(dgates)) @ dgates)[0])
            for weight in ctx.weights:
                _pool.give_back(weight)
            ctx.weights = ()
        return dinputs, dh[None], dc[None], dweight_ih, dweight_hh, dbias, dbias


def _through_time(gates: Tensor, cells: Tensor, dstates: Tensor | None, dlast_h: Tensor | None, dlast_c: Tensor | None,
                  weight_hh: Tensor, dgates: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
    """Puts the gradients by the gates before their activations into `dgates` and `across`, and returns those by the
    first h and c, (batch, size).

    Args: gates, dgates (steps, batch, 4 size), across (4 size, steps, batch), cells (steps + 1, batch, size), dstates
    (batch, steps, size), dlast_h, dlast_c (1, batch, size), weight_hh (4 size, size).
    """
    steps, batch = gates.shape[:2]
    size = cells.shape[2]
    now, by = _buffers.get("now", batch, 4 * size), _buffers.get("by", batch, 4 * size)
    (i, f, o, g), (by_i, by_f, by_o, by_g) = now.split(size, 1), by.split(size, 1)
    sigmoids, by_sigmoids = now[:, :3 * size], by[:, :3 * size]
    tanh_c, by_c = _buffers.get("tanh_c", batch, size), _buffers.get("by_c", batch, size)
    dh, dc = (torch.zeros(batch, size) if last is None else last[0].to(torch.float32, copy=True)
              for last in (dlast_h, dlast_c))
    before = _linear(weight_hh.T.contiguous(), batch)
    aten = torch.ops.aten
    for step in reversed(range(steps)):
        if dstates is not None:
            dh += dstates[:, step]
        now.copy_(gates[step])
        torch.tanh(cells[step + 1], out=tanh_c)
        torch.mul(dh, o, out=by_c)
        dc += aten.tanh_backward.grad_input(by_c, tanh_c, grad_input=by_c)
        torch.mul(dc, g, out=by_i)
        torch.mul(dc, cells[step], out=by_f)
        torch.mul(dh, tanh_c, out=by_o)
        torch.mul(dc, i, out=by_g)
        aten.sigmoid_backward.grad_input(by_sigmoids, sigmoids, grad_input=by_sigmoids)
        aten.tanh_backward.grad_input(by_g, g, grad_input=by_g)
        dgates[step] = by
        across[:, step] = dgates[step].T
        dc *= f
        dh.copy_(before(dgates[step]))
    return dh, dc


def _linear(weight: Tensor, rows: int) -> Callable[[Tensor], Tensor]:
    """A function of x (rows, n) that gives x @ weight.T, for many x. weight: (m, n), contiguous.

    The weight is laid out once for the processor's matrix unit where torch can do so, which halves the time of a
    product of few rows.
    """
    mkldnn = torch.ops.mkldnn
    lays_out = hasattr(mkldnn, "_reorder_linear_weight") and hasattr(mkldnn, "_linear_pointwise")
    if not lays_out or (weight.dtype == torch.bfloat16 and not HAS_BFLOAT16):
        return lambda x: x @ weight.T
    packed = mkldnn._reorder_linear_weight(weight, rows)
    return lambda x: mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def _reorder(weight: Tensor, out: Tensor) -> None:
    """Copies a matrix or vector of torch's gates, (4 size, ...), into `out`, by `GATES`."""
    for gate, of_gate in zip(GATES, out.chunk(4)):
        of_gate.copy_(weight.chunk(4)[gate])


def _restored(gradient: Tensor) -> Tensor:
    """(4 size, ...) in the order of `GATES` in torch's, in single precision."""
    parts = gradient.chunk(4)
    return torch.cat([parts[GATES.index(gate)] for gate in range(4)])
