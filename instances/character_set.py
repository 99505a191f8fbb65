"""Specific Character Set (0008,0005): bytes of a data set to Unicode (PS3.5 6.1, PS3.3 C.12.1.1.2).

Never fails: bytes that the declared sets cannot mean become U+FFFD, and the caller is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

#: The codecs where no character set is declared: the letters of Western Europe are what is found above 7F hex there.
UNDECLARED: Final = ("latin_1",)
_ESCAPE: Final = 0x1B
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

#: ISO registration number -> Python codec of the bytes above 7F hex.
_CODECS: Final = {
    "6": "ascii",
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "144": "iso8859_5",
    "127": "iso8859_6",
    "126": "iso8859_7",
    "138": "iso8859_8",
    "148": "iso8859_9",
    "203": "iso8859_15",
    "13": "shift_jis",
    "166": "tis_620",
    "192": "utf_8",
    "149": "euc_kr",
    "58": "gb18030",
    "87": "euc_jp",
    "159": "euc_jp",
}
_WHOLE_VALUE = {"GB18030": "gb18030", "GBK": "gbk", "UTF-8": "utf_8", "UTF8": "utf_8"}
_TERM = re.compile(r"ISO[ _-]?(?:2022[ _-]?)?IR[ _-]?(\d+)")

#: Escape sequences that designate G1 (bytes above 7F hex): PS3.3 Tables C.12-3 and C.12-4.
_G1: Final = {
    b"-A": "latin_1",
    b"-B": "iso8859_2",
    b"-C": "iso8859_3",
    b"-D": "iso8859_4",
    b"-L": "iso8859_5",
    b"-G": "iso8859_6",
    b"-F": "iso8859_7",
    b"-H": "iso8859_8",
    b"-M": "iso8859_9",
    b"-b": "iso8859_15",
    b"-T": "tis_620",
    b")I": "shift_jis",
    b"$)C": "euc_kr",
    b"$)A": "gb18030",
}
#: Escape sequences that designate G0 (bytes below 80 hex); the value is the codec that reads them with their escape.
_G0: Final = {b"(B": "ascii", b"(J": "ascii", b"$B": "iso2022_jp_2", b"$@": "iso2022_jp_2", b"$(D": "iso2022_jp_2"}
_RUNS = re.compile(rb"[\x00-\x7f]+|[\x80-\xff]+")
_DELIMITERS = re.compile(rb"[\\^=\r\n\t\f]")


def codecs_of(specific_character_set: str) -> tuple[str, ...]:
    """Python codecs for the values of (0008,0005), joined by backslashes; an unknown term reads as ASCII."""
    if not specific_character_set.strip(" \0"):
        return UNDECLARED
    return tuple(_codec(term.strip().upper()) for term in specific_character_set.split("\\"))


def decode(value: bytes, codecs: tuple[str, ...]) -> tuple[str, bool]:
    """`value` as text without padding, and whether every byte of it had a declared meaning."""
    if value.isascii() and _ESCAPE not in value:
        return value.decode("ascii").strip(" \0"), True
    text = _extended(value, codecs[0]) if _ESCAPE in value else value.decode(codecs[0], "replace")
    return text.strip(" \0"), _REPLACEMENT not in text and codecs is not UNDECLARED


def _codec(term: str) -> str:
    if term in _WHOLE_VALUE:
        return _WHOLE_VALUE[term]
    match = _TERM.fullmatch(term)
    return _CODECS.get(match[1], "ascii") if match else "ascii"


def _extended(value: bytes, initial: str) -> str:
    """Text with ISO 2022 escapes: G0 and G1 are designated by them; a delimiter brings the initial G1 back."""
    if initial in ("utf_8", "gb18030", "gbk"):
        return value.decode(initial, "replace")  # stand-alone sets: no code extensions (PS3.3 C.12.1.1.2)
    parts: list[str] = []
    g0, g1 = b"(B", initial
    for escape, piece in _pieces(value):
        if escape in _G0:
            g0 = escape
        elif escape in _G1:
            g1 = _G1[escape]
        elif escape is not None:
            parts.append(_REPLACEMENT)
        for run in _RUNS.findall(piece):
            if run[0] >= 0x80:
                parts.append(run.decode(g1, "replace"))
                continue
            parts.append(_g0_text(run, g0))
            if initial != "ascii" and _G0[g0] == "ascii" and _DELIMITERS.search(run):
                g1 = initial
    return "".join(parts)


def _g0_text(run: bytes, g0: bytes) -> str:
    codec = _G0[g0]
    return run.decode("ascii") if codec == "ascii" else (b"\x1b" + g0 + run + b"\x1b(B").decode(codec, "replace")


def _pieces(value: bytes) -> Iterator[tuple[bytes | None, bytes]]:
    """(escape sequence without ESC, what follows it); None for what stands before the first one."""
    head, *rest = value.split(b"\x1b")
    yield None, head
    for piece in rest:
        size = next((n for n in (2, 3) if piece[:n] in _G0 or piece[:n] in _G1), 0)
        yield piece[:size], piece[size:]
