"""Media types, as clients really write them."""

from __future__ import annotations

import pytest

from dicomweb.accept import parse
from dicomweb.problems import BadRequest


@pytest.mark.parametrize(
    "field",
    [
        'multipart/related; type="application/octet-stream"; transfer-syntax=*',
        "multipart/related; type=application/octet-stream; transfer-syntax=*",
        'Multipart/Related;type="application/octet-stream";transfer-syntax="*"',
    ],
)
def test_a_type_is_read_with_and_without_quotes(field: str) -> None:
    [media_range] = parse(field)
    assert media_range.multipart
    assert media_range.content == "application/octet-stream"
    assert media_range.transfer_syntax == "*"


def test_a_list_keeps_its_order_and_commas_inside_quotes() -> None:
    ranges = parse('image/jls;q=0.5, multipart/related; type="a/b,c"; q=0.9,*/*;q=0.1')
    assert [(one.content, one.quality) for one in ranges] == [("image/jls", 0.5), ("a/b,c", 0.9), ("*/*", 0.1)]


def test_quality_zero_is_not_acceptable() -> None:
    assert [one.media_type for one in parse("application/dicom;q=0, application/json")] == ["application/json"]


@pytest.mark.parametrize(
    ("field", "media_type", "covered"),
    [
        ("*/*", "application/dicom", True),
        ("image/*", "image/jphc", True),
        ("image/*", "application/dicom", False),
        ("application/dicom", "application/dicom+json", False),
        ("multipart/related", "application/dicom", True),
    ],
)
def test_ranges_cover_types(field: str, media_type: str, covered: bool) -> None:
    [media_range] = parse(field)
    assert media_range.covers(media_type) is covered


@pytest.mark.parametrize("field", ["nonsense", 'a/b; type="open', "a/b;q=high", ",".join(["a/b"] * 65)])
def test_what_is_no_list_is_refused(field: str) -> None:
    with pytest.raises(BadRequest):
        parse(field)
