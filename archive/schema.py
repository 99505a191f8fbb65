"""The catalog's tables. Nothing but definitions; the statements are in the modules that use them.

Text columns compare by code point on every database (collation "C" on PostgreSQL, SQLite's own way), keys of inserts
are ordered, and every count is kept by the transaction that changes it, so the cost of an insert does not depend on how
many rows there are. Text in an index is at most `KEY_BYTES_MAX` long: PostgreSQL indexes nothing longer than 2,704.
A change of these tables is a revision: see `archive.migrations`.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine

#: Changes with the tables; see `archive.migrations` for what a revision may change.
REVISION: Final = 3
#: The oldest revision whose tables the readers of this program understand.
READABLE_REVISION: Final = 1
#: UTF-8 bytes of a text that is indexed and whose length the standard's word alone bounds.
KEY_BYTES_MAX: Final = 1024

metadata = MetaData()

_KEY: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
_TEXT: TypeEngine[str] = Text().with_variant(String(collation="C"), "postgresql")


def _key() -> Column[int]:
    return Column("id", _KEY, primary_key=True)


def _parent(table: str, *, nullable: bool = False) -> Column[int]:
    return Column(f"{table}_id", _KEY, ForeignKey(f"{table}.id"), nullable=nullable)


def _text(name: str, *, unset: bool = False) -> Column[str]:
    return Column(name, _TEXT, nullable=unset, server_default=None if unset else "")


def _number(name: str, *, unset: bool = False) -> Column[int]:
    return Column(name, _KEY, nullable=unset, server_default=None if unset else "0")


#: One row: the revision of these tables.
catalog_revision = Table("catalog_revision", metadata, Column("revision", Integer, primary_key=True))

tenant = Table("tenant", metadata, _key(), _text("name"), UniqueConstraint("name"))

#: A person as one tenant knows them; who they are is said by their identifiers alone, never by a name.
patient = Table("patient", metadata, _key(), _parent("tenant"), _text("created_at"))

patient_identifier = Table(
    "patient_identifier",
    metadata,
    _key(),
    _parent("tenant"),
    _parent("patient"),
    _text("value"),
    _text("issuer_received"),
    _text("issuer_resolved"),
    _text("type"),
    _text("status"),
    UniqueConstraint("tenant_id", "value", "issuer_resolved"),
)

study = Table(
    "study",
    metadata,
    _key(),
    _parent("tenant"),
    Column("patient_row", _KEY, ForeignKey("patient.id"), nullable=True),
    _text("study_instance_uid"),
    _text("study_date"),
    _text("study_time"),
    _text("study_id"),
    _text("accession_number"),
    _text("accession_issuer"),
    _text("study_description"),
    _text("referring_physician_name"),
    _text("referring_physician_folded"),
    _text("institution_name"),
    # The patient as this study received them; identity is resolved elsewhere and never rewrites this.
    _text("patient_id"),
    _text("patient_id_issuer"),
    _text("patient_name"),
    _text("patient_name_folded"),
    _text("patient_birth_date"),
    _text("patient_sex"),
    # Patient name, patient id and accession number, folded: what the search as you type looks through.
    _text("search_text"),
    _text("modalities"),
    _number("series_count"),
    _number("instance_count"),
    _number("held_count"),
    _number("conflict_count"),
    _text("received_at"),
    UniqueConstraint("tenant_id", "study_instance_uid"),
    Index("study_by_date", "tenant_id", "study_date", "study_time", "study_instance_uid"),
    Index("study_by_patient_id", "tenant_id", "patient_id"),
    Index("study_by_patient_name", "tenant_id", "patient_name_folded"),
    Index("study_by_accession", "tenant_id", "accession_number"),
)
#: Segments that are to go, and segments that are to be looked at: few of many.
_FATED, _UNSETTLED = text("fate <> 'live' AND fate_at <> ''"), text("settled = 0 AND fate = 'live'")
#: What a word is looked for with, anywhere in the text; needs PostgreSQL's extension pg_trgm, so a migration makes it.
STUDY_BY_TEXT: Final = "study_by_text"

series = Table(
    "series",
    metadata,
    _key(),
    _parent("study"),
    _text("series_instance_uid"),
    _text("modality"),
    _text("series_number"),
    _number("series_order"),
    _text("series_description"),
    _text("series_date"),
    _text("series_time"),
    _text("body_part_examined"),
    _text("protocol_name"),
    _text("station_name"),
    _text("pps_start_date"),
    _text("pps_start_time"),
    _text("scheduled_procedure_step_id"),
    _text("requested_procedure_id"),
    _number("instance_count"),
    _number("held_count"),
    _number("conflict_count"),
    UniqueConstraint("study_id", "series_instance_uid"),
    Index("series_by_uid", "series_instance_uid"),
    Index("series_by_modality", "modality", "study_id"),
)

#: Which study a SOP Instance UID belongs to: the one row whose insert decides New. Text, not a hash: the UIDs of a
#: device come in order, so inserts stay local.
sop = Table(
    "sop",
    metadata,
    Column("tenant_id", _KEY, ForeignKey("tenant.id"), primary_key=True, autoincrement=False),
    Column("sop_instance_uid", _TEXT, primary_key=True),
    _parent("study"),
    sqlite_with_rowid=False,
)

instance = Table(
    "instance",
    metadata,
    _key(),
    _parent("study"),
    _parent("series"),
    _text("sop_instance_uid"),
    _text("sop_class_uid"),
    _text("instance_number"),
    _number("instance_order"),
    _number("number_of_frames"),
    _number("rows"),
    _number("columns"),
    _number("bits_allocated"),
    _text("state"),
    _number("version_count"),
    # The version that readers see: `version.number` of this instance.
    _number("current_number"),
    # `version.id` of the newest further version; null without conflict.
    _number("conflict_version_id", unset=True),
    UniqueConstraint("study_id", "sop_instance_uid"),
    Index("instance_in_series", "series_id", "instance_order", "sop_instance_uid"),
    Index(
        "instance_in_conflict",
        "conflict_version_id",
        sqlite_where=text("conflict_version_id IS NOT NULL"),
        postgresql_where=text("conflict_version_id IS NOT NULL"),
    ),
)

version = Table(
    "version",
    metadata,
    _key(),
    _parent("instance"),
    # 1 is the first content received under the UID.
    _number("number"),
    _text("verdict"),
    _text("message_id"),
    _text("wire_sha256"),
    _text("pixel_sha256"),
    # Its own study and series, which a conflicting version may have other than the instance.
    _text("study_instance_uid"),
    _text("series_instance_uid"),
    _text("source"),
    _text("received_at"),
    _text("committed_at"),
    _text("received_transfer_syntax"),
    _text("stored_transfer_syntax"),
    _text("kept_reason"),
    _text("warnings"),
    _parent("segment"),
    _number("file_offset"),
    _number("size_bytes"),
    _number("pixel_offset"),
    # The very line of the segment's index (frame offsets and recipe included).
    _text("record"),
    UniqueConstraint("instance_id", "number"),
    # Ids of segments grow, so its inserts stay local.
    Index("version_in_segment", "segment_id"),
)

#: The unique key is the fate of a segment: who inserts its row says what becomes of it. See `archive.fate`.
segment = Table(
    "segment",
    metadata,
    _key(),
    _parent("tenant"),
    _text("key"),
    _text("committed_at"),
    Column("fate", _TEXT, nullable=False, server_default="live"),
    # Since when it is not live; empty again once its bytes are gone.
    _text("fate_at"),
    # 1: the compactor will not look at it again.
    _number("settled"),
    UniqueConstraint("key"),
    Index("segment_fated", "fate", "fate_at", sqlite_where=_FATED, postgresql_where=_FATED),
    Index("segment_unsettled", "tenant_id", "id", sqlite_where=_UNSETTLED, postgresql_where=_UNSETTLED),
)

quarantine = Table(
    "quarantine",
    metadata,
    _key(),
    _parent("tenant"),
    _text("message_id"),
    _text("state"),
    _text("reason"),
    _text("detail"),
    _text("received_at"),
    _text("committed_at"),
    _text("calling_ae"),
    _text("called_ae"),
    _text("decided_at"),
    _text("decided_by"),
    _text("record"),
    UniqueConstraint("tenant_id", "message_id"),
)

#: What an operator corrected of a study; readers apply it. Empty until corrections can be made.
correction = Table(
    "correction",
    metadata,
    _key(),
    _parent("study"),
    _text("keyword"),
    _text("value"),
    _text("corrected_at"),
    _text("corrected_by"),
    UniqueConstraint("study_id", "keyword"),
)

#: Events for other systems, written with what they tell of, until the keeper has published them. See `archive.outbox`.
outbox = Table("outbox", metadata, _key(), _parent("tenant"), _text("type"), _text("created_at"), _text("payload"))

#: Studies that changed and have not been told of as stable since, each with its last change.
study_unstable = Table(
    "study_unstable",
    metadata,
    Column("study_id", _KEY, ForeignKey("study.id"), primary_key=True, autoincrement=False),
    _text("changed_at"),
    Index("study_unstable_since", "changed_at"),
)

counter = Table(
    "counter",
    metadata,
    Column("tenant_id", _KEY, ForeignKey("tenant.id"), primary_key=True, autoincrement=False),
    Column("name", _TEXT, primary_key=True),
    _number("value"),
    sqlite_with_rowid=False,
)

#: Decisions executed, by id, so that a redelivered one changes nothing.
decision = Table(
    "decision",
    metadata,
    Column("decision_id", _TEXT, primary_key=True),
    _parent("tenant"),
    _text("kind"),
    _text("decided_at"),
    _text("decided_by"),
)

#: One row: which life of the catalog this is, and the tide. See `archive.incarnation`.
incarnation = Table(
    "incarnation",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    _text("incarnation_id"),
    _number("tide"),
)

#: Attempts at messages that may kill their worker, where workers share no disk; see `workers.attempts`.
attempt = Table("attempt", metadata, Column("stream", _TEXT, primary_key=True), _text("page"))
