"""Revision 3: what becomes of a segment, studies that are not stable yet, and the way from a segment to its versions.

The index on `version` is made inside the transaction: no archive has grown yet whose writers it could hold up.

Revision ID: 3
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String, Text, text

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Add columns, a table and indexes."""
    number = BigInteger().with_variant(Integer(), "sqlite")
    words = Text().with_variant(String(collation="C"), "postgresql")
    op.add_column("segment", Column("fate", words, nullable=False, server_default="live"))
    op.add_column("segment", Column("fate_at", words, nullable=False, server_default=""))
    op.add_column("segment", Column("settled", number, nullable=False, server_default="0"))
    _index("segment_fated", ["fate", "fate_at"], "fate <> 'live' AND fate_at <> ''")
    _index("segment_unsettled", ["tenant_id", "id"], "settled = 0 AND fate = 'live'")
    op.create_index("version_in_segment", "version", ["segment_id"])
    op.create_table(
        "study_unstable",
        Column("study_id", number, ForeignKey("study.id"), primary_key=True, autoincrement=False),
        Column("changed_at", words, nullable=False, server_default=""),
    )
    op.create_index("study_unstable_since", "study_unstable", ["changed_at"])


def _index(name: str, columns: list[str], among: str) -> None:
    op.create_index(name, "segment", columns, sqlite_where=text(among), postgresql_where=text(among))
