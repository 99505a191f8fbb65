"""The role **keeper** of a region: what is done behind the catalog's back, in a catalog on PostgreSQL.

An embedded archive has no keeper: its one worker removes claim checks itself, nobody reads its events, and `archive
rebuild` needs the folder for itself.

| module      | duty |
|-------------|------|
| `tide`      | tells a restored catalog from the one that kept the archive |
| `relay`     | publishes the events of the catalog's outbox |
| `compactor` | merges small segments into large ones in which studies lie together |
| `collector` | removes segments that nothing refers to and none will, and those that were compacted |
| `keeper`    | the role: a thread a duty, one round after the other |

The log's trimming is a duty too (`broker.kafka.janitor`). Several keepers may run: each duty is done by whoever holds
its advisory lock in PostgreSQL, which ends with the session of its holder; the others ask for it every ten seconds.
The lock saves work and decides nothing: all that two at once could do to each other is decided by a row's insert or by
an update that names what it replaces.

**A restored catalog.** PostgreSQL may be restored to an hour ago. What was committed since is in the archive and not
in the catalog: to the collector it would look abandoned. So the keeper raises the catalog's tide once a minute and
writes it, with the id of the catalog's life, into the archive's own ``catalog/tide.json`` after the transaction. A
catalog that is behind that file, or has another life, was restored or made anew: collection and compaction refuse
(``sansfilm_keeper_refuses``, `sansfilm status`, `sansfilm catalog check`) until `sansfilm archive reconcile`
(`archive.reconcile`) has committed every segment that the catalog does not know, beside running workers, and begun
another life. With PostgreSQL lost altogether, `sansfilm archive rebuild` fills an empty database from the archive
alone; from its first step on the archive is that database's, and whoever keeps it with another one refuses.

**Events.** A commit writes one row a batch, study and verdict into the outbox, and one for what it quarantined. The
relay locks the oldest rows (``FOR UPDATE SKIP LOCKED``), publishes an event an instance, waits until all in-sync
replicas have them, and deletes the rows in the same transaction: at least once, and a repetition has the same id. A
commit also writes when its studies changed; the relay turns those that did not change for ``study_stable_after_s``
into rows of the outbox, in a short transaction of its own, because commits wait for these rows. Nothing is trimmed:
without a keeper the outbox grows (``sansfilm_outbox_rows``). docs/events.md is the contract.

**Collection.** A segment's fate is one row (`archive.fate`), so that a late commit and the collector cannot both win.
A commit that meets its segment condemned commits nothing, and its worker puts the batch again under another key; a
claim check that is condemned and still there is read and put with it. What is given up is older *in the store* than
``collect_after_s``, has no row, and the log holds no uncommitted message of half that age. A worker's batch is given
up only if the catalog has every content in it, by digest; otherwise a commit was lost with a database, it is said
(`segment_not_in_catalog`, ``sansfilm_segments_unrepresented``), and no claim check is given up either, because such a
batch may name it. ``collect_after_s`` covers the time from a claim check's upload to its message's publishing: a
forwarder uploads it just before, whatever its spool waited for; half of it must suffice. Where claim checks lie in a
folder that edges write themselves, before their messages are shipped, they are left. Order: condemned in a
transaction; after ``collect_grace_s`` noted in the journal; then deleted; then marked as gone. The row stays, for a
worker that comes back after days.

**Compaction.** Live segments below ``compact_below_bytes`` and older than ``compact_after_s``, once a tenant has
enough of them for a segment of ``compact_target_bytes`` or one has waited for ``compact_wait_s``, are merged: what
the catalog refers to, and nothing else, is copied member by member, each verified by its CRC32C, studies together and
each study in the order of its commits. Claim checks stay where they lie; the index lines that name them are carried
along. Each record is given the id of the segment it was committed in (`PlacedRecord.origin`). Order: the new segments
are put; the journal says what they replace; one transaction moves the rows that still point to the old places, all or
none; then the old segments are `replaced` and go after ``replaced_keep_s``. What was written is settled: nothing is
moved twice. Readers that had looked up an old place look once more when it is gone (`dicomweb.reading`). Journal
entries are not merged.

What a rebuild makes of all this (`archive.replay`):

* an orphan that was not collected yet: its records count. They are the receipts that were committed from another
  segment, or receipts of the same content by other messages; a worker that died less than ``collect_after_s`` ago may
  so let another receipt of the same content stand than the lost catalog did.
* a condemned segment, there or gone: passed by, once the journal has it; before, it is such an orphan.
* a claim check that no index names: nothing.
* compacted segments: if all of an entry are there, records are taken from them, each in the place of its origin, and
  the replaced ones are passed by, there or gone; else the entry says nothing.

Limits

* A search for what can be collected lists the whole archive and compares it with the catalog, 500 keys a query: for
  ten million segments that is ten thousand pages and some minutes, hence four times a day. It holds 10,000
  candidates.
* A compaction merges 256 segments and 10,000 members at most, with their records (3 kB each) and one compacted
  segment in memory.
* A rebuild and a reconciliation hold the journal in memory, about 1 kB an entry, and the ids of compacted segments.
* A worker that was frozen for longer than ``collect_after_s`` while the database was restored to before a
  condemnation may commit what was deleted: reconcile before thawing anything. Reconcile finds it
  (`condemned_and_committed`).
* The order of a conflict's note and a decision about the same instance is that of the ids of two processes: their
  clocks must agree to the seconds that an operator takes.

Crash cases

* between raising the tide and writing it: the catalog is ahead of the file, which is no sign of anything.
* between Kafka's acknowledgement and the deletion of the rows: all of the transaction's events are published again.
* after condemning: the next round deletes it when its time has come.
* after noting what is deleted: it is noted again, which changes nothing.
* after deleting: deleted again, which changes nothing, and marked.
* after putting compacted segments, or noting them: nothing refers to them, and the next round writes others; they hold
  nothing that the catalog lacks and are collected.
* a reconciliation or compaction cut short: run again; each transaction is whole.
"""
