"""Trains a language model on a large unlabelled corpus, to be fine-tuned on others."""

from ulmfit import cli, names, records, vocab
from ulmfit.names import DataFolder


def pretrain_lm(dir_path=None, cuda_id=None, cl=1, bs=64, backwards=False, lr=3e-4, sampled=True, pretrain_id="",
                seed=0, emb_sz=400, n_hid=1152, n_layers=3, bptt=70, dropmult=0.5, bpe=False, threads=None,
                results_dir=None, overwrite=False, quiet=False):
    """Trains a language model from random weights on the text of train (less val) and unsup.

    Reads   dir_path/word/ids (create_toks --n_lbls=0, then tok2id; bpe/ids with --bpe); without --dir_path, data/wt103.
    Writes  dir_path/models/pretrained--.../weights.safetensors and a run record.

        python imdb_scripts/pretrain_lm.py --dir_path=data/wiki --backwards --emb_sz=200 --n_hid=400 --n_layers=2

    All layers train from the first step, in one STLR cycle; the rates are lr/6, lr/3, lr for the LSTMs from the
    lowest up and lr for the embedding with the decoder. An empty --pretrain_id is the name of the folder, so that
    what is trained in data/wt103 is what finetune_lm looks for. Expect a perplexity and an accuracy on val an epoch.
    """
    flags = dict(locals())
    folder = DataFolder(dir_path or names.project_root() / "data" / "wt103")
    ids = vocab.check_current(folder, bpe)
    inputs = {"ids": records.artefact_input(folder.ids(bpe), vocab.tok2id_command(folder, bpe))}
    name = names.pretrained_name(backwards, bpe, pretrain_id or folder.name, seed)
    run = records.open_run(pretrain_lm, names.run_id(folder.name, "pretrain_lm", *name.split(names.SEPARATOR)[1:]),
                           flags, inputs, artefact=folder.model(name), dataset=folder.name)
    if run.reused:
        return
    with run:
        from ulmfit import language_model, machine, models, phases, training

        device, _ = run.use_machine(cuda_id, threads)
        machine.set_seed(seed)
        sizes = {"emb_sz": emb_sz, "n_hid": n_hid, "n_layers": n_layers}
        model = models.language_model(ids["vocab_size"], **sizes, dropmult=dropmult)
        best, last = language_model.train(
            run, model, phases.language_model_phases(epochs=cl, lr=lr, n_layers=n_layers, pretraining=True),
            language_model.text(folder, ("train", "unsup"), backwards, bpe),
            language_model.text(folder, ("val",), backwards, bpe),
            bs=bs, bptt=bptt, seed=seed, device=device, sampled=sampled)
        facts = language_model.save(run, model, folder.ids(bpe), {
            "kind": "language_model", "sizes": sizes, "backwards": backwards, **vocab.identity(ids)})
        run.finish({"best": best, "last": last}, **facts)
        training.discard_checkpoint(run.artefact)
        run.say(f"perplexity {last['perplexity']:.2f}, accuracy {last['accuracy']:.4f}: "
                f"{names.portable(run.folder)}", important=True)


if __name__ == "__main__":
    cli.main(pretrain_lm)
