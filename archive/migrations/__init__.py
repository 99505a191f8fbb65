"""Revisions of the catalog's tables, written with Alembic's operations; `archive.revisions` applies them.

Each module of `versions` makes one revision out of the one before; its number is also in `archive.schema.REVISION` and
in the database's one row of `catalog_revision`, written in the same transaction.

The rule: **additive first**. While a region is updated, programs of revision N work on tables of revision N+1, so a
revision may add tables, indexes and columns that have a default, and may do nothing that a program of the revision
before would notice. What is no longer needed is removed by a revision after no program that needs it runs any more.
A worker accepts the tables of its own revision and of the next one; readers also those since `READABLE_REVISION`.
The order is: `sansfilm catalog migrate`, then the programs.

* PostgreSQL: `sansfilm catalog migrate` applies what is missing in one transaction, under an advisory lock, so that two
  at once are harmless. An index on a table that has grown is made CONCURRENTLY, outside of it: such a revision says so.
* SQLite: a new catalog is made whole by `metadata.create_all`; an older one is brought on when a worker opens it.
"""
