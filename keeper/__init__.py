"""The role **keeper** of a region: what is done behind the catalog's back, in a catalog on PostgreSQL.

An embedded archive has no keeper: its one worker removes claim checks itself, nobody reads its events, and `archive
rebuild` needs the folder for itself.

| module      | duty |
|-------------|------|
| `tide`      | tells a restored catalog from the one that kept the archive |
| `relay`     | publishes the events of the catalog's outbox |
| `collector` | removes segments that nothing refers to and none will, and those that were compacted |
| `keeper`    | the role: a thread a duty, one round after the other |

The log's trimming is a duty too (`broker.kafka.janitor`). Several keepers may run: each duty is done by whoever holds
its advisory lock in PostgreSQL, which ends with the session of its holder; the others ask for it every ten seconds.
The lock saves work and decides nothing: all that two at once could do to each other is decided by a row's insert or
by an update that names what it replaces.

A restored catalog
==================

PostgreSQL may be restored to an hour ago. What was committed since is in the archive and not in the catalog: to the
collector it would look abandoned. So the keeper raises the catalog's tide once a minute and writes it, with the id of
the catalog's life, into the archive's own ``catalog/tide.json`` after the transaction. A catalog that is behind that
file or has another life was restored or made anew: collection and compaction refuse (``sansfilm_keeper_refuses``,
`sansfilm status`, `sansfilm catalog check`) until `sansfilm archive reconcile` (`archive.reconcile`) has committed
every segment that the catalog does not know, beside running workers, and begun another life. With PostgreSQL lost
altogether, `sansfilm archive rebuild` fills an empty database from the archive alone; from its first step on the
archive is that database's, and whoever keeps it with another one refuses.

Events
======

A commit writes one row a batch, study and verdict into the outbox, and one for what it quarantined. The relay locks
the oldest rows (``FOR UPDATE SKIP LOCKED``), publishes an event an instance, waits for Kafka's acknowledgements of
all in-sync replicas, and deletes the rows in the same transaction: at least once, and a repetition has the same id. A
commit also writes when its studies changed; the relay turns those that did not change for ``study_stable_after_s``
into rows of the outbox, in a short transaction of its own, because commits wait for these rows. Nothing is trimmed:
without a keeper the outbox grows (``sansfilm_outbox_rows``). docs/events.md is the contract.

Collection
==========

**A segment's fate is one row** (`archive.fate`), so that a late commit and the collector cannot both win. A commit
that meets its segment condemned commits nothing, and its worker puts the batch again under another key; a claim check
that is condemned and still there is read and put with it.

What is given up is older *in the store* than ``collect_after_s``, has no row, and the log holds no uncommitted
message of half that age. A worker's batch is given up only if the catalog has every content in it, by digest;
otherwise a commit was lost with a database, it is said (`segment_not_in_catalog`,
``sansfilm_segments_unrepresented``), and no claim check is given up either, because such a batch may name it.
``collect_after_s`` covers the time from a claim check's upload to its message's publishing: a forwarder uploads it
just before, whatever its spool waited for; half of it must suffice. Where claim checks lie in a folder that edges
write themselves, before their messages are shipped, they are left.

Order: condemned in a transaction; after ``collect_grace_s`` noted in the journal; then deleted; then marked as gone.
The row stays, for a worker that comes back after days.

Limits ====== A search lists the whole archive and compares it with the catalog, 500 keys a query: for ten million
segments that is ten thousand pages and some minutes, hence four times a day. It holds 10,000 candidates at most. A
worker that was frozen for longer than ``collect_after_s`` while the database was restored to before a condemnation
may commit what was deleted: reconcile before thawing anything.

Crash cases
===========
* between raising the tide and writing it: the catalog is ahead of the file, which is no sign of anything.
* between acknowledgement and deletion: all of the transaction's events are published again.
* after condemning: the next round deletes it when its time has come.
* after the journal entry: it is written again, which changes nothing.
* after deleting: deleted again, which changes nothing, and marked.
* what a rebuild makes of it: a condemned segment is passed by once that is in the journal. Before (an orphan whose
  worker died less than ``collect_after_s`` ago) a rebuild takes its records: the same receipts, or receipts of the
  same content.
"""
