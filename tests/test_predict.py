"""predict_with_classifier: conversations, whole csv files, averages, and classifiers given by their files."""

import codecs
import contextlib
import csv
import fcntl
import io
import os
import pickle
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import flow
from flow import CLASSES, SIZES
from predict_with_classifier import predict_with_classifier
from ulmfit import cli, corpus, fastai_07, prediction
from ulmfit.errors import UsageError, UserError

torch.set_num_threads(1)
FWD, BWD, OTHER = ("clas--fwd--word--default--all--s0", "clas--bwd--word--default--all--s0",
                   "clas--fwd--word--default--all--s1")
TEXTS = ["The film was superb, a moving story!", "", "Dreadful.", "and it had music " * 700,
         "😀 \u202eسيئ 一部电影", "xxbos xxpad", "two\nlines, \"quoted\""]
HERE = {"threads": 1, "cuda_id": -1, "bs": 4}


@dataclass(frozen=True)
class World:
    base: Path
    data: Path

    def printed(self, capsys, **flags) -> tuple[list[str], np.ndarray]:
        """(classes, probabilities) that a call in this process prints."""
        if not {"itos_filename", "text"} & flags.keys() or "dir_path" in flags:
            flags = {"dir_path": str(self.data), **flags}
        predict_with_classifier(**{**HERE, **flags})
        return parsed(capsys.readouterr().out)


def parsed(printed: str) -> tuple[list[str], np.ndarray]:
    header, *rows = csv.reader(io.StringIO(printed))
    assert header[0] == "class" and all(name.startswith("p:") for name in header[1:])
    return [row[0] for row in rows], np.array([[float(value) for value in row[1:]] for row in rows])


def make_dataset(folder: Path, rows: list[list[str]] | None = None, **flags) -> Path:
    flow.write_corpus(folder)
    if rows is not None:
        flow.write_csv(folder / "train.csv", rows)
        (folder / "test.csv").unlink()
    results = str(folder.parent / "results")
    for stage in ("create_toks", "tok2id"):
        flow.call(stage, dir_path=str(folder), results_dir=results, **{"workers": 1} if stage == "create_toks" else {})
    for more in ({}, {"backwards": True}, {"seed": 1}) if rows is None else ({},):
        flow.call("train_clas", dir_path=str(folder), results_dir=results, from_scratch=True, cl=1, quiet=True, lr=0.01,
                  **SIZES, **flow.SMALL, **more)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    base = tmp_path_factory.mktemp("predict")
    return World(base, make_dataset(base / "imdb"))


@pytest.fixture
def table(tmp_path) -> Path:
    """A csv as people have them: a byte order mark, a header, Windows line ends, quotes, a blank line."""
    lines = [f'{number},"{text}",  x{number}\r\n' for number, text in
             enumerate(text.replace('"', '""') for text in TEXTS)]
    path = tmp_path / "texts.csv"
    path.write_bytes(codecs.BOM_UTF8 + ("id,review,more\r\n" + "\r\n".join(lines[:2]) + "".join(lines[2:])).encode())
    return path


# -- rows as they are written ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("content", (
    b"a,b\n1,2\n", b"a,b\r\n1,2", b"\xef\xbb\xbfa,b\n\n1,\"x\n\ny\"\n\n\n",
    b"\n\na,b\n\"\",\"\"\"\"\n", b'"a\r\n",b\r\n1,2\r\n'))
def test_what_rows_are_written_as_is_the_file(tmp_path, content):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    rows = list(corpus.read_table(path, ["1"]))
    assert "".join(row.written for row in rows).encode() == content
    expected = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if row]
    assert [row.fields for row in rows if row.fields] == expected
    assert [row.texts for row in rows if row.texts] == [[row[1]] for row in expected]


def test_a_table_is_read_row_by_row(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,text\n" + "1,a film\n" * 100_000 + '2,"never closed\n')
    rows = corpus.read_table(path, ["text"])
    assert [next(rows).texts for _ in range(3)] == [None, ["a film"], ["a film"]]
    with pytest.raises(UserError, match="row 100001 .*never closed"):
        list(rows)


@pytest.mark.parametrize("columns, header, texts", (
    (["text"], "auto", ["a"]), (["1"], "auto", ["text", "a"]), (["1"], "yes", ["a"]), (["1"], "no", ["text", "a"])))
def test_the_header_of_a_table(tmp_path, columns, header, texts):
    path = tmp_path / "x.csv"
    path.write_text("id,text\n1,a\n")
    assert [row.texts[0] for row in corpus.read_table(path, columns, header) if row.texts] == texts


def test_columns_that_are_not_there_or_there_twice(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,text\n1,a\n")
    for columns, header, message in ((["text"], "auto", "2 columns 'text'; name it by its number"),
                                     (["txt"], "auto", "no column 'txt'; its columns are text, text"),
                                     (["2"], "yes", "no column '2'")):
        with pytest.raises(UserError, match=message):
            list(corpus.read_table(path, columns, header))
    path.write_text("text\n\n")
    with pytest.raises(UserError, match="a header and no row below it"):
        list(corpus.read_table(path, ["text"]))


def test_chunks_are_bounded_by_texts_and_by_characters(monkeypatch):
    monkeypatch.setattr(prediction, "CHUNK_TEXTS", 3)
    monkeypatch.setattr(prediction, "CHUNK_CHARACTERS", 10)
    taken = []
    chunks = prediction.in_chunks((taken.append(text) or text for text in ["aa"] * 4 + ["a" * 50] * 2 + ["a"]), len)
    assert next(chunks) == ["aa"] * 3 and len(taken) == 3
    assert list(chunks) == [["aa", "a" * 50], ["a" * 50], ["a"]]


# -- whole csv files ---------------------------------------------------------------------------------------------------

def answered(world: World, table: Path, output: Path, *more: str) -> subprocess.CompletedProcess:
    return flow.run_stage("predict_with_classifier", *more, dir_path=world.data, csv=table, output=output, **HERE)


def test_a_whole_csv_with_columns_added(world, table, tmp_path, capsys):
    before = table.read_bytes()
    done = answered(world, table, tmp_path / "made" / "out.csv", "--column=review")
    assert done.returncode == 0, done.stderr
    assert table.read_bytes() == before and os.listdir(tmp_path / "made") == ["out.csv"]
    made = (tmp_path / "made" / "out.csv").read_bytes()

    # Without what was added, to the byte what it was.
    added = rb",(?:predicted,p:1e5,p:NA,p:poor|(?:1e5|NA|poor)(?:,[0-9.e-]+){3})(?=\r\n)"
    assert re.sub(added, b"", made) == before and len(re.findall(added, made)) == len(TEXTS) + 1
    header, *rows = [row for row in csv.reader(io.StringIO(made.decode("utf-8-sig"), newline="")) if row]
    assert header == ["id", "review", "more", "predicted", *(f"p:{name}" for name in sorted(CLASSES))]
    assert [row[1] for row in rows] == TEXTS
    counts = {name: [row[3] for row in rows].count(name) for name in sorted(CLASSES)}
    assert f"{len(TEXTS)} texts, " + ", ".join(f"{name}: {count}" for name, count in counts.items()) in done.stdout

    # Each row is answered as it is alone; some chunks at a time too.
    for row in rows:
        guesses, found = world.printed(capsys, text=row[1], dir_path=str(world.data))
        assert guesses == [row[3]]
        np.testing.assert_allclose(found[0], [float(value) for value in row[4:]], atol=2e-6)


def test_csv_in_chunks_without_header_and_only_the_class(world, tmp_path, capsys, monkeypatch):
    path, out = tmp_path / "x.csv", tmp_path / "out.csv"
    rows = flow.labelled_rows(30, 5)
    flow.write_csv(path, rows)
    whole = world.printed(capsys, csv=str(path), column="1")
    monkeypatch.setattr(prediction, "CHUNK_TEXTS", 4)
    chunked = world.printed(capsys, csv=str(path), column="1")
    assert chunked[0] == whole[0] and len(whole[0]) == 30
    np.testing.assert_allclose(chunked[1], whole[1], atol=2e-6)
    predict_with_classifier(dir_path=str(world.data), csv=str(path), column="1", output=str(out), probabilities=False,
                            **HERE)
    with open(out, newline="") as file:
        assert list(csv.reader(file)) == [[*row, guess] for row, guess in zip(rows, whole[0])]
    # Over itself, when that is asked for.
    predict_with_classifier(dir_path=str(world.data), csv=str(path), column="1", output=str(path), overwrite=True,
                            probabilities=False, **HERE)
    assert path.read_bytes() == out.read_bytes()


def test_a_csv_from_a_pipe(world, table, tmp_path):
    read, write = os.pipe()
    os.write(write, table.read_bytes())
    os.close(write)
    for source, name in ((f"/dev/fd/{read}", "piped.csv"), (str(table), "read.csv")):
        predict_with_classifier(dir_path=str(world.data), csv=source, column="review", output=str(tmp_path / name),
                                **HERE)
    os.close(read)
    assert (tmp_path / "piped.csv").read_bytes() == (tmp_path / "read.csv").read_bytes()


def test_class_names_are_quoted_as_csv(tmp_path):
    cells = ['a "b", c', "line\rone", "line\ntwo", ""]
    row = prediction._extended('1,"x\n"\r\n', cells)
    assert list(csv.reader(io.StringIO(row, newline=""))) == [["1", "x\n", *cells]]


BAD = {
    "the input itself": (b"t\na\n", {}, "x.csv", "is the file of --csv; choose another name"),
    "another file": (b"t\na\n", {}, "there.csv", "exists; choose another name"),
    "a folder": (b"t\na\n", {}, "", "is a folder"),
    "a name taken": (b"t,p:NA\na,1\n", {}, "out.csv", "has a column 'p:NA' already"),
    "a late row": (b"t,u\n" + b"a,b\n" * 50 + b"a\n", {}, "out.csv", r"row 51 \(the first is 0\): 1 column where 2"),
    "a NUL": (b"t\na\nb\0\n", {}, "out.csv", "row 2 .* NUL byte"),
    "no UTF-8": (b"t\na\nb\xff\n", {}, "out.csv", "row 2 .* is not UTF-8"),
    "nothing": (b"", {}, "out.csv", "is empty"),
    "columns": (b"t,u\na,b\n", {"column": "t,u"}, "out.csv", "1 text columns and got 2; name them as"),
}


@pytest.mark.parametrize("case", BAD)
def test_csv_refused_before_anything_is_loaded(world, tmp_path, case, monkeypatch):
    content, flags, output, message = BAD[case]
    (tmp_path / "x.csv").write_bytes(content)
    (tmp_path / "there.csv").write_bytes(b"precious")
    monkeypatch.setattr(prediction, "Ensemble", None)
    with pytest.raises(UserError, match=message):
        predict_with_classifier(**{"dir_path": str(world.data), "csv": str(tmp_path / "x.csv"), "column": "t",
                                   "output": str(tmp_path / output), **flags})
    assert sorted(os.listdir(tmp_path)) == ["there.csv", "x.csv"]
    assert (tmp_path / "x.csv").read_bytes() == content


def test_a_broken_off_prediction_leaves_nothing(world, table, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(prediction.Ensemble, "__call__", broken)
    with pytest.raises(KeyboardInterrupt):
        predict_with_classifier(dir_path=str(world.data), csv=str(table), column="review",
                                output=str(tmp_path / "out.csv"), **HERE)
    assert os.listdir(tmp_path) == ["texts.csv"]


# -- averages ----------------------------------------------------------------------------------------------------------

def test_the_average_is_the_arithmetic_mean(world, table, capsys):
    texts = {"csv": str(table), "column": "review"}
    single = {name: world.printed(capsys, models=name, **texts)[1] for name in (FWD, BWD, OTHER)}
    assert all(np.abs(single[a] - single[b]).max() > 1e-3 for a, b in ((FWD, BWD), (FWD, OTHER)))
    for flags, members in (({"ensemble": True}, (FWD, BWD)), ({"models": f"{OTHER} {BWD}  {FWD}"}, (FWD, BWD, OTHER)),
                           ({"backwards": True}, (BWD,)), ({"seed": 1}, (OTHER,))):
        guesses, found = world.printed(capsys, **flags, **texts)
        mean = np.mean([single[name] for name in members], axis=0)
        np.testing.assert_allclose(found, mean, atol=2e-6)
        assert guesses == [sorted(CLASSES)[place] for place in found.argmax(1)]


def test_classifiers_that_cannot_be_averaged(world, tmp_path):
    other = make_dataset(tmp_path / "two", [[["neg", "pos"][row % 2], f"a film {row}"] for row in range(30)])
    name = FWD.replace("default", "two")
    (world.data / "models" / name).symlink_to(other / "models" / FWD)
    try:
        with pytest.raises(UserError, match="cannot be averaged: the classes are neg, pos there, 1e5, NA, poor here"):
            predict_with_classifier("a film", dir_path=str(world.data), models=f"{FWD} {name}")
    finally:
        (world.data / "models" / name).unlink()


@pytest.mark.parametrize("flags, kind, message", (
    ({"ensemble": True, "backwards": True}, UsageError, "leave out --backwards"),
    ({"models": FWD, "lm_id": "x"}, UsageError, "leave out --lm_id"),
    ({"models": f"{FWD} {FWD}"}, UsageError, "twice"),
    ({"models": " "}, UsageError, "names no classifier"),
    ({"models": "clas"}, UserError, f"no classifier 'clas'; it has {BWD}, {FWD}"),
    ({"models": "../x"}, UserError, "no classifier '../x'"),
    ({"models": f"{FWD}--intermediate"}, UserError, f"no classifier '{FWD}--intermediate'; it has {BWD}, {FWD}"),
    ({"ensemble": True, "lm_id": "x"}, UserError, "run first: python imdb_scripts/train_clas.py .*--lm_id=x"),
    ({"output": "x"}, UsageError, "--output goes with --csv"),
    ({"overwrite": True}, UsageError, "--overwrite replaces the file of --output"),
    ({"num_classes": 2}, UsageError, "--num_classes goes with"),
    ({"itos_filename": "x"}, UsageError, "go together"),
    ({"itos_filename": "x", "trained_classifier_filename": "y", "seed": 1}, UsageError, "leave out --seed"),
))
def test_contradictions(world, flags, kind, message):
    given = {} if "itos_filename" in flags else {"dir_path": str(world.data)}
    with pytest.raises(kind, match=message):
        predict_with_classifier("a film", **given, **flags)


# -- standard input ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stdin, rows, message", (
    (b"a film\n\nbad\r\n", 3, None), (b"no line end", 1, None), (b"", None, "there is no text to predict"),
    (b"good\nbad \0\n", None, "standard input: row 1 (the first is 0): holds a NUL byte"),
    (b"\xff\n", None, "standard input: row 0 (the first is 0): is not UTF-8")))
def test_lines_of_a_pipe(world, capsys, monkeypatch, stdin, rows, message):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    arguments = flow.command("predict_with_classifier", dir_path=world.data, **HERE)[1:]
    if message is None:
        cli.main(predict_with_classifier, arguments)
    else:
        with pytest.raises(SystemExit) as stopped:
            cli.main(predict_with_classifier, arguments)
        assert stopped.value.code == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == (0 if rows is None else rows + 1)
    assert err == "" if message is None else message in err and err.count("\n") == 1


class Terminal:
    """A stage with a terminal as its standard input, output and errors."""

    def __init__(self, *arguments: str, stdout=None):
        self.end, other = pty.openpty()
        self.rest = ""
        self.process = subprocess.Popen([sys.executable, *arguments], cwd=flow.ROOT, stdin=other,
                                        stdout=stdout or other, stderr=other, start_new_session=True,
                                        env={**flow.environment(), "TERM": "dumb"},
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(other)
        os.set_blocking(self.end, False)

    def read_until(self, expected: str) -> str:
        """What is shown up to and with `expected`; the rest is kept for the next call."""
        deadline = time.monotonic() + 100
        while expected not in self.rest:
            assert time.monotonic() < deadline, self.rest
            if select.select([self.end], [], [], 1)[0]:
                assert self._read(), f"ended after {self.rest!r}"
        shown, _, self.rest = self.rest.partition(expected)
        return shown + expected

    def _read(self) -> bool:
        """Waits, and adds what there is to `rest`; False when the other side is closed."""
        assert select.select([self.end], [], [], 100)[0], f"nothing comes after {self.rest!r}"
        try:
            piece = os.read(self.end, 65536)
        except OSError:
            return False
        self.rest += piece.decode(errors="replace")
        return bool(piece)

    def type(self, keys: bytes) -> None:
        """Types, and reads what is echoed meanwhile: a terminal whose output nobody takes takes no more input."""
        while keys:
            readable, writable, _ = select.select([self.end], [self.end], [], 100)
            assert readable or writable, "the terminal takes no more input"
            if readable:
                assert self._read(), f"ended after {self.rest!r}"
            if writable:
                with contextlib.suppress(BlockingIOError):
                    keys = keys[os.write(self.end, keys[:256]):]

    def finish(self, last: bytes = b"") -> int:
        """Types the last key, and again when nothing comes of it: Python misses a Ctrl-C between the prompt and
        readline's wait for a key. Returns the exit code; what is shown before the end is in `rest`."""
        self.type(last)
        for _ in range(20):
            while select.select([self.end], [], [], 5)[0]:
                if not self._read():
                    os.close(self.end)
                    return self.process.wait(60)
            self.type(last)
        raise AssertionError(f"does not end after {self.rest!r}")


PROMPT = "text (or q to quit): "


@pytest.mark.parametrize("last, code", ((b"\x04", 0), (b"\x03", 130)))
def test_a_conversation(world, capsys, last, code):
    expected = world.printed(capsys, text=TEXTS[0], dir_path=str(world.data))
    terminal = Terminal(*flow.command("predict_with_classifier", dir_path=world.data, **HERE))
    try:
        terminal.read_until(PROMPT)
        terminal.type(b"\n")
        assert "(" not in terminal.read_until(PROMPT).replace(PROMPT, "")  # nothing is no text
        terminal.type(TEXTS[0].encode() + b"\n")
        answer = terminal.read_until(PROMPT)
        order = np.argsort(-expected[1][0])
        listed = ", ".join(f"{sorted(CLASSES)[place]} {expected[1][0][place]:.4f}" for place in order)
        assert f"{expected[0][0]}  ({listed})" in answer
        terminal.type("\udcff film\n".encode("utf-8", "surrogateescape"))
        terminal.read_until("that is not UTF-8")
        terminal.read_until(PROMPT)
        terminal.type(("a long film " * 800 + "\n").encode())  # longer than a line of a terminal by itself
        terminal.read_until(")")
        terminal.read_until(PROMPT)
        assert terminal.finish(last) == code
        assert "Traceback" not in terminal.rest
    finally:
        if terminal.process.poll() is None:
            os.killpg(terminal.process.pid, signal.SIGKILL)


@pytest.mark.parametrize("end", ("q", " q ", EOFError))
def test_what_is_typed_and_what_ends_it(monkeypatch, capsys, end):
    typed = iter(["", "  ", "a\0b", "\udcff", "Q", "good film", end, "never read"])

    def type_line(prompt: str) -> str:
        line = next(typed)
        if line is EOFError:
            raise EOFError
        return line

    class Answers:
        classes = [str(number) for number in range(12)]

        def __call__(self, texts):
            asked.extend(texts)
            return np.arange(12)[None] / 66

    asked = []
    monkeypatch.setattr("builtins.input", type_line)
    prediction.converse(Answers())
    assert asked == [["Q"], ["good film"]] and next(typed) == "never read"
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert "NUL" in lines[0] and "UTF-8" in lines[1] and lines[2] == lines[3]
    assert lines[2].startswith("11  (11 0.1667, 10 0.1515, ") and lines[2].endswith(", 2 0.0303, ...)")


def test_texts_typed_with_the_output_in_a_file(world, tmp_path):
    with open(tmp_path / "out.csv", "wb") as file:
        terminal = Terminal(*flow.command("predict_with_classifier", dir_path=world.data, **HERE), stdout=file)
    try:
        terminal.read_until("a text a line; end with Ctrl-D")
        terminal.type(b"a film\n")
        deadline = time.monotonic() + 120
        while (tmp_path / "out.csv").read_bytes().count(b"\n") < 2:  # answered before the end
            assert time.monotonic() < deadline and terminal.process.poll() is None
            time.sleep(0.1)
        terminal.type(b"another\n\x04")
        assert terminal.finish() == 0
    finally:
        if terminal.process.poll() is None:
            os.killpg(terminal.process.pid, signal.SIGKILL)
    assert len(parsed((tmp_path / "out.csv").read_text())[0]) == 2


# -- classifiers by their files ----------------------------------------------------------------------------------------

def test_ours_by_file_names(world, capsys, monkeypatch):
    files = {name: [str(world.data / "models" / name / file) for file in ("vocab.json", "weights.safetensors")]
             for name in (FWD, BWD)}
    text = TEXTS[0]
    for name, flags in ((FWD, {}), (BWD, {"backwards": True})):
        expected = world.printed(capsys, text=text, dir_path=str(world.data), **flags)
        found = world.printed(capsys, text=text, itos_filename=files[name][0],
                              trained_classifier_filename=files[name][1], num_classes=3, **flags)
        assert found[0] == expected[0] and (found[1] == expected[1]).all()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    cli.main(predict_with_classifier, [*files[BWD], "3", "--threads=1", "--bs=4"])
    assert (parsed(capsys.readouterr().out)[1] == expected[1]).all()

    for itos, trained, more, message in (
            (files[FWD][0], files[BWD][1], {}, "do not belong together"),
            (*files[FWD], {"backwards": True}, "was trained to read forward"),
            (*files[FWD], {"num_classes": 2}, "has 3 classes, --num_classes asks for 2"),
            (files[FWD][0], "none.safetensors", {}, "there is no file none.safetensors")):
        with pytest.raises(UserError, match=message):
            predict_with_classifier(text, itos_filename=itos, trained_classifier_filename=trained, **more)


class LinearBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.lin, self.bn = nn.Linear(inputs, outputs), nn.BatchNorm1d(inputs)

    def forward(self, x):
        return self.lin(self.bn(x))


class Classifier2018(nn.Module):
    """What 0.7's classifier computes in evaluation, from its description: an LSTM read in chunks of 70 whose state is
    carried on, the chunks of the last 1,400 tokens pooled, blocks of batch normalisation and linear layer."""

    def __init__(self, words: int, classes: int, emb: int = 10, hid: int = 14, layers: int = 3, hidden=(50,)):
        super().__init__()
        self.encoder = nn.Embedding(words, emb)
        self.rnns = nn.ModuleList(nn.LSTM(emb if layer == 0 else hid, emb if layer == layers - 1 else hid)
                                  for layer in range(layers))
        sizes = [3 * emb, *hidden, classes]
        self.blocks = nn.ModuleList(LinearBlock(*pair) for pair in zip(sizes, sizes[1:]))

    def forward(self, ids: list[int]) -> np.ndarray:
        states, kept = [None] * len(self.rnns), []
        for start in range(0, len(ids), 70):
            x = self.encoder(torch.tensor(ids[start:start + 70]))[:, None]
            for layer, rnn in enumerate(self.rnns):
                x, states[layer] = rnn(x, states[layer])
            if start > len(ids) - 1400:
                kept.append(x[:, 0])
        output = torch.cat(kept)
        x = torch.cat([output[-1], output.max(0).values, output.mean(0)])[None]
        for number, block in enumerate(self.blocks):
            x = block(x if number == 0 else x.relu())
        return x.softmax(1)[0].numpy()

    def state_07(self) -> OrderedDict:
        """Under the names that 0.7 saved."""
        embedding = self.encoder.weight.data
        state = OrderedDict({"0.encoder.weight": embedding, "0.encoder_with_dropout.embed.weight": embedding})
        for layer, rnn in enumerate(self.rnns):
            for name, tensor in rnn.state_dict().items():
                state[f"0.rnns.{layer}.module.{name}{'_raw' * (name == 'weight_hh_l0')}"] = tensor
        state.update({f"1.layers.{name}": tensor for name, tensor in self.blocks.state_dict().items()
                      if "num_batches" not in name})
        return state


OLD_WORDS = ["_unk_", "_pad_", "xbos", "xfld", "1", "t_up", "tk_rep", "tk_wrep", "the", "film", "was", "superb", ",",
             ".", "a", "moving", "story", "!", "\n \n", "5", "dreadful", "and", "it", "had", "music", "film"]


@pytest.fixture(scope="module", params=((2, (50,)), (6, (50,)), (3, (20, 10))))
def old(request, tmp_path_factory):
    """(folder with itos.pkl and clas_1.h5, the model)."""
    classes, hidden = request.param
    torch.manual_seed(0)
    model = Classifier2018(len(OLD_WORDS), classes, hidden=hidden).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.uniform_(-1, 1)
    for block in model.blocks:
        block.bn.running_mean.uniform_(-0.5, 0.5)
        block.bn.running_var.uniform_(0.1, 0.5)
        block.lin.weight.mul_(2 / block.lin.in_features ** 0.5)
    folder = tmp_path_factory.mktemp("old")
    torch.save(model.state_07(), folder / "clas_1.h5", _use_new_zipfile_serialization=False)
    (folder / "itos.pkl").write_bytes(pickle.dumps(OLD_WORDS))
    return folder, model


def test_a_classifier_of_2018(old, world, table, capsys):
    folder, model = old
    place = {word: number for number, word in enumerate(OLD_WORDS)}
    n_classes = len(model.blocks[-1].lin.bias)
    texts = [*TEXTS, "the film " * 35, "the film and it had " * 300]
    flow.write_csv(folder / "x.csv", [[text] for text in texts])
    files = {"itos_filename": str(folder / "itos.pkl"), "trained_classifier_filename": str(folder / "clas_1.h5")}
    for backwards in (False, True):
        expected = []
        for text in texts:
            ids = [place.get(token, 0) for token in fastai_07.tokenized([text])]
            expected.append(model(ids[::-1] if backwards else ids))
        predict_with_classifier(csv=str(folder / "x.csv"), column="0", num_classes=n_classes, backwards=backwards,
                                **files, **HERE)
        guesses, found = parsed(capsys.readouterr().out)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert guesses == [str(row.argmax()) for row in found]
    assert np.abs(np.diff(found, axis=0)).max() > 0.01
    with pytest.raises(UserError, match=f"has {n_classes} classes, --num_classes asks for 9"):
        predict_with_classifier("a", num_classes=9, **files)


def test_the_call_of_2018(old, capsys, monkeypatch):
    folder, model = old
    n_classes = len(model.blocks[-1].lin.bias)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n")))
    cli.main(predict_with_classifier, ["itos.pkl", "clas_1.h5", *[str(n_classes)] * (n_classes != 2), "--threads=1"])
    ids = [OLD_WORDS.index(word) for word in ("xbos", "xfld", "1", "a")]
    np.testing.assert_allclose(parsed(capsys.readouterr().out)[1][0], model(ids), atol=1e-5)
    # As a flag it is the GPU still.
    for more in ([], [f"--num_classes={n_classes}"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n")))
        with pytest.raises(SystemExit):
            cli.main(predict_with_classifier, ["itos.pkl", "clas_1.h5", f"--cuda_id={n_classes}", *more])
        assert f"--cuda_id={n_classes}: 0 GPUs are visible here" in capsys.readouterr().err
    with pytest.raises(UserError, match="there is no file none.h5"):
        predict_with_classifier("itos.pkl", "none.h5")
    with pytest.raises(UserError, match=f"run first: python {flow.SCRIPTS}/train_clas.py --dir_path=data"):
        predict_with_classifier("itos.pkl", "data")  # a text, and a folder


@pytest.mark.parametrize("text, tokens", (
    ("The film.", "xbos xfld 1 the film ."),
    ("GREAT TV, So-so", "xbos xfld 1 t_up great tv , so - so"),
    ("no... way!!!!", "xbos xfld 1 no ... way tk_rep 4 !"),
    ("so so so so good", "xbos xfld 1 tk_wrep 4 so good"),
    ("10/10 #one", "xbos xfld 1 10 / 10 # one"),
    ("", "xbos xfld 1"),
))
def test_tokens_of_2018(text, tokens):
    assert [token for token in fastai_07.tokenized([text]) if token.strip()] == tokens.split()


def test_columns_of_2018_are_announced():
    assert fastai_07.tokenized(["a", "b"]) == "xbos xfld 1 a xfld 2 b".split()


@pytest.mark.parametrize("change, message", (
    (lambda state: state.pop("1.layers.1.lin.bias"), r"1\.layers\.1\.lin\.weight is \(2, 50\); expected \(0, 50\)"),
    (lambda state: state.update({"1.layers.0.lin.weight": torch.zeros(50, 7)}), r"is \(50, 7\); expected \(50, 30\)"),
    (lambda state: [state.pop(name) for name in list(state) if name.startswith("1.")],
     "expected a classifier of fastai 0.7"),
    (lambda state: state.pop("0.encoder.weight"), "lacks 0.encoder.weight"),
    (lambda state: state.update({"0.encoder.weight": torch.zeros(4, 10),
                                 "0.encoder_with_dropout.embed.weight": torch.zeros(4, 10)}),
     "26 words, and .* 4 rows"),
))
def test_files_that_are_no_classifier_of_2018(tmp_path, change, message):
    state = Classifier2018(len(OLD_WORDS), 2).state_07()
    change(state)
    torch.save(state, tmp_path / "clas.h5")
    (tmp_path / "itos.pkl").write_bytes(pickle.dumps(OLD_WORDS))
    with pytest.raises(UserError, match=message) as refused:
        predict_with_classifier(str(tmp_path / "itos.pkl"), str(tmp_path / "clas.h5"))
    assert "\n" not in str(refused.value)


def test_a_hostile_vocabulary_is_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save(Classifier2018(len(OLD_WORDS), 2).state_07(), tmp_path / "clas.h5")
    (tmp_path / "itos.pkl").write_bytes(pickle.dumps([Hostile()]))
    with pytest.raises(UserError, match="could run code"):
        predict_with_classifier("a film", itos_filename=str(tmp_path / "itos.pkl"),
                                trained_classifier_filename=str(tmp_path / "clas.h5"))
    assert not (tmp_path / "ran").exists()
