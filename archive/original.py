"""Originals: the data set exactly as it was received, proven by its digest."""

from __future__ import annotations

from archive.segment_store import SegmentStore
from instances.htj2k import CodecError
from instances.part10 import file_header, split
from instances.transcode import restore, wire_sha256
from runtime.errors import Rejected, SansfilmError
from schemas.record import InstanceRecord, MemberLocation


class OriginalDamaged(SansfilmError):
    """What is stored does not give back what was received. The message says in which way; no value is quoted."""


def original(store: SegmentStore, record: InstanceRecord, location: MemberLocation) -> bytes:
    """The data set as received, group 2 excluded; its SHA-256 is `record.wire_sha256`.

    Raises:
        OriginalDamaged: the stored bytes do not give it back.
        FileNotFoundError: the segment is gone.
        Retryable: the store is away.
    """
    dataset = restored(store.read(location), record)
    if wire_sha256(dataset) != record.wire_sha256:
        raise OriginalDamaged("the data set's SHA-256 differs")
    return dataset


def original_file(store: SegmentStore, record: InstanceRecord, location: MemberLocation) -> bytes:
    """The same as a Part-10 file in the transfer syntax it was received in."""
    header = file_header(
        sop_class_uid=record.instance.sop_class_uid,
        sop_instance_uid=record.instance.sop_instance_uid,
        transfer_syntax=record.received_transfer_syntax,
        calling_ae=record.attributes.calling_ae,
    )
    return header + original(store, record, location)


def restored(file: bytes, record: InstanceRecord) -> bytes:
    """The data set of a stored file with the transcode undone; not verified.

    Raises:
        OriginalDamaged: there is no data set in it, or the recipe does not fit.
    """
    try:
        _, dataset = split(file)
        return restore(dataset, record.recipe) if record.recipe else bytes(dataset)
    except (Rejected, CodecError) as error:
        raise OriginalDamaged(str(error)) from error
