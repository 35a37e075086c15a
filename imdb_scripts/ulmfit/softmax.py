"""The softmax over the vocabulary in training: the loss and its gradients without the matrix of logits.

A batch of 64 x 70 tokens has 134 million logits over 30,000 words. Stock fastai writes them to memory, reads them for
the log-softmax, writes that, and goes the same way back: most of the time of a small model. On a CPU, `FusedSoftmax`
takes some rows at a time, so that their logits stay in the cache, and makes the gradients at once while they are there.

The sampled softmax leaves words out. The vocabulary is ordered by frequency. The `head` most frequent words are always
in and exact, and so are all words that the batch has as targets; of the rest, `samples` are drawn evenly and each
stands for `rest / samples` words. The sum under the fraction is then an unbiased estimate of the full one, and every
rare word is pushed down equally often, which frequency-proportional draws (2018) do not do.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .buffers import Buffers

HEAD, SAMPLES = 2000, 4096
# Words are padded to a multiple of this and columns to one of COLUMNS: whole tiles of the CPU's matrix unit.
WORDS, COLUMNS = 256, 32
# Rows whose logits fit in the cache.
ROWS, VALIDATION_ROWS = 512, 256
# A sum of exponentials that still is precise, times the rows of any batch, in single precision and bfloat16.
LARGEST_SUM = 1e30
# Sums of 16 bits are rounded to 16 bits: so many partial ones keep the sum of a row precise.
PARTS = 16


class DecoderLoss(nn.Module):
    """The language model's loss on the decoder's input: exact in validation, exact or sampled in training.

    samples: 0 for the exact loss, else how many words outside the head and the targets are drawn a batch.
    correct: how many targets of the last batch of validation were the most likely word.
    """

    def __init__(self, decoder: nn.Linear, head: int = HEAD, samples: int = 0):
        super().__init__()
        # In a list, so that the decoder's weights are not registered a second time.
        self.decoder, self.head, self.samples, self.memory, self.correct = [decoder], head, samples, Buffers(), 0

    def forward(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Args: predicted (batch, tokens, emb_sz), targets (batch, tokens). Returns the mean loss."""
        decoder, predicted, targets = self.decoder[0], predicted.flatten(0, 1), targets.flatten()
        if not decoder.training:
            loss, self.correct = loss_and_correct(predicted, targets, decoder.weight, decoder.bias)
            return loss
        if self.samples:
            return sampled_cross_entropy(predicted, targets, decoder.weight, decoder.bias, self.head, self.samples,
                                         self.memory)
        return linear_cross_entropy(predicted, targets, decoder.weight, decoder.bias, self.memory)


def skip_decoder(model: nn.Module) -> None:
    """Makes the language model's decoder hand on its input, from which `DecoderLoss` goes on."""
    model[1].forward = _hand_on.__get__(model[1])


def _hand_on(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dropped = self.output_dp(states)
    return dropped, states, dropped


@torch.no_grad()
def loss_and_correct(hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, int]:
    """The mean cross-entropy, and how many targets have the largest logit of their row. No gradients.

    Args: those of `linear_cross_entropy`. Of their own type, some rows at a time, whose logits stay in the cache.
    """
    total, correct, across = hidden.new_zeros(()), 0, weight.T
    memory = hidden.new_empty(min(len(hidden), VALIDATION_ROWS), len(weight))
    for rows, of_rows in zip(hidden.split(VALIDATION_ROWS), targets.split(VALIDATION_ROWS)):
        logits = memory[:len(rows)]
        if bias is None:
            torch.mm(rows, across, out=logits)
        else:
            torch.addmm(bias, rows, across, out=logits)
        largest, of_targets = logits.amax(1), logits.gather(1, of_rows[:, None]).squeeze(1)
        correct += int((of_targets == largest).sum())
        total += (logits.sub_(largest[:, None]).exp_().sum(1).log() + largest - of_targets).sum()
    return total / len(hidden), correct


def linear_cross_entropy(hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None,
                         buffers: Buffers | None = None) -> Tensor:
    """Mean cross-entropy of the logits `hidden @ weight.T + bias`, which a CPU never holds all at once.

    Args: hidden (n, emb_sz), targets (n,), weight (vocab, emb_sz), bias (vocab,). Products are of the type that
    autocast asks for, else of the arguments' own.
    """
    if hidden.device.type == "cpu":
        return FusedSoftmax.apply(hidden, weight, bias, targets, buffers or Buffers())
    logits = F.linear(hidden, weight, bias)
    # In mixed precision logits may have 16 bits, too few for a sum over the vocabulary.
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets)


def sampled_cross_entropy(hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None, head: int,
                          samples: int, buffers: Buffers | None = None) -> Tensor:
    """Mean cross-entropy with an estimated partition function.

    Args: those of `linear_cross_entropy`. With `samples` not smaller than the words outside head and targets, it is
    the exact cross-entropy.
    """
    vocab = weight.shape[0]
    exact = torch.zeros(vocab, dtype=torch.bool, device=weight.device)
    exact[:head] = True
    exact[targets] = True
    rest = (~exact).nonzero().squeeze(1)
    drawn = rest[torch.randperm(len(rest), device=rest.device)[:samples]]
    candidates = torch.cat([exact.nonzero().squeeze(1), drawn])
    stands_for = torch.zeros(len(candidates), dtype=weight.dtype, device=weight.device)
    if len(drawn):
        stands_for[-len(drawn):] = math.log(len(rest) / len(drawn))
    if bias is not None:
        stands_for = stands_for + bias[candidates]
    place = torch.empty(vocab, dtype=torch.long, device=weight.device)
    place[candidates] = torch.arange(len(candidates), device=weight.device)
    return linear_cross_entropy(hidden, place[targets], F.embedding(candidates, weight), stands_for, buffers)


class FusedSoftmax(torch.autograd.Function):
    """`linear_cross_entropy` on a CPU; the gradients are made in the forward pass, and backward hands them on.

    With c a row's shift, e = exp(logit - c) and s = sum(e), a row's loss is log(s) + c - (target's logit), and its
    gradient by the logits e / s less one at the target. Dividing by s is left to the small matrices:
    dhidden = (e @ weight) / s, dweight = e.T @ (hidden / s). The shift and the bias are columns of the product, in two
    parts each, as 16 bits alone would be too coarse. The shift is the target's logit: s is then at least 1 and the
    loss is log(s). A row whose largest logit lies far above it (s beyond `LARGEST_SUM`, e^69) is done again, with the
    largest logit as its shift: s would overflow from e^88 on, and s times the rows of a batch before.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, buffers: Buffers) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
        with torch.autocast("cpu", enabled=False):
            loss, *gradients = _loss_and_gradients(hidden.detach(), weight.detach(),
                                                   None if bias is None else bias.detach(), targets, dtype, buffers,
                                                   ctx.needs_input_grad[:3])
        ctx.gradients = gradients
        return loss

    @staticmethod
    def backward(ctx, scale: Tensor) -> tuple:
        gradients = ctx.gradients
        if scale.item() != 1:
            gradients = [None if gradient is None else gradient * scale for gradient in gradients]
        return *gradients, None, None


def _loss_and_gradients(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype,
                        buffers: Buffers, wanted: tuple[bool, ...]) -> tuple[Tensor, ...]:
    n, size = hidden.shape
    words = _padded(len(weight), WORDS)
    # Behind the vectors: two columns of shift, two of bias; all that a product needs.
    shift, offset, columns = slice(size, size + 2), slice(size + 2, size + 4), _padded(size + 4, COLUMNS)
    left = buffers.get("left", n, columns, dtype)
    left[:, :size] = hidden
    left[:, offset] = 1
    left[:, size + 4:] = 0
    right = buffers.get("right", words, columns, dtype)
    right[:len(weight), :size] = weight
    right[:, shift] = 1
    right[:len(weight), offset] = 0 if bias is None else _two_parts(bias, dtype)
    right[:, size + 4:] = 0
    # Words that there are not.
    right[len(weight):, :size] = 0
    right[len(weight):, offset] = torch.finfo(dtype).min / 4
    across = buffers.get("across", columns, words, dtype)
    across.copy_(right.T)

    of_targets = weight[targets]
    target_logits = (hidden * of_targets).sum(1)
    if bias is not None:
        target_logits += bias[targets]
    left[:, shift] = -_two_parts(target_logits, dtype)
    row_loss = torch.empty_like(target_logits)
    dhidden = torch.empty_like(hidden) if wanted[0] else None
    dweight = torch.empty_like(weight) if wanted[1] else None
    dbias = torch.empty_like(bias) if wanted[2] else None
    # Larger pieces for larger vectors: a piece's gradient by the weights is added to the whole, which costs memory
    # traffic; but e must stay in the cache.
    rows = ROWS if size <= 256 else 3 * ROWS
    e = buffers.get("e", min(n, rows), words, dtype)
    by_piece = buffers.get("by_piece", words, _padded(size + 1, COLUMNS), dtype)
    weighted = buffers.get("weighted", min(n, rows), by_piece.shape[1], dtype)
    for begin in range(0, n, rows):
        piece = slice(begin, min(n, begin + rows))
        terms = e[:piece.stop - begin]
        total = _exponentials(left[piece], across, terms)
        row_loss[piece] = total.log()
        if not (total < LARGEST_SUM).all():
            torch.mm(left[piece], across, out=terms)
            above = terms.amax(1).to(target_logits.dtype).clamp(min=0)
            left[piece, shift] = -_two_parts(target_logits[piece] + above, dtype)
            total = _exponentials(left[piece], across, terms)
            row_loss[piece] = total.log() + above
        scale = 1 / (total * n)
        if dhidden is not None:
            torch.mul(torch.mm(terms, right[:, :size]), scale[:, None], out=dhidden[piece])
        if wanted[1] or wanted[2]:
            of_piece = weighted[:len(terms)]
            torch.mul(hidden[piece], scale[:, None], out=of_piece[:, :size])
            of_piece[:, size] = scale
            of_piece[:, size + 1:] = 0
            torch.mm(terms.T, of_piece, out=by_piece)
            of_words = by_piece[:len(weight)]
            for whole, part in ((dweight, of_words[:, :size]), (dbias, of_words[:, size])):
                if whole is not None:
                    whole.add_(part) if begin else whole.copy_(part)
    if dhidden is not None:
        dhidden.add_(of_targets, alpha=-1 / n)
    if dweight is not None:
        dweight.index_add_(0, targets, hidden, alpha=-1 / n)
    if dbias is not None:
        dbias.sub_(torch.bincount(targets, minlength=len(weight)), alpha=1 / n)
    return row_loss.mean(), dhidden, dweight, dbias


def _exponentials(left: Tensor, across: Tensor, out: Tensor) -> Tensor:
    """Puts exp(left @ across) into `out` and returns the sum of each row, in single precision or better."""
    torch.mm(left, across, out=out).exp_()
    total = torch.promote_types(out.dtype, torch.float32)
    return out.view(len(out), PARTS, -1).sum(-1).sum(1, dtype=total)


def _two_parts(values: Tensor, dtype: torch.dtype) -> Tensor:
    """(n,) as (n, 2) of a coarser type whose sum is nearly exact: the rounded value and what rounding left."""
    coarse = values.to(dtype)
    return torch.stack([coarse, (values - coarse.to(values.dtype)).to(dtype)], dim=1)


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
