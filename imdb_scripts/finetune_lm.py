"""Fine-tunes a pretrained language model on a dataset's own text."""

import shutil

from ulmfit import cli, files, hyperparameters, names, records, sources, tracking, vocab
from ulmfit.errors import UsageError
from ulmfit.flags import bundled
from ulmfit.hyperparameters import Dropouts, Optimization
from ulmfit.lineage import SIZES, Lineage, ids_and_subset, there
from ulmfit.names import DataFolder
from ulmfit.schedules import ScheduleFlags


def finetune_lm(dir_path=None, pretrain_path=None, cuda_id=None, cl=25, pretrain_id="wt103", lm_id="", bs=64,
                dropmult=1.0, backwards=False, lr=4e-3, preload=True, bpe=False, startat=0, use_clr=True,
                use_regular_schedule=False, use_discriminative=True, notrain=False, joined=False, train_file_id="",
                early_stopping=False, seed=0, emb_sz=400, n_hid=1152, n_layers=3, bptt=70, pretrain_seed=0,
                start_lm_id=None, patience=6, freeze_epochs=0, divisor=None, schedule=None, cut_frac=None,
                ratio=None, pct_start=None, div=None, div_final=None, mom_max=None, mom_min=None, dropout_input=None,
                dropout_output=None, dropout_weight=None, dropout_embed=None, dropout_hidden=None, clip=0.3, wd=1e-7,
                beta1=0.8, beta2=0.99, eps=1e-8, alpha=2.0, beta=1.0, precision="auto", sampled=False,
                val_every=1, track="none", threads=None, results_dir=None, overwrite=False, quiet=False):
    """Trains a language model on the text of train (less val) and unsup, from a pretrained one.

    Reads   dir_path/word/ids (create_toks, tok2id; bpe/ids with --bpe) and the model that pretrain_lm left in
            pretrain_path, or else fastai's files there: wt103-fwd.tgz; wt103-fwd.pth and .pkl; fwd_wt103.h5 and
            itos_wt103.pkl.
    Writes  dir_path/models/lm--.../weights.safetensors and a run record with perplexity and accuracy on val.

        python imdb_scripts/finetune_lm.py --dir_path=data/trec6 --pretrain_path=data/wiki --pretrain_id=wiki --cl=15

    Words that the pretrained vocabulary lacks get its mean vector and bias; the counts are printed and recorded.
    --preload=False starts from random weights and needs no pretrained model. --startat=1 goes on from the language
    model --start_lm_id (without it, from the one of this very name, which --overwrite then replaces).
    --joined reads the text of val and test too: its perplexity is marked as measured on seen text.
    --dropmult=0, here and in pretrain_lm, is the vanilla language model of the paper's Table 5.
    """
    flags = dict(locals())
    typed = cli.typed_or_changed(finetune_lm, flags)
    hyperparameters.check_flags(flags, typed)
    if notrain:
        hyperparameters.check_no_training(typed)
    if freeze_epochs and not preload:
        raise UsageError("--freeze_epochs trains the embedding with LSTM layers frozen, which --nopreload leaves "
                         "random; choose one")
    if joined and train_file_id:
        raise UsageError("--joined reads the text of every file, --train_file_id that of a subset alone; choose one")
    if notrain and (not preload or startat):
        raise UsageError("--notrain keeps the pretrained weights as they are; it goes with neither --nopreload nor "
                         "--startat")
    if startat and not preload:
        raise UsageError("--startat goes on from a fine-tuned language model, --nopreload from random weights; "
                         "choose one")
    if start_lm_id is not None and not startat:
        raise UsageError("--start_lm_id is read by --startat=1 alone; leave it out or add --startat=1")
    tracking.check(track)
    folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
    ids, inputs, rows = sources.ids_of(folder, bpe, train_file_id)
    asked = lineage(flags)

    text_seen = joined
    source, sizes = None, {"emb_sz": emb_sz, "n_hid": n_hid, "n_layers": n_layers}
    if startat:
        start = asked.reads["start"][-1]
        made_by = names.command("finetune_lm", dir_path=folder.path,
                                lm_id=lm_id if start_lm_id is None else start_lm_id, backwards=backwards, bpe=bpe,
                                train_file_id=train_file_id, seed=seed)
        if start == asked.artefact:
            start = _kept_start(folder, start.name, overwrite)
        inputs["start"] = records.artefact_input(start, made_by)
        if bpe:
            vocab.check_same_pieces(folder, ids, start)
        text_seen = text_seen or records.read_manifest(start, made_by).get("val_text_seen", False)
        source = sources.Source(start, made_by)
    elif preload:
        source = sources.pretrained(folder, ids, inputs, pretrain_path=pretrain_path, pretrain_id=pretrain_id,
                                    pretrain_seed=pretrain_seed, backwards=backwards, bpe=bpe,
                                    without="--preload=False")
    if source is not None:
        sizes = source.sizes(sizes, typed)

    run = records.open_run(finetune_lm, asked.run_id, flags, inputs, artefact=asked.artefact, resolved=sizes,
                           dataset=folder.name)
    if run.reused:
        return
    with run:
        from ulmfit import language_model, machine, models, phases, training

        device, _ = run.use_machine(cuda_id, threads)
        machine.set_seed(seed)
        model = models.language_model(ids["vocab_size"], **sizes, dropmult=dropmult,
                                      dropouts=bundled(Dropouts, flags))
        counts, origin = {}, {}
        if source is not None:
            origin = {} if source.foreign is None else {"pretrained_format": source.foreign.generation}
            tensors, counts = source.arranged(vocab.load_vocab(folder.ids(bpe), ids["vocab_fingerprint"]))
            model.load_state_dict(tensors)
            del tensors
            by_alias = f" ({counts['aliased']} special tokens by their old name)" if counts.get("aliased") else ""
            run.say(f"{counts['matched']:,} words of the vocabulary have pretrained vectors{by_alias}, "
                    f"{counts['filled']:,} get the mean")
        facts = {"kind": "language_model", "sizes": sizes, "backwards": backwards, **vocab.identity(ids)}
        splits = ("train", "unsup", "val", "test") if joined else ("train", "unsup")
        train_text = language_model.text(folder, splits, backwards, bpe, rows)
        val_text = language_model.text(folder, ("val",), backwards, bpe)
        vocab.copy_vocabulary(folder.ids(bpe), run.artefact, facts)
        if notrain:
            best = last = language_model.evaluate(model, val_text, bs=bs, bptt=bptt, device=device)
            run.write_epochs([last])
        else:
            best, last = language_model.job(
                run, model,
                phases.language_model_phases(
                    epochs=cl, lr=lr, n_layers=sizes["n_layers"], pretraining=False,
                    schedules=bundled(ScheduleFlags, flags), use_discriminative=use_discriminative, divisor=divisor,
                    freeze_epochs=freeze_epochs, early_stopping=early_stopping, patience=patience),
                train_text, val_text, bs=bs, bptt=bptt, seed=seed, device=device, sampled=sampled, val_every=val_every,
                optimization=bundled(Optimization, flags)).fit()
        facts = language_model.save(run, model, facts)
        run.finish({"best": best, "last": last}, **facts, **origin, vocabulary_match=counts, val_text_seen=text_seen)
        training.discard_checkpoint(run.artefact)
        run.say(f"perplexity {last['perplexity']:.2f}{' (on seen text)' * text_seen}, accuracy {last['accuracy']:.4f}: "
                f"{names.portable(run.folder)}", important=True)


def _kept_start(folder: DataFolder, name: str, overwrite: bool):
    """The language model that `--startat` under the same name goes on from.

    It is copied aside before it is replaced, so that a run that is stopped half-way can be taken up again.
    """
    model, kept = folder.model(name), folder.model(names.start_name(name))
    if overwrite and (model / records.MANIFEST).exists():
        with files.replacing_folder(kept) as temporary:
            shutil.copytree(model, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
    return kept if (kept / records.MANIFEST).exists() else model


def lineage(flags: dict) -> Lineage:
    """What a run of these flags reads and writes; see `ulmfit.lineage`."""
    folder = DataFolder(flags["dir_path"] or names.project_root() / "data" / "imdb")
    which = {name: flags[name] for name in ("backwards", "bpe", "train_file_id", "seed")}
    name = names.lm_name(**which, lm_id=flags["lm_id"])
    reads = ids_and_subset(folder, flags["bpe"], flags["train_file_id"])
    loads = flags["startat"] or flags["preload"]
    if flags["startat"]:
        start = names.lm_name(**which, lm_id=flags["lm_id"] if flags["start_lm_id"] is None else flags["start_lm_id"])
        kept = (folder.model(names.start_name(start)),) if start == name else ()
        reads["start"] = (*kept, folder.model(start))
    elif flags["preload"]:
        corpus = DataFolder(flags["pretrain_path"] or names.project_root() / "data" / "wt103")
        reads["pretrained"] = (corpus.model(names.pretrained_name(
            flags["backwards"], flags["bpe"], flags["pretrain_id"], flags["pretrain_seed"])),)
        if not flags["bpe"]:
            foreign = names.foreign_files(corpus.path, flags["backwards"], flags["pretrain_id"])
            reads["pretrained"] += tuple(weights for _, weights, _ in foreign)
            # Weights of which the vocabulary is another file have that as an input of its own.
            vocabulary = next((place for _, weights, places in foreign if weights.is_file() for place in places
                               if place.is_file()), None)
            if vocabulary is not None and not there(reads["pretrained"][0]):
                reads["pretrained_vocab"] = (vocabulary,)
    return Lineage(finetune_lm, names.run_id(folder.name, "finetune_lm", *name.split(names.SEPARATOR)[1:]),
                   folder.name, flags, reads, artefact=folder.model(name),
                   resolved={} if loads else {size: flags[size] for size in SIZES},
                   from_weights=SIZES if loads else ())


if __name__ == "__main__":
    cli.main(finetune_lm)
