"""A message as Kafka carries it: the binary content mode of the CloudEvents Kafka protocol binding 1.0.

Headers are the attributes (`MessageAttributes.to_headers`), ``ce_specversion`` and ``content-type``; the key is the
tenant and the study; the value is the Part-10 file itself. One header more, ``sansfilm_check``, is the CRC32C of
everything that ``ce_crc32c`` does not cover: attributes, and values that are no instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from schemas.message import DECISION_MADE, Message, MessageAttributes
from segments.checksum import Buffer, crc32c_hex

Headers = Sequence[tuple[str, bytes | str | None]] | Mapping[str, bytes | str | None]
"""As the client gives them; it always gives the sequence."""
SPEC_VERSION: Final = "1.0"
CHECK: Final = "sansfilm_check"
_CRC32C: Final = "ce_crc32c"
_SPEC_VERSION: Final = "ce_specversion"
_CONTENT_TYPE: Final = "content-type"


def to_headers(message: Message) -> list[tuple[str, bytes | str | None]]:
    """The headers of `message`."""
    attributes = message.attributes.to_headers()
    content_type = "application/json" if message.attributes.type == DECISION_MADE else "application/dicom"
    headers = {_SPEC_VERSION: SPEC_VERSION, **attributes, _CONTENT_TYPE: content_type}
    headers[CHECK] = _check(headers, message.value)
    return [(name, value.encode()) for name, value in headers.items()]


def from_kafka(headers: Headers | None, value: Buffer) -> Message | None:
    """The message, verified; None if it is none of ours, or not what was sent."""
    try:
        given = {name: _text(content) for name, content in pairs(headers)}
        attributes = MessageAttributes.from_headers(given)
    except ValueError:
        return None
    if given.get(CHECK, "") not in ("", _check(given, value)):
        return None
    if _is_instance(given, value) and crc32c_hex([value]) != attributes.crc32c:
        return None
    # An instance that has lost bytes is told by its size; with them it has lost what its checksum covers.
    if attributes.crc32c and not attributes.data_ref and len(value) != attributes.size_bytes:
        return None
    return Message(attributes=attributes, value=value)


def pairs(headers: Headers | None) -> Iterable[tuple[str, bytes | str | None]]:
    """Names and contents, in their order."""
    return headers.items() if isinstance(headers, Mapping) else headers or ()


def _check(headers: dict[str, str], value: Buffer) -> str:
    """The CRC32C of the attributes, and of the value unless ``ce_crc32c`` is that of the value."""
    covered = [f"{name}={content}\n".encode() for name, content in sorted(headers.items()) if name.startswith("ce_")]
    return crc32c_hex(covered if _is_instance(headers, value) else [*covered, value])


def _is_instance(headers: dict[str, str], value: Buffer) -> bool:
    """Whether ``ce_crc32c`` is that of the value."""
    return _CRC32C in headers and len(value) > 0 and str(len(value)) == headers.get("ce_sizebytes")


def _text(content: bytes | str | None) -> str:
    return content if isinstance(content, str) else (content or b"").decode()
