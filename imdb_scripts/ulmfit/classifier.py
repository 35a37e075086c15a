"""What train_clas, eval_clas and predict_with_classifier share."""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import files, metrics, models, predictions, records, training, vocab, weights
from .errors import UserError
from .loaders import ClassifierLoader
from .names import DataFolder
from .phases import Phase
from .records import Run
from .tokens import tokenize_texts


def train(run: Run, model: models.TextClassifier, phases: list[Phase], folder: DataFolder, facts: dict, *,
          rows: np.ndarray | None, intermediate: Path, bs: int, seed: int, device: torch.device) \
        -> tuple[dict, dict, str]:
    """Trains the model in place, predicts val, saves both.

    facts: what the weights file and the manifests say of the classifier. rows: those of the train split to learn from,
    None for all. intermediate: folder that keeps the model
    after a phase that says `keep`. Returns the rows of the best epoch and of the weights that are kept, and the
    sha256 of the weights.
    """
    ids = folder.ids(facts["bpe"])
    documents, val = vocab.load_ids(ids, "train"), vocab.load_ids(ids, "val")
    _check_trainable(documents, rows, facts["classes"], folder)
    bptt, backwards = facts["bptt"], facts["backwards"]
    # Batch normalisation in the head needs two documents.
    train_loader = ClassifierLoader(documents, rows, bs=max(2, bs // 2), bptt=bptt, backwards=backwards, seed=seed)
    val_loader = ClassifierLoader(val, None, bs=bs, bptt=bptt, backwards=backwards, seed=None)
    validation = training.ClassifierValidation(val_loader)

    def keep(phase: Phase) -> None:
        digest = weights.save(model, intermediate / weights.WEIGHTS, facts)
        files.write_json(intermediate / records.MANIFEST,
                         {**run.manifest(**facts), "fingerprint": run.record["fingerprint"] + "-intermediate",
                          "weights_sha256": digest})

    run.say(f"{len(train_loader.rows):,} training and {len(val):,} validation documents, {len(facts['classes'])} "
            f"classes, {sum(p.numel() for p in model.parameters()):,} weights")
    job = training.Training(run, model, models.classifier_groups, phases, train_loader, val_loader,
                            validation=validation,
                            callbacks=[training.ClassifierOutput(training.ALPHA, training.BETA)],
                            optimization=training.CLASSIFIER, device=device, unit="documents", after_phase=keep)
    best, final = job.fit()
    probabilities = training.predict(model, val_loader, device)
    write_predictions(run, val, probabilities, facts["classes"])
    digest = weights.save(model, run.artefact / weights.WEIGHTS, facts)
    vocab.copy_vocabulary(ids, run.artefact)
    return best, final, digest


def _check_trainable(documents: vocab.Documents, rows: np.ndarray | None, classes: list[str],
                     folder: DataFolder) -> None:
    count = len(documents) if rows is None else len(rows)
    if count < 2:
        raise UserError(f"{folder.path}: {count} training documents; a classifier needs at least 2")
    if len(classes) < 2:
        raise UserError(f"{folder.path}: train.csv has {len(classes)} classes; a classifier needs at least 2 "
                        f"(create_toks --n_lbls=1 reads the label from the first column)")


def write_predictions(run: Run, documents: vocab.Documents, probabilities: np.ndarray, classes: list[str]) -> None:
    names = [classes[label] if label >= 0 else "" for label in documents.labels]
    predictions.write(run.folder / "predictions.csv", documents.document_ids, names, probabilities, classes)


def load(folder: Path, vocab_fingerprint: str | None = None) -> models.TextClassifier:
    """A saved classifier, on the CPU. Raises UserError when its vocabulary is not `vocab_fingerprint`."""
    facts = weights.facts(folder / weights.WEIGHTS)
    if vocab_fingerprint is not None and facts["vocab_fingerprint"] != vocab_fingerprint:
        raise UserError(f"{folder} was trained with another vocabulary than the dataset has now; run finetune_lm and "
                        f"train_clas again with --overwrite")
    model = models.classifier(facts["vocab_size"], len(facts["classes"]), **facts["sizes"], bptt=facts["bptt"],
                              max_len=facts["max_len"], dropmult=facts["dropmult"])
    weights.load_whole(model, folder / weights.WEIGHTS)
    return model


def evaluate(run: Run, model: nn.Module, folder: DataFolder, facts: dict, *, split: str, bs: int,
             device: torch.device) -> dict:
    """Predicts a split, writes predictions.csv and returns its metrics with the confusion matrix.

    confusion: list of rows, one a true class, in `classes`' order. Raises UserError when the split has no documents.
    """
    ids = folder.ids(facts["bpe"])
    if not vocab.has_split(ids, split):
        raise UserError(f"{folder.path} has no {split}.csv; add it and run create_toks and tok2id --overwrite")
    documents = vocab.load_ids(ids, split)
    loader = ClassifierLoader(documents, None, bs=bs, bptt=facts["bptt"], backwards=facts["backwards"], seed=None)
    run.say(f"{len(documents):,} documents of {split}")
    probabilities = training.predict(model, loader, device, run.quiet)
    write_predictions(run, documents, probabilities, facts["classes"])
    return {**metrics.classification(documents.labels, probabilities),
            "confusion": metrics.confusion(documents.labels, probabilities).tolist()}


def predict_texts(folder: Path, rows: list[list[str]], *, bs: int, device: torch.device) -> np.ndarray:
    """Class probabilities (texts, classes) of texts, tokenized and numericalized as in training.

    folder: the classifier's. rows: each text's columns.
    """
    facts = weights.facts(folder / weights.WEIGHTS)
    stoi = vocab.ids_by_word(vocab.load_vocab(folder))
    tokenized = tokenize_texts(rows, facts["lang"], vocab.sentencepiece_of(folder, facts))
    ids = [vocab.numericalize(tokens, stoi) for tokens in tokenized]
    loader = ClassifierLoader(vocab.in_memory(ids), None, bs=bs, bptt=facts["bptt"], backwards=facts["backwards"],
                              seed=None)
    return training.predict(load(folder), loader, device)


def print_predictions(probabilities: np.ndarray, classes: list[str]) -> None:
    """A csv on standard output: the most probable class, then every class's probability."""
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["class", *(f"p:{name}" for name in classes)])
    for row in probabilities:
        rows.writerow([classes[int(row.argmax())], *(f"{value:.6g}" for value in row)])
