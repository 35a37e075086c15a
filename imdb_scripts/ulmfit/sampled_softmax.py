"""A softmax over part of the vocabulary, for training alone.

The vocabulary is ordered by frequency. The `head` most frequent words are always in and exact, and so are all words
that the batch has as targets; of the rest, `samples` are drawn evenly and each stands for `rest / samples` words.
The sum under the fraction is then an unbiased estimate of the full one, and every rare word is pushed down equally
often, which frequency-proportional draws (2018) do not do.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD, SAMPLES = 2000, 4096


class SampledSoftmax(nn.Module):
    """Loss on the decoder's input in training, plain cross-entropy on logits in validation."""

    def __init__(self, decoder: nn.Linear, head: int = HEAD, samples: int = SAMPLES):
        super().__init__()
        # In a list, so that the decoder's weights are not registered a second time.
        self.decoder, self.head, self.samples = [decoder], head, samples

    def forward(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Args: predicted (batch, tokens, emb_sz) in training, (batch, tokens, vocab) in validation; targets (batch,
        tokens). Returns the mean loss."""
        if not self.decoder[0].training:
            return F.cross_entropy(predicted.flatten(0, 1), targets.flatten())
        return sampled_cross_entropy(predicted.flatten(0, 1), targets.flatten(), self.decoder[0].weight,
                                     self.decoder[0].bias, self.head, self.samples)


def sampled_cross_entropy(hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None, head: int,
                          samples: int) -> Tensor:
    """Mean cross-entropy with an estimated partition function.

    Args: hidden (n, emb_sz), targets (n,), weight (vocab, emb_sz), bias (vocab,). With `samples` not smaller than
    the words outside head and targets, it is the exact cross-entropy.
    """
    vocab = weight.shape[0]
    exact = torch.zeros(vocab, dtype=torch.bool, device=weight.device)
    exact[:head] = True
    exact[targets] = True
    rest = (~exact).nonzero().squeeze(1)
    drawn = rest[torch.randperm(len(rest), device=rest.device)[:samples]]
    candidates = torch.cat([exact.nonzero().squeeze(1), drawn])
    logits = F.linear(hidden, F.embedding(candidates, weight), None if bias is None else bias[candidates])
    if len(drawn):
        stands_for = torch.zeros(len(candidates), device=weight.device)
        stands_for[-len(drawn):] = math.log(len(rest) / len(drawn))
        logits = logits + stands_for
    place = torch.empty(vocab, dtype=torch.long, device=weight.device)
    place[candidates] = torch.arange(len(candidates), device=weight.device)
    # In mixed precision logits may have 16 bits, too few for a sum over the vocabulary.
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), place[targets])


def sample_in_training(model: nn.Module) -> None:
    """Makes the language model's decoder hand on its input in training, so that no full logits are computed."""
    model[1].forward = _decode.__get__(model[1])


def _decode(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dropped = self.output_dp(states)
    return (dropped if self.training else self.decoder(dropped)), states, dropped
