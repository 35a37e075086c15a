"""Trains a language model on a large unlabelled corpus, to be fine-tuned on others."""

from ulmfit import cli, hyperparameters, names, records, tracking, vocab
from ulmfit.flags import bundled
from ulmfit.hyperparameters import Dropouts, Optimization
from ulmfit.lineage import Lineage
from ulmfit.names import DataFolder
from ulmfit.schedules import ScheduleFlags


def pretrain_lm(dir_path=None, cuda_id=None, cl=1, bs=64, backwards=False, lr=3e-4, sampled=False, pretrain_id="",
                seed=0, emb_sz=400, n_hid=1152, n_layers=3, bptt=70, dropmult=0.5, bpe=False,
                early_stopping=False, patience=6, divisor=None, schedule=None, cut_frac=None, ratio=None,
                pct_start=None, div=None, div_final=None, mom_max=None, mom_min=None, dropout_input=None,
                dropout_output=None, dropout_weight=None, dropout_embed=None, dropout_hidden=None, clip=0.3, wd=1e-7,
                beta1=0.8, beta2=0.99, eps=1e-8, alpha=2.0, beta=1.0, precision="auto", val_every=1, track="none",
                threads=None, results_dir=None, overwrite=False, quiet=False):
    """Trains a language model from random weights on the text of train (less val) and unsup.

    Reads   dir_path/word/ids (create_toks --n_lbls=0, then tok2id; bpe/ids with --bpe); without --dir_path, data/wt103.
    Writes  dir_path/models/pretrained--.../weights.safetensors and a run record.

        python imdb_scripts/pretrain_lm.py --dir_path=data/wiki --backwards --emb_sz=200 --n_hid=400 --n_layers=2

    All layers train from the first step, in one STLR cycle; the rates are lr/6, lr/3, lr for the LSTMs from the
    lowest up and lr for the embedding with the decoder. --dropmult=0, here and in finetune_lm, is the vanilla language
    model of the paper's Table 5. An empty --pretrain_id is the name of the folder, so that
    what is trained in data/wt103 is what finetune_lm looks for. Expect a perplexity and an accuracy on val an epoch.
    """
    flags = dict(locals())
    hyperparameters.check_flags(flags, cli.typed_or_changed(pretrain_lm, flags))
    tracking.check(track)
    folder = DataFolder(dir_path or names.project_root() / "data" / "wt103")
    ids = vocab.check_current(folder, bpe, labelled=False)
    inputs = {"ids": records.artefact_input(folder.ids(bpe), vocab.tok2id_command(folder, bpe))}
    asked = lineage(flags)
    run = records.open_run(pretrain_lm, asked.run_id, flags, inputs, artefact=asked.artefact, dataset=folder.name)
    if run.reused:
        return
    with run:
        from ulmfit import language_model, machine, models, phases, training

        device, _ = run.use_machine(cuda_id, threads)
        machine.set_seed(seed)
        sizes = {"emb_sz": emb_sz, "n_hid": n_hid, "n_layers": n_layers}
        model = models.language_model(ids["vocab_size"], **sizes, dropmult=dropmult,
                                      dropouts=bundled(Dropouts, flags))
        facts = {"kind": "language_model", "sizes": sizes, "backwards": backwards, **vocab.identity(ids)}
        train_text = language_model.text(folder, ("train", "unsup"), backwards, bpe)
        val_text = language_model.text(folder, ("val",), backwards, bpe)
        vocab.copy_vocabulary(folder.ids(bpe), run.artefact, facts)
        best, last = language_model.job(
            run, model,
            phases.language_model_phases(
                epochs=cl, lr=lr, n_layers=n_layers, pretraining=True, schedules=bundled(ScheduleFlags, flags),
                divisor=divisor, early_stopping=early_stopping, patience=patience),
            train_text, val_text, bs=bs, bptt=bptt, seed=seed, device=device, sampled=sampled, val_every=val_every,
            optimization=bundled(Optimization, flags)).fit()
        facts = language_model.save(run, model, facts)
        run.finish({"best": best, "last": last}, **facts, lang=ids["lang"])
        training.discard_checkpoint(run.artefact)
        run.say(f"perplexity {last['perplexity']:.2f}, accuracy {last['accuracy']:.4f}: "
                f"{names.portable(run.folder)}", important=True)


def lineage(flags: dict) -> Lineage:
    """What a run of these flags reads and writes; see `ulmfit.lineage`."""
    folder = DataFolder(flags["dir_path"] or names.project_root() / "data" / "wt103")
    name = names.pretrained_name(flags["backwards"], flags["bpe"], flags["pretrain_id"] or folder.name, flags["seed"])
    return Lineage(pretrain_lm, names.run_id(folder.name, "pretrain_lm", *name.split(names.SEPARATOR)[1:]),
                   folder.name, flags, {"ids": (folder.ids(flags["bpe"]),)}, artefact=folder.model(name))


if __name__ == "__main__":
    cli.main(pretrain_lm)
