"""Memory that is used again: fresh memory costs the system more than the arithmetic on it."""

import torch
from torch import Tensor


class Buffers:
    """Memory that one training step leaves to the next, by name."""

    def __init__(self):
        self.kept: dict[str, Tensor] = {}

    def get(self, name: str, rows: int, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(rows, columns), contiguous, holding anything."""
        kept = self.kept.get(name)
        if kept is None or kept.dtype != dtype or kept.numel() < rows * columns:
            kept = self.kept[name] = torch.empty(rows * columns, dtype=dtype)
        return kept[:rows * columns].view(rows, columns)


class Pool:
    """Memory that is lent, of which there may be several of a shape at once; for few shapes, as all of it is kept.

    What is never given back is forgotten.
    """

    def __init__(self):
        self.free: dict[tuple, list[Tensor]] = {}

    def get(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Contiguous, holding anything."""
        free = self.free.get((tuple(shape), dtype))
        return free.pop() if free else torch.empty(shape, dtype=dtype)

    def give_back(self, tensor: Tensor) -> None:
        self.free.setdefault((tuple(tensor.shape), tensor.dtype), []).append(tensor)
