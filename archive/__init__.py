"""The archive: segments, journal and catalog; the only code that touches stored bytes.

Segments hold everything, the journal holds what segments cannot say, the catalog is what makes them findable. The
catalog's transaction is the only commit point: an instance is archived when, and only when, that transaction has ended.

    archive_dir/segments/<tenant>/yyyy/mm/dd/<uuid7>.tar     one batch of one tenant, or one large instance
    archive_dir/segments/journal/<uuid7>.tar                 one verdict or decision
    archive_dir/README.txt, restore.py                       for whoever has only these files
    catalog.sqlite -> catalog-<uuid7>.sqlite                 beside the archive; made again by `rebuild`

| module                                              | what it holds |
|-----------------------------------------------------|---------------|
| `segment_store` `catalog`                           | the two seams |
| `local_store` `descriptors` `layout`                | segments in a folder |
| `sql_catalog` `insertion` `studies` `tally` `decided` | the writing end: verdicts, rows, studies, counts, decisions |
| `sql_reader` `search` `folding`                     | the reading end: every query there is |
| `schema` `database`                                 | tables; opening, transactions, what databases word differently |
| `journal` `decisions`                               | entries; executing an operator's decision |
| `original` `compare`                                | the data set exactly as received; equal element by element |
| `filing`                                            | what is written about an instance: record, name, provenance |
| `verify` `rebuild` `reindexing` `findings`          | reading everything again; the catalog from the archive alone |
| `restore_script` `readme.txt`                       | what is written into the archive's root |

Invariants
  * A segment is immutable and appears whole. Ids only grow, whatever the clock does: sorted they say the order
  * One row of `sop` per tenant and SOP Instance UID. Who inserts it is New; everyone else is Same or Conflict.
  * A version is never changed or removed. Which one is current is `instance.current_number`.
  * A conflict is in the journal before its transaction ends, a decision before it is executed. So segments and journal,
    replayed in order, give the same current versions.
  * Counts change in the transaction that changes what they count. No statement of a commit counts rows.
  * Readers see whole batches, cannot write, and follow a rebuild by themselves.

Limits. Memory of a put: references to its members and one index. Of a commit: the records of its batch. Of a read: what
is asked for, `stream` 1 MiB. Of verify, originals and comparisons: the largest instance, a few times. Open descriptors:
`local_store.DESCRIPTORS_MAX`; reading connections: `database.READER_CONNECTIONS_MAX`; outbox rows:
`sql_catalog.OUTBOX_ROWS_MAX`.

Life of an instance. put: written as ``.part``, synced, renamed, folder synced. commit: BEGIN IMMEDIATE; what is there;
parents; `sop` and `instance` of unknown UIDs; verdicts in the order of the batch; versions, counts, events; COMMIT with
``synchronous=FULL``. decision: journal, then one transaction.

Crash cases
  * before the rename: a ``.part`` that the next put sweeps. The log gives the batch again.
  * between put and commit: a whole segment that no transaction knows. The next start commits it (`archive.unfinished`);
    when the log gives the batch again, everything in it is Same.
  * between the journal and the end of the transaction: the entry is written again when the batch comes again.
  * after the commit, before the log's positions: the batch comes again and everything in it is Same.
  * while a catalog is made or rebuilt: a generation that no link leads to; the next start removes it.
"""
