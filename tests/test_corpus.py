"""The csv reader, the classes, the held-out rows."""

import csv
import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from ulmfit import corpus
from ulmfit.errors import UserError


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def frame(path, n_lbls=1, chunksize=1000, **more):
    """All of a file, with the columns label (where there is one), text0, text1, ..."""
    chunks = list(corpus.read_chunks(path, n_lbls, chunksize, **more))
    texts = pd.DataFrame([row for chunk in chunks for row in chunk.texts], dtype=str).add_prefix("text")
    labels = [label for chunk in chunks for label in chunk.labels]
    assert n_lbls or set(labels) == {""}
    return texts.assign(label=labels)[["label", *texts]] if n_lbls else texts


# reading

def test_fields_that_look_like_missing_values_are_texts(tmp_path):
    path = write(tmp_path / "train.csv", 'NA,null\nnan,NA\n"N/A",""\nNone,nan\n1,1e5\n')
    got = frame(path)
    assert got["label"].tolist() == ["NA", "nan", "N/A", "None", "1"]
    assert got["text0"].tolist() == ["null", "NA", "", "nan", "1e5"]
    assert not got.isna().any().any()


def test_what_quotes_hold_is_kept_to_the_letter(tmp_path):
    texts = ["two\nlines", "dos\r\nlines", "mac\rlines", 'a "quote", and a comma', "  spaces  ", "5\" disk", "é 日本 🎬",
             ""]
    path = tmp_path / "train.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([str(i), text] for i, text in enumerate(texts))
    assert frame(path)["text0"].tolist() == texts
    assert frame(write(path, '1,5" disk\r\n2,b\r\n'))["text0"].tolist() == ['5" disk', "b"]


def test_chunks_bound_the_rows_and_go_on_numbering(tmp_path):
    path = write(tmp_path / "unsup.csv", "".join(f"text {i}\n" for i in range(7)))
    chunks = list(corpus.read_chunks(path, 0, 3))
    assert [(chunk.first, len(chunk.texts), len(chunk.labels)) for chunk in chunks] == [(0, 3, 3), (3, 3, 3), (6, 1, 1)]
    assert [text for chunk in chunks for text in chunk.texts] == [[f"text {i}"] for i in range(7)]


def test_several_text_columns_and_labels_without_their_spaces(tmp_path):
    got = frame(write(tmp_path / "train.csv", " pos ,title, body \n1,,x\n"))
    assert list(got.columns) == ["label", "text0", "text1"]
    assert got.values.tolist() == [["pos", "title", " body "], ["1", "", "x"]]


def test_a_byte_order_mark_and_blank_lines_are_no_content(tmp_path):
    got = frame(write(tmp_path / "train.csv", b"\xef\xbb\xbf\"1\",a\n\n2,b\n\n"))
    assert got.values.tolist() == [["1", "a"], ["2", "b"]]
    assert frame(write(tmp_path / "unsup.csv", 'a\n""\nb\n'), n_lbls=0)["text0"].tolist() == ["a", "", "b"]


def test_a_field_longer_than_pythons_default_limit(tmp_path):
    text = "word " * 100_000
    assert frame(write(tmp_path / "unsup.csv", f'"{text}"\n'), n_lbls=0)["text0"].tolist() == [text]


def test_agrees_with_pandas_on_random_fields(tmp_path):
    generator = random.Random(3)
    rows = [["".join(generator.choices('ab ,"\n\'é\t', k=generator.randrange(12))) for _ in range(2)]
            for _ in range(400)]
    path = tmp_path / "train.csv"
    pd.DataFrame([["x", *row] for row in rows]).to_csv(path, header=False, index=False)
    assert frame(path, chunksize=37)[["text0", "text1"]].values.tolist() == rows


@pytest.mark.parametrize("content, row, words", [
    (b"1,a\n2,b,c\n", 1, ["3 columns where 2 are expected"]),
    (b"1,a\n2\n", 1, ["1 column where 2 are expected"]),
    (b"1\n2\n", 0, ["no text column"]),
    (b"1,a\n2,b\xff\n", 1, ["not UTF-8", "0xff"]),
    (b'1,a\n2,b\n3,"open\nmore\n', 2, ["never closed"]),
    (b'1,"a"b\n', 0, ["closing quote"]),
    (b"1,a\n1,b\0c\n", 1, ["NUL"]),
    (b"1,a\n1,a\rb\n", 1, ["carriage return"]),
    (b"1,a\n,b\n", 1, ["label", "empty"]),
    (b"1,a\n ,b\n", 1, ["label", "empty"]),
])
def test_errors_name_the_file_and_the_row(tmp_path, content, row, words):
    path = write(tmp_path / "train.csv", content)
    with pytest.raises(UserError) as caught:
        frame(path, chunksize=1)
    message = str(caught.value)
    assert message.startswith(f"{path}: row {row} ") and "\n" not in message
    assert all(word in message for word in words)


def test_a_row_is_known_even_far_from_the_start(tmp_path):
    path = write(tmp_path / "train.csv", b'1,"two\nlines"\n' * 5000 + b"1,\xe9t\xe9\n")
    with pytest.raises(UserError, match="row 5000 "):
        frame(path)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_or_missing_file(tmp_path, content):
    with pytest.raises(UserError, match="is empty"):
        frame(write(tmp_path / "train.csv", content))
    with pytest.raises(UserError, match="No such file"):
        frame(tmp_path / "test.csv")


def test_the_number_of_text_columns_can_be_demanded(tmp_path):
    path = write(tmp_path / "test.csv", "1,a\n")
    assert len(frame(path, n_texts=1)) == 1
    with pytest.raises(UserError, match="row 0 .*2 columns where 3 are expected"):
        frame(path, n_texts=2)


def test_columns_of_a_csv_by_name_and_by_number(tmp_path):
    def texts(columns):
        return [row.texts for row in corpus.read_table(path, columns) if row.texts is not None]

    path = write(tmp_path / "x.csv", "id,text\n1,a\n2,\"b\nc\"\n")
    assert texts(["text"]) == [["a"], ["b\nc"]]
    assert texts(["text", "id"]) == [["a", "1"], ["b\nc", "2"]]
    assert texts(["1"]) == [["text"], ["a"], ["b\nc"]]
    for columns, there in ((["txt"], "id, text"), (["2"], "0, 1")):
        with pytest.raises(UserError, match=f"no column '{columns[0]}'; its columns are {there}"):
            texts(columns)


# classes

def test_classes_are_sorted_by_number_only_when_all_are_numbers():
    assert corpus.classes_of(["10", "2", "-1", "2"]) == ["-1", "2", "10"]
    assert corpus.classes_of(["10", "2", "x"]) == ["10", "2", "x"]
    assert corpus.classes_of(["1.0", "0.5"]) == ["0.5", "1.0"]
    assert corpus.classes_of(["01", "1"]) == ["01", "1"]


def test_labels_become_places_among_trains_classes():
    encoded = corpus.encode_labels(["5", "2"], ["2", "3", "5"], "val.csv")
    assert encoded.dtype == np.int64 and encoded.tolist() == [2, 0]
    with pytest.raises(UserError, match=r"val\.csv: row 11 .*'4'.*2, 3, 5"):
        corpus.encode_labels(["2", "4"], ["2", "3", "5"], "val.csv", first_row=10)


# held-out rows

def held_out(sizes, seed=0, **more):
    labels = [name for name, size in sizes.items() for _ in range(size)]
    rows = corpus.validation_rows(labels, seed, **more)
    assert rows.tolist() == sorted(set(rows.tolist())) and rows.dtype == np.int64
    return Counter(labels[row] for row in rows)


def test_a_tenth_is_set_aside_by_class():
    assert held_out({"0": 12500, "1": 12500}) == {"0": 1250, "1": 1250}
    trec = held_out({"0": 86, "1": 1162, "2": 1250, "3": 1223, "4": 835, "5": 896})
    assert trec.total() == 545
    # Shares of 545: 8.597, 116.158, 124.954, 122.255, 83.469, 89.567; the three largest remainders are rounded up.
    assert trec == {"0": 9, "1": 116, "2": 125, "3": 122, "4": 83, "5": 90}
    assert held_out({"a": 50, "b": 50}, fraction=0.2) == {"a": 10, "b": 10}


def test_each_class_of_two_gives_one_and_none_gives_all():
    assert held_out({"big": 100, "pair": 2, "single": 1}) == {"big": 9, "pair": 1}
    assert held_out({str(i): 2 for i in range(5)}) == {str(i): 1 for i in range(5)}
    assert held_out({"a": 2, "b": 2}, fraction=0.9) == {"a": 1, "b": 1}
    assert held_out({"": 3}) == {"": 1}


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "b", "c"]])
def test_too_few_documents(labels):
    with pytest.raises(UserError, match="too few documents"):
        corpus.validation_rows(labels, 0)


def test_the_rows_depend_on_the_seed_and_stay_what_they_are():
    labels = ["0", "1"] * 20
    assert corpus.validation_rows(labels, 0).tolist() != corpus.validation_rows(labels, 1).tolist()
    # In each class the two smallest keys of random.Random(0).random(), whatever the classes are called.
    assert corpus.validation_rows(labels, 0).tolist() == [12, 25, 32, 35]
    assert corpus.validation_rows([{"0": "x", "1": "a"}[label] for label in labels], 0).tolist() == [12, 25, 32, 35]


# hashes

def test_the_hash_of_a_text():
    # sha256 of "abc", FIPS 180-2.
    assert corpus.text_hash(["abc"]) == "ba7816bf8f01cfea"
    assert corpus.text_hash(["a", "b"]) != corpus.text_hash(["ab"])
    assert corpus.text_hash(["a", "b"]) == corpus.text_hash(["a\x1fb"])
