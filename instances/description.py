"""What a data set says of itself: the attributes the catalog keeps, where its pixels lie, and what is odd about it.

One pass over the element headers; nothing is decoded but the values asked for. Whatever the bytes are, the outcome is a
`Description` or `Unfileable`: oddities of what can be filed are warnings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from instances.character_set import UNDECLARED, codecs_of, decode
from instances.elements import (
    DEPTH_MAX,
    ITEM,
    PIXEL_DATA,
    UNDEFINED,
    Buffer,
    Element,
    TooDeep,
    TooMany,
    Truncated,
    WalkError,
    looks_like_items,
    read_header,
    sequence_extent,
    sniffed,
    walk,
)
from instances.inflate import inflate
from instances.pixels import PIXEL_TAGS, PixelLayout, layout_of
from instances.syntax import NATIVE, Encoding, encoding_of
from runtime.errors import Unfileable
from schemas.identifiers import is_conforming_uid, is_safe_uid
from schemas.reasons import QuarantineReason, WarningCode
from schemas.record import InstanceAttributes, PatientAttributes, SeriesAttributes, StudyAttributes

#: Longer values of attributes are cut, with a warning.
VALUE_BYTES_MAX: Final = 4096

_SPECIFIC_CHARACTER_SET = 0x00080005
_ISSUER_OF_ACCESSION_NUMBER_SEQUENCE = 0x00080051
_REQUEST_ATTRIBUTES_SEQUENCE = 0x00400275
_LOCAL_NAMESPACE_ENTITY_ID = 0x00400031
_UNIVERSAL_ENTITY_ID = 0x00400032
_SCHEDULED_PROCEDURE_STEP_ID = 0x00400009
_REQUESTED_PROCEDURE_ID = 0x00401001
_DIRECTORY_RECORD_SEQUENCE = 0x00041220

_PATIENT = {
    0x00100010: "name",
    0x00100020: "patient_id",
    0x00100021: "issuer",
    0x00100030: "birth_date",
    0x00100040: "sex",
}
_STUDY = {
    0x0020000D: "study_instance_uid",
    0x00080020: "study_date",
    0x00080030: "study_time",
    0x00080050: "accession_number",
    0x00080080: "institution_name",
    0x00080090: "referring_physician_name",
    0x00081030: "study_description",
    0x00200010: "study_id",
}
_SERIES = {
    0x0020000E: "series_instance_uid",
    0x00080021: "series_date",
    0x00080031: "series_time",
    0x00080060: "modality",
    0x00081010: "station_name",
    0x0008103E: "series_description",
    0x00180015: "body_part_examined",
    0x00181030: "protocol_name",
    0x00200011: "series_number",
    0x00400244: "pps_start_date",
    0x00400245: "pps_start_time",
}
_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_INSTANCE_NUMBER = 0x00200013
_SAMPLES_PER_PIXEL = 0x00280002
_PHOTOMETRIC_INTERPRETATION = 0x00280004
_NUMBER_OF_FRAMES = 0x00280008
_ROWS = 0x00280010
_COLUMNS = 0x00280011
_BITS_ALLOCATED = 0x00280100
_BITS_STORED = 0x00280101
_PIXEL_REPRESENTATION = 0x00280103
_INSTANCE = (
    *(_SOP_CLASS_UID, _SOP_INSTANCE_UID, _INSTANCE_NUMBER, _SAMPLES_PER_PIXEL, _PHOTOMETRIC_INTERPRETATION),
    *(_NUMBER_OF_FRAMES, _ROWS, _COLUMNS, _BITS_ALLOCATED, _BITS_STORED, _PIXEL_REPRESENTATION),
)
_SEQUENCES = (_ISSUER_OF_ACCESSION_NUMBER_SEQUENCE, _REQUEST_ATTRIBUTES_SEQUENCE)
_WANTED = frozenset(
    {*_PATIENT, *_STUDY, *_SERIES, *_INSTANCE, *_SEQUENCES, _SPECIFIC_CHARACTER_SET, _DIRECTORY_RECORD_SEQUENCE}
)
#: Fewer bytes cannot hold more than `DEPTH_MAX` sequences, each with an item.
_NESTED_BYTES_MIN = DEPTH_MAX * 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One instance, as its data set says."""

    patient: PatientAttributes
    study: StudyAttributes
    series: SeriesAttributes
    instance: InstanceAttributes
    #: Each code once, in the order of their declaration.
    warnings: tuple[WarningCode, ...] = ()
    #: None without pixel data, if it is cut off, and in a deflated data set, where an offset would mean nothing.
    pixels: PixelLayout | None = None


def describe(dataset: Buffer, transfer_syntax: str) -> Description:
    """Describe `dataset`, written in `transfer_syntax` without group 2.

    Raises:
        Unfileable: it cannot be filed; quarantine it with the error's reason.
    """
    return _Reading(dataset, transfer_syntax).description()


class _Reading:
    """One pass over one data set."""

    def __init__(self, dataset: Buffer, transfer_syntax: str) -> None:
        self._warnings: set[WarningCode] = set()
        encoding = encoding_of(transfer_syntax)
        self._deflated = encoding.deflated
        self._compressed = transfer_syntax not in NATIVE
        if encoding.deflated:
            dataset = self._inflated(dataset)
        self._dataset = dataset
        self._encoding = sniffed(dataset, 0, len(dataset), encoding)
        self._found: dict[int, Element] = {}
        self._pixel_element: Element | None = None
        self._broken = False
        self._codecs: tuple[str, ...] = UNDECLARED

    def description(self) -> Description:
        self._walk()
        if _SPECIFIC_CHARACTER_SET in self._found:
            self._codecs = codecs_of(self._text(_SPECIFIC_CHARACTER_SET))
        self._check_identity()
        instance = self._instance()
        pixels = self._pixels(instance)
        return Description(
            patient=PatientAttributes(**self._texts(_PATIENT)),
            study=StudyAttributes(accession_issuer=self._accession_issuer(), **self._texts(_STUDY)),
            series=SeriesAttributes(**self._texts(_SERIES), **self._request()),
            instance=instance,
            warnings=tuple(code for code in WarningCode if code in self._warnings),
            pixels=pixels,
        )

    # -- the walk ----------------------------------------------------------------------------------------------------

    def _inflated(self, stream: Buffer) -> bytearray:
        inflated = inflate(stream)
        if not inflated.complete:
            self._warnings.add(WarningCode.TRUNCATED)
        if inflated.trailing_bytes > 1:
            self._warnings.add(WarningCode.TRAILING_BYTES)
        return inflated.content

    def _walk(self) -> None:
        found, dataset = self._found, self._dataset
        end = 0
        try:
            for element in walk(dataset, self._encoding):
                end = element.end
                tag = element.tag
                if tag in _WANTED:
                    found.setdefault(tag, element)
                elif tag in PIXEL_TAGS:
                    self._pixel_element = self._pixel_element or element
                    continue
                if element.vr == b"SQ":
                    self._check_sequence(element)
                elif element.value_end - element.value_offset >= _NESTED_BYTES_MIN:
                    self._probe_sequence(element)
                elif tag < 0x00020000:
                    self._warnings.add(WarningCode.TRAILING_BYTES)
                elif tag >= 0xFFFE0000:
                    self._warnings.add(WarningCode.VALUE_UNREADABLE)
        except WalkError as error:
            self._note_break(error, end)
            return
        if end < len(dataset):
            self._warnings.add(WarningCode.TRAILING_BYTES)

    def _note_break(self, error: WalkError, end: int) -> None:
        """The walk ended early, behind `end`: limits are fatal, the rest is a warning about what lies there."""
        self._refuse_limits(error)
        self._broken = True
        limit = len(self._dataset)
        tag = read_header(self._dataset, end, limit, self._encoding)[0] if limit - end >= 12 else 0
        if isinstance(error, Truncated):
            self._warnings.add(WarningCode.TRUNCATED)
        elif tag == PIXEL_DATA:
            self._warnings.add(WarningCode.ENCAPSULATION_BROKEN)
        else:
            self._warnings.add(WarningCode.VALUE_UNREADABLE)

    def _refuse_limits(self, error: WalkError) -> None:
        if isinstance(error, TooDeep):
            raise Unfileable(QuarantineReason.TOO_DEEP, "sequences are nested beyond the limit") from error
        if isinstance(error, TooMany):
            raise Unfileable(QuarantineReason.DECODE_LIMIT, "there are more elements than the limit") from error

    def _check_sequence(self, element: Element) -> None:
        """A sequence must be walkable for readers, and not too deep for them."""
        if element.undefined and element.value_end - element.value_offset < _NESTED_BYTES_MIN:
            return  # the walk has passed every item of it
        try:
            self._descend(element)
        except WalkError as error:
            self._refuse_limits(error)
            self._warnings.add(WarningCode.VALUE_UNREADABLE)

    def _probe_sequence(self, element: Element) -> None:
        """What does not say that it is a sequence may still be one, and too deep."""
        start, end = element.value_offset, element.value_end
        if not looks_like_items(self._dataset, start, end, element.vr, self._encoding):
            return
        try:
            self._descend(element)
        except WalkError as error:
            self._refuse_limits(error)

    def _descend(self, element: Element) -> None:
        sequence_extent(
            self._dataset,
            element.value_offset,
            element.value_end,
            self._encoding,
            sequence_end=element.value_end,
        )

    # -- values ------------------------------------------------------------------------------------------------------

    def _value(self, element: Element) -> bytes:
        start, end = element.value_offset, element.value_end
        if end - start > VALUE_BYTES_MAX:
            self._warnings.add(WarningCode.VALUE_UNREADABLE)
            end = start + VALUE_BYTES_MAX
        return bytes(self._dataset[start:end])

    def _text(self, tag: int) -> str:
        element = self._found.get(tag)
        return self._element_text(element) if element else ""

    def _element_text(self, element: Element) -> str:
        text, sound = decode(self._value(element), self._codecs)
        if not sound:
            self._warnings.add(WarningCode.CHARACTER_SET)
        return text

    def _texts(self, fields: dict[int, str]) -> dict[str, str]:
        return {name: self._text(tag) for tag, name in fields.items() if tag in self._found}

    def _short(self, tag: int) -> int:
        """An unsigned short; 0 with a warning if it is none."""
        element = self._found.get(tag)
        if element is None or element.value_end == element.value_offset:
            return 0
        value = self._value(element)
        if len(value) not in (2, 4):
            self._warnings.add(WarningCode.VALUE_UNREADABLE)
            return 0
        return int.from_bytes(value[:2] if len(value) == 2 else value, self._byte_order) & 0xFFFF

    @property
    def _byte_order(self) -> Literal["little", "big"]:
        return "little" if self._encoding.little_endian else "big"

    def _instance(self) -> InstanceAttributes:
        return InstanceAttributes(
            sop_class_uid=self._text(_SOP_CLASS_UID),
            sop_instance_uid=self._text(_SOP_INSTANCE_UID),
            instance_number=self._text(_INSTANCE_NUMBER),
            number_of_frames=self._frames(),
            rows=self._short(_ROWS),
            columns=self._short(_COLUMNS),
            bits_allocated=self._short(_BITS_ALLOCATED),
            bits_stored=self._short(_BITS_STORED),
            samples_per_pixel=self._short(_SAMPLES_PER_PIXEL),
            pixel_representation=self._short(_PIXEL_REPRESENTATION),
            photometric_interpretation=self._text(_PHOTOMETRIC_INTERPRETATION),
        )

    def _frames(self) -> int:
        text = self._text(_NUMBER_OF_FRAMES)
        if not text:
            return 0
        if not (text.isdecimal() and text.isascii() and len(text) <= 9):
            self._warnings.add(WarningCode.VALUE_UNREADABLE)
            return 0
        return int(text)

    def _first_item(self, tag: int, wanted: Iterable[int]) -> dict[int, str]:
        """Texts in the first item of a sequence, by tag."""
        sequence = self._found.get(tag)
        if sequence is None or sequence.value_end - sequence.value_offset < 8:
            return {}
        start = sequence.value_offset
        try:
            header, _, value, length = read_header(
                self._dataset, start, sequence.value_end, self._encoding.as_implicit()
            )
            if header != ITEM:
                return {}
            end = sequence.value_end if length == UNDEFINED else min(value + length, sequence.value_end)
            encoding = sniffed(self._dataset, value, end, self._encoding)
            return self._item_texts(value, end, encoding, frozenset(wanted))
        except WalkError:
            return {}  # _check_sequence has warned

    def _item_texts(self, start: int, end: int, encoding: Encoding, wanted: frozenset[int]) -> dict[int, str]:
        texts: dict[int, str] = {}
        for element in walk(self._dataset, encoding, start, end):
            if element.tag >> 16 == 0xFFFE:
                break
            if element.tag in wanted:
                texts.setdefault(element.tag, self._element_text(element))
        return texts

    def _accession_issuer(self) -> str:
        ids = (_LOCAL_NAMESPACE_ENTITY_ID, _UNIVERSAL_ENTITY_ID)
        found = self._first_item(_ISSUER_OF_ACCESSION_NUMBER_SEQUENCE, ids)
        return found.get(ids[0]) or found.get(ids[1], "")

    def _request(self) -> dict[str, str]:
        tags = {
            _SCHEDULED_PROCEDURE_STEP_ID: "scheduled_procedure_step_id",
            _REQUESTED_PROCEDURE_ID: "requested_procedure_id",
        }
        return {tags[tag]: text for tag, text in self._first_item(_REQUEST_ATTRIBUTES_SEQUENCE, tags).items()}

    # -- judgement ---------------------------------------------------------------------------------------------------

    def _check_identity(self) -> None:
        uids = {name: self._text(tag) for name, tag in _IDENTITY.items()}
        missing = [name for name, uid in uids.items() if not uid]
        if missing:
            if not uids["SOP Instance UID"] and _DIRECTORY_RECORD_SEQUENCE in self._found:
                raise Unfileable(QuarantineReason.DICOMDIR, "a media directory is no instance")
            reason = QuarantineReason.PARSE_FAILED if self._broken or not self._found else QuarantineReason.MISSING_UID
            raise Unfileable(reason, f"no {' nor '.join(missing)}")
        unsafe = [name for name, uid in uids.items() if not is_safe_uid(uid)]
        sop_class = self._text(_SOP_CLASS_UID)
        if sop_class and not is_safe_uid(sop_class):
            unsafe.append("SOP Class UID")
        if unsafe:
            raise Unfileable(QuarantineReason.UNSAFE_UID, f"{' and '.join(unsafe)} cannot be a key")
        if not all(is_conforming_uid(uid) for uid in (*uids.values(), sop_class)):
            self._warnings.add(WarningCode.UID_NOT_CONFORMING)

    def _pixels(self, instance: InstanceAttributes) -> PixelLayout | None:
        if self._pixel_element is None:
            return None
        layout, warnings = layout_of(self._dataset, self._pixel_element, instance, compressed_syntax=self._compressed)
        self._warnings.update(warnings)
        return None if self._deflated else layout


_IDENTITY = {
    "SOP Instance UID": _SOP_INSTANCE_UID,
    "Study Instance UID": 0x0020000D,
    "Series Instance UID": 0x0020000E,
}
