"""How text is compared where case and accents must not matter: patient names and the search as you type."""

from __future__ import annotations

import unicodedata


def folded(value: str) -> str:
    """`value` without case and without Latin, Greek and Cyrillic accents; other scripts keep their marks."""
    decomposed = unicodedata.normalize("NFKD", value.casefold())
    bare = "".join(character for character in decomposed if not "\u0300" <= character <= "\u036f")
    return unicodedata.normalize("NFC", bare)


def folded_name(value: str) -> str:
    """A person name folded; trailing empty components (``DOE^JOHN^^^``) make no difference (PS3.5 6.2.1)."""
    return "=".join(folded(group).rstrip("^ ") for group in value.split("=")).rstrip("=")


def search_text(*values: str) -> str:
    """What the words of a search are looked for in."""
    return folded("\x1f".join(values)).replace("^", " ")


def search_words(text: str) -> list[str]:
    """The words of what someone typed, or copied from a list that shows ``DOE, JOHN``."""
    words = (word.strip(",·") for word in folded(text).replace("^", " ").split())
    return [word for word in words if word]


def order_of(number: str) -> int:
    """An integer string as a number to order by; what is no number comes last (PS3.5 IS)."""
    try:
        value = int(number.strip())
    except ValueError:
        return _LAST
    return value if abs(value) < _LAST else _LAST


_LAST = 2**31 - 1
