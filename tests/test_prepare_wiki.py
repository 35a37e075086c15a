"""prepare_wiki by its command line on small dumps, and the mark-up that it takes off."""

import bz2
import csv
import json
import shlex
from xml.sax.saxutils import escape

import pytest
from flow import interpret, record, run_here
from ulmfit import records, wikipedia
from ulmfit.errors import UserError

WORDS = "the quick brown fox jumps over a lazy dog and goes home again ".split()
GERMAN = {"6": "Datei", "14": "Kategorie", "10": "Vorlage"}


def prose(count, *more):
    return " ".join([*more, *(WORDS[i % len(WORDS)] for i in range(count))])


def page(number, title, text, ns=0, redirect=None, model="wikitext", revisions=()):
    to = f'<redirect title="{redirect}" />' if redirect else ""
    all_texts = "".join(f"<revision><id>{i}</id><timestamp>2020-01-01T00:00:00Z</timestamp><model>{model}</model>"
                        f'<text bytes="{len(body)}" xml:space="preserve">{escape(body)}</text></revision>'
                        for i, body in enumerate([*revisions, text]))
    return f"<page><title>{escape(title)}</title><ns>{ns}</ns><id>{number}</id>{to}{all_texts}</page>\n"


def xml(pages, lang="de", namespaces=GERMAN, dbname=None):
    listed = "".join(f'<namespace key="{key}" case="first-letter">{name}</namespace>'
                     for key, name in {"0": "", **namespaces}.items())
    return (f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="{lang}">\n'
            f"<siteinfo><sitename>Wikipedia</sitename><dbname>{dbname or lang + 'wiki'}</dbname>"
            f"<namespaces>{listed}</namespaces></siteinfo>\n{''.join(pages)}</mediawiki>\n")


def write_dump(tmp_path, pages, name="dump.xml.bz2", **site):
    path = tmp_path / name
    path.write_bytes(bz2.compress(xml(pages, **site).encode()))
    return path


def prepare(tmp_path, dump, *positional, **flags):
    return run_here("prepare_wiki", str(dump), *positional, dir_path=tmp_path / "data" / "wiki_x",
                     results_dir=tmp_path / "results", **flags)


def next_flags(done):
    """The flags of the command that prepare_wiki says comes next."""
    return shlex.split(done.stdout.splitlines()[-1].removeprefix("next: "))[2:]


def rows(tmp_path, split):
    with open(tmp_path / "data" / "wiki_x" / f"{split}.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def refused(tmp_path, dump, *positional, **flags):
    done = prepare(tmp_path, dump, *positional, **flags)
    assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1, (done.returncode, done.stderr)
    assert not list(tmp_path.rglob("*.csv")) and not list(tmp_path.rglob("*.tmp"))
    return done.stderr


def text_of(wikitext, lang="de", hidden=("file", "image", "category", "datei", "kategorie")):
    return wikipedia.plain_text(wikitext, wikipedia.Site(lang, f"{lang}wiki", frozenset(hidden)))


# the mark-up

@pytest.mark.parametrize("wikitext, text", [
    ("'''Foo''' is ''a [[bar|Bar]]''.", "Foo is a Bar."),
    ("{{Infobox|a={{b|[[c]]}}|d={|\n| x\n|}\n}}\nAfter.", "After."),
    ("One.<ref name=\"a\">{{cite|t}} [[x]]</ref> Two<ref name=a />.", "One. Two."),
    ("Seen [[Datei:Foo.jpg|mini|A [[caption|long]] text]] here.", "Seen here."),
    ("Seen [[Bild:Foo.JPG|mini|alias of the namespace]] here.", "Seen here."),
    ("A [[:Datei:Foo.jpg|picture]] and [[:Kategorie:X]].", "A picture and :Kategorie:X."),
    ("End.\n[[Kategorie:Foo|Bar]]\n[[Category:Foo]]\n[[en:Foo]]\n[[zh-min-nan:Foo]]", "End."),
    ("A [[wikt:word|word]] in [[:en:Foo|English]].", "A word in English."),
    ("Of [http://x.y the site] and [http://x.z] http://bare.example now.", "Of the site and now."),
    ("5&nbsp;km &amp; a&#8211;b", "5 km & a–b"),
    ("First.\n== Head ==\nSecond.\n=== Sub ===\n\nThird.", "First.\nSecond.\nThird."),
    ("Prose.\n* item [[x]]\n# num\n: indent\n; def\n** deep\nMore.", "Prose.\nMore."),
    ("Before.\n{| class=\"wikitable\"\n|-\n| a || b\n{|\n| nested\n|}\n|}\nAfter.", "Before.\nAfter."),
    ("<gallery>\nFile:a.jpg|cap\n</gallery>\nText <math>x^2</math> and <small>small</small>.", "Text and small."),
    ("A <!-- hidden --> b<br/>c __NOTOC__ d __KEIN_INHALTSVERZEICHNIS__", "A b c d"),
    ("Bern ({{lang|de|x}}) is ({{IPA|y}}, born 1950), ok ( ).", "Bern is (born 1950), ok."),
    ("Good.\nBroken {{template [[link\nGood too.", "Good.\nGood too."),
    ("Good.\nOpen <ref>{{cite}} never closed", "Good."),
    ("It's L'''Aquila''' and '''bold.", "It's LAquila and bold."),
    ("Tom &#xD800;&#32; end &#x1F600;", "Tom end 😀"),
])
def test_marks_are_taken_off(wikitext, text):
    assert text_of(wikitext) == text


def test_other_scripts():
    assert text_of("'''日本'''は[[ファイル:a.svg|thumb|図]]国です（{{lang|en|Japan}}）。\n[[カテゴリ:国]]", "ja",
                   ("file", "ファイル", "カテゴリ")) == "日本は国です。"
    assert text_of("'''Россия''' — [[страна]].\n[[Файл:a.png|мини|x]]\n[[Категория:Y]]", "ru",
                   ("файл", "категория")) == "Россия — страна."
    assert text_of("'''مصر''' دولة.\n[[ملف:a.jpg|تصغير]]\n[[تصنيف:x]]\n__لا_فهرس__", "ar",
                   ("ملف", "تصنيف")) == "مصر دولة."
    assert text_of("-{zh-hans:软件;zh-hant:軟體}-是-{人}-写的。-{H|zh:x}-", "zh") == "软件是人写的。"


def test_words_are_counted_in_every_script():
    assert wikipedia.count_words("one two\nthree") == 3
    assert wikipedia.count_words("日本は国 and ไทย x") == 4 + 1 + 3 + 1
    assert wikipedia.count_words("Россия — это страна") == 4
    assert wikipedia.count_words("") == 0


# which articles

def site(lang="de"):
    return wikipedia.Site(lang, f"{lang}wiki", frozenset())


def kept(*texts, lang="de", titles=None, min_words=3):
    pages = [wikipedia.Page(site(lang), str(i), (titles or {}).get(i, f"T{i}"), "0", False, text)
             for i, text in enumerate(texts)]
    tally = wikipedia.Tally()
    return [int(page.id) for page, _, _ in wikipedia.articles(pages, min_words, tally)], tally.pages


def test_disambiguation_by_template_title_and_word():
    long = "enough words to be kept"
    found, pages = kept(f"{long} {{{{Begriffsklärung}}}}", f"{long} {{{{Begriffsklärungshinweis}}}}",
                        f"{long} {{{{Human name_disambiguation|x}}}}", f"{long}{{{{disambiguation needed}}}}",
                        f"{long}\n__DISAMBIG__", long, f"{long} {{{{disambigua}}}}", titles={5: "X (Begriffsklärung)"})
    assert found == [1, 3, 6] and pages["disambiguation"] == 4
    assert kept(f"{long} {{{{disambigua}}}}", f"{long} {{{{nota disambigua}}}}", lang="it")[0] == [1]


def test_redirects_without_their_element_and_short_articles():
    found, pages = kept("#WEITERLEITUNG [[Foo]] " + "word " * 9, "one two", "one two three")
    assert found == [2] and pages == {"redirect": 1, "short": 1, "article": 1}


def split(texts, max_tokens, val_articles, ids=None):
    found = [(wikipedia.Page(site(), str(number), "T", "0", False, ""), text, wikipedia.count_words(text))
             for number, text in zip(ids or range(len(texts)), texts)]
    tally = wikipedia.Tally()
    made = list(wikipedia.split(found, max_tokens, val_articles, "dump", tally))
    return [d.texts[0] for d in made if d.split == "train"], [d.texts[0] for d in made if d.split == "val"], tally.words


def test_the_budget_is_never_exceeded():
    texts = [f"a{i} b c" for i in range(10)]
    train, val, words = split(texts, 11, 0)
    assert (train, val, words) == (texts[:3], [], {"train": 9})
    assert split(texts, 12, 0)[0] == texts[:4] and split(texts, 0, 0)[0] == texts
    with pytest.raises(UserError, match="1 articles"):
        split(texts, 5, 1)


def test_val_is_disjoint_and_depends_on_the_articles_number_only():
    texts = [f"text {i}" for i in range(200)]
    train, val, words = split(texts, 0, 20)
    assert len(val) == 20 and sorted(train + val) == sorted(texts) and words == {"train": 360, "val": 40}
    assert val == sorted(val, key=texts.index)
    backward = split(texts[::-1], 0, 20, ids=range(199, -1, -1))
    assert sorted(backward[1]) == sorted(val) and backward[1] == val[::-1]


# the command

@pytest.fixture
def pages():
    listed = [page(1, "Eins", f"{{{{Infobox|x={{{{y}}}}}}}}'''Eins''' {prose(30)}.\n\nZweiter \"Absatz\", {prose(5)}."
                              "\n[[Datei:x.jpg|mini|Bild]]\n[[Kategorie:Zahl]]"),
              page(2, "Uno", "#WEITERLEITUNG [[Eins]]", redirect="Eins"),
              page(3, "Vorlage:X", prose(50), ns=10), page(4, "Daten", '{"a": 1}', model="json"),
              page(5, "Zwei (Begriffsklärung)", f"{prose(40)} {{{{Begriffsklärung}}}}"),
              page(6, "Kurz", prose(3))]
    return listed + [page(10 + i, f"Artikel {i}", prose(40, f"Nummer{i}")) for i in range(20)]


def test_a_dump_becomes_a_corpus(tmp_path, pages):
    dump = write_dump(tmp_path, pages)
    done = prepare(tmp_path, dump, "de", val_articles=4, min_words=20)
    assert done.returncode == 0, done.stderr
    assert next_flags(done) == [f"--dir_path={tmp_path / 'data' / 'wiki_x'}", "--n_lbls=0", "--lang=de"]
    train, val = rows(tmp_path, "train"), rows(tmp_path, "val")
    assert (len(train), len(val)) == (17, 4) and all(len(row) == 1 for row in train + val)
    assert not {row[0] for row in train} & {row[0] for row in val}
    assert [f'Eins {prose(30)}.\nZweiter "Absatz", {prose(5)}.'] in train + val
    made = record(tmp_path / "results", "wiki_x--prepare_wiki")
    assert made["pages"] == {"article": 21, "redirect": 1, "other namespace": 1, "disambiguation": 1, "short": 1}
    assert made["splits"]["val"]["rows"] == 4 and sum(made["words"].values()) == 20 * 41 + 38
    assert "Nummer" not in json.dumps(made)
    manifest = json.loads((tmp_path / "data" / "wiki_x" / records.MANIFEST).read_text())
    assert manifest["fingerprint"] == made["fingerprint"]
    assert "already done" in prepare(tmp_path, dump, "de", val_articles=4, min_words=20).stdout
    other = prepare(tmp_path, dump, "de", val_articles=5, min_words=20)
    assert other.returncode == 1 and "val_articles: 4 there, 5 asked" in other.stderr
    tokens = interpret(["create_toks.py", *next_flags(done), "--workers=1", f"--results_dir={tmp_path / 'results'}"])
    assert tokens.returncode == 0, tokens.stderr


@pytest.mark.parametrize("wiki, language, rules", [("simple", "en", "en"), ("als", "gsw", "xx")])
def test_the_next_command_has_rules_that_spacy_knows(tmp_path, pages, wiki, language, rules):
    dump = write_dump(tmp_path, pages, lang=language, dbname=f"{wiki}wiki")
    done = prepare(tmp_path, dump, wiki, val_articles=0, min_words=20)
    assert done.returncode == 0, done.stderr
    assert next_flags(done)[-1] == f"--lang={rules}"


def test_many_streams_and_the_last_revision_of_a_history(tmp_path):
    whole = xml([page(1, "A", prose(30, "new"), revisions=[prose(30, "old"), prose(30, "older")]),
                 page(2, "B", prose(30, "second"))], lang="en", dbname="simplewiki").encode()
    middle = len(whole) // 2
    (tmp_path / "d.xml.bz2").write_bytes(bz2.compress(whole[:middle]) + bz2.compress(whole[middle:]))
    done = prepare(tmp_path, tmp_path / "d.xml.bz2", "simple", val_articles=0, min_words=5)
    assert done.returncode == 0, done.stderr
    assert [row[0].split()[0] for row in rows(tmp_path, "train")] == ["new", "second"]
    assert not (tmp_path / "data" / "wiki_x" / "val.csv").exists()


def test_reading_stops_at_the_budget(tmp_path, pages):
    # Several of bz2's blocks of 900 kB, so that the first ones can be read without the last.
    dump = write_dump(tmp_path, pages + [page(1000 + i, "X", prose(2000, str(i * 7919))) for i in range(200)])
    dump.write_bytes(dump.read_bytes()[:-100])
    done = prepare(tmp_path, dump, "de", val_articles=2, min_words=20, max_tokens=200)
    assert done.returncode == 0, done.stderr
    assert sum(record(tmp_path / "results", "wiki_x--prepare_wiki")["words"].values()) <= 200


@pytest.mark.parametrize("damage, words", [
    (lambda data: data[:-60], "damaged or incomplete"),
    (lambda data: b"", "damaged or incomplete"),
    (lambda data: bz2.compress(b""), "not the XML of a dump"),
    (lambda data: b"<mediawiki>not compressed</mediawiki>", "damaged or incomplete"),
    (lambda data: bz2.compress(bz2.decompress(data)[:-40]), "not the XML of a dump, or is cut off"),
    (lambda data: bz2.compress(b"<html><body>Not found</body></html>"), "begins with <html>"),
    (lambda data: bz2.compress(b"plain text"), "not the XML of a dump"),
    (lambda data: bz2.compress(bz2.decompress(data).replace(b"Nummer3", b"\xff\xfe")), "not the XML of a dump"),
    (lambda data: bz2.compress(bz2.decompress(data).replace(b"<ns>0</ns>", b"")), "before 2012"),
    (lambda data: bz2.compress(b'<mediawiki xml:lang="de"><page><ns>0</ns></page></mediawiki>'), "no <siteinfo>"),
    (lambda data: bz2.compress(b'<!DOCTYPE x [<!ENTITY a "' + b"x" * 1000 + b'">'
                               + b"".join(b'<!ENTITY a%d "%s">' % (i, (b"&a;" if not i else b"&a%d;" % (i - 1)) * 50)
                                          for i in range(9)) + b"]><mediawiki>&a8;</mediawiki>"), "not the XML"),
])
def test_dumps_that_are_none(tmp_path, pages, damage, words):
    dump = write_dump(tmp_path, pages)
    dump.write_bytes(damage(dump.read_bytes()))
    line = refused(tmp_path, dump, "de", val_articles=2, min_words=20)
    assert words in line and "dump.xml.bz2" in line, line


def test_what_cannot_be_done_is_said(tmp_path, pages):
    dump = write_dump(tmp_path, pages)
    assert "a dump in 'de', not in 'en'; say --lang=de" in refused(tmp_path, dump)
    line = refused(tmp_path, dump, "de", val_articles=500, min_words=20)
    assert "21 articles" in line and "--val_articles=500" in line
    assert "there is no file" in refused(tmp_path, tmp_path / "absent.bz2", "de")
    assert "gives 0 articles" in refused(tmp_path, write_dump(tmp_path, []), "de", "--overwrite", val_articles=0)
