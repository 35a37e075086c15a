"""fastai's AWD-LSTM as language model and as classifier, the latter with pooling that is exact at every length."""

import copy
from typing import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from fastai.text.models.awdlstm import (AWD_LSTM, EmbeddingDropout, WeightDropout, awd_lstm_clas_config,
                                        awd_lstm_clas_split, awd_lstm_lm_config, awd_lstm_lm_split, dropout_mask)
from fastai.text.models.core import PoolingLinearClassifier, SentenceEncoder, get_language_model, get_text_classifier
from torch import Tensor, nn

from .hyperparameters import HIDDEN_LAYERS, Dropouts
from .dropout import quick_dropout
from .lstm import LSTM
from .vocab import PAD_ID

lm_groups, classifier_groups = awd_lstm_lm_split, awd_lstm_clas_split


def language_model(vocab_size: int, *, emb_sz: int, n_hid: int, n_layers: int, dropmult: float,
                   dropouts: Dropouts = Dropouts()) -> nn.Module:
    """AWD-LSTM language model with tied weights; dropouts of 2018 (input 0.25, output 0.1, weight 0.2, embedding
    0.02, hidden 0.15) times `dropmult`, but for those that `dropouts` sets. Input (batch, tokens) ids; output logits
    (batch, tokens, vocab_size)."""
    config = {**awd_lstm_lm_config, "emb_sz": emb_sz, "n_hid": n_hid, "n_layers": n_layers, "pad_token": PAD_ID,
              **dropouts.of_language_model(dropmult)}
    model = get_language_model(AWD_LSTM, vocab_size, config=config)
    _mend(model[0])
    return model


class LookupDropout(EmbeddingDropout):
    """fastai's dropout of whole words, applied to the words that a batch has: the same numbers from the same random
    ones, without a masked copy of the whole matrix, nor a gradient of that copy."""

    def forward(self, words: Tensor) -> Tensor:
        return self.drop(self.vectors(words), words)

    def vectors(self, words: Tensor) -> Tensor:
        """Those of the words, none dropped."""
        return F.embedding(words, self.emb.weight, self.emb.padding_idx)

    def drop(self, vectors: Tensor, words: Tensor) -> Tensor:
        if not self.training or self.embed_p == 0:
            return vectors
        mask = dropout_mask(self.emb.weight.data, (len(self.emb.weight), 1), self.embed_p)
        return vectors * F.embedding(words, mask)


class QuickWeightDropout(WeightDropout):
    """fastai's, by `quick_dropout` where it trains on a CPU.

    Without dropout it lets a model go from training to evaluation: `F.dropout` with p = 0 returns the weight itself,
    which the LSTM would register as a parameter of its own and then refuse the copy that evaluation puts in its place.
    """

    def _setweights(self) -> None:
        raw = self.weight_hh_l0_raw
        if self.weight_p == 0:
            self.module.weight_hh_l0 = raw.clone()
        elif self.training and raw.device.type == "cpu":
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else raw.dtype
            self.module.weight_hh_l0 = quick_dropout(raw, self.weight_p, dtype)
        else:
            super()._setweights()


def _mend(encoder: AWD_LSTM) -> None:
    """Puts our dropouts and LSTMs in the place of fastai's."""
    encoder.encoder_dp = LookupDropout(encoder.encoder, encoder.encoder_dp.embed_p)
    for dropped in encoder.rnns:
        # As fastai made them, weights and all; only their forward passes are others.
        dropped.__class__, dropped.module.__class__ = QuickWeightDropout, LSTM


def lstm_weights(model: nn.Module) -> int:
    """How many weights the model's LSTMs have, without their biases."""
    return sum(lstm.n_weights for lstm in model.modules() if isinstance(lstm, LSTM))


class ChunkedEncoder(SentenceEncoder):
    """BPT3C: a document in chunks of bptt tokens, each starting from the state that the last one ended in.

    Differs from fastai's SentenceEncoder in that the lengths come with the batch (a document may hold the padding
    token as a word), that chunks before the last `max_len` tokens build no graph, and in the layout of the batch,
    which `pad_batch` makes: every document starts on a chunk's border, so that a row's states are those of the
    document run alone, and the last chunk is cut to what the batch needs.
    """

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Args: ids (rows, width) as `pad_batch` lays them out, lengths (rows,), longest first.

        Returns the last layer's states (rows, kept width, emb_sz) and the mask of padding (rows, kept width).
        """
        ids, lengths = batch
        rows, width = ids.shape
        self.reset()
        bptt = self.bptt
        chunks = -(-width // bptt)
        chunks_of_row = -(-lengths // bptt)
        kept = max(1, self.max_len // bptt)
        # The vectors of all chunks at once, as a gradient by them is as large as the matrix they are from.
        first = max(0, chunks - kept)
        vectors = (None,) * first + self.module.encoder_dp.vectors(ids[:, first * bptt:]).split(bptt, dim=1)
        outputs = []
        for chunk in range(chunks):
            # Rows are sorted, so those that have begun are the first ones.
            begun = int((chunks_of_row >= chunks - chunk).sum())
            piece = ids[:begun, chunk * bptt:(chunk + 1) * bptt]
            if chunk < first:
                with torch.no_grad():
                    self.module(piece)
                continue
            states = self.module(self.module.encoder_dp.drop(vectors[chunk][:begun], piece), from_embeds=True)
            if begun < rows:
                states = torch.cat([states, states.new_zeros(rows - begun, *states.shape[1:])])
            outputs.append(states)
        states = torch.cat(outputs, dim=1)
        begin = (chunks - chunks_of_row) * bptt
        position = torch.arange(width - states.shape[1], width, device=ids.device)
        real = (position >= begin[:, None]) & (position < (begin + lengths)[:, None])
        return states, ~real


def concat_pool(states: Tensor, padding: Tensor) -> Tensor:
    """`[h_T, maxpool(H), meanpool(H)]` over each row's own states (section 3.3).

    Args: states (rows, width, n), padding (rows, width) True where a state does not count. Returns (rows, 3n).
    """
    real = ~padding
    last = padding.shape[1] - 1 - real.flip(1).to(torch.uint8).argmax(dim=1)
    # In mixed precision the states are of 16 bits, too few for a sum over a long document.
    total = states.masked_fill(padding[:, :, None], 0).sum(dim=1, dtype=torch.float32)
    mean = total / real.sum(dim=1)[:, None].to(total.dtype)
    highest = states.masked_fill(padding[:, :, None], -float("inf")).max(dim=1).values
    return torch.cat([states[torch.arange(len(states), device=states.device), last], highest, mean], dim=1)


class PoolingClassifier(PoolingLinearClassifier):
    """fastai's head on `concat_pool`. Returns logits (rows, classes), the states and their padding mask, which the
    regularizer needs."""

    def forward(self, encoded: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        states, padding = encoded
        return self.layers(concat_pool(states, padding)), states, padding


class TextClassifier(nn.Sequential):
    """Encoder and head, in fastai's order and with its parameter names. Called with ids and lengths."""

    def reset(self) -> None:
        self[0].reset()

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self[1](self[0]((ids, lengths)))


def classifier(vocab_size: int, n_classes: int, *, emb_sz: int, n_hid: int, n_layers: int, bptt: int, max_len: int,
               dropmult: float, dropouts: Dropouts = Dropouts(), lin_ftrs: Sequence[int] = HIDDEN_LAYERS) \
        -> TextClassifier:
    """AWD-LSTM classifier; dropouts of 2018 (input 0.4, weight 0.5, embedding 0.05, hidden 0.3, head 0.4) times
    `dropmult`, but for those that `dropouts` sets, and 0.1 behind each of the head's hidden layers in any case.

    lin_ftrs: sizes of these hidden layers."""
    config = {**awd_lstm_clas_config, "emb_sz": emb_sz, "n_hid": n_hid, "n_layers": n_layers, "pad_token": PAD_ID,
              **dropouts.of_classifier(dropmult)}
    lin_ftrs, ps = list(lin_ftrs), [0.1] * len(lin_ftrs)
    stock = get_text_classifier(AWD_LSTM, vocab_size, n_classes, seq_len=bptt, config=config, lin_ftrs=lin_ftrs, ps=ps,
                                pad_idx=PAD_ID, max_len=max_len)
    _mend(stock[0].module)
    encoder = ChunkedEncoder(bptt, stock[0].module, pad_idx=PAD_ID, max_len=max_len)
    head = PoolingClassifier([emb_sz * 3, *lin_ftrs, n_classes], [config["output_p"], *ps], bptt)
    head.load_state_dict(stock[1].state_dict())
    return TextClassifier(encoder, head)


def at_precision(model: nn.Module, precision: str) -> nn.Module:
    """A classifier for prediction: itself, or one with a copy of its encoder in 16 bits; pooling and head stay as
    they are. precision: "full", "bf16" or "fp16"."""
    if precision == "full":
        return model
    half = torch.bfloat16 if precision == "bf16" else torch.float16
    with torch.no_grad():
        # The weights that dropout left are results of a computation, which cannot be copied.
        model.reset()
    return TextClassifier(copy.deepcopy(model[0]).to(half), model[1])


def pad_batch(documents: list[np.ndarray], bptt: int) -> tuple[np.ndarray, np.ndarray]:
    """Lays documents, longest first, out for ChunkedEncoder.

    A document of k chunks fills the batch's last k chunks from their first column on, so that its chunks are those
    it has alone; what no document needs of the last chunk is cut off.

    Returns ids (rows, width) int64, padded with the padding token, and lengths (rows,) int64.
    """
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    if (np.diff(lengths) > 0).any() or lengths[-1] < 1:
        raise ValueError("documents must not be empty and must come longest first")
    chunks_of_row = -(-lengths // bptt)
    chunks = int(chunks_of_row[0])
    in_last_chunk = lengths - (chunks_of_row - 1) * bptt
    ids = np.full((len(documents), (chunks - 1) * bptt + int(in_last_chunk.max())), PAD_ID, dtype=np.int64)
    for row, document in enumerate(documents):
        begin = (chunks - chunks_of_row[row]) * bptt
        ids[row, begin:begin + len(document)] = document
    return ids, lengths
