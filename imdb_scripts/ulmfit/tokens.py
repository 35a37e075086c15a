"""What word and subword tokens have in common: fastai's special tokens, its text rules, and the files they are kept in.

A token file holds one document a line, its tokens joined by one space.
"""

import ast
import importlib.util
import re
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Iterable, Iterator, Sequence

from . import files

# fastai's names and order: their places in the vocabulary are their ids.
SPECIAL_TOKENS = ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj")
UNK, PAD, BOS, EOS, FLD = SPECIAL_TOKENS[:5]
RULES = ("fix_html", "replace_rep", "replace_wrep", "spec_add_spaces", "rm_useless_spaces", "replace_all_caps",
         "replace_maj", "lowercase")


# -- the text before it is cut ----------------------------------------------------------------------------------------

def join_fields(fields: Sequence[str]) -> str:
    """The text columns of a document as one text; each is announced by `xxfld` and its number if there are several."""
    if len(fields) == 1:
        return fields[0]
    return " ".join(f"{FLD} {number} {field}" for number, field in enumerate(fields, 1))


def _fastai_defaults() -> SimpleNamespace:
    """`defaults` of fastai.text.core, with the special tokens and rules that its own code puts there.

    Importing the module takes 3 s of each process, for torch, pandas and matplotlib. What stands before its first
    class, the rules, is run here without fastai's other modules.
    """
    path = Path(importlib.util.find_spec("fastai").origin).parent / "text" / "core.py"
    module = ast.parse(path.read_bytes(), path)
    module.body = [node for node in takewhile(lambda node: not isinstance(node, ast.ClassDef), module.body)
                   if not (isinstance(node, ast.ImportFrom) and node.level)]
    namespace = {"re": re, "defaults": SimpleNamespace()}
    exec(compile(module, path, "exec"), namespace)
    return namespace["defaults"]


def text_rules() -> list[Callable[[str], str]]:
    """fastai's default rules: what is done to a text before it is cut into tokens."""
    try:
        defaults = _fastai_defaults()
    except (NameError, AttributeError):  # another version of fastai, whose rules need more
        from fastai.text.core import defaults
    rules = list(defaults.text_proc_rules)
    if tuple(defaults.text_spec_tok) != SPECIAL_TOKENS or tuple(rule.__name__ for rule in rules) != RULES:
        raise RuntimeError(f"this fastai has other special tokens or text rules: {defaults.text_spec_tok}, {rules}")
    return rules


def prepared(fields: Sequence[str], rules: Sequence[Callable[[str], str]]) -> str:
    """A document's text columns as one text, the rules applied; it begins with `xxbos`."""
    text = join_fields(fields)
    for rule in rules:
        text = rule(text)
    return text


# -- token files -------------------------------------------------------------------------------------------------------

_UNESCAPED = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


def encode_line(tokens: Sequence[str]) -> str:
    """A document as one line of a token file, without the line's end.

    Backslash, newline and carriage return are written `\\\\`, `\\n`, `\\r`. Raises ValueError when a token is empty or
    holds a space, which no tokenizer here gives.
    """
    line = " ".join(tokens)
    if "" in tokens or line.count(" ") != max(len(tokens) - 1, 0):
        raise ValueError("a token is empty or holds a space")
    return line.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def decode_line(line: str) -> list[str]:
    """The tokens of a line; the inverse of `encode_line`."""
    if not line:
        return []
    if "\\" in line:
        # A token never begins in the middle of an escape, as an escape holds no space.
        line = re.sub(r"\\.", lambda match: _UNESCAPED[match.group()], line)
    return line.split(" ")


def write_tokens(path: Path, documents: Iterable[Sequence[str]]) -> None:
    """Writes a token file. It appears under its name when it is whole."""
    with files.replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for tokens in documents:
            file.write(encode_line(tokens) + "\n")


def read_tokens(path: Path) -> Iterator[list[str]]:
    """The documents of a token file, one at a time."""
    # newline: only "\n" ends a line. Tokens may hold other characters at which Python would break lines.
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield decode_line(line.removesuffix("\n"))
