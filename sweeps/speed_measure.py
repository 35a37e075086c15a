"""One measurement of the speed benchmark, in a process of its own: `python sweeps/speed_measure.py WORK WHOSE JSON`.

WHOSE is `ours`, the stage's own code, or `stock`, fastai as its documentation has it; JSON holds the sizes. Prints one
line of JSON: what was done per second, seconds, peak memory.
"""

import json
import resource
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "imdb_scripts"))

SIZES = {"small": {"emb_sz": 200, "n_hid": 400, "n_layers": 2}, "paper": {"emb_sz": 400, "n_hid": 1152, "n_layers": 3}}


def documents_of(data: str, split: str, count: int, bs: int | None) -> tuple[list[np.ndarray], np.ndarray, int]:
    """`count` documents of a split, the same for all who ask: their ids, their labels, words of the vocabulary.

    With `bs`, batches of documents of like length, as the whole split sorted by length has them, of every length.
    """
    from ulmfit import vocab
    from ulmfit.names import DataFolder

    folder = DataFolder(data).ids(False)
    documents = vocab.load_ids(folder, split)
    if bs is None:
        rows = np.sort(np.random.default_rng(0).permutation(len(documents))[:count])
    else:
        by_length = np.argsort([len(document) for document in documents], kind="stable")
        batches = np.array_split(by_length, count // bs)
        rows = np.concatenate([batch[len(batch) // 2:][:bs] for batch in batches])
    return [np.asarray(documents[row]) for row in rows], documents.labels[rows], len(vocab.load_vocab(folder))


def made_up(count: int, length: int, words: int) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Documents of one length in a vocabulary of any size: Zipf's frequencies, two classes."""
    generator = np.random.default_rng(0)
    weights = 1 / np.arange(10, words + 1)
    ids = generator.choice(np.arange(9, words), size=(count, length), p=weights / weights.sum())
    return list(ids), np.arange(count) % 2, words


def corpus(sizes: dict, split: str, bs: int | None = None) -> tuple[list[np.ndarray], np.ndarray, int]:
    if "length" in sizes or "words" in sizes:
        return made_up(sizes["documents"], sizes.get("length", 300), sizes.get("words", 30_000))
    return documents_of(sizes["data"], split, sizes["documents"], bs)


def clock(batches: int, warm: int):
    """A callback that takes the time of each batch, ends the training after `batches`, and forgets the first `warm`."""
    from fastai.callback.core import Callback, CancelFitException

    class Clock(Callback):
        order = -100

        def __init__(self):
            self.seconds, self.units, self.began = [], [], None

        def before_batch(self) -> None:
            now = time.perf_counter()
            if self.began is not None:
                self.seconds.append(now - self.began)
            self.began = now
            if len(self.seconds) == batches + warm:
                raise CancelFitException
            self.units.append(self.learn.xb[0].numel())

    made = Clock()
    made.rate = lambda: float(np.median(np.array(made.units[warm:batches + warm]) / made.seconds[warm:]))
    return made


class NoRun(SimpleNamespace):
    """Stands for a run's record where nothing is to be recorded."""

    def __init__(self):
        super().__init__(artefact=Path("."), folder=Path("."), quiet=True, resumed=False, id="speed")

    def use_precision(self, precision: str, device) -> str:
        from ulmfit import machine

        return machine.quick_precision(device) if precision == "auto" else precision

    def say(self, *words, **how) -> None:
        pass


# -- language model ----------------------------------------------------------------------------------------------------

def lm_ours(sizes: dict) -> dict:
    import torch
    from ulmfit import hyperparameters, language_model, loaders, models, phases, vocab

    documents, _, words = corpus(sizes, "train")
    text = loaders.TextStream([(vocab.in_memory(documents), None)], backwards=False)
    model = models.language_model(words, **sizes["model"], dropmult=1.0)
    optimization = hyperparameters.Optimization(clip=0.3, wd=1e-7, precision=sizes.get("precision", "auto"))
    job = language_model.job(
        NoRun(), model,
        phases.language_model_phases(epochs=1, lr=1e-3, n_layers=sizes["model"]["n_layers"], pretraining=True),
        text, text, bs=sizes["bs"], bptt=70, seed=0, device=torch.device("cpu"), optimization=optimization,
        sampled=sizes.get("sampled", False))
    return _train(job, sizes)


def _train(job, sizes: dict) -> dict:
    timer = clock(sizes["batches"], 2)
    job.thaw(job.phases[0].groups)
    job.train.start(0)
    with job.learn.no_logging():
        job.learn.fit(1, cbs=[timer])
    return {"rate": timer.rate()}


def lm_stock(sizes: dict) -> dict:
    import torch
    from fastai.text.all import (AWD_LSTM, DataLoaders, LMDataLoader, TensorText, awd_lstm_lm_config,
                                 language_model_learner)

    documents, _, words = corpus(sizes, "train")
    texts = [TensorText(torch.from_numpy(document.astype(np.int64))) for document in documents]
    loader = partial(LMDataLoader, texts, bs=sizes["bs"], seq_len=70, num_workers=0)
    dls = DataLoaders(loader(shuffle=True), loader())
    dls.vocab = [str(number) for number in range(words)]
    learn = language_model_learner(dls, AWD_LSTM, config={**awd_lstm_lm_config, **sizes["model"]}, pretrained=False)
    timer = clock(sizes["batches"], 2)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-3, cbs=[timer])
    return {"rate": timer.rate()}


# -- classifier --------------------------------------------------------------------------------------------------------

def clas_ours(sizes: dict) -> dict:
    """Documents of training a second; with `predict`, of evaluation."""
    import torch
    from ulmfit import hyperparameters, loaders, models, phases, training, vocab

    documents, labels, words = corpus(sizes, "test" if sizes.get("predict") else "train", sizes["bs"])
    texts = vocab.in_memory(documents)
    texts.labels[:] = labels
    model = models.classifier(words, 2, **sizes["model"], bptt=70, max_len=1400, dropmult=1.0)
    device, precision = torch.device("cpu"), sizes.get("precision", "auto")
    loader = partial(loaders.ClassifierLoader, texts, None, bs=sizes["bs"], bptt=70, backwards=False)
    if sizes.get("predict"):
        precision = NoRun().use_precision(precision, device)
        began = time.perf_counter()
        training.predict(model, loader(seed=None), device, precision)
        return _rate(documents, time.perf_counter() - began)
    n_groups = sizes["model"]["n_layers"] + 2
    job = training.Training(
        NoRun(), model, models.classifier_groups,
        phases.classifier_phases(epochs=1, lr=1e-3, n_groups=n_groups, startat=2), loader(seed=0), loader(seed=None),
        validation=training.ClassifierValidation(loader(seed=None)), callbacks=[training.ClassifierOutput(2.0, 1.0)],
        optimization=hyperparameters.Optimization(clip=25.0, wd=1e-6, precision=precision), device=device,
        unit="documents")
    job.thaw(tuple(range(n_groups)) if sizes.get("unfrozen", True) else (n_groups - 1,))
    job.train.start(0)
    with job.learn.no_logging():
        return _pass(job.learn, documents)


def _rate(documents: list[np.ndarray], seconds: float) -> dict:
    """Documents a second, and what they hold on average, without padding."""
    return {"rate": len(documents) / seconds, "tokens_a_document": sum(map(len, documents)) / len(documents)}


def _pass(learn, documents: list[np.ndarray]) -> dict:
    """One pass over the documents, without a validation."""
    from fastai.callback.core import Callback, CancelValidException

    class NoValidation(Callback):
        order = -100

        def before_validate(self) -> None:
            raise CancelValidException

        def before_train(self) -> None:
            self.began = time.perf_counter()

        def after_train(self) -> None:
            self.seconds = time.perf_counter() - self.began

    timer = NoValidation()
    learn.fit(1, cbs=[timer])
    return _rate(documents, timer.seconds)


def clas_stock(sizes: dict) -> dict:
    import torch
    from fastai.text.all import (AWD_LSTM, DataLoaders, L, SortedDL, TensorCategory, TensorText, awd_lstm_clas_config,
                                 pad_input_chunk, text_classifier_learner)

    documents, labels, words = corpus(sizes, "test" if sizes.get("predict") else "train", sizes["bs"])
    items = [(TensorText(torch.from_numpy(document.astype(np.int64))), TensorCategory(int(label)))
             for document, label in zip(documents, labels)]
    loader = partial(SortedDL, items, bs=sizes["bs"], num_workers=0, sort_func=lambda item: len(item[0]),
                     before_batch=partial(pad_input_chunk, seq_len=72))
    dls = DataLoaders(loader(shuffle=True), loader())
    dls.vocab = L([str(number) for number in range(words)], ["neg", "pos"])
    learn = text_classifier_learner(dls, AWD_LSTM, n_out=2, config={**awd_lstm_clas_config, **sizes["model"]},
                                    pretrained=False, loss_func=torch.nn.functional.cross_entropy)
    with learn.no_bar(), learn.no_logging():
        if sizes.get("predict"):
            began = time.perf_counter()
            learn.get_preds(dl=dls.valid, act=partial(torch.softmax, dim=-1))
            return _rate(documents, time.perf_counter() - began)
        learn.unfreeze() if sizes.get("unfrozen", True) else learn.freeze()
        return _pass(learn, documents)


# -- tokens ------------------------------------------------------------------------------------------------------------

def tokens_ours(sizes: dict) -> dict:
    """The whole stage: csv to token files."""
    import contextlib
    import io
    import tempfile

    import create_toks
    from ulmfit import tokens

    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "data"
        folder.mkdir()
        rows = _rows(sizes)
        rows.to_csv(folder / "train.csv", header=False, index=False)
        rows.iloc[:2].to_csv(folder / "val.csv", header=False, index=False)
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            create_toks.create_toks(str(folder), workers=sizes["workers"], results_dir=str(Path(base) / "results"))
        seconds = time.perf_counter() - began
        documents = list(tokens.read_tokens(folder / "word" / "tokens" / "train.txt"))
    return _tokens_made(documents, seconds)


def _rows(sizes: dict):
    import pandas as pd

    return pd.read_csv(Path(sizes["data"]) / "train.csv", header=None, nrows=sizes["documents"], keep_default_na=False,
                       dtype=str)


def tokens_stock(sizes: dict) -> dict:
    from fastai.text.core import tokenize_df

    frame = _rows(sizes)
    began = time.perf_counter()
    tokenized, _ = tokenize_df(frame, [1], n_workers=sizes["workers"])
    return _tokens_made([list(document) for document in tokenized.text], time.perf_counter() - began)


def _tokens_made(documents: list[list[str]], seconds: float) -> dict:
    import hashlib

    digest = hashlib.sha256("\n".join("\0".join(document) for document in documents).encode()).hexdigest()
    count = sum(map(len, documents))
    return {"rate": count / seconds, "tokens": count, "digest": digest[:16]}


# -- the machine and the rest ------------------------------------------------------------------------------------------

def product_ours(sizes: dict) -> dict:
    """GFLOP/s of a matrix product: what the machine can do."""
    import torch

    n, kind = sizes["n"], torch.bfloat16 if sizes["precision"] == "bf16" else torch.float32
    a, b = (torch.randn(n, n).to(kind) for _ in range(2))
    torch.mm(a, b)
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - began)
    return {"rate": 2 * n**3 / float(np.median(seconds)) / 1e9}


def help_ours(sizes: dict) -> dict:
    return _seconds_of([str(ROOT / "imdb_scripts" / "train_clas.py"), "--help"])


def help_stock(sizes: dict) -> dict:
    return _seconds_of(["-c", "from fastai.text.all import *"])


def _seconds_of(command: list[str]) -> dict:
    import subprocess

    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return {"rate": 1 / (time.perf_counter() - began)}


def main() -> None:
    work, whose, sizes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if work in ("lm", "clas", "product"):
        import torch

        torch.set_num_threads(sizes["threads"])
        torch.manual_seed(0)
    found = globals()[f"{work}_{whose}"](sizes)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(json.dumps({**found, "peak_memory_mb": round(peak)}))


if __name__ == "__main__":
    main()
