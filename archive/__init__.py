"""The archive: segments, journal and catalog; the only code that touches stored bytes.

Segments hold everything, the journal holds what segments cannot say, the catalog is what makes them findable. The
catalog's transaction is the only commit point: an instance is archived when, and only when, that transaction has ended.

    archive_dir/segments/<tenant>/yyyy/mm/dd/<uuid7>.tar     one batch of one tenant, or one large instance
    archive_dir/segments/journal/<uuid7>.tar                 one verdict or decision
    archive_dir/README.txt, restore.py                       for whoever has only these files
    catalog.sqlite -> catalog-<uuid7>.sqlite                 beside the archive; made again by `rebuild`
    or a PostgreSQL database                                 the same tables, for workers on many machines

In an object store ``s3://bucket/prefix/`` takes the place of ``archive_dir/``; keys and bytes are the same.

| module                                              | what it holds |
|-----------------------------------------------------|---------------|
| `segment_store` `catalog`                           | the two seams |
| `layout` `framing`                                  | where things lie; a batch as the bytes of its segment |
| `local_store` `descriptors`                         | segments in a folder |
| `s3_store` `s3_objects` `s3_access` `s3_errors`     | segments in an object store |
| `s3_claim_check` `s3_multipart` `s3_requests`       | claim checks, and spooled segments, into an object store |
| `sql_catalog` `insertion` `studies` `tally` `decided` | the writing end: verdicts, rows, studies, counts, decisions |
| `sql_reader` `search` `folding`                     | the reading end: every query there is |
| `schema` `migrations` `revisions`                   | tables; how they change; which ones this program works with |
| `database` `postgres` `wording` `errors`            | opening SQLite, PostgreSQL; what they word differently; faults |
| `incarnation`                                       | which life of the catalog this is, for whoever removes bytes |
| `journal` `decisions`                               | entries; executing an operator's decision |
| `original` `compare`                                | the data set exactly as received; equal element by element |
| `filing`                                            | what is written about an instance: record, name, provenance |
| `verify` `rebuild` `reindexing` `findings`          | reading everything again; the catalog from the archive alone |
| `restore_script` `readme.txt`                       | what is written into the archive's root |

Invariants
  * A segment is immutable and appears whole. The ids of a process only grow, whatever its clock does: sorted, those of
    one process say the order of its puts, and where only one puts, the order of all.
  * One row of `sop` per tenant and SOP Instance UID. Who inserts it is New; everyone else is Same or Conflict.
  * A version is never changed or removed. Which one is current is `instance.current_number`.
  * A conflict is in the journal before its transaction ends, a decision before it is executed. So segments and journal,
    replayed in order, give the same current versions.
  * Counts change in the transaction that changes what they count. No statement of a commit counts rows.
  * Readers see whole batches, cannot write, and follow a rebuild by themselves.

Limits. Memory of a put: references to its members and one index. Of a commit: the records of its batch. Of a read: what
is asked for, `stream` 1 MiB. Of verify, originals and comparisons: the largest instance, a few times. Open descriptors:
`local_store.DESCRIPTORS_MAX`; reading connections: `database.READER_CONNECTIONS_MAX`,
`postgres.READER_CONNECTIONS_MAX`; outbox rows: `outbox.OUTBOX_ROWS_MAX` (embedded; in a region the keeper publishes
them). Waits for PostgreSQL: `postgres.Bounds`. From an object store: `stream` 8 MiB, a claim check into it three parts
of 8 MiB.

Life of an instance. put: written as ``.part``, synced, renamed, folder synced; or one create-only PUT, verified.
commit: BEGIN IMMEDIATE; what is there; parents; `sop` and `instance` of unknown UIDs; verdicts in the order of the
batch; versions, counts, events; COMMIT with ``synchronous=FULL``. decision: journal, then one transaction.

Several writers (PostgreSQL). One transaction a batch, READ COMMITTED, in which everything waits in one order:

    1 decisions by id (advisory)    4 studies, 5 series by parent and UID     8 segments by key
    2 tenants by name               6 `sop` by tenant and UID                 9 series, 10 studies by id: their counts
    3 people new to the archive     7 instances by id (row locks), then      11 counters by tenant and name
      by identifier (advisory)        quarantine entries by id

  Rows of one kind go in one statement, sorted, so no two transactions wait for each other. An insert that leaves out
  what is there waits for whoever is inserting it; the next statement sees their row, whole. A row that another one won
  is read again and judged in this transaction. An instance that gets a further version, or another current one, is
  locked and its versions are read again first; one that holds all the content of the batch is not, for versions never
  go away. So two workers that commit the same messages, one of them frozen for an hour, leave what one would leave. A
  session that idles in a transaction is ended by the server, and what it held is free. A deadlock would be Retryable
  all the same. Other tables are written without waiting: versions and events are new rows, the oldest events are left
  to whoever removes them.

Crash cases
  * before the rename: a ``.part`` that the next put sweeps. The log gives the batch again.
  * a PUT without an answer: the object is there or not. The same batch is put again under the same key, and what is
    found there is compared. If the process ends first, the segment lies there unreferred, as after the next case.
  * between put and commit: a whole segment that no transaction knows. The next start commits it (`archive.unfinished`);
    when the log gives the batch again, everything in it is Same.
  * between the journal and the end of the transaction: the entry is written again when the batch comes again.
  * after the commit, before the log's positions: the batch comes again and everything in it is Same.
  * while a catalog is made or rebuilt: a generation that no link leads to; the next start removes it.
"""
