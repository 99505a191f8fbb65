"""Value representations where none is written: those of the data dictionary (PS3.6, as pydicom ships it)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_VR

#: Dictionary entries with a choice: what holds where nothing in the data set decides (PS3.5 A.1, A.2).
_CHOICES: Final = {"US or OW": b"OW", "US or SS or OW": b"OW", "OB or OW": b"OW"}
#: What Pixel Representation decides (PS3.3 C.7.6.3.1).
US_OR_SS: Final = b"US or SS"


@lru_cache(maxsize=8192)
def dictionary_vr(tag: int) -> bytes:
    """The value representation of `tag`, `US_OR_SS`, or UN for what the dictionary does not know (PS3.5 6.2.2)."""
    if tag >> 16 & 1:
        return b"LO" if 0x10 <= tag & 0xFFFF <= 0xFF else b"UN"  # private creators (PS3.5 7.8.1), other private ones
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return b"UN"
    return _CHOICES.get(vr, vr.encode())
