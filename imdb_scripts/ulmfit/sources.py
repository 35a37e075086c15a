"""What a training starts from: the dataset's ids, and the language model whose weights it takes over."""

from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import numpy as np

from . import foreign_weights, names, records, vocab
from .foreign_weights import ForeignModel
from .names import DataFolder


def ids_of(folder: DataFolder, bpe: bool, train_file_id: str = "",
           then: Sequence[str] = ()) -> tuple[dict, dict[str, records.Input], np.ndarray | None]:
    """The manifest of a dataset's ids, the run's inputs so far, and the rows of the training subset (None: all).

    then: commands that come after tok2id, for the message where it has not run. Raises UserError as
    `vocab.check_current` and `vocab.read_subset`.
    """
    ids = vocab.check_current(folder, bpe, then)
    inputs = {"ids": records.artefact_input(folder.ids(bpe), vocab.tok2id_command(folder, bpe))}
    rows = None
    if train_file_id:
        inputs["subset"] = records.subset_input(folder.subset(train_file_id))
        rows = vocab.read_subset(folder.subset(train_file_id), vocab.load_ids(folder.ids(bpe), "train"))
    return ids, inputs, rows


@dataclass
class Source:
    """Weights to start from.

    path: the model's folder, or the file of weights from elsewhere. made_by: the command that makes it, for messages.
    foreign: weights from elsewhere, as they were read.
    """

    path: Path
    made_by: str
    foreign: ForeignModel | None = None

    def sizes(self, asked: dict[str, int], typed: set[str]) -> dict[str, int]:
        """The weights' sizes. Raises UserError when one that the caller typed is another."""
        if self.foreign is not None:
            return records.fitting_sizes(self.path, self.foreign.sizes, asked, typed)
        return records.loaded_sizes(self.path, self.made_by, asked, typed)

    def arranged(self, words: list[str]) -> tuple[dict, dict[str, int]]:
        """The tensors of a language model for a vocabulary, and the counts of words matched and filled.

        Weights from elsewhere are let go afterwards: their embedding may be larger than the model.
        """
        from . import weights

        if self.foreign is None:
            return weights.load_pretrained(self.path, words)
        foreign, self.foreign = self.foreign, None
        return foreign.arranged(words)


def pretrained(folder: DataFolder, ids: dict, inputs: dict[str, records.Input], *, pretrain_path: str | None,
               pretrain_id: str, pretrain_seed: int, backwards: bool, bpe: bool, without: str) -> Source:
    """The pretrained language model: of pretrain_lm, or else fastai's files. Adds to the run's `inputs`.

    without: the flag that trains from random weights, for the message. Raises UserError when there is none, or when it
    has other subwords than the dataset, or words of another language.
    """
    corpus = DataFolder(pretrain_path or names.project_root() / "data" / "wt103")
    source = corpus.model(names.pretrained_name(backwards, bpe, pretrain_id, pretrain_seed))
    made_by = names.command("pretrain_lm", dir_path=corpus.path, backwards=backwards, bpe=bpe, pretrain_id=pretrain_id,
                            seed=pretrain_seed) + f", or start from random weights with {without}"
    # A model of our own comes first, even unfinished: weights from elsewhere must not slip in for it.
    if not bpe and not source.exists():
        if found := foreign_weights.find(corpus.path, backwards, pretrain_id):
            inputs.update(found.inputs())
            return Source(found.weights, made_by, found.read())
        made_by += f"; fastai's weights would be {foreign_weights.looked_for(corpus.path, backwards, pretrain_id)}"
    inputs["pretrained"] = records.artefact_input(source, made_by)
    if bpe:
        vocab.check_same_pieces(folder, ids, source)
    else:
        vocab.check_same_language(folder, ids, source)
    return Source(source, made_by)


def tune_command(folder: DataFolder, *, lm_id: str, backwards: bool, bpe: bool, train_file_id: str, seed: int) -> str:
    """The command that makes a fine-tuned language model."""
    return names.command("finetune_lm", dir_path=folder.path, lm_id=lm_id, backwards=backwards, bpe=bpe,
                         train_file_id=train_file_id, seed=seed)


def fine_tuned(folder: DataFolder, inputs: dict[str, records.Input], **language_model) -> Source:
    """The language model of finetune_lm whose encoder a classifier takes. Adds to the run's `inputs`.

    language_model: as `tune_command` takes it. Raises UserError when there is none.
    """
    path = folder.model(names.lm_name(**language_model))
    made_by = tune_command(folder, **language_model) + ", or train without a language model: --from_scratch"
    inputs["language_model"] = records.artefact_input(path, made_by)
    return Source(path, made_by)
