"""What pretrain_lm and finetune_lm share: the text they read, the training, what they leave behind."""

from typing import Sequence

import numpy as np
import torch
from fastai.callback.rnn import RNNCallback, RNNRegularizer
from torch import nn

from . import training, vocab, weights
from .hyperparameters import LANGUAGE_MODEL, Optimization
from .loaders import LMLoader, TextStream
from .models import lm_groups
from .names import DataFolder
from .phases import Phase
from .records import Run
from .softmax import SAMPLES, DecoderLoss, skip_decoder


def text(folder: DataFolder, splits: Sequence[str], backwards: bool, bpe: bool = False,
         rows: np.ndarray | None = None) -> TextStream:
    """The text of those splits that the dataset has, or of some rows of the train split alone."""
    ids = folder.ids(bpe)
    if rows is not None:
        return TextStream([(vocab.load_ids(ids, "train"), rows)], backwards)
    return TextStream([(vocab.load_ids(ids, split), None) for split in splits if vocab.has_split(ids, split)],
                      backwards)


def job(run: Run, model: nn.Module, phases: list[Phase], train_text: TextStream, val_text: TextStream, *, bs: int,
        bptt: int, seed: int, device: torch.device, optimization: Optimization = LANGUAGE_MODEL,
        sampled: bool = False, val_every: int = 1) -> training.Training:
    """The training of the model in place; its `fit` returns the rows (best, last) of metrics.jsonl."""
    train_loader = LMLoader(train_text, bs=bs, bptt=bptt, seed=seed, what="the training text")
    val_loader = LMLoader(val_text, bs=bs, bptt=bptt, seed=None, what="the validation text")
    skip_decoder(model)
    run.say(f"training text {len(train_text):,} tokens, validation text {len(val_text):,} tokens, "
            f"{sum(p.numel() for p in model.parameters()):,} weights")
    return training.Training(run, model, lm_groups, phases, train_loader, val_loader,
                             validation=training.LanguageModelValidation(),
                             callbacks=[RNNCallback(), RNNRegularizer(optimization.alpha, optimization.beta)],
                             optimization=optimization, device=device, unit="tokens",
                             loss_func=DecoderLoss(model[1].decoder, samples=SAMPLES if sampled else 0),
                             val_every=val_every)


def evaluate(model: nn.Module, val_text: TextStream, *, bs: int, bptt: int, device: torch.device) -> dict:
    """Validation loss, perplexity and accuracy of a model as it is (`notrain`)."""
    loader = LMLoader(val_text, bs=bs, bptt=bptt, seed=None, what="the validation text")
    skip_decoder(model)
    validation = training.LanguageModelValidation()
    learn = training.Learner(training.DataLoaders(loader, loader, device=device), model.to(device),
                             loss_func=DecoderLoss(model[1].decoder), default_cbs=False,
                             cbs=[training.TrainEvalCallback(), training.ModelResetter(), RNNCallback(), validation])
    learn.validate()
    return {"epoch": 0, "steps": 0, **validation.values()}


def save(run: Run, model: nn.Module, facts: dict) -> dict:
    """Writes the weights into the run's artefact; returns the facts of its manifest."""
    return {**facts, "weights_sha256": weights.save(model, run.artefact / weights.WEIGHTS, facts)}
