"""Compressed files and archives: read in a stream, unpacked member by member, and never outside their folder."""

import bz2
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Callable, Iterator

from . import names
from .errors import UserError

COMPRESSIONS = {".xz": lzma.open, ".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open}
_ZIPS = (".zip", ".whl")
# What reading damaged or cut-off data raises: the decompressors agree on no class of their own.
_DAMAGED = (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, tarfile.TarError)
_BLOCK = 1 << 20
# Text shrinks to a quarter or a tenth; what grows more than this is made to fill a disk.
_MOST_GROWTH = 200
_ALWAYS_ALLOWED = 1 << 30
_MOST_MEMBERS = 1_000_000


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed by its suffix. Damage found while it is read becomes a UserError."""
    try:
        opened_file = COMPRESSIONS.get(path.suffix.lower(), open)(path, "rb")
    except _DAMAGED as error:
        raise _unreadable(path, error) from error
    with opened_file as file:
        yield io.BufferedReader(_Reading(file, path), _BLOCK)  # the decompressors' own reading by lines is slow


class _Reading(io.RawIOBase):
    """A file being read; whoever writes meanwhile has errors of the same classes, which are not this file's."""

    def __init__(self, file: BinaryIO, path: Path):
        self._file, self._path = file, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        try:
            data = self._file.read(len(buffer))
        except _DAMAGED as error:
            raise _unreadable(self._path, error) from error
        buffer[:len(data)] = data
        return len(data)


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{names.portable(path)} cannot be read; it is damaged or incomplete ({error})")


def damage(path: Path, suffix: str) -> str | None:
    """What is wrong with a file's compression, read to the end with its checksums; None when nothing is.

    Args:
        suffix: what the file claims to be; a part of a download does not bear it. Of others nothing can be said.
    """
    try:
        if suffix in _ZIPS:
            with zipfile.ZipFile(path) as package:
                first_bad = package.testzip()
            return f"its member {first_bad!r} is damaged" if first_bad else None
        if suffix in COMPRESSIONS:
            with COMPRESSIONS[suffix](path, "rb") as file:
                _drain(file, _allowance(path))
    except (*_DAMAGED, RuntimeError, _TooLarge) as error:
        return str(error)
    return None


def is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except _DAMAGED:
        return False


def members(archive: Path) -> list[str]:
    """The names of an archive's files. Raises UserError when it is damaged or no archive."""
    try:
        return [name for name, *_ in (_zip if zipfile.is_zipfile(archive) else _tar)(archive)]
    except (*_DAMAGED, RuntimeError) as error:
        raise UserError(f"{names.portable(archive)} cannot be unpacked; it is damaged or incomplete "
                        f"({error})") from error


def unpack(archive: Path, into: Path) -> None:
    """Unpacks a zip (a wheel is one) or tar archive, compressed or not.

    Raises:
        UserError: the archive is damaged; it holds a link, a device, a member outside its folder or two members of one
            name (capital letters make no other, as on the disks of some machines); or it grows beyond all text: more
            than 200 times its size (and 1 GiB), a million files, or the room on the disk.
    """
    shown = names.portable(archive)
    into.mkdir(parents=True, exist_ok=True)
    room, allowed = shutil.disk_usage(into).free, _allowance(archive)
    seen: set[str] = set()
    try:
        for name, size, is_file, open_member in (_zip if zipfile.is_zipfile(archive) else _tar)(archive):
            member = PurePosixPath(name.replace("\\", "/"))
            if member.is_absolute() or ".." in member.parts or "\0" in name or any(":" in part for part in
                                                                                   member.parts[:1]):
                raise UserError(f"{shown}: the member {name!r} would land outside its folder; not unpacked")
            if not is_file:
                raise UserError(f"{shown}: the member {name!r} is a link or a device, not a file; not unpacked")
            key = unicodedata.normalize("NFC", str(member)).casefold()
            if key in seen:
                raise UserError(f"{shown}: two of its members are named {name!r}; not unpacked")
            seen.add(key)
            room, allowed = room - size, allowed - size
            if allowed < 0 or len(seen) > _MOST_MEMBERS:
                raise UserError(f"{shown} unpacks to far more than a corpus of its size would; not unpacked")
            if room < 0:
                raise UserError(f"{shown}: the disk of {names.portable(into)} has no room for what it holds")
            target = into / member
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source, open(target, "xb") as file:
                shutil.copyfileobj(source, file, _BLOCK)
    except (*_DAMAGED, RuntimeError) as error:  # zipfile's error for a password or an unknown compression
        raise UserError(f"{shown} cannot be unpacked; it is damaged or incomplete ({error})") from error
    except _TooLarge as error:
        raise UserError(f"{shown}: {error}; not unpacked") from error


class _TooLarge(Exception):
    """More bytes than an archive of its size should hold."""


def _allowance(archive: Path) -> int:
    return max(_ALWAYS_ALLOWED, _MOST_GROWTH * archive.stat().st_size)


def _drain(file: BinaryIO, allowed: int) -> None:
    """Reads to the end, where the checksum of the whole is compared."""
    while block := file.read(_BLOCK):
        allowed -= len(block)
        if allowed < 0:
            raise _TooLarge("it unpacks to far more than a corpus of its size would")


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
            package.members = []  # tarfile would remember every member
        _drain(package.fileobj, _allowance(archive))  # tarfile stops before the compression's own checksum
