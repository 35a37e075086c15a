"""Finds a learning rate for finetune_lm or train_clas: the range test."""

from ulmfit import cli, hyperparameters, names, phases, records, sources, vocab
from ulmfit.errors import UsageError, UserError
from ulmfit.flags import bundled
from ulmfit.hyperparameters import ClassifierLoss, Dropouts, Optimization
from ulmfit.names import DataFolder

# Flags that the other kind of model does not read.
OF_LM = {"pretrain_path", "pretrain_id", "pretrain_seed", "dropout_output"}
OF_CLAS = {"clas_id", "last", "max_len", "lm_seed", "lm_train_file_id", "lin_ftrs", "dropout_head", "class_weights",
           "label_smoothing"}


def lr_find(dir_path=None, kind="clas", cuda_id=None, lm_id="", clas_id=None, pretrain_path=None, pretrain_id="wt103",
            bs=64, backwards=False, bpe=False, dropmult=1.0, use_discriminative=True, last=False, from_scratch=False,
            train_file_id="", start_lr=1e-7, end_lr=10.0, num_it=100, stop_div=True, seed=0, emb_sz=400, n_hid=1152,
            n_layers=3, bptt=70, max_len=None, pretrain_seed=0, lm_seed=None, lm_train_file_id="", divisor=None,
            lin_ftrs="50", dropout_input=None, dropout_output=None, dropout_weight=None, dropout_embed=None,
            dropout_hidden=None, dropout_head=None, clip=None, wd=None, beta1=0.8, beta2=0.99, eps=1e-8, alpha=2.0,
            beta=1.0, class_weights=None, label_smoothing=0.0, precision="auto", threads=None, results_dir=None,
            overwrite=False, quiet=False):
    """Trains for --num_it updates at a rate that grows from --start_lr to --end_lr, and suggests one for --lr.

    Reads   dir_path/word/ids (bpe/ids with --bpe) and the model that the training would start from: --kind=clas the
            language model of finetune_lm, --kind=lm the pretrained one (as finetune_lm finds it); --from_scratch
            neither.
    Writes  a run record with the suggestions, lr_find.csv (lr, loss, smoothed loss) and lr_find.png. No weights.

        python imdb_scripts/lr_find.py --dir_path=data/imdb --kind=lm --lm_id=small
        python imdb_scripts/lr_find.py --dir_path=data/imdb --kind=clas --lm_id=small

    Batches, dropout, regularization, optimizer and the rates of the layer groups are those of finetune_lm or
    train_clas with the same flags; all groups train, or with --last the classifier's last one. The test stops when
    the loss is four times its lowest (--nostop_div: never). Printed is fastai's `valley`, as the --lr to take, then
    its other methods.
    """
    flags = dict(locals())
    typed, unread = cli.typed_or_changed(lr_find, flags), OF_CLAS if kind == "lm" else OF_LM
    for name in sorted(typed & unread):
        raise UsageError(f"--{name} is read by --kind={'clas' if kind == 'lm' else 'lm'} alone; leave it out")
    if end_lr <= start_lr:
        raise UsageError(f"--end_lr={end_lr:g} must be above --start_lr={start_lr:g}")
    phases.check_classifier_flags(startat=2, unfreeze=True, last=last, chain_thaw=False, from_scratch=from_scratch,
                                  divisor=divisor)
    default = hyperparameters.LANGUAGE_MODEL if kind == "lm" else hyperparameters.CLASSIFIER
    read = {name: value for name, value in flags.items() if name not in unread}
    read.update(clip=default.clip if clip is None else clip, wd=default.wd if wd is None else wd)
    hyperparameters.check_flags(read, typed)
    head = hyperparameters.hidden_layers(lin_ftrs)
    flags["lin_ftrs"] = hyperparameters.as_flag(head)
    max_len = 20 * bptt if max_len is None else max_len
    if max_len < bptt:
        raise UsageError(f"--max_len={max_len} is less than one chunk of --bptt={bptt} tokens")
    folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
    ids, inputs, rows = sources.ids_of(folder, bpe, train_file_id)

    source, sizes = None, {"emb_sz": emb_sz, "n_hid": n_hid, "n_layers": n_layers}
    if kind == "lm":
        name = names.lm_name(backwards, bpe, lm_id, train_file_id, seed)
        if not from_scratch:
            source = sources.pretrained(folder, ids, inputs, pretrain_path=pretrain_path, pretrain_id=pretrain_id,
                                        pretrain_seed=pretrain_seed, backwards=backwards, bpe=bpe,
                                        without="--from_scratch")
    else:
        name = names.clas_name(backwards, bpe, lm_id, clas_id, train_file_id, seed)
        if not from_scratch:
            source = sources.fine_tuned(folder, inputs, lm_id=lm_id, backwards=backwards, bpe=bpe,
                                        train_file_id=lm_train_file_id, seed=seed if lm_seed is None else lm_seed)
    if source is not None:
        sizes = source.sizes(sizes, typed)

    resolved = {**sizes, "max_len": max_len} if kind == "clas" else sizes
    run = records.open_run(lr_find, names.run_id(folder.name, "lr_find", *name.split(names.SEPARATOR)), flags, inputs,
                           resolved=resolved, dataset=folder.name)
    if run.reused:
        print(_result(run.record["metrics"]), flush=True)
        return
    with run:
        from ulmfit import classifier, language_model, lr_finder, machine, models, weights

        device, _ = run.use_machine(cuda_id, threads)
        machine.set_seed(seed)
        how = {"bs": bs, "seed": seed, "device": device, "optimization": bundled(Optimization, read)}
        if kind == "lm":
            model = models.language_model(ids["vocab_size"], **sizes, dropmult=dropmult,
                                          dropouts=bundled(Dropouts, read))
            if source is not None:
                words = vocab.load_vocab(folder.ids(bpe), ids["vocab_fingerprint"])
                model.load_state_dict(source.arranged(words)[0])
            job = language_model.job(
                run, model, phases.language_model_phases(
                    epochs=1, lr=1.0, n_layers=sizes["n_layers"], pretraining=False,
                    use_discriminative=use_discriminative, divisor=divisor),
                language_model.text(folder, ("train", "unsup"), backwards, bpe, rows),
                language_model.text(folder, ("val",), backwards, bpe), bptt=bptt, **how)
        else:
            model = models.classifier(ids["vocab_size"], len(ids["classes"]), **sizes, bptt=bptt, max_len=max_len,
                                      dropmult=dropmult, dropouts=bundled(Dropouts, read), lin_ftrs=head)
            if source is not None:
                weights.load_encoder(model, source.path, ids["vocab_fingerprint"])
            plan = phases.classifier_phases(epochs=1, lr=1.0, n_groups=sizes["n_layers"] + 2, startat=2, last=last,
                                            use_discriminative=use_discriminative, divisor=divisor,
                                            from_scratch=from_scratch)
            facts = {"classes": ids["classes"], "bptt": bptt, "backwards": backwards, **vocab.identity(ids)}
            job = classifier.job(run, model, plan, folder, facts, rows=rows, intermediate=None,
                                 loss=bundled(ClassifierLoss, read), **how)
        curve = lr_finder.find(job, start_lr=start_lr, end_lr=end_lr, num_it=num_it, stop_div=stop_div)
        suggested = lr_finder.suggestions(curve, num_it)
        lr_finder.write_csv(curve, run.folder / lr_finder.CSV)
        lr_finder.plot(curve, suggested, run.id, run.folder / lr_finder.PNG)
        if not suggested:
            raise UserError(f"the loss diverged after {len(curve.lrs)} of {num_it} updates, too early for a "
                            f"suggestion; lower --start_lr or raise --num_it (the curve is in {run.folder})")
        run.finish({**suggested, "updates": len(curve.lrs), "lowest_loss": curve.lowest}, sizes=sizes,
                   kind="language_model" if kind == "lm" else "classifier")
        run.say(f"{_result(run.record['metrics'])}: {names.portable(run.folder)}/{lr_finder.PNG}", important=True)


def _result(metrics: dict) -> str:
    others = ", ".join(f"{name} {metrics[name]:.2g}" for name in ("steep", "minimum", "slide"))
    return f"--lr={metrics['valley']:.2g} by fastai's valley ({others})"


if __name__ == "__main__":
    cli.main(lr_find)
