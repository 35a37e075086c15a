"""Dropout of large matrices on a CPU in a fifth of the time.

torch's dropout on a CPU draws a number of single precision for every weight: of the recurrent matrices of 4,608 x 1,152, an
eighth of a classifier's training in single precision, a fifth in bfloat16. 16 random bits a weight are enough.
"""

import torch
from torch import Tensor

LEVELS = 2**16


def quick_dropout(weight: Tensor, p: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight, of single precision, with each element zero with probability `p` and else divided by 1 - p.

    p is rounded to a multiple of 1 / 65,536. Random bits are of torch's generator. dtype: of what is returned.
    """
    return _Dropout.apply(weight, min(LEVELS, round(p * LEVELS)), dtype)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, dropped: int, dtype: torch.dtype) -> Tensor:
        bits = torch.empty(-(-weight.numel() // 4), dtype=torch.int64).random_(-2**63, None)
        levels = bits.view(torch.int16)[:weight.numel()].view(weight.shape)
        keep = levels >= dropped - LEVELS // 2 if dropped < LEVELS else torch.zeros_like(weight, dtype=torch.bool)
        scale = LEVELS / max(1, LEVELS - dropped)
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return torch.mul(weight, scale).to(dtype).mul_(keep)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        keep, = ctx.saved_tensors
        # The gradient may belong to others too.
        return gradient.to(torch.float32, copy=True).mul_(keep).mul_(ctx.scale), None, None
