"""Makes a corpus to pretrain on from a Wikipedia's dump: train.csv and val.csv, one article a row."""

import time
from pathlib import Path

from ulmfit import cli
from ulmfit.lineage import Lineage

SECONDS_BETWEEN_LINES = 10


def prepare_wiki(dump, lang="en", dir_path=None, max_tokens=100_000_000, val_articles=500, min_words=100,
                 results_dir=None, overwrite=False, quiet=False):
    """Turns a Wikipedia's dump into train.csv and val.csv: one column, the plain text of an article, no labels.

    Reads LANGwiki-DATE-pages-articles.xml.bz2 of https://dumps.wikimedia.org, any language (.gz, .xz and .xml too), in
    a stream: memory is bounded by one page and the val articles. Templates, tables, references, pictures, formulas,
    categories, headings and lists are taken off; what stays is prose, a paragraph a line. Redirects, disambiguation
    pages, other namespaces and articles of fewer than --min_words words are left out.

    Articles are taken in the dump's order, which begins with the oldest, until the next one would exceed --max_tokens
    words (between white space; characters in scripts without it, such as Chinese). --val_articles of them, chosen by
    a digest of their number in the wiki, are val.csv, none of which is in train.csv.

    Writes into dir_path (data/wiki_LANG). The next stages:
        python create_toks.py --dir_path=data/wiki_de --n_lbls=0 --lang=de

    Example:
        python prepare_wiki.py ~/dewiki-latest-pages-articles.xml.bz2 de

    Expect a quarter of an hour for 100 million words, and before it a minute for the digest of a dump of 20 GB.
    """
    flags = dict(locals())
    from ulmfit import archives, documents, names, records, wikipedia, words
    from ulmfit.errors import UserError

    path = Path(dump)
    if not path.is_file():
        raise UserError(f"--dump: there is no file {dump}; get one at https://dumps.wikimedia.org")
    asked = lineage(flags)
    data = names.DataFolder(asked.artefact)
    with archives.opened(path) as file:
        language = wikipedia.check_language(file, lang, path.name)
    made_before = documents.csvs_made_before(data, overwrite)
    with records.open_run(prepare_wiki, asked.run_id, flags, {"dump": records.file_input(path)},
                          artefact=asked.artefact, shared=True, dataset=data.name) as run:
        if run.reused:
            return
        tally = wikipedia.Tally()
        told = time.monotonic()

        def telling(pages):
            nonlocal told
            for number, page in enumerate(pages):
                if time.monotonic() - told > SECONDS_BETWEEN_LINES:
                    told = time.monotonic()
                    run.say(f"  {number:,} pages, {tally.words['train'] / 1e6:.1f} million words")
                yield page

        with archives.opened(path) as file:
            found = wikipedia.articles(telling(wikipedia.read_pages(file, path.name)), min_words, tally)
            facts = documents.write_csvs(wikipedia.split(found, max_tokens, val_articles, path.name, tally), data,
                                         made_before)
        run.finish(splits=facts, words=dict(tally.words), pages=dict(tally.pages))
        run.say(f"pages: {', '.join(f'{count:,} {reason}' for reason, count in tally.pages.most_common())}")
        run.say(f"{names.portable(data.path)}: {documents.summary(facts)}, "
                f"{sum(tally.words.values()):,} words", important=True)
        rules = language if language in words.languages() else "xx"
        run.say("next: " + names.command("create_toks", dir_path=data.path, n_lbls="0", lang=rules))


def lineage(flags: dict) -> Lineage:
    """What a run of these flags reads and writes; see `ulmfit.lineage`."""
    from ulmfit import names

    path, lang = flags["dir_path"], flags["lang"]
    data = names.DataFolder(path or names.project_root() / "data" / f"wiki_{lang}")
    return Lineage(prepare_wiki, names.run_id(data.name, "prepare_wiki"), data.name, flags,
                   {"dump": (Path(flags["dump"]),)}, artefact=data.path, writes=(data.csv("train"),))


if __name__ == "__main__":
    cli.main(prepare_wiki)
