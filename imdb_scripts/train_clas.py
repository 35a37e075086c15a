"""Fine-tunes a classifier on a language model's encoder."""

from ulmfit import cli, hyperparameters, names, phases, records, sources, tracking, vocab
from ulmfit.errors import UsageError
from ulmfit.flags import bundled
from ulmfit.hyperparameters import ClassifierLoss, Dropouts, Optimization
from ulmfit.lineage import SIZES, Lineage, ids_and_subset
from ulmfit.names import DataFolder
from ulmfit.schedules import ScheduleFlags


def train_clas(dir_path=None, cuda_id=None, lm_id="", clas_id=None, bs=64, cl=1, backwards=False, startat=0,
               unfreeze=True, lr=0.01, dropmult=1.0, bpe=False, use_clr=True, use_regular_schedule=False,
               use_discriminative=True, last=False, chain_thaw=False, from_scratch=False, train_file_id="",
               early_stopping=False, seed=0, emb_sz=400, n_hid=1152, n_layers=3, bptt=70, max_len=None,
               lm_seed=None, lm_train_file_id="", start_clas_id=None, patience=6, unfreezing="2018", divisor=None,
               schedule=None, cut_frac=None, ratio=None, pct_start=None, div=None, div_final=None, mom_max=None,
               mom_min=None, lin_ftrs="50", dropout_input=None, dropout_weight=None, dropout_embed=None,
               dropout_hidden=None, dropout_head=None, clip=25.0, wd=1e-6, beta1=0.8, beta2=0.99, eps=1e-8, alpha=2.0,
               beta=1.0, class_weights=None, label_smoothing=0.0, precision="auto", val_every=1, track="none",
               threads=None, results_dir=None, overwrite=False, quiet=False):
    """Trains a classifier on the labelled training split, from the encoder that finetune_lm left.

    Reads   dir_path/word/ids (bpe/ids with --bpe) and dir_path/models/lm--.../ (the one with this lm_id, direction and
            seed).
    Writes  dir_path/models/clas--.../weights.safetensors and a run record: error, loss and macro-F1 on val,
            predictions.csv with the class probabilities of every val document.

        python imdb_scripts/train_clas.py --dir_path=data/imdb --lm_id=small --backwards --cl=2

    --startat=0 unfreezes gradually: the last group for an epoch, the last two for an epoch (then kept as the
    intermediate classifier), then all for --cl epochs; --unfreezing=one_per_epoch takes a step for every group and
    keeps what the last of them leaves. --startat=1 loads that intermediate and goes on with all;
    --startat=2 trains all groups at once from the start. Training batches hold bs/2 documents, validation bs.
    """
    flags = dict(locals())
    typed = cli.typed_or_changed(train_clas, flags)
    phases.check_classifier_flags(startat=startat, unfreeze=unfreeze, last=last, chain_thaw=chain_thaw,
                                  from_scratch=from_scratch, unfreezing=unfreezing, divisor=divisor)
    hyperparameters.check_flags(flags, typed)
    head = hyperparameters.hidden_layers(lin_ftrs)
    flags["lin_ftrs"] = hyperparameters.as_flag(head)
    if start_clas_id is not None and startat != 1:
        raise UsageError("--start_clas_id is read by --startat=1 alone; leave it out or add --startat=1")
    max_len = 20 * bptt if max_len is None else max_len
    if max_len < bptt:
        raise UsageError(f"--max_len={max_len} is less than one chunk of --bptt={bptt} tokens")
    tracking.check(track)
    folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
    language_model = {"lm_id": lm_id, "backwards": backwards, "bpe": bpe, "train_file_id": lm_train_file_id,
                      "seed": seed if lm_seed is None else lm_seed}
    ids, inputs, rows = sources.ids_of(folder, bpe, train_file_id,
                                       then=() if from_scratch else (sources.tune_command(folder, **language_model),))
    asked = lineage(flags)

    source, sizes = None, {"emb_sz": emb_sz, "n_hid": n_hid, "n_layers": n_layers}
    if startat == 1:
        start, = asked.reads["intermediate"]
        made_by = names.command("train_clas", dir_path=folder.path, lm_id=lm_id,
                                clas_id=clas_id if start_clas_id is None else start_clas_id, backwards=backwards,
                                bpe=bpe, train_file_id=train_file_id, seed=seed)
        inputs["intermediate"] = records.artefact_input(start, made_by)
        source = sources.Source(start, made_by)
        hyperparameters.check_hidden_layers(source, records.read_manifest(start, made_by), head)
    elif not from_scratch:
        source = sources.fine_tuned(folder, inputs, **language_model)
    if source is not None:
        sizes = source.sizes(sizes, typed)

    run = records.open_run(train_clas, asked.run_id, flags, inputs, artefact=asked.artefact,
                           writes=asked.writes, resolved={**sizes, **asked.resolved}, dataset=folder.name)
    if run.reused:
        return
    with run:
        from ulmfit import classifier, machine, models, training, weights

        device, _ = run.use_machine(cuda_id, threads)
        machine.set_seed(seed)
        model = models.classifier(ids["vocab_size"], len(ids["classes"]), **sizes, bptt=bptt, max_len=max_len,
                                  dropmult=dropmult, dropouts=bundled(Dropouts, flags), lin_ftrs=head)
        if startat == 1:
            classifier.load_intermediate(model, source.path, ids["vocab_fingerprint"])
        elif not from_scratch:
            weights.load_encoder(model, source.path, ids["vocab_fingerprint"])
        facts = {"kind": "classifier", "sizes": sizes, "bptt": bptt, "max_len": max_len, "dropmult": dropmult,
                 "backwards": backwards, "lang": ids["lang"], "text_columns": ids["text_columns"],
                 "classes": ids["classes"], **vocab.identity(ids),
                 # Only where the head is another than that of the classifiers made before there was a choice.
                 **({"lin_ftrs": head} if head != hyperparameters.HIDDEN_LAYERS else {}),
                 **({} if dropout_head is None else {"dropout_head": dropout_head})}
        plan = phases.classifier_phases(
            epochs=cl, lr=lr, n_groups=sizes["n_layers"] + 2, startat=startat, unfreeze=unfreeze,
            schedules=bundled(ScheduleFlags, flags), use_discriminative=use_discriminative, divisor=divisor, last=last,
            chain_thaw=chain_thaw, from_scratch=from_scratch, unfreezing=unfreezing, early_stopping=early_stopping,
            patience=patience)
        job = classifier.job(run, model, plan, folder, facts, rows=rows, bs=bs, seed=seed, device=device,
                             optimization=bundled(Optimization, flags), loss=bundled(ClassifierLoss, flags),
                             intermediate=next(iter(asked.writes), None), val_every=val_every)
        vocab.copy_vocabulary(folder.ids(bpe), run.artefact, facts)
        best, final, digest = classifier.train(job, facts)
        run.finish({"best": best, "last": final}, **facts, split="val", weights_sha256=digest)
        training.discard_checkpoint(run.artefact)
        run.say(f"val error {final['error']:.2f}% (best epoch {best['error']:.2f}%): {names.portable(run.folder)}",
                important=True)


def lineage(flags: dict) -> Lineage:
    """What a run of these flags reads and writes; see `ulmfit.lineage`."""
    folder = DataFolder(flags["dir_path"] or names.project_root() / "data" / "imdb")
    which = {name: flags[name] for name in ("backwards", "bpe", "train_file_id", "seed")}
    name = names.clas_name(**which, lm_id=flags["lm_id"], clas_id=flags["clas_id"])
    reads = ids_and_subset(folder, flags["bpe"], flags["train_file_id"])
    if flags["startat"] == 1:
        start = flags["clas_id"] if flags["start_clas_id"] is None else flags["start_clas_id"]
        reads["intermediate"] = (folder.model(names.intermediate_name(
            names.clas_name(**which, lm_id=flags["lm_id"], clas_id=start))),)
    elif not flags["from_scratch"]:
        reads["language_model"] = (folder.model(names.lm_name(
            flags["backwards"], flags["bpe"], flags["lm_id"], flags["lm_train_file_id"],
            flags["seed"] if flags["lm_seed"] is None else flags["lm_seed"])),)
    loads = not flags["from_scratch"]
    # Kept by the gradual steps alone.
    gradual = flags["startat"] == 0 and not (flags["last"] or flags["chain_thaw"] or flags["from_scratch"])
    return Lineage(train_clas, names.run_id(folder.name, "train_clas", *name.split(names.SEPARATOR)[1:]), folder.name,
                   {**flags, "lin_ftrs": hyperparameters.as_flag(hyperparameters.hidden_layers(flags["lin_ftrs"]))},
                   reads, artefact=folder.model(name),
                   writes=(folder.model(names.intermediate_name(name)),) if gradual else (),
                   resolved={"max_len": 20 * flags["bptt"] if flags["max_len"] is None else flags["max_len"],
                             **({} if loads else {size: flags[size] for size in SIZES})},
                   from_weights=SIZES if loads else ())


if __name__ == "__main__":
    cli.main(train_clas)
