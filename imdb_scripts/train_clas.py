"""Fine-tunes a classifier on a language model's encoder."""

from ulmfit import cli, names, phases, records, vocab
from ulmfit.errors import UsageError
from ulmfit.names import DataFolder


def train_clas(dir_path=None, cuda_id=None, lm_id="", clas_id=None, bs=64, cl=1, backwards=False, startat=0,
               unfreeze=True, lr=0.01, dropmult=1.0, bpe=False, use_clr=True, use_regular_schedule=False,
               use_discriminative=True, last=False, chain_thaw=False, from_scratch=False, train_file_id="",
               early_stopping=False, seed=0, emb_sz=400, n_hid=1152, n_layers=3, bptt=70, max_len=None,
               lm_seed=None, lm_train_file_id="", start_clas_id=None, threads=None, results_dir=None,
               overwrite=False, quiet=False):
    """Trains a classifier on the labelled training split, from the encoder that finetune_lm left.

    Reads   dir_path/word/ids (bpe/ids with --bpe) and dir_path/models/lm--.../ (the one with this lm_id, direction and
            seed).
    Writes  dir_path/models/clas--.../weights.safetensors and a run record: error, loss and macro-F1 on val,
            predictions.csv with the class probabilities of every val document.

        python imdb_scripts/train_clas.py --dir_path=data/imdb --lm_id=small --backwards --cl=2

    --startat=0 unfreezes gradually: the last group for an epoch, the last two for an epoch (then kept as the
    intermediate classifier), then all for --cl epochs. --startat=1 loads that intermediate and goes on with all;
    --startat=2 trains all groups at once from the start. Training batches hold bs/2 documents, validation bs.
    """
    flags = dict(locals())
    phases.check_classifier_flags(startat=startat, unfreeze=unfreeze, last=last, chain_thaw=chain_thaw,
                                  from_scratch=from_scratch)
    if start_clas_id is not None and startat != 1:
        raise UsageError("--start_clas_id is read by --startat=1 alone; leave it out or add --startat=1")
    max_len = 20 * bptt if max_len is None else max_len
    if max_len < bptt:
        raise UsageError(f"--max_len={max_len} is less than one chunk of --bptt={bptt} tokens")
    folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
    tune = names.command("finetune_lm", dir_path=folder.path, lm_id=lm_id, backwards=backwards, bpe=bpe,
                         train_file_id=lm_train_file_id, seed=seed if lm_seed is None else lm_seed)
    ids = vocab.check_current(folder, bpe, then=() if from_scratch else (tune,))
    inputs = {"ids": records.artefact_input(folder.ids(bpe), vocab.tok2id_command(folder, bpe))}
    rows = None
    if train_file_id:
        inputs["subset"] = records.subset_input(folder.subset(train_file_id))
        rows = vocab.read_subset(folder.subset(train_file_id), vocab.load_ids(folder.ids(bpe), "train"))
    name = names.clas_name(backwards, bpe, lm_id, clas_id, train_file_id, seed)

    source, sizes = None, {"emb_sz": emb_sz, "n_hid": n_hid, "n_layers": n_layers}
    if startat == 1:
        start = names.clas_name(backwards, bpe, lm_id, clas_id if start_clas_id is None else start_clas_id,
                                train_file_id, seed)
        source = folder.model(names.intermediate_name(start))
        made_by = names.command("train_clas", dir_path=folder.path, lm_id=lm_id,
                                clas_id=clas_id if start_clas_id is None else start_clas_id, backwards=backwards,
                                bpe=bpe, train_file_id=train_file_id, seed=seed)
        inputs["intermediate"] = records.artefact_input(source, made_by)
    elif not from_scratch:
        source = folder.model(names.lm_name(backwards, bpe, lm_id, lm_train_file_id,
                                            seed if lm_seed is None else lm_seed))
        made_by = f"{tune}, or train without a language model: --from_scratch"
        inputs["language_model"] = records.artefact_input(source, made_by)
    if source is not None:
        sizes = records.loaded_sizes(source, made_by, sizes, cli.typed_or_changed(train_clas, flags))

    run = records.open_run(train_clas, names.run_id(folder.name, "train_clas", *name.split(names.SEPARATOR)[1:]),
                           flags, inputs, artefact=folder.model(name), resolved={**sizes, "max_len": max_len},
                           dataset=folder.name)
    if run.reused:
        return
    with run:
        from ulmfit import classifier, machine, models, training, weights

        device, _ = run.use_machine(cuda_id, threads)
        machine.set_seed(seed)
        model = models.classifier(ids["vocab_size"], len(ids["classes"]), **sizes, bptt=bptt, max_len=max_len,
                                  dropmult=dropmult)
        if startat == 1:
            weights.load_whole(model, source / weights.WEIGHTS)
        elif not from_scratch:
            weights.load_encoder(model, source, ids["vocab_fingerprint"])
        facts = {"kind": "classifier", "sizes": sizes, "bptt": bptt, "max_len": max_len, "dropmult": dropmult,
                 "backwards": backwards, "lang": ids["lang"], "text_columns": ids["text_columns"],
                 "classes": ids["classes"], **vocab.identity(ids)}
        plan = phases.classifier_phases(
            epochs=cl, lr=lr, n_groups=sizes["n_layers"] + 2, startat=startat, unfreeze=unfreeze, use_clr=use_clr,
            use_regular_schedule=use_regular_schedule, use_discriminative=use_discriminative, last=last,
            chain_thaw=chain_thaw, from_scratch=from_scratch, early_stopping=early_stopping)
        best, final, digest = classifier.train(
            run, model, plan, folder, facts, rows=rows,
            intermediate=folder.model(names.intermediate_name(name)), bs=bs, seed=seed, device=device)
        run.finish({"best": best, "last": final}, **facts, split="val", weights_sha256=digest)
        training.discard_checkpoint(run.artefact)
        run.say(f"val error {final['error']:.2f}% (best epoch {best['error']:.2f}%): {names.portable(run.folder)}",
                important=True)


if __name__ == "__main__":
    cli.main(train_clas)
