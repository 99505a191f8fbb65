"""Revision 2: the catalog's life and tide, attempts of workers that share no disk, and words found inside names.

Revision ID: 2
"""

from __future__ import annotations

from uuid import uuid4

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, Text, text

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add the tables; on PostgreSQL, the index of words too, where the server has pg_trgm."""
    number = BigInteger().with_variant(Integer(), "sqlite")
    words = Text().with_variant(String(collation="C"), "postgresql")
    incarnation = op.create_table(
        "incarnation",
        Column("one", Integer(), primary_key=True, autoincrement=False),
        Column("incarnation_id", words, nullable=False, server_default=""),
        Column("tide", number, nullable=False, server_default="0"),
    )
    op.bulk_insert(incarnation, [{"one": 1, "incarnation_id": str(uuid4()), "tide": 0}])
    op.create_table(
        "attempt",
        Column("stream", words, primary_key=True),
        Column("page", words, nullable=False, server_default=""),
    )
    if op.get_bind().dialect.name == "postgresql" and _has_trigrams():
        op.create_index(
            "study_by_text",
            "study",
            ["search_text"],
            postgresql_using="gin",
            postgresql_ops={"search_text": "gin_trgm_ops"},
        )


def _has_trigrams() -> bool:
    """Whether pg_trgm is there or can be; without it a search looks through the studies of a tenant."""
    bind = op.get_bind()
    ready = (
        "SELECT installed_version IS NOT NULL OR has_database_privilege(current_database(), 'CREATE')"
        " FROM pg_available_extensions WHERE name = 'pg_trgm'"
    )
    if not bind.scalar(text(ready)):
        return False
    bind.execute(text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
    return True
