"""The log between receivers and workers: one Protocol (`broker.log`), here on local files, later on Kafka.

The local log (`broker.local`)
==============================

**Layout.** One folder a lane; in it one stream of files a writer, that is, a start of a process. A file is a segment
(`segments`), so ``tar`` lists it; a member is a message: the Part-10 file as body, the message attributes as
provenance. Each start opens new files and never appends to an old one. See `broker.local.layout`.

**Life of a message.** A sender's thread prepares it and puts it into the lane's bounded queue. The lane's writer thread
takes everything that waits, and with no linger: one gathered write, one ``fdatasync``, the durable mark, then the
senders' futures. While it syncs, the next group gathers. Values are referenced until the future is done, never kept.
With `senders_write`, as in the edge, a sender that finds nobody writing does all that itself, for its own message: two
switches of threads less, a fifth of the time of a lone association. What comes meanwhile is the lane's thread's. Such a
sender hangs when the disk hangs; the edge's accepting thread answers 0xA700 in its stead (`ingest.edge`).

**Past the page cache.** What is synced at once gains nothing from the page cache and may pay dearly for it: memory has
to be found and filled first (0.1 ms for 0.5 MB, or ten times that where memory is short or a hypervisor takes it back).
So appends go to the device directly (`segments.aligned`), where the file system can; a consumer then reads from the
disk, not from memory. A member takes whole blocks of 4096 bytes (its header is made that much longer): no append writes
into a sector that holds acknowledged bytes, whatever a power cut does to that sector. Durable is what was synced, as
ever: a direct write may still lie in the disk's own cache.

**Life of a file.** Created as ``.part``, locked (flock), renamed to ``.tar`` beside its ``.mark``, folder synced; then
appended to; at ``file_max_bytes``, or when its process stops, sealed and marked finished; deleted when every group has
committed it to its end and its positions are durable.

**Who may read what.** Consumers read up to the mark, which the writer overwrites in place after each sync. The writer
holds the file's lock as long as it lives. A lock that is free and a mark that does not say *finished* mean that the
writer died: then everything in the file that verifies is delivered, behind the mark too (it may never have been
acknowledged; delivering it is harmless, losing it might not be). The mark itself is not synced: it only ever lags.

**Positions.** ``positions-<group>`` holds for each file the next offset. It is overwritten in place, one half after the
other, and needs no new space: a full disk does not stop what empties it. A file's entry stays until the file's deletion
is durable, so that a deletion undone by a power cut delivers nothing again.

**Limits.** A queue holds ``queue_max_bytes`` of values a lane (one larger message passes alone); beyond, `publish`
blocks. Memory of a writer: that much twice, the group being written and the one gathering, and
`segments.aligned.ALIGNED_BYTES` a lane. A file exceeds ``file_max_bytes`` by one group at most. A consumer holds
``max_bytes`` or one message. A quiet lane is looked at every 25 ms.

**What goes wrong, and then**

* process killed, any time: its locks are free; consumers finish its files by recovery; a torn tail is kept as
  ``.torn``.
* power cut: the same; what was acknowledged had been synced, and so had the folder's entry.
* disk full while appending: the group's futures raise OutOfSpace; the file is cut back to its mark, finished and
  closed; the next message tries a new file.
* a sync fails: the same with Retryable. The file is never synced again: the kernel has dropped the pages.
* the disk hangs: futures are not done, and with `senders_write` one `publish` a lane does not return; nothing is lost.
* the mark cannot be written: success is still told (it is durable); the file is closed, and consumers recover it.
* a member rotted: set aside as ``.torn`` with an alarm (event ``segment_torn``, metric ``sansfilm_log_torn_total``);
  what follows is delivered.
* a piece cannot be set aside: alarm; reading goes on, and the file is not deleted while this consumer lives.
* consumer killed between taking and committing: taken again. Delivery is at least once.
* consumer killed between commit and deletion: the next one finds the file done and deletes it.
* disk full while consuming: positions are still saved, and files done are deleted; a torn piece waits for space.
* positions unreadable: everything still in the log is delivered again.
* two consumers of one group: the second is refused. A group is retired by removing its positions file.
"""
