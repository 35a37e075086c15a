"""What each command-line flag means, once for all the scripts that take it.

A script's signature gives names, order and defaults; this register gives the kind, the bounds, the line of help and
whether the flag changes the result (and so the run's fingerprint). A flag that several stages take means the same
in all of them.
"""

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Flag:
    """One flag.

    kind: `bool`, `int`, `float`, `id` (part of a file name), `path`, `text` (any string) or `choice`.
    low, high: inclusive bounds of a number; `above` is an exclusive lower bound.
    result: whether it changes what the stage computes. False for ids and paths (what they point to is fingerprinted
        instead), the device, and what only changes the printing.
    """

    kind: str
    group: str
    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    result: bool = True


DATA, NAMES, MODEL, DROPOUT, SCHEDULE, LAYERS, TRAINING, OPTIMIZER, RUN = (
    "Data", "Names", "Model", "Dropout", "Learning rates", "Which layers train", "Training", "Optimizer and loss",
    "The run")

FLAGS: dict[str, Flag] = {
    # data
    "dir_path": Flag("path", DATA, "folder of the dataset", result=False),
    "name": Flag("id", DATA, "which dataset: imdb, imdb_sample, trec6, ag, dbpedia, yelp_bi, yelp_full, bbc, "
                             "wikitext2, wikitext103, wiki, wt103 (weights), or a name of your own with --source"),
    "source": Flag("path", DATA, "file, folder, archive or URL taken instead of the public address", result=False),
    "header": Flag("choice", DATA, "whether the first row of a source's csv holds the columns' names",
                   choices=("auto", "yes", "no")),
    "label_column": Flag("text", DATA, "label column of a source's csv: a name when it has a header, else a number "
                                       "from 0; `none`: it has no labels"),
    "text_columns": Flag("text", DATA, "text columns of a source's csv, as in --label_column, separated by commas"),
    "chunksize": Flag("int", DATA, "rows tokenized at a time; bounds the memory, not the result", low=1, result=False),
    "n_lbls": Flag("int", DATA, "columns before the text: 1 label, or 0 for a corpus without labels", low=0, high=1),
    "lang": Flag("id", DATA, "language of spaCy's tokenization rules"),
    "dump": Flag("path", DATA, "a Wikipedia's dump, LANGwiki-DATE-pages-articles.xml.bz2", result=False),
    "max_tokens": Flag("int", DATA, "words written at most, those of val among them; 0: all there are", low=0),
    "val_articles": Flag("int", DATA, "articles set aside as val.csv; 0: none", low=0, high=100_000),
    "min_words": Flag("int", DATA, "articles of fewer words are left out", low=1),
    "val_seed": Flag("int", DATA, "seed of the 10% of train set aside when there is no val.csv", low=0),
    "max_vocab": Flag("int", DATA, "most frequent words kept, the special tokens not counted", low=1),
    "min_freq": Flag("int", DATA, "a word is kept when its count is strictly greater than this", low=0),
    "joined": Flag("bool", DATA, "train the language model on the text of every split (test too), never the labels"),
    "backwards": Flag("bool", DATA, "read every document from its end to its beginning"),
    "bpe": Flag("bool", DATA, "subword tokens instead of words"),
    "sp_type": Flag("choice", DATA, "sentencepiece's kind of subwords", choices=("unigram", "bpe")),
    "sp_vocab": Flag("int", DATA, "subwords, the special tokens among them; fewer when the text is too small",
                     low=10),
    "sp_model": Flag("path", DATA, "sentencepiece model to use instead of training one: a file, or the folder of a "
                                   "dataset or model that has one", result=False),
    "split": Flag("choice", DATA, "split to predict", choices=("val", "test")),
    "n": Flag("int", DATA, "training documents in the subset", low=1),
    # looking and generating
    "kind": Flag("choice", DATA, "what reads the batch: the classifier or the language model", choices=("clas", "lm")),
    "tokens": Flag("bool", DATA, "print each document of the split as a JSON list of its tokens"),
    "trunc_at": Flag("int", DATA, "tokens shown of a document or row; 0: all", low=0),
    "n_words": Flag("int", DATA, "tokens added at most, among them punctuation and the markers of capitals", low=1),
    "n_sentences": Flag("int", DATA, "how many times the text is gone on with, each a line", low=1),
    "temperature": Flag("float", DATA, "below 1 likely words come more often, above 1 less", above=0),
    "min_p": Flag("float", DATA, "words with a lower probability are not drawn", low=0, high=1),
    # names
    "lm_id": Flag("id", NAMES, "name of the fine-tuned language model", result=False),
    "clas_id": Flag("id", NAMES, "name of the classifier; without it, that of its language model", result=False),
    "pretrain_id": Flag("id", NAMES, "name of the pretrained language model", result=False),
    "pretrain_path": Flag("path", NAMES, "folder of the pretrained language model: data folder of the corpus it was "
                                         "trained on, or where fastai's files lie", result=False),
    "train_file_id": Flag("id", NAMES, "named subset of the training split, from subsets/ID.txt", result=False),
    "lm_train_file_id": Flag("id", NAMES, "subset the language model was fine-tuned on; without it, all text",
                             result=False),
    "start_lm_id": Flag("id", NAMES, "language model that --startat=1 goes on from; without it, that of --lm_id",
                        result=False),
    "start_clas_id": Flag("id", NAMES, "classifier whose intermediate state --startat=1 loads; without it, --clas_id's",
                          result=False),
    "lm_seed": Flag("int", NAMES, "seed the language model was fine-tuned with; without it, --seed", low=0,
                    result=False),
    "pretrain_seed": Flag("int", NAMES, "seed the language model was pretrained with", low=0, result=False),
    "export_id": Flag("id", NAMES, "name of the exported files; without it, the language model's", result=False),
    "to": Flag("path", DATA, "folder of the exported files; without it, export in the dataset's", result=False),
    # model
    "emb_sz": Flag("int", MODEL, "size of the word vectors; taken from loaded weights unless typed", low=1),
    "n_hid": Flag("int", MODEL, "size of the LSTM's hidden state; taken from loaded weights unless typed", low=1),
    "n_layers": Flag("int", MODEL, "LSTM layers; taken from loaded weights unless typed", low=1),
    "bptt": Flag("int", MODEL, "tokens of back-propagation through time", low=5),
    "max_len": Flag("int", MODEL, "last tokens of a document that pooling keeps; without it, 20 x bptt", low=1),
    "lin_ftrs": Flag("text", MODEL, "sizes of the head's hidden layers, separated by commas, as 100,50; none: no "
                                    "hidden layer"),
    "preload": Flag("bool", MODEL, "start from the pretrained language model, not from random weights"),
    "from_scratch": Flag("bool", MODEL, "random encoder, no language model, no gradual steps, constant rate unless "
                                        "--schedule says otherwise"),
    "model": Flag("choice", MODEL, "tf-idf with logistic regression, or NB-SVM", choices=("tfidf", "nbsvm")),
    "ngrams": Flag("int", MODEL, "longest n-gram counted; without it, 2 for tfidf and 3 for nbsvm", low=1, high=9),
    # dropout
    "dropmult": Flag("float", DROPOUT, "factor on every dropout that is not set by itself", low=0),
    "dropout_input": Flag("float", DROPOUT, "of the word vectors, a unit at a time, taken as it is and not times "
                                            "dropmult, like the next ones; without it, dropmult x 0.25 in a language "
                                            "model, x 0.4 in a classifier", low=0, high=0.99),
    "dropout_output": Flag("float", DROPOUT, "of the last layer's states before the decoder; without it, dropmult x "
                                             "0.1", low=0, high=0.99),
    "dropout_weight": Flag("float", DROPOUT, "of the LSTM's hidden-to-hidden weights; without it, dropmult x 0.2 in a "
                                             "language model, x 0.5 in a classifier", low=0, high=0.99),
    "dropout_embed": Flag("float", DROPOUT, "of whole words; without it, dropmult x 0.02 in a language model, x 0.05 "
                                            "in a classifier", low=0, high=0.99),
    "dropout_hidden": Flag("float", DROPOUT, "between LSTM layers; without it, dropmult x 0.15 in a language model, x "
                                             "0.3 in a classifier", low=0, high=0.99),
    "dropout_head": Flag("float", DROPOUT, "of the pooled states; without it, dropmult x 0.4 (the head's further "
                                           "layers have 0.1)", low=0, high=0.99),
    # learning rates
    "lr": Flag("float", SCHEDULE, "highest learning rate, of the last layer group; --chain_thaw has rates of its own",
               above=0),
    "use_clr": Flag("bool", SCHEDULE, "slanted triangular rates (STLR); False: one cosine cycle over the epochs"),
    "use_regular_schedule": Flag("bool", SCHEDULE, "constant rate; wins over --use_clr"),
    "use_discriminative": Flag("bool", SCHEDULE, "lower rates for lower layer groups; False: one rate for all"),
    "divisor": Flag("float", SCHEDULE, "each group's rate is that of the group above divided by this; without it, 2.6 "
                                       "in a classifier, the rates of 2018 in a language model", low=1),
    "schedule": Flag("choice", SCHEDULE, "the schedule by name, in each phase; without it, what the flags of 2018 say",
                     choices=("stlr", "cosine", "constant", "one_cycle")),
    "cut_frac": Flag("float", SCHEDULE, "stlr: part of the updates in which the rate rises; without it, 1/10 in a "
                                        "language model, 1/3 while a classifier unfreezes, then 1/8", above=0, high=1),
    "ratio": Flag("float", SCHEDULE, "stlr: highest rate to lowest; without it, 32 in a language model, 8 in a "
                                     "classifier", low=1),
    "pct_start": Flag("float", SCHEDULE, "one_cycle: part of the updates in which the rate rises; without it, 0.25",
                      low=0, high=1),
    "div": Flag("float", SCHEDULE, "one_cycle: highest rate to first; without it, 25", low=1),
    "div_final": Flag("float", SCHEDULE, "one_cycle: highest rate to last; without it, 100000", low=1),
    "mom_max": Flag("float", SCHEDULE, "one_cycle: Adam's first beta at its beginning and end; without it, 0.95", low=0,
                    high=0.9999),
    "mom_min": Flag("float", SCHEDULE, "one_cycle: Adam's first beta where the rate is highest; without it, 0.85",
                    low=0, high=0.9999),
    "start_lr": Flag("float", SCHEDULE, "first rate of the range test", above=0),
    "end_lr": Flag("float", SCHEDULE, "last rate of the range test", above=0),
    "num_it": Flag("int", SCHEDULE, "updates of the range test", low=30, high=10_000),
    "stop_div": Flag("bool", SCHEDULE, "end the range test when the loss is four times its lowest"),
    # layers
    "startat": Flag("int", LAYERS, "where to begin: see above", low=0),
    "unfreeze": Flag("bool", LAYERS, "the final stage trains every group; False: the last three only"),
    "last": Flag("bool", LAYERS, "train only the last group, with no gradual steps"),
    "chain_thaw": Flag("bool", LAYERS, "each layer alone, then all (Felbo 2017), at fixed rates"),
    "unfreezing": Flag("choice", LAYERS, "pace of gradual unfreezing, an epoch a step: the last group, the last two, "
                                         "then all; or one more group a step until all train",
                       choices=("2018", "one_per_epoch")),
    "freeze_epochs": Flag("int", LAYERS, "epochs before the others in which the LSTM layers are frozen and only the "
                                         "embedding with the decoder trains", low=0),
    # training
    "cl": Flag("int", TRAINING, "epochs (of the final stage)", low=1),
    "bs": Flag("int", TRAINING, "batch size", low=1),
    "early_stopping": Flag("bool", TRAINING, "stop after --patience epochs without a better validation loss, keep the "
                                             "best"),
    "patience": Flag("int", TRAINING, "epochs that --early_stopping waits", low=1),
    "val_every": Flag("int", TRAINING, "epochs from one validation to the next; the last, and each step of "
                                       "--chain_thaw, is validated in any case. With few training documents "
                                       "validation takes longer than they do", low=1),
    "notrain": Flag("bool", TRAINING, "keep the pretrained weights as they are, matched to the vocabulary"),
    "sampled": Flag("bool", TRAINING, "sampled softmax in training; validation is always by the full softmax"),
    "seed": Flag("int", TRAINING, "seed of weights, order and dropout", low=0, high=2**32 - 1),
    "precision": Flag("choice", TRAINING, "of the numbers: mixed with 16 bits where that is enough (fp16: GPU only), or "
                                          "full; auto: bf16 on GPUs and CPUs that multiply it (AMX, AVX512), else full; "
                                          "a language model's validation is always full",
                      choices=("auto", "full", "fp16", "bf16")),
    # optimizer and loss
    "clip": Flag("float", OPTIMIZER, "highest norm of the gradient; 0: any", low=0),
    "wd": Flag("float", OPTIMIZER, "weight decay, as L2", low=0),
    "beta1": Flag("float", OPTIMIZER, "Adam's first beta, the momentum", low=0, high=0.9999),
    "beta2": Flag("float", OPTIMIZER, "Adam's second beta", low=0, high=0.99999),
    "eps": Flag("float", OPTIMIZER, "Adam's epsilon", above=0),
    "alpha": Flag("float", OPTIMIZER, "activation regularization (AR): times the mean square of the last layer's "
                                      "states", low=0),
    "beta": Flag("float", OPTIMIZER, "temporal activation regularization (TAR): times the mean square of their steps "
                                     "in time", low=0),
    "class_weights": Flag("choice", OPTIMIZER, "weights of the classes in the training loss: n / (classes x count); "
                                               "without it, all the same", choices=("balanced",)),
    "label_smoothing": Flag("float", OPTIMIZER, "part of each label spread over all classes in the training loss",
                            low=0, high=0.99),
    # the run
    "cuda_id": Flag("int", RUN, "GPU number; -1: the CPU; without it, the first visible GPU, else the CPU", low=-1,
                    result=False),
    "threads": Flag("int", RUN, "CPU threads; without it, every core", low=1, result=False),
    "workers": Flag("int", RUN, "processes; without it, one a core", low=1, result=False),
    "track": Flag("choice", RUN, "a tracker that gets losses, rates and metrics too, in results/tracking", result=False,
                  choices=("none", "tensorboard", "wandb", "mlflow")),
    "results_dir": Flag("path", RUN, "where run records are written; without it $RESULTS, else `results`",
                        result=False),
    "overwrite": Flag("bool", RUN, "replace a run of the same name that had other flags or inputs", result=False),
    "quiet": Flag("bool", RUN, "print only the result", result=False),
    # analysis
    "stage": Flag("id", DATA, "only the runs of this stage, e.g. train_clas", result=False),
    "dataset": Flag("id", DATA, "only the runs on this dataset, e.g. imdb", result=False),
    "status": Flag("choice", DATA, "only the runs in this state; stopped: its process is gone; stale: what it read has "
                                   "been made anew since", result=False,
                   choices=("finished", "running", "stopped", "interrupted", "failed", "stale")),
    "match": Flag("text", DATA, "only the runs with this text in their id", result=False),
    "where": Flag("text", DATA, "only the runs whose flags have these values, as lm.cl=15,lr=0.01", result=False),
    "by": Flag("text", DATA, "flags that make the rows, separated by commas, as lr,lm.cl", result=False),
    "run": Flag("text", DATA, "id of a run, or the path of its folder", result=False),
    "other": Flag("text", DATA, "id of the run to compare with, or the path of its folder", result=False),
    "weights": Flag("text", DATA, "one number a run, separated by commas; or val: chosen on validation predictions"),
    "runs": Flag("text", DATA, "ids of runs, or paths of their folders", result=False),
    # prediction
    "text": Flag("text", DATA, "the text; without it and without --csv, standard input, a text a line", result=False),
    "csv": Flag("path", DATA, "csv file with one text a row", result=False),
    "column": Flag("text", DATA, "the csv's text column: a name when it has a header, else a number from 0",
                   result=False),
    "output": Flag("path", DATA, "copy of the csv file with the predictions as further columns", result=False),
    "probabilities": Flag("bool", DATA, "the probability of every class beside the class", result=False),
    "ensemble": Flag("bool", NAMES, "average the forward and the backward classifier of these names", result=False),
    "models": Flag("text", NAMES, "classifiers to average: folders of dir_path/models, separated by spaces",
                   result=False),
    "itos_filename": Flag("path", NAMES, "vocabulary of a classifier given by its files: itos.pkl or vocab.json",
                          result=False),
    "trained_classifier_filename": Flag("path", NAMES, "its weights: clas_1.h5 of 2018 or weights.safetensors",
                                        result=False),
    "num_classes": Flag("int", NAMES, "number of classes it must have", low=2, result=False),
    # sweeps
    "plan_file": Flag("path", DATA, "file of commands, one a line; -: standard input", result=False),
    "gpus": Flag("text", RUN, "GPUs to run on, as '0 1', or none; without it, every visible one", result=False),
    "slots": Flag("int", RUN, "commands at once on the CPU; without it, cores / threads", low=1, result=False),
    "backend": Flag("choice", RUN, "where the plan runs", choices=("local", "slurm"), result=False),
    "slurm_file": Flag("path", RUN, "options of sbatch, an ini file with sections all, gpu and cpu; without it, "
                                    "sweeps/slurm.ini", result=False),
    "dry_run": Flag("bool", RUN, "show what would be run, and about how long it takes", result=False),
    "retry_failed": Flag("bool", RUN, "run again what has failed", result=False),
}

# Where a flag is another in one stage than in the rest.
OF_STAGE: dict[str, dict[str, Flag]] = {
    "pretrain_lm": {
        "schedule": Flag("choice", SCHEDULE, "the schedule by name; without it, stlr",
                         choices=("stlr", "cosine", "constant", "one_cycle"))},
    "sample_train": {
        "train_file_id": Flag("id", NAMES, "name of the subset; without it N, or N-sSEED", result=False),
        "seed": Flag("int", TRAINING, "seed of the draw", low=0, high=2**32 - 1)},
    "train_baseline": {
        "seed": Flag("int", TRAINING, "seed of the order in which documents are visited", low=0, high=2**32 - 1)},
    "lr_find": {
        "kind": Flag("choice", DATA, "the model: a classifier, as for train_clas, or a language model, as for "
                                     "finetune_lm", choices=("clas", "lm")),
        "lm_id": Flag("id", NAMES, "name of the language model: to be fine-tuned, or under the classifier",
                      result=False),
        "from_scratch": Flag("bool", MODEL, "random weights: no pretrained model, no language model"),
        "clip": replace(FLAGS["clip"], help=FLAGS["clip"].help + "; without it 25, of a language model 0.3"),
        "wd": replace(FLAGS["wd"], help=FLAGS["wd"].help + "; without it 1e-6, of a language model 1e-7")},
    "show_batch": {
        "split": Flag("choice", DATA, "split to show", choices=("train", "val", "test", "unsup")),
        "n": Flag("int", DATA, "documents or rows shown; without it 5, with --tokens all", low=1)},
    "predict_with_classifier": {
        "header": Flag("choice", DATA, "whether the csv's first row holds the columns' names; auto: when --column is "
                                       "one", choices=("auto", "yes", "no"), result=False),
        "overwrite": Flag("bool", RUN, "replace the file of --output, which may be that of --csv", result=False)},
    "launch": {
        "status": Flag("bool", RUN, "show how the runs of the plan stand", result=False)},
    "prepare_wiki": {
        "lang": Flag("id", DATA, "language of the Wikipedia, as the dump names it: en, de, zh, simple")},
    "report": {"output": Flag("path", DATA, "the page to write", result=False)},
    "collect": {"output": Flag("path", DATA, "file to write, .csv or .parquet", result=False)},
    **{f"table{number}": {
        "backwards": replace(FLAGS["backwards"], help="the runs of the backward direction"),
        "bpe": replace(FLAGS["bpe"], help="the runs on subwords")} for number in (4, 5, 6, 7)},
    "generate": {
        "text": Flag("text", DATA, "the text to go on with"),
        "seed": Flag("int", TRAINING, "seed of the draws", low=0),
        "lm_seed": Flag("int", NAMES, "seed the language model was fine-tuned with", low=0)},
}


def flag_of(stage: str, name: str) -> Flag | None:
    """What a flag means to a stage; None when the register lacks it."""
    return OF_STAGE.get(stage, {}).get(name) or FLAGS.get(name)


def bundled(kind: type, values: dict[str, Any]) -> Any:
    """A dataclass whose fields are flags, filled with a stage's values; what the stage lacks keeps its default."""
    return kind(**{field.name: values[field.name] for field in fields(kind) if field.name in values})


def result_flags(values: dict) -> dict:
    """Of a stage's flags, those that enter its fingerprint."""
    return {name: value for name, value in values.items() if FLAGS[name].result}


