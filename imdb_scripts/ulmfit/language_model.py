"""What pretrain_lm and finetune_lm share: the text they read, the training, what they leave behind."""

import shutil
from pathlib import Path
from typing import Sequence

import numpy as np
import torch
from fastai.callback.rnn import RNNCallback, RNNRegularizer
from fastai.losses import CrossEntropyLossFlat
from torch import nn

from . import files, training, vocab, weights
from .errors import UserError
from .loaders import LMLoader, TextStream
from .models import lm_groups
from .names import DataFolder
from .phases import Phase
from .records import Run
from .sampled_softmax import SampledSoftmax, sample_in_training


def read_subset(path: Path, documents: vocab.Documents) -> np.ndarray:
    """Numbers, within the train split, of the documents that a subset file names: one row number of train.csv a line.

    Raises UserError with the line for a number that is none, repeated, out of range or set aside for validation.
    """
    place = {document: number for number, document in enumerate(documents.document_ids)}
    rows: dict[int, None] = {}
    # A byte that is no UTF-8 makes its line one that is no number, and the error names it.
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        document = f"train:{line.strip()}"
        if not line.strip().isdecimal() or document not in place:
            raise UserError(f"{path}, line {number}: {line[:40]!r} is not a row of train.csv that training may use "
                            f"(rows count from 0; those set aside for validation are left out)")
        if place[document] in rows:
            raise UserError(f"{path}, line {number}: row {line.strip()} stands there twice")
        rows[place[document]] = None
    if not rows:
        raise UserError(f"{path} names no document")
    return np.array(sorted(rows), dtype=np.int64)


def text(folder: DataFolder, splits: Sequence[str], backwards: bool, subset: Path | None = None) -> TextStream:
    """The text of those splits that the dataset has, or of a training subset alone."""
    ids = folder.ids()
    if subset is not None:
        train = vocab.load_ids(ids, "train")
        return TextStream([(train, read_subset(subset, train))], backwards)
    return TextStream([(vocab.load_ids(ids, split), None) for split in splits if vocab.has_split(ids, split)],
                      backwards)


def train(run: Run, model: nn.Module, phases: list[Phase], train_text: TextStream, val_text: TextStream, *, bs: int,
          bptt: int, seed: int, device: torch.device, sampled: bool = False) -> tuple[dict, dict]:
    """Trains the model in place. Returns the rows (best, last) of metrics.jsonl."""
    train_loader = LMLoader(train_text, bs=bs, bptt=bptt, seed=seed, what="the training text")
    val_loader = LMLoader(val_text, bs=bs, bptt=bptt, seed=None, what="the validation text")
    loss = CrossEntropyLossFlat()
    if sampled:
        loss = SampledSoftmax(model[1].decoder)
        sample_in_training(model)
    run.say(f"training text {len(train_text):,} tokens, validation text {len(val_text):,} tokens, "
            f"{sum(p.numel() for p in model.parameters()):,} weights")
    job = training.Training(run, model, lm_groups, phases, train_loader, val_loader,
                            validation=training.LanguageModelValidation(),
                            callbacks=[RNNCallback(), RNNRegularizer(training.ALPHA, training.BETA)],
                            optimization=training.LANGUAGE_MODEL, device=device, unit="tokens", loss_func=loss)
    return job.fit()


def evaluate(model: nn.Module, val_text: TextStream, *, bs: int, bptt: int, device: torch.device) -> dict:
    """Validation loss, perplexity and accuracy of a model as it is (`notrain`)."""
    loader = LMLoader(val_text, bs=bs, bptt=bptt, seed=None, what="the validation text")
    validation = training.LanguageModelValidation()
    learn = training.Learner(training.DataLoaders(loader, loader, device=device), model.to(device),
                             loss_func=CrossEntropyLossFlat(), default_cbs=False,
                             cbs=[training.TrainEvalCallback(), training.ModelResetter(), RNNCallback(), validation])
    learn.n_epoch = 1
    learn._do_epoch_validate()
    return {"epoch": 0, "steps": 0, **validation.values()}


def save(run: Run, model: nn.Module, ids: Path, facts: dict) -> dict:
    """Writes weights and vocabulary into the run's artefact; returns the facts of its manifest."""
    digest = weights.save(model, run.artefact / weights.WEIGHTS, facts)
    with files.replacing(run.artefact / vocab.VOCAB) as temporary:
        shutil.copyfile(ids / vocab.VOCAB, temporary)
    return {**facts, "weights_sha256": digest}
