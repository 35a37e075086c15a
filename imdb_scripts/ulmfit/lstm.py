"""The LSTM in bfloat16 on a CPU, kept away from the sizes at which torch trains it wrongly.

On a processor with AMX, oneDNN's backward pass of a bfloat16 LSTM gives gradients that have no likeness to the true ones
when the hidden size is a multiple of 32 from 1,024 on, fastai's 1,152 among them: the relative error of the inputs'
gradient is above 1, without a word (seen with torch 2.13, oneDNN 3.12). Its forward pass is right, and so is all of it at
every other size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Added to such a size; any number that is no multiple of 32 would do.
UNITS = 8


class SafeLSTM(nn.LSTM):
    """fastai's `nn.LSTM` (one layer, one direction, batch first) with the right gradients in bfloat16 on a CPU.

    Where the hidden size is one that oneDNN gets wrong, it runs with a few units more, whose weights are zero: their
    states stay zero, and nothing comes from them or goes to them.
    """

    def forward(self, inputs: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Args: inputs (batch, steps, input_size), hidden: h and c (1, batch, hidden_size). Returns the states (batch,
        steps, hidden_size) and the last h and c."""
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.weight_ih_l0.dtype
        wrong = self.hidden_size >= 1024 and self.hidden_size % 32 == 0
        if not (wrong and kind == torch.bfloat16 and inputs.device.type == "cpu" and torch.is_grad_enabled()):
            return super().forward(inputs, hidden)
        # In bfloat16 before they are padded: half the memory.
        weights = [self._padded(weight.to(kind)) for weight in (self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0,
                                                                self.bias_hh_l0)]
        weights[1] = F.pad(weights[1], (0, UNITS))
        h, c = (F.pad(state.to(kind), (0, UNITS)) for state in hidden)
        states, h, c = torch.lstm(inputs.to(kind), (h, c), weights, True, 1, 0.0, self.training, False, True)
        size = self.hidden_size
        return states[..., :size], (h[..., :size], c[..., :size])

    def _padded(self, weight: Tensor) -> Tensor:
        """Rows for more units in each of the four gates. weight: (4 hidden_size, ...)."""
        gates = weight.view(4, self.hidden_size, -1)
        return F.pad(gates, (0, 0, 0, UNITS)).view(4 * (self.hidden_size + UNITS), *weight.shape[1:])
