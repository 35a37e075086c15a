"""What train_clas, eval_clas and predict_with_classifier share."""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from fastai.losses import CrossEntropyLossFlat
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from . import files, metrics, models, predictions, records, training, vocab, weights
from .errors import UserError
from .hyperparameters import CLASSIFIER, HIDDEN_LAYERS, ClassifierLoss, Dropouts, Optimization
from .loaders import ClassifierLoader
from .names import DataFolder
from .phases import Phase
from .records import Run
from .tokenization import tokenize_texts


def job(run: Run, model: models.TextClassifier, phases: list[Phase], folder: DataFolder, facts: dict, *,
        rows: np.ndarray | None, intermediate: Path | None, bs: int, seed: int, device: torch.device,
        optimization: Optimization = CLASSIFIER, loss: ClassifierLoss = ClassifierLoss(),
        val_every: int = 1) -> training.Training:
    """The training of the model in place.

    facts: what the weights file and the manifests say of the classifier. rows: those of the train split to learn from,
    None for all. intermediate: folder that keeps the model after a phase that says `keep`; None where none does.
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
                          "weights_sha256": digest, "files": records.artefact_files(intermediate)})

    run.say(f"{len(train_loader.rows):,} training and {len(val):,} validation documents, {len(facts['classes'])} "
            f"classes, {sum(p.numel() for p in model.parameters()):,} weights")
    return training.Training(run, model, models.classifier_groups, phases, train_loader, val_loader,
                             validation=validation,
                             callbacks=[training.ClassifierOutput(optimization.alpha, optimization.beta)],
                             optimization=optimization, device=device, unit="documents",
                             loss_func=training_loss(loss, documents.labels[train_loader.rows], facts["classes"]),
                             val_every=val_every, after_phase=keep)


def train(job: training.Training, facts: dict) -> tuple[dict, dict, str]:
    """Trains, predicts val (where the last validation has not just done so), saves both.

    facts: see `job`. Returns the rows of the best epoch and of the weights that are kept, and the weights' sha256.
    """
    run, model = job.run, job.model
    best, final = job.fit()
    probabilities = job.validation.probabilities() if job.validated == final["epoch"] \
        else training.predict(model, job.val, job.device, job.precision)
    write_predictions(run, job.val.documents, probabilities, facts["classes"])
    return best, final, weights.save(model, run.artefact / weights.WEIGHTS, facts)


def training_loss(loss: ClassifierLoss, labels: np.ndarray, classes: list[str]) -> CrossEntropyLossFlat:
    """Cross-entropy, weighted and smoothed as `loss` says. Args: the labels (n,) of the training rows, the classes.

    Raises UserError when a class that is to be weighted has no rows.
    """
    weight = None
    if loss.class_weights == "balanced":
        missing = [name for number, name in enumerate(classes) if not (labels == number).any()]
        if missing:
            raise UserError(f"--class_weights=balanced: none of the {len(labels)} training documents is of class "
                            f"{missing[0]!r}; leave the flag out or train on more")
        weight = torch.tensor(compute_class_weight("balanced", classes=np.arange(len(classes)), y=labels),
                              dtype=torch.float32)
    return CrossEntropyLossFlat(weight=weight, label_smoothing=loss.label_smoothing)


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
    # It predicts and has no use for dropout; but fastai's head has no layer for a dropout of 0, and the names of the
    # layers behind it follow from that.
    head = facts["dropmult"] if facts.get("dropout_head") is None else facts["dropout_head"]
    model = models.classifier(facts["vocab_size"], len(facts["classes"]), **facts["sizes"], bptt=facts["bptt"],
                              max_len=facts["max_len"], dropmult=0.0,
                              dropouts=Dropouts(dropout_head=0.5 if head else 0.0),
                              lin_ftrs=facts.get("lin_ftrs", HIDDEN_LAYERS))
    weights.load_whole(model, folder / weights.WEIGHTS)
    return model


def load_intermediate(model: models.TextClassifier, folder: Path, vocab_fingerprint: str) -> None:
    """Loads the classifier of `folder` into one of the same sizes, whose dropouts may be others.

    By position: fastai's head has no layer for a dropout of 0, and the names of the layers behind it shift. Raises
    UserError when the vocabulary or a size is another.
    """
    # Its random first weights must not shift what training draws.
    with torch.random.fork_rng(devices=[]):
        stored = load(folder, vocab_fingerprint).state_dict()
    try:
        model.load_state_dict(dict(zip(model.state_dict(), stored.values(), strict=True)))
    except RuntimeError as error:
        raise UserError(f"{folder} does not fit this model: {' '.join(str(error).split())[:300]}") from error


def evaluate(run: Run, model: nn.Module, folder: DataFolder, facts: dict, *, split: str, bs: int,
             device: torch.device, precision: str = "full") -> dict:
    """Predicts a split, writes predictions.csv and returns its metrics with the confusion matrix.

    confusion: list of rows, one a true class, in `classes`' order. Raises UserError when the split has no documents.
    """
    ids = folder.ids(facts["bpe"])
    if not vocab.has_split(ids, split):
        raise UserError(f"{folder.path} has no {split}.csv; add it and run create_toks and tok2id --overwrite")
    documents = vocab.load_ids(ids, split)
    loader = ClassifierLoader(documents, None, bs=bs, bptt=facts["bptt"], backwards=facts["backwards"], seed=None)
    run.say(f"{len(documents):,} documents of {split}")
    probabilities = training.predict(model, loader, device, precision, run.quiet)
    write_predictions(run, documents, probabilities, facts["classes"])
    return {**metrics.classification(documents.labels, probabilities),
            "confusion": metrics.confusion(documents.labels, probabilities).tolist()}


@dataclass(frozen=True)
class Predictor:
    """A classifier that takes texts.

    numericalized: gives the ids of texts, each a list of its columns.
    """

    model: models.TextClassifier
    numericalized: Callable[[list[list[str]]], list[np.ndarray]]
    bptt: int
    backwards: bool

    def __call__(self, rows: list[list[str]], *, bs: int, device: torch.device) -> np.ndarray:
        """Class probabilities (texts, classes) float64, in the texts' own order."""
        loader = ClassifierLoader(vocab.in_memory(self.numericalized(rows)), None, bs=bs, bptt=self.bptt,
                                  backwards=self.backwards, seed=None)
        return training.predict(self.model, loader, device)


def predictor(folder: Path) -> Predictor:
    """The classifier of a model's folder; texts are tokenized and numericalized as in its training."""
    facts = weights.facts(folder / weights.WEIGHTS)
    return Predictor(load(folder), partial(_numericalized, folder, facts), facts["bptt"], facts["backwards"])


def _numericalized(folder: Path, facts: dict, rows: list[list[str]]) -> list[np.ndarray]:
    """The ids of texts, tokenized as the model in `folder` was trained. rows: each text's columns."""
    stoi = _ids_by_word(folder, facts["vocab_fingerprint"])
    sp_model = vocab.sentencepiece_of(folder, facts)
    return [vocab.numericalize(tokens, stoi) for tokens in tokenize_texts(rows, facts["lang"], sp_model)]


@lru_cache(maxsize=None)
def _ids_by_word(folder: Path, vocab_fingerprint: str) -> dict[str, int]:
    """A model's vocabulary, read once however often texts come. Raises UserError when it is another's."""
    return vocab.ids_by_word(vocab.load_vocab(folder, vocab_fingerprint))
