"""The log between receivers and workers: one Protocol (`broker.log`), on local files and on Apache Kafka.

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
blocks, for ``queue_timeout_s`` at most. Memory of a writer: that much twice, the group being written and the one
gathering, and `segments.aligned.ALIGNED_BYTES` a lane. A file exceeds ``file_max_bytes`` by one group at most. A
consumer holds ``max_bytes`` or one message. A quiet lane is looked at every 25 ms.

**What goes wrong, and then**

* process killed, any time: its locks are free; consumers finish its files by recovery; a torn tail is kept as
  ``.torn``.
* power cut: the same; what was acknowledged had been synced, and so had the folder's entry.
* disk full while appending: the group's futures raise OutOfSpace; the file is cut back to its mark, finished and
  closed; the next message tries a new file.
* a bug, or no memory, while a group is written: its futures raise Retryable; the next messages have another file.
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

The log on Kafka (`broker.kafka`)
=================================

**Layout.** One topic a lane, ``<prefix>.<lane>``; one group of workers a lane, ``<prefix>-workers-<lane>``; one topic
for all of them, ``<prefix>.torn``, in which damaged messages are set aside. A stream is a partition; the key is tenant
and study, so a study's messages keep their order as long as the number of partitions stays. A message is a CloudEvent
in the binary mode (`broker.kafka.binding`): the value *is* the Part-10 file, so ``kcat`` saves a ``.dcm``.
``sansfilm topics apply`` makes the topics; nothing in them expires by age or size.

**What acknowledged means.** All in-sync replicas have the message: with three replicas, two at least. Kafka does not
sync to disk before it acknowledges, so the simultaneous power loss of all replicas may lose what the local log would
not.

**Life of a message.** `publish` hands it to the client, which copies it, joins what waits for one partition into a
batch (2 ms) and sends it; one thread serves the delivery reports and resolves the futures. The client numbers batches,
so that its own repetitions are stored once and in order. A consumer's client fetches ahead in its own threads, also
while its owner works. `delete_committed` (`broker.kafka.janitor`) deletes what is committed and older than 72 hours.

**Who may connect.** `broker.kafka.security` makes of the settings what every client is told: TLS, a user with a
password or a client certificate; brokers on other machines are reached with both only. The client repeats a refused
connection for ever; `broker.kafka.access` asks once at each start, so that a role with wrong credentials ends within
seconds and says which. Refused later, it goes on trying and logs ``kafka_refused``: another broker may take it. So does
the forwarder of a spool from its start on. Refusals are wrong credentials, a certificate that is not trusted, an alert
of TLS, an answer that is no TLS. A connection that merely ends is none: a load balancer whose brokers are away accepts,
and closes.

**Who may read what.** The group's members share a lane's partitions by the group protocol of Kafka 4 (KIP-848). Nothing
is read that is not acknowledged. A partition that is taken away is told first (`broker.log.Consumer.on_revoke`): its
owner finishes and commits, or drops it. A member that answers nobody (killed, frozen, cut off) loses its partitions
after the group's session timeout, 45 s unless the brokers say otherwise; one whose process answers but that does not
`take` for ``kafka_poll_interval_max_s`` (300 s) loses them within another session timeout. So a batch, its repetitions
included, may keep its owner busy that long; and a partition that is to be handed over waits for its owner's next
`take` or `commit`, at most that long. A member that lost a partition may still be writing: the catalog, not the group,
is the fence.

A stretch that is replayed (`broker.kafka.stretch`) is read by nobody's group: partitions are assigned, no offset is
committed, and nothing is read that the workers have not committed.

**Positions.** The group's committed offsets, kept by Kafka. `commit` waits for the coordinator. A missing or
out-of-range offset is never guessed (``auto.offset.reset=error``): the process stops and says what to run. One case is
safe and goes on: a partition without an offset that was never deleted from, as one that was just added, begins at 0.

**Limits.** ``inline_max_bytes`` decides: batches, topics and fetches hold such a message and 1 MiB beside it
(`broker.kafka.configuration`). A publisher holds 256 MiB, beyond which `publish` blocks; a consumer reads 64 MiB ahead,
and one fetch more. An unacknowledged message fails after 20 s, before the edge gives up at ``ack_timeout_s`` (25 s). A
commit waits 10 s, a close 10 s. `lag` and `uncommitted_bytes` ask nobody: the first is what the last fetches said of
this member's partitions, the second an estimate by the mean size of what was read.

**What goes wrong, and then**

* publishing process killed: what was not acknowledged is lost or not; nobody was told success.
* broker killed or restarted: the client sends again within the 20 s; then the future raises Retryable, and the message
  may still turn up. Consumers wait; an owner's commit raises Retryable until the coordinator is back.
* broker frozen: the same. The client's own synchronous commit and close would wait for ever, so neither is used alone:
  `commit` waits for the answer with a deadline, and `close` leaves a thread behind rather than its caller.
* a message over the topic's limit: Rejected (too large), an alarm that `topics check` explains; others pass.
* a message rotted, or is none of ours (CRC32C over value and attributes): copied to ``<prefix>.torn`` as it is, with an
  alarm (event ``message_torn``, metric ``sansfilm_log_torn_total``), and only then passed. While it cannot be copied,
  `take` gives what lies before it and then raises Retryable.
* a batch that Kafka's own client cannot parse: Fatal, because the client would skip it; a sound replica must lead.
* consumer killed between taking and committing: taken again, by whoever gets the partition. Delivery is at least once.
* partition lost while its owner worked: `commit` of it is ignored; another member does the same messages again.
* offset commits answered late and out of order: the group may fall back a little; what was done comes again.
* topic recreated, or messages deleted before they were committed: Fatal; `topics check` says which are gone.
* workers run while partitions are added: they begin at 0 of the new ones within seconds. Studies under way may then lie
  in two partitions; the catalog does not care.
"""
