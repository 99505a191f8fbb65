"""Revision 1: the tables as they were when PostgreSQL came. A copy that never changes again.

Revision ID: 1
"""

from __future__ import annotations

from alembic import op
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

revision = "1"
down_revision = None

metadata = MetaData()

_KEY: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
_TEXT: TypeEngine[str] = Text().with_variant(String(collation="C"), "postgresql")


def upgrade() -> None:
    """Make all of them."""
    metadata.create_all(op.get_bind())


def _key() -> Column[int]:
    return Column("id", _KEY, primary_key=True)


def _parent(table: str, *, nullable: bool = False) -> Column[int]:
    return Column(f"{table}_id", _KEY, ForeignKey(f"{table}.id"), nullable=nullable)


def _text(name: str, *, unset: bool = False) -> Column[str]:
    return Column(name, _TEXT, nullable=unset, server_default=None if unset else "")


def _number(name: str, *, unset: bool = False) -> Column[int]:
    return Column(name, _KEY, nullable=unset, server_default=None if unset else "0")


catalog_revision = Table("catalog_revision", metadata, Column("revision", Integer, primary_key=True))

tenant = Table("tenant", metadata, _key(), _text("name"), UniqueConstraint("name"))

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
    _text("patient_id"),
    _text("patient_id_issuer"),
    _text("patient_name"),
    _text("patient_name_folded"),
    _text("patient_birth_date"),
    _text("patient_sex"),
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
    _number("current_number"),
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
    _number("number"),
    _text("verdict"),
    _text("message_id"),
    _text("wire_sha256"),
    _text("pixel_sha256"),
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
    _text("record"),
    UniqueConstraint("instance_id", "number"),
)

segment = Table(
    "segment", metadata, _key(), _parent("tenant"), _text("key"), _text("committed_at"), UniqueConstraint("key")
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

outbox = Table("outbox", metadata, _key(), _parent("tenant"), _text("type"), _text("created_at"), _text("payload"))

counter = Table(
    "counter",
    metadata,
    Column("tenant_id", _KEY, ForeignKey("tenant.id"), primary_key=True, autoincrement=False),
    Column("name", _TEXT, primary_key=True),
    _number("value"),
    sqlite_with_rowid=False,
)

decision = Table(
    "decision",
    metadata,
    Column("decision_id", _TEXT, primary_key=True),
    _parent("tenant"),
    _text("kind"),
    _text("decided_at"),
    _text("decided_by"),
)
