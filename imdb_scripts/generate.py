"""Goes on with a text by a fine-tuned language model."""

import sys

from ulmfit import cli, names, records, vocab
from ulmfit.names import DataFolder


def generate(text, dir_path=None, cuda_id=None, lm_id="", n_words=40, n_sentences=1, temperature=0.8, min_p=None,
             backwards=False, bpe=False, seed=0, train_file_id="", lm_seed=0, threads=None):
    """Prints a text and what a language model makes follow it.

    Reads   dir_path/models/lm--.../ (finetune_lm) and the language of dir_path/word/ids (bpe/ids with --bpe).
    Writes  to standard output: the text gone on with, a line each, --n_sentences times.

        python imdb_scripts/generate.py "I liked this movie because" --dir_path=data/imdb --n_sentences=3

    The text goes the way of create_toks. A backward model reads it from its end, and what it makes comes before it.
    Words are drawn from softmax probabilities, without xxunk and xxpad and those below --min_p, to the power
    1 / --temperature; the same seed gives the same words. The text ends earlier where the model ends the document.
    An empty text ("") asks for a whole document. --seed is of the draws, --lm_seed that of the model's training.
    """
    folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
    source = folder.model(names.lm_name(backwards, bpe, lm_id, train_file_id, lm_seed))
    made = records.read_manifest(source, names.command("finetune_lm", dir_path=folder.path, lm_id=lm_id,
                                                       backwards=backwards, bpe=bpe, train_file_id=train_file_id,
                                                       seed=lm_seed))
    ids = records.read_manifest(folder.ids(bpe), vocab.tok2id_command(folder, bpe))

    from ulmfit import generation, machine, weights

    machine.set_threads(threads)
    words = weights.vocabulary(source)
    model = generation.load(source).to(machine.pick_device(cuda_id))
    prompt = generation.prompt_tokens(text, lang=ids["lang"], sp_model=vocab.sentencepiece_of(source, made),
                                      text_columns=ids["text_columns"], backwards=backwards)
    known = set(words)
    if unknown := list(dict.fromkeys(token for token in prompt if token not in known)):
        print(f"not in the model's vocabulary, read as xxunk: {' '.join(unknown[:10])}{' ...' * (len(unknown) > 10)}",
              file=sys.stderr)
    uncut = drawn = 0
    for made in generation.continuations(model, words, prompt, backwards=backwards, n_words=n_words,
                                         n_sentences=n_sentences, temperature=temperature, min_p=min_p, seed=seed):
        print(generation.shown(text, prompt, made.tokens, backwards=backwards, bpe=bpe), flush=True)
        uncut, drawn = uncut + made.uncut, drawn + len(made.tokens) + made.ended
    if uncut:
        print(f"--min_p={min_p}: no word had that probability in {uncut:,} of {drawn:,} draws, which were made among "
              f"all words; take a lower one", file=sys.stderr)


if __name__ == "__main__":
    # A terminal that cannot show a character gets its number, not a traceback.
    sys.stdout.reconfigure(errors="backslashreplace")
    cli.main(generate)
