"""Writes a language model in the form that fastai itself loads."""

import shutil
from pathlib import Path

from ulmfit import cli, files, names, records
from ulmfit.errors import UsageError, UserError
from ulmfit.names import DataFolder


def export(dir_path=None, to=None, lm_id="", backwards=False, bpe=False, train_file_id="", seed=0, pretrain_id=None,
           export_id=None, overwrite=False):
    """Writes a fine-tuned language model as fastai v2's pair of weights and vocabulary, and its encoder alone.

    Reads   dir_path/models/lm--.../ (finetune_lm); with --pretrain_id, dir_path/models/pretrained--.../ (pretrain_lm).
    Writes  to/ID-fwd.pth, to/ID-fwd.pkl and to/ID-fwd_encoder.pth (bwd with --backwards); with --bpe to/ID-fwd-bpe.pth
            and so on, and the sentencepiece model to/ID-fwd-bpe.model.

        python imdb_scripts/export.py --dir_path=data/imdb --lm_id=small --to=exported

    In fastai, language_model_learner(..., pretrained_fnames=["ID-fwd", "ID-fwd"]) and load_encoder("ID-fwd_encoder")
    look for them in the learner's models folder; the sizes, which fastai must be told, are printed. finetune_lm takes
    them by --pretrain_path=exported --pretrain_id=ID, those of subwords only from the folder of pretrain_lm itself.
    Files that are there are replaced with --overwrite alone.
    """
    if pretrain_id is not None and (lm_id or train_file_id):
        raise UsageError("--pretrain_id exports a pretrained language model, --lm_id and --train_file_id name a "
                         "fine-tuned one; choose one")
    folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
    if pretrain_id is None:
        source = folder.model(names.lm_name(backwards, bpe, lm_id, train_file_id, seed))
        made_by = names.command("finetune_lm", dir_path=folder.path, lm_id=lm_id, backwards=backwards,
                                bpe=bpe, train_file_id=train_file_id, seed=seed)
    else:
        source = folder.model(names.pretrained_name(backwards, bpe, pretrain_id or folder.name, seed))
        made_by = names.command("pretrain_lm", dir_path=folder.path, pretrain_id=pretrain_id, backwards=backwards,
                                bpe=bpe, seed=seed)
    made = records.read_manifest(source, made_by)
    name = export_id or (lm_id if pretrain_id is None else pretrain_id or folder.name) or names.DEFAULT_ID
    paths = names.export_files(Path(to) if to else folder.export(), name, backwards, bpe)
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise UserError(f"{', '.join(there)} exists; choose another --to or --export_id, or replace with --overwrite")

    from ulmfit import models, vocab, weights

    model = models.language_model(made["vocab_size"], **made["sizes"], dropmult=1.0)
    weights.load_whole(model, source / weights.WEIGHTS)
    weights.export(model, weights.vocabulary(source), *paths[:3])
    if bpe:
        with files.replacing(paths[3]) as temporary:
            shutil.copyfile(vocab.sentencepiece_of(source, made), temporary)
    print(f"{', '.join(names.shown(path) for path in paths)}: fastai's config is dict(awd_lstm_lm_config, "
          f"{', '.join(f'{size}={value}' for size, value in made['sizes'].items())})")


if __name__ == "__main__":
    cli.main(export)
