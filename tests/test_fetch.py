"""Downloads from a server that is slow, lies or breaks off, and archives that would do harm."""

import bz2
import errno
import gzip
import hashlib
import io
import json
import lzma
import random
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ulmfit import archives, datasets, fetch
from ulmfit.errors import UserError

BODY = random.Random(0).randbytes(200_000)


class Server(ThreadingHTTPServer):
    """Serves `body` under every name, the way that `behaviour` says; notes the requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag, self.modified = BODY, '"one"', None
        self.ranges, self.announce, self.redirect, self.status = True, True, None, 200
        self.cut_after: int | None = None  # bytes sent of each answer
        self.stall = self.shift = 0
        self.announced: int | None = None
        self.requests: list[str | None] = []  # the Range of each
        self.released = threading.Event()

    def url(self, name="x.bin"):
        return f"http://127.0.0.1:{self.server_port}/a/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.requests.append(asked)
        if server.redirect and not self.path.startswith("/moved"):
            return self.answer(302, {"Location": server.redirect}, b"")
        if server.status != 200:
            return self.answer(server.status, {}, b"an error page")
        if server.etag and self.headers.get("If-None-Match") == server.etag:
            return self.answer(304, {}, None)
        headers = {"ETag": server.etag, "Last-Modified": server.modified}
        body, status = server.body, 200
        if asked and server.ranges and self.headers.get("If-Range") in (None, server.etag, server.modified):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.answer(416, {}, b"")
            headers["Content-Range"] = f"bytes {start + server.shift}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        self.answer(status, headers, body)

    def answer(self, status, headers, body):
        server = self.server
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        if body is not None and server.announce:
            self.send_header("Content-Length", str(server.announced or len(body)))
        self.end_headers()
        self.wfile.write((body or b"")[:server.cut_after])
        if server.stall and status in (200, 206):
            self.wfile.flush()
            server.released.wait(20)
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    started = Server()
    threading.Thread(target=started.serve_forever, daemon=True).start()
    yield started
    started.released.set()
    started.shutdown()
    started.server_close()


def check_of(body):
    return fetch.Check(len(body), hashlib.md5(body[:1 << 20]).hexdigest())


def get(server, tmp_path, name="x.bin", **options):
    return fetch.download(server.url(name), tmp_path / "downloads", lambda line: None, **options)


def error(server, tmp_path, name="x.bin", **options):
    with pytest.raises(UserError) as raised:
        get(server, tmp_path, name, **options)
    assert "\n" not in str(raised.value) and not (tmp_path / "downloads" / name).exists()
    return str(raised.value)


def part(tmp_path, name="x.bin"):
    return tmp_path / "downloads" / f".{name}.part"


def archive_of(members, mode="w:gz"):
    """A tar of (name, content, attributes)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as package:
        for name, content, *attributes in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in (attributes[0] if attributes else {}).items():
                setattr(member, key, value)
            package.addfile(member, io.BytesIO(content))
    return data.getvalue()


# a file is got once

def test_a_file_is_downloaded_once_and_known_by_its_digest(server, tmp_path):
    path = get(server, tmp_path)
    assert path.read_bytes() == BODY and path.name == "x.bin" and not part(tmp_path).exists()
    get(server, tmp_path)
    assert server.requests == [None]
    path.write_bytes(BODY[:-1] + b"x")  # edited, or a bad disk
    assert get(server, tmp_path).read_bytes() == BODY and len(server.requests) == 2


def test_the_server_is_asked_whether_the_file_changed(server, tmp_path):
    get(server, tmp_path)
    get(server, tmp_path, ask_again=True)
    assert len(server.requests) == 2  # 304: nothing was sent
    server.body, server.etag = b"another", '"two"'
    assert get(server, tmp_path).read_bytes() == BODY
    assert get(server, tmp_path, ask_again=True).read_bytes() == b"another"
    server.etag = None
    get(server, tmp_path, ask_again=True)
    server.body = b"a third"  # without a tag nobody can tell: it is downloaded
    assert get(server, tmp_path, ask_again=True).read_bytes() == b"a third"


def test_a_known_file_is_taken_without_asking(server, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "x.bin").write_bytes(BODY)  # put there by hand
    assert get(server, tmp_path, check=check_of(BODY), ask_again=True).read_bytes() == BODY and not server.requests
    (tmp_path / "downloads" / "x.bin").write_bytes(BODY[:1000])
    assert get(server, tmp_path, check=check_of(BODY)).read_bytes() == BODY and server.requests == [None]


def test_two_at_once_wait_for_each_other(server, tmp_path):
    server.stall, server.cut_after = 1, len(BODY)
    lines, threads = [], []
    for _ in range(2):
        threads.append(threading.Thread(target=fetch.download,
                                        args=(server.url(), tmp_path / "downloads", lines.append)))
        threads[-1].start()
    while not any("another process" in line for line in lines):
        assert any(thread.is_alive() for thread in threads)
    server.released.set()
    for thread in threads:
        thread.join(20)
    assert server.requests == [None] and (tmp_path / "downloads" / "x.bin").read_bytes() == BODY


# breaking off and going on

def test_a_broken_download_goes_on_in_the_same_command(server, tmp_path):
    server.cut_after = 80_000
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests == [None, "bytes=80000-", "bytes=160000-"]


def test_and_in_the_next(server, tmp_path):
    server.cut_after = 30_000
    assert "broke off after 90000 of 200000 bytes; run the command again, it goes on" in error(server, tmp_path)
    assert part(tmp_path).read_bytes() == BODY[:90_000]
    server.cut_after = None
    assert get(server, tmp_path).read_bytes() == BODY and server.requests[-1] == "bytes=90000-"


@pytest.mark.parametrize("change", ["body", "ranges", "etag"])
def test_what_cannot_be_continued_begins_anew(server, tmp_path, change):
    server.cut_after = 30_000
    error(server, tmp_path)
    server.cut_after, wanted = None, BODY
    if change == "body":  # another file under the same address: If-Range makes the server send it whole
        server.body, server.etag, wanted = b"new" * 50_000, '"two"', b"new" * 50_000
    elif change == "ranges":
        server.ranges = False
    else:
        server.etag = None
    assert get(server, tmp_path).read_bytes() == wanted


def test_without_a_tag_only_a_known_file_is_continued(server, tmp_path):
    server.etag, server.cut_after = None, 30_000
    assert "it goes on" not in error(server, tmp_path) and not part(tmp_path).exists()
    server.requests.clear()
    server.cut_after = 90_000
    assert get(server, tmp_path, check=check_of(BODY)).read_bytes() == BODY
    assert server.requests == [None, "bytes=90000-", "bytes=180000-"]
    assert server.modified is None


def test_the_date_of_a_file_serves_as_its_tag(server, tmp_path):
    server.etag, server.modified, server.cut_after = 'W/"weak"', "Wed, 21 Oct 2015 07:28:00 GMT", 90_000
    assert get(server, tmp_path).read_bytes() == BODY and server.requests[1] == "bytes=90000-"


def test_the_rest_of_another_place_is_not_appended(server, tmp_path):
    server.cut_after, server.shift = 30_000, 5
    assert "another part" in error(server, tmp_path) and not part(tmp_path).exists()


def test_a_shorter_file_than_what_is_here(server, tmp_path):
    server.cut_after = 30_000
    error(server, tmp_path)
    server.body = BODY[:50]
    assert "no more than the 90000 bytes" in error(server, tmp_path)
    server.cut_after = None
    assert get(server, tmp_path).read_bytes() == BODY[:50]


def test_a_whole_part_needs_no_request(server, tmp_path):
    get(server, tmp_path).rename(part(tmp_path))  # killed before the file got its name
    assert get(server, tmp_path).read_bytes() == BODY and server.requests == [None]


# servers that lie, stall and refuse

def test_a_server_that_stalls(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_SECONDS_WITHOUT_DATA", 0.3)
    server.stall, server.cut_after = 1, 30_000
    assert "broke off after 90000 bytes (timed out)" in error(server, tmp_path)
    assert part(tmp_path).stat().st_size == 90_000


def test_lengths_that_lie(server, tmp_path):
    server.announced = len(BODY) + 7
    assert "no more than the 200000 bytes that are here of 200007" in error(server, tmp_path / "a")
    assert "announces 200007 bytes, expected 200000" in error(server, tmp_path / "b", check=check_of(BODY))
    server.announced = 100
    assert "announces 100 bytes" in error(server, tmp_path / "c", check=check_of(BODY))
    server.body = archive_of([("train.csv", BODY)])
    assert "damaged on its way" in error(server, tmp_path / "d", "x.tgz") and not part(tmp_path / "d", "x.tgz").exists()


def test_an_unannounced_length(server, tmp_path):
    server.announce = False
    assert get(server, tmp_path / "a").read_bytes() == BODY
    server.body = archive_of([("train.csv", BODY)])
    whole, server.cut_after = len(server.body), len(server.body) - 4  # only gzip's own length is missing
    assert "damaged on its way" in error(server, tmp_path / "b", "x.tgz")
    server.cut_after = None
    assert get(server, tmp_path / "b", "x.tgz").stat().st_size == whole
    assert "sends more than its 100 bytes" in error(server, tmp_path / "c", check=fetch.Check(100, ""))
    assert not part(tmp_path / "c").exists()


def test_other_bytes_of_the_same_length(server, tmp_path):
    assert "md5 of its first MiB" in error(server, tmp_path, check=fetch.Check(len(BODY), "0" * 32))
    server.body = bytearray(archive_of([("train.csv", BODY)]))
    server.body[100_000] ^= 1
    assert "damaged on its way" in error(server, tmp_path, "x.tgz")
    server.body = b"<html>log in to the network</html>"
    for name in ("x.tgz", "x.zip", "x.csv.xz", "x.tar.bz2"):
        assert "damaged on its way" in error(server, tmp_path, name)


@pytest.mark.parametrize("status", [404, 403, 500, 503])
def test_error_pages_are_no_files(server, tmp_path, status):
    server.status = status
    assert f"HTTP Error {status}" in error(server, tmp_path)
    server.status, server.cut_after = 200, 30_000
    error(server, tmp_path)
    server.status = status
    error(server, tmp_path)
    server.status, server.cut_after = 200, None
    assert get(server, tmp_path).read_bytes() == BODY and server.requests[-1] == "bytes=90000-"


def test_redirects(server, tmp_path):
    server.redirect, server.cut_after = server.url("y.bin").replace("/a/", "/moved/"), 90_000
    assert get(server, tmp_path).read_bytes() == BODY and "bytes=180000-" in server.requests
    server.redirect = "file:///etc/passwd"
    assert "cannot be downloaded" in error(server, tmp_path, "z.bin")
    server.redirect = server.url("around")
    assert "cannot be downloaded" in error(server, tmp_path, "z.bin")


@pytest.mark.parametrize("url, name", [
    ("http://h/a/b.csv?key=x", "b.csv"), ("http://h/a/%2e%2e%2f%2e%2e%2fb.csv", "b.csv"), ("http://h/", "download"),
    ("http://h/..%5C..%5Cb.csv", "b.csv"), ("http://h/.hidden.csv", "hidden.csv"), ("http://h/..", "download"),
])
def test_an_address_names_a_file_in_its_folder(url, name):
    assert fetch.file_name(url) == name


# archives

def unpacked(tmp_path, data, name="x.tgz"):
    (tmp_path / name).write_bytes(data)
    archives.unpack(tmp_path / name, tmp_path / "out" / "deep")
    return {path.relative_to(tmp_path / "out" / "deep").as_posix(): path.read_bytes()
            for path in (tmp_path / "out" / "deep").rglob("*") if path.is_file()}


@pytest.mark.parametrize("suffix, compress", [("", bytes), (".bz2", bz2.compress), (".gz", gzip.compress),
                                              (".xz", lzma.compress)])
def test_reading_says_only_of_the_file_that_it_is_damaged(tmp_path, suffix, compress):
    path, content = tmp_path / f"x.csv{suffix}", bytes(range(256)) * 20_000
    path.write_bytes(compress(content))
    with archives.opened(path) as file:
        assert b"".join(file) == content
    with pytest.raises(OSError, match="No space left"), archives.opened(path) as file:
        file.readline()
        raise OSError(errno.ENOSPC, "No space left on device")
    if suffix:
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(UserError, match="x.csv.* it is damaged or incomplete"), archives.opened(path) as file:
            file.read()
    with pytest.raises(UserError, match="cannot be read"), archives.opened(tmp_path / "none.csv"):
        pass


def test_archives_are_unpacked_in_their_folder(tmp_path):
    assert unpacked(tmp_path, archive_of([("a/./b.txt", b"1"), ("c.txt", b"2")])) == {"a/b.txt": b"1", "c.txt": b"2"}


@pytest.mark.parametrize("members, words", [
    ([("train.csv", b"1"), ("train.csv", b"2")], "two of its members"),
    ([("data/train.csv", b"1"), ("Data/TRAIN.csv", b"2")], "two of its members"),
    ([("caf\u00e9", b"1"), ("cafe\u0301", b"2")], "two of its members"),
    ([("a", b"1"), ("a/b", b"2")], "cannot be unpacked"),
    ([("link", b"", {"type": tarfile.SYMTYPE, "linkname": ".."}), ("link/b", b"2")], "link or a device"),
    ([("b/../../../../b", b"2")], "outside its folder"),
    ([("a\\..\\..\\..\\b", b"2")], "outside its folder"),
    ([("//b", b"2")], "outside its folder"),
    ([("c:b", b"2")], "outside its folder"),
    ([("a" * 300, b"2")], "cannot be unpacked"),
])
def test_hostile_members(tmp_path, members, words):
    with pytest.raises(UserError, match=words):
        unpacked(tmp_path, archive_of(members))
    assert not (tmp_path / "b").exists() and not (tmp_path / "out" / "b").exists()


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_ALWAYS_ALLOWED", 1 << 20)
    zeros = bytes(8 << 20)
    with pytest.raises(UserError, match="far more than a corpus"):
        unpacked(tmp_path, archive_of([("zeros", zeros)]))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as package:
        for i in range(4):
            package.writestr(f"zeros{i}", zeros)
    with pytest.raises(UserError, match="far more than a corpus"):
        unpacked(tmp_path, data.getvalue(), "x.zip")
    with pytest.raises(UserError, match="far more than a corpus"):  # behind the end of the tar
        unpacked(tmp_path, gzip.compress(gzip.decompress(archive_of([("a", b"1")])) + zeros))
    assert archives.damage(tmp_path / "x.tgz", ".tgz") is not None
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 3)
    (tmp_path / "many").mkdir()
    with pytest.raises(UserError, match="far more than a corpus"):
        unpacked(tmp_path / "many", archive_of([(str(i), b"") for i in range(9)]))


def test_the_checksum_of_the_whole_is_compared(tmp_path):
    data = bytearray(archive_of([("train.csv", BODY)]))
    data[-6] ^= 1  # gzip's crc
    with pytest.raises(UserError, match="damaged or incomplete"):
        unpacked(tmp_path, bytes(data))


# the weights

def weights(direction):
    return archive_of([(f"wt103-{direction}/lstm_{direction}.pth", BODY), (f"wt103-{direction}/itos_wt103.pkl", b"x")])


@pytest.fixture
def wt103(server, monkeypatch):
    urls = (server.url("wt103-fwd.tgz"), server.url("wt103-bwd.tgz"))
    monkeypatch.setitem(datasets.DATASETS, "wt103", datasets.Dataset(urls=urls))
    server.body = weights("fwd")
    return server


def test_the_weights_stay_as_archives_and_are_downloaded_once(wt103, tmp_path):
    from get_data import get_data
    call = {"name": "wt103", "dir_path": str(tmp_path / "wt103"), "results_dir": str(tmp_path / "results")}
    get_data(**call)
    assert sorted(path.name for path in (tmp_path / "wt103").iterdir() if path.name[0] != ".") == [
        "manifest.json", "wt103-bwd.tgz", "wt103-fwd.tgz"]
    record = json.loads((tmp_path / "results" / "runs" / "wt103--get_data" / "run.json").read_text())
    assert record["downloaded"]["wt103-fwd.tgz"] == hashlib.sha256(wt103.body).hexdigest()
    get_data(**call)
    get_data(**call, overwrite=True)
    assert len(wt103.requests) == 2
    (tmp_path / "wt103" / "wt103-bwd.tgz").unlink()
    with pytest.raises(UserError, match="wt103-bwd.tgz is not as it was made"):
        get_data(**call)
    get_data(**call, overwrite=True)
    assert len(wt103.requests) == 3 and (tmp_path / "wt103" / "wt103-bwd.tgz").exists()


def test_archives_that_hold_no_weights(wt103, tmp_path):
    origin = datasets.find_origin("wt103", None)
    wt103.body = archive_of([("a.pth", b"x")])
    with pytest.raises(UserError, match="expected one .pkl file"):
        datasets.fetch_weights(origin, tmp_path, print)
    with pytest.raises(UserError, match="put them into the folder"):
        datasets.find_origin("wt103", str(tmp_path))


def test_every_public_archive_of_fastai_is_checked():
    texts = [known for name, known in datasets.DATASETS.items() if name != "wt103"]
    assert {url for known in texts for url in known.urls if "fast-ai" in url} == set(datasets.CHECKS)
