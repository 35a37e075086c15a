"""A Wikipedia's dump as plain text: articles in a stream, their mark-up taken off by mwparserfromhell.

What stays is prose: paragraphs, one a line. Templates, tables, references, pictures, galleries, formulas, categories,
headings and lists go. The names that pictures and categories have in the wiki's language come from the dump itself.
"""

import hashlib
import heapq
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import BinaryIO, Iterable, Iterator
from xml.etree import ElementTree

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink
from mwparserfromhell.parser import ParserError
from mwparserfromhell.wikicode import Wikicode

from .documents import Document
from .errors import UserError

_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_ARTICLES, _FILE, _CATEGORY = "0", "6", "14"

# Pages that only list what a name may mean, by their template, in any language (English) and in the wiki's own.
_DISAMBIGUATION = {
    "en": ("disambig", "disambiguation", "disamb", "dab", "disambiguation page", "disambiguation cleanup", "hndis",
           "geodis"),
    "ar": ("توضيح",), "bg": ("пояснение",), "ca": ("desambiguació",), "cs": ("rozcestník",), "da": ("flertydig",),
    "de": ("begriffsklärung",), "el": ("αποσαφήνιση",), "eo": ("apartigilo",),
    "es": ("desambiguación", "desambiguacion"), "fa": ("ابهام‌زدایی", "ابهام زدایی"), "fi": ("täsmennyssivu",),
    "fr": ("homonymie", "paronymie", "toponymie"), "he": ("פירושונים",), "hi": ("बहुविकल्पी",),
    "hu": ("egyért", "egyértelműsítő lap"), "id": ("disambiguasi",), "it": ("disambigua",),
    "ja": ("曖昧さ回避", "aimai"), "ko": ("동음이의",), "nb": ("peker",),
    "nl": ("dp", "doorverwijspagina"), "no": ("peker",),
    "pl": ("ujednoznacznienie",), "pt": ("desambiguação",), "ro": ("dezambiguizare",),
    "ru": ("неоднозначность", "многозначность"), "sk": ("rozlišovacia stránka",), "sv": ("gren", "förgrening"),
    "th": ("แก้กำกวม",), "tr": ("anlam ayrımı",), "uk": ("неоднозначність",), "vi": ("định hướng",),
    "zh": ("消歧义", "消歧義"),
}
_SET_ASIDE_TAGS = frozenset(
    "ref references gallery math chem ce score timeline hiero imagemap graph mapframe maplink syntaxhighlight source "
    "pre table ul ol dl li dt dd style script inputbox categorytree templatedata templatestyles section indicator "
    "includeonly hr img".split())
_LIST_MARKS = ("*", "#", ":", ";")
# Stands for the mark of a list item until its line is dropped; no character that XML may hold.
_ITEM = "\x01"
_MEDIA_NAME = re.compile(r"\.(jpe?g|png|svg|gif|tiff?|webp|og[agv]|opus|webm|mp[34]|mid|wav|flac|pdf|djvu|xcf|stl)$",
                         re.IGNORECASE)
_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(-[a-z-]+)?|simple")
_REDIRECT = re.compile(r"\s*#\w+\s*:?\s*\[\[")
_MAGIC_WORD = re.compile(r"__[^\W\d]\w*?__")
_VARIANT = re.compile(r"-\{([^{}]*)\}-")
_EMPTY_BRACKETS = re.compile(r"\s?[(（][\s,;:，；：、/–—-]*[)）]")
_AFTER_BRACKET = re.compile(r"([(（])[\s,;:，；：、]+")
_BEFORE_MARK = re.compile(r"\s+([,.)])")
_LEFT_OVER = re.compile(r"\{\{|\}\}|\{\||\|\}|\[\[|\]\]|</?[a-zA-Z]{1,16}(\s[^<>]*)?/?>")
# Scripts that put no spaces between words: Thai to Lao, Burmese, Khmer, kana, Chinese characters.
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\s{_NO_SPACES}]+")


def count_words(text: str) -> int:
    """Words between white space; in scripts that put none between words, characters."""
    return sum(1 for _ in _WORD.finditer(text))


# the dump


@dataclass(frozen=True)
class Site:
    """The wiki that a dump is of. `hidden`: the names of the namespaces whose links are no text, lower case."""

    lang: str
    name: str
    hidden: frozenset[str]


@dataclass(frozen=True)
class Page:
    site: Site
    id: str
    title: str
    namespace: str
    is_redirect: bool
    wikitext: str


def read_pages(file: BinaryIO, shown: str) -> Iterator[Page]:
    """The pages of a dump, each with its last revision; memory is bounded by one page.

    Raises:
        UserError: not XML, not MediaWiki's, or cut off.
    """
    site = None
    text, is_wikitext = "", True
    try:
        events = ElementTree.iterparse(file, events=("start", "end"))
        _, root = next(events)
        if _local(root) != "mediawiki":
            raise UserError(f"{shown} is no dump of a wiki: its XML begins with <{_local(root)}>, expected "
                            f"<mediawiki>; take the file pages-articles.xml.bz2")
        prefix = root.tag.removesuffix("mediawiki")
        lang = root.get(_XML_LANG, "")
        for event, element in events:
            if event == "start":
                continue
            match _local(element):
                case "siteinfo":
                    site = _site(element, prefix, lang)
                    root.clear()
                case "revision":
                    text = element.findtext(f"{prefix}text") or ""
                    is_wikitext = element.findtext(f"{prefix}model", "wikitext") == "wikitext"
                    element.clear()  # a dump of the whole history has thousands in a page
                case "page":
                    if site is None:
                        raise UserError(f"{shown} has no <siteinfo> before its pages; take the file "
                                        f"pages-articles.xml.bz2")
                    namespace = element.findtext(f"{prefix}ns")
                    if namespace is None:
                        raise UserError(f"{shown}: a page without <ns>: a dump from before 2012; take a newer one")
                    if is_wikitext:
                        yield Page(site, element.findtext(f"{prefix}id", ""), element.findtext(f"{prefix}title", ""),
                                   namespace, element.find(f"{prefix}redirect") is not None, text)
                    text, is_wikitext = "", True
                    root.clear()
    except ElementTree.ParseError as error:
        raise UserError(f"{shown} is not the XML of a dump, or is cut off ({error}); compare its size and download it "
                        f"again") from error


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _site(siteinfo: ElementTree.Element, prefix: str, lang: str) -> Site:
    hidden = {"file", "image", "category"}
    for namespace in siteinfo.iter(f"{prefix}namespace"):
        if namespace.get("key") in (_FILE, _CATEGORY) and namespace.text:
            hidden.add(namespace.text.lower())
    return Site(lang, siteinfo.findtext(f"{prefix}dbname", ""), frozenset(hidden))


def check_language(file: BinaryIO, lang: str, shown: str) -> str:
    """The language of the dump's text. Raises UserError when the dump is of another wiki than `lang`, a language or the
    wiki's own code (simple)."""
    page = next(read_pages(file, shown), None)
    if page is None:
        return lang
    own = page.site.name.removesuffix("wiki").replace("_", "-")
    known = [name for name in (page.site.lang, own) if name]
    if known and lang.replace("_", "-").lower() not in [name.lower() for name in known]:
        raise UserError(f"{shown} is a dump in {known[0]!r}, not in {lang!r}; say --lang={known[0]}")
    return page.site.lang or lang


# the mark-up


def plain_text(wikitext: str, site: Site) -> str:
    """The prose of a page, a paragraph a line."""
    return _paragraphs(_parsed(wikitext), site)


def _parsed(wikitext: str) -> Wikicode:
    # Its quotes for bold and italics are often unbalanced; taken off by hand they cannot upset what is around them.
    return mwparserfromhell.parse(wikitext.replace(_ITEM, ""), skip_style_tags=True)


def _paragraphs(code: Wikicode, site: Site) -> str:
    pieces: list[str] = []
    _walk(code, site, pieces)
    text = re.sub("'{2,5}", "", "".join(pieces))
    text = _MAGIC_WORD.sub("", _VARIANT.sub(_variant, text))
    paragraphs = []
    for line in text.split("\n"):
        if line.lstrip().startswith((_ITEM, *_LIST_MARKS, "|", "!")) or _LEFT_OVER.search(line):
            continue
        line = _AFTER_BRACKET.sub(r"\1", _EMPTY_BRACKETS.sub("", " ".join(line.replace(_ITEM, " ").split())))
        line = _BEFORE_MARK.sub(r"\1", line).strip()
        if any(character.isalnum() for character in line):
            paragraphs.append(line)
    return "\n".join(paragraphs)


def _walk(code: Wikicode, site: Site, pieces: list[str]) -> None:
    """Adds the visible text of `code` to `pieces`. Templates, comments and template arguments are none."""
    for node in code.nodes:
        if isinstance(node, Text):
            pieces.append(node.value)
        elif isinstance(node, HTMLEntity):
            pieces.append(_character(node))
        elif isinstance(node, Wikilink):
            _walk_link(node, site, pieces)
        elif isinstance(node, ExternalLink):
            if node.brackets and node.title is not None:
                _walk(node.title, site, pieces)
        elif isinstance(node, Heading):
            pieces.append("\n")
        elif isinstance(node, Tag):
            tag = str(node.tag).strip().lower()
            if node.wiki_markup in _LIST_MARKS:
                pieces.append(_ITEM)
            elif tag == "br":
                pieces.append(" ")
            elif tag not in _SET_ASIDE_TAGS and node.contents is not None:
                around = "\n" if tag in ("p", "div", "blockquote", "poem", "center") else ""
                pieces.append(around)
                _walk(node.contents, site, pieces)
                pieces.append(around)


def _walk_link(link: Wikilink, site: Site, pieces: list[str]) -> None:
    title = str(link.title).strip()
    prefix, colon, _ = title.partition(":")
    prefix = prefix.strip().replace("_", " ")
    if colon and prefix:  # a colon before it makes a link of any namespace visible
        if prefix.lower() in site.hidden or _MEDIA_NAME.search(title):
            return
        if link.text is None and _LANGUAGE_CODE.fullmatch(prefix):  # the same article in another language
            return
    if link.text is not None:
        _walk(link.text, site, pieces)
    else:
        _walk(link.title, site, pieces)


def _character(entity: HTMLEntity) -> str:
    try:
        character = entity.normalize()
    except (ValueError, OverflowError):  # a number beyond Unicode
        return ""
    # What csv and UTF-8 files cannot hold: NUL, surrogates.
    return "" if character == "\0" or "\ud800" <= character <= "\udfff" else character


def _variant(found: re.Match) -> str:
    """Chinese pages: `-{zh-hans:A;zh-hant:B}-` is A here, `-{A}-` is A; with flags (`-{H|...}-`) it is no text."""
    content = found[1]
    if "|" in content:
        return ""
    first = content.split(";")[0]
    code, colon, text = first.partition(":")
    return text.strip() if colon and re.fullmatch(r"\s*[a-z-]+\s*", code) else content


def _is_disambiguation(page: Page, code: Wikicode) -> bool:
    known = {*_DISAMBIGUATION["en"], *_DISAMBIGUATION.get(page.site.lang, ())}
    in_title = re.search(r"\(([^()]*)\)$", page.title)
    if (in_title and in_title[1].casefold() in known) or "__DISAMBIG__" in page.wikitext:
        return True
    for node in code.nodes:
        if isinstance(node, Template):
            name = " ".join(str(node.name).replace("_", " ").split()).casefold()
            # "human name disambiguation" and its like; "disambiguation needed" marks a link of an ordinary article.
            if name in known or name.endswith(" disambiguation"):
                return True
    return False


# which articles


@dataclass
class Tally:
    """What was read and written, for the record."""

    pages: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)


def articles(pages: Iterable[Page], min_words: int, tally: Tally) -> Iterator[tuple[Page, str, int]]:
    """The articles among the pages, with their text and its words.

    Left out and counted in `tally.pages`: pages of another namespace, redirects, disambiguation pages, pages that the
    parser gives up on, and articles of fewer than `min_words` words.
    """
    for page in pages:
        reason, text, words = "article", "", 0
        if page.namespace != _ARTICLES:
            reason = "other namespace"
        elif page.is_redirect or _REDIRECT.match(page.wikitext):
            reason = "redirect"
        else:
            try:
                code = _parsed(page.wikitext)
                if _is_disambiguation(page, code):
                    reason = "disambiguation"
                else:
                    text = _paragraphs(code, page.site)
                    words = count_words(text)
                    reason = "article" if words >= min_words else "short"
            except (ParserError, RecursionError):
                reason = "unreadable"
        tally.pages[reason] += 1
        if reason == "article":
            yield page, text, words


def split(found: Iterable[tuple[Page, str, int]], max_tokens: int, val_articles: int, shown: str, tally: Tally) \
        -> Iterator[Document]:
    """The articles, in the dump's order, as documents of train and val, until the next would exceed `max_tokens` words.

    The val articles are those whose number in the wiki has the smallest digests. They are kept in memory until the
    end, since a later article may take the place of an earlier one.

    Raises:
        UserError: too few articles for `val_articles` and one to train on.
    """
    held: list[tuple[int, int, str, int]] = []  # a heap whose first element has the largest digest

    def written(name: str, text: str, words: int) -> Document:
        tally.words[name] += words
        return Document(name, None, [text], shown)

    total = count = 0
    for page, text, words in found:
        if max_tokens and total + words > max_tokens:
            break
        total, count = total + words, count + 1
        digest = int.from_bytes(hashlib.sha256(page.id.encode()).digest()[:8], "big")
        article = (-digest, count, text, words)
        if len(held) < val_articles:
            heapq.heappush(held, article)
        else:
            _, _, text, words = heapq.heappushpop(held, article)
            yield written("train", text, words)
    if count <= val_articles:
        raise UserError(f"{shown} gives {count} articles under --min_words and --max_tokens, and --val_articles="
                        f"{val_articles} leaves none to train on; change one of the three (with --overwrite)")
    for _, _, text, words in sorted(held, key=lambda article: article[1]):
        yield written("val", text, words)
