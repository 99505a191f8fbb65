from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_charset_files

from instances.character_set import UNDECLARED, codecs_of, decode
from tests.instances import corpus

#: PS3.5 Annexes H, I, J and K: values, character sets, and what they mean.
STANDARD = [
    (b"Buc^J\xe9r\xf4me", "ISO_IR 100", "Buc^Jérôme"),
    (b"\xc4neas^R\xfcdiger", "ISO_IR 100", "Äneas^Rüdiger"),
    ("Люкceмбypг".encode("iso8859_5"), "ISO_IR 144", "Люкceмбypг"),
    ("قباني^لنزار".encode("iso8859_6"), "ISO_IR 127", "قباني^لنزار"),
    ("שרון^דבורה".encode("iso8859_8"), "ISO_IR 138", "שרון^דבורה"),
    (
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "\\ISO 2022 IR 87",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    (
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    (
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "\\ISO 2022 IR 149",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    (b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=", "\\ISO 2022 IR 58", "Zhang^XiaoDong=张^小东="),
    ("Wang^XiaoDong=王^小東=".encode(), "ISO_IR 192", "Wang^XiaoDong=王^小東="),
    ("Wang^XiaoDong=王^小东=".encode("gb18030"), "GB18030", "Wang^XiaoDong=王^小东="),
    (
        b"Dionysios=\x1b-F\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2",
        "ISO 2022 IR 100\\ISO 2022 IR 126",
        "Dionysios=Διονυσιος",
    ),
]


@pytest.mark.parametrize(("value", "term", "text"), STANDARD)
def test_reads_the_standards_examples(value: bytes, term: str, text: str) -> None:
    assert decode(value, codecs_of(term)) == (text, True)


@pytest.mark.parametrize(
    "term", ["ISO IR 100", "ISO-IR 100", "ISO_IR_100", "iso_ir 100", "ISO 2022 IR 100", "ISO2022IR100"]
)
def test_misspelt_terms_are_understood(term: str) -> None:
    assert decode(b"J\xe9r\xf4me ", codecs_of(term)) == ("Jérôme", True)


@pytest.mark.parametrize("term", ["", " ", "\0"])
def test_undeclared_bytes_read_as_latin_1_and_are_told(term: str) -> None:
    assert decode(b"J\xe9r\xf4me", codecs_of(term)) == ("Jérôme", False)
    assert decode(b"Jerome", codecs_of(term)) == ("Jerome", True)


@pytest.mark.parametrize("term", ["ISO_IR 6", "ISO_IR 4711", "nonsense", "ISO_IR 192"])
def test_bytes_without_meaning_are_replaced_and_told(term: str) -> None:
    text, sound = decode(b"J\xe9r\xf4me", codecs_of(term))
    assert not sound
    assert text.startswith("J\N{REPLACEMENT CHARACTER}")


def test_the_initial_set_returns_behind_a_delimiter() -> None:
    value = b"\x1b-F\xc4^J\xe9r\xf4me"
    assert decode(value, codecs_of("ISO 2022 IR 100\\ISO 2022 IR 126")) == ("Δ^Jérôme", True)


def test_agrees_with_pydicom_on_its_character_set_files() -> None:
    names = {Path(name).name for name in get_charset_files()}
    compared = [(real, found.patient.name) for real, found in corpus.fileable() if real.path.name in names]
    assert len(compared) >= 14
    for real, name in compared:
        assert name.rstrip("=") == str(pydicom.dcmread(real.path).PatientName).rstrip("="), real.path.name


@given(st.binary(max_size=60), st.sampled_from([case[1] for case in STANDARD] + ["", "x\\y"]))
def test_any_bytes_become_text(value: bytes, term: str) -> None:
    text, sound = decode(value, codecs_of(term))
    text.encode("utf-8")  # no lone surrogates: the text can be stored
    declared = codecs_of(term) is not UNDECLARED or (value.isascii() and b"\x1b" not in value)
    assert sound == (declared and "\N{REPLACEMENT CHARACTER}" not in text)
