"""Gets a dataset and writes it as the csv files that the other stages read."""

from ulmfit import cli
from ulmfit.lineage import Lineage


def get_data(name, dir_path=None, source=None, overwrite=False, results_dir=None, quiet=False, header="auto",
             label_column=None, text_columns=None):
    """Gets a dataset and writes it as csv files: train.csv, and test.csv, val.csv, unsup.csv as far as it has them.

    Reads the public copy of
      - imdb, imdb_sample, trec6, ag (AG's news), dbpedia, yelp_bi, yelp_full, bbc (BBC News): labelled;
      - wikitext2, wikitext103 (also under the name wiki): unlabelled, to pretrain on;
      - wt103: fastai's weights, the archives wt103-fwd.tgz and wt103-bwd.tgz, which are left as they are;
    or --source: a folder, an archive (zip, whl, tar, tgz) or an http address of one of
      - train.csv, test.csv, val.csv or valid.csv, unsup.csv, plain or compressed (.xz, .gz, .bz2);
      - a folder a class: train/CLASS/*.txt, test/CLASS/*.txt, unsup/*.txt; or CLASS/*.txt, split 80/20 here;
      - a single csv with or without header (an is_valid column says which rows are val; else split 80/20 here);
      - a single txt: unlabelled, a document a line.

    Writes into dir_path (data/NAME): UTF-8, csv quoting, no header; the label, then one or more text columns; without
    labels only the texts. Labels 0 and 1 are neg and pos for imdb; 0 to 5 are ABBR, DESC, ENTY, HUM, LOC and NUM for
    trec6; all others are the original's: from 1 for ag, dbpedia and yelp. Texts are as in the original too (yelp writes
    a newline as a backslash and an n, which create_toks understands). The csv files appear together, when all is
    read; manifest.json says what made them.

    Downloads stay in the folder `downloads` beside dir_path (data/downloads), so that nothing is downloaded twice; they
    are needed for nothing else and can be deleted. One that broke off is continued; sizes and checksums are compared
    with fastai's. With --overwrite, an address of your own is asked whether its file has changed.

    Example:
        python get_data.py bbc

    bbc takes some seconds: 1,780 training and 445 test articles of 5 topics. imdb (25,000 + 25,000 + 50,000 reviews)
    takes as long as downloading 145 MB.
    """
    flags = dict(locals())
    from ulmfit import datasets, documents, layouts, names, records
    from ulmfit.errors import UsageError

    if not name:
        raise UsageError("--name: a dataset has a name; see --help")
    asked = lineage(flags)
    data = names.DataFolder(asked.artefact)
    origin = datasets.find_origin(name, source)
    inputs = origin.inputs()
    made_before = documents.csvs_made_before(data, overwrite, origin.path)
    if name == datasets.WEIGHTS:
        datasets.check_weights_made_before(data.path, overwrite)
    with records.open_run(get_data, asked.run_id, flags, inputs, artefact=asked.artefact, shared=True,
                          dataset=data.name) as run:
        if run.reused:
            return
        if name == datasets.WEIGHTS:
            downloaded = datasets.fetch_weights(origin, data.path, run.say)
            run.finish(downloaded=downloaded)
            run.say(f"{names.portable(data.path)}: {', '.join(downloaded)}", important=True)
            return
        known = datasets.DATASETS.get(name, datasets.Dataset())
        reading = layouts.Reading(known.classes, known.second_encoding, header, label_column, text_columns, run.say)
        with datasets.scratch_folder(data.path) as scratch:
            path, downloaded = origin.fetched(data.downloads, run.say, ask_again=overwrite and source is not None)
            layout = layouts.look(path, scratch)
            facts = documents.write_csvs(layout.documents(reading), data, made_before)
        run.finish(splits=facts, source_kind=type(layout).__name__, downloaded=downloaded)
        run.say(f"{names.portable(data.path)}: {documents.summary(facts)}", important=True)


def lineage(flags: dict) -> Lineage:
    """What a run of these flags reads and writes; see `ulmfit.lineage`."""
    from ulmfit import datasets, fetch, names

    name, path = flags["name"], flags["dir_path"]
    data = names.DataFolder(path or names.project_root() / "data" / name)
    origin = datasets.find_origin(name, flags["source"])
    writes = (data.csv("train"),)
    if name == datasets.WEIGHTS:
        writes = tuple(data.path / fetch.file_name(url) for url in origin.urls)
    return Lineage(get_data, names.run_id(data.name, "get_data"), data.name, flags, artefact=data.path, writes=writes,
                   special=origin.inputs)


if __name__ == "__main__":
    cli.main(get_data)
