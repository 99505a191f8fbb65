"""The edge: C-STORE and STOW-RS, from a sender's first byte to the Success that may be believed.

Invariants
    * Success is sent after the publisher's future is done, and never otherwise (promise 1).
    * The bytes kept are the bytes sent. The data set is never decoded; a Part-10 header of ours is put in front of it.
    * Memory is bounded before a peer is believed: a claimed length is compared with a limit first, and nothing is
      ever allocated by it. What arrives goes into memory that was sized by the settings.
    * A refused or interrupted instance leaves nothing, neither in the log nor in the archive.
    * Nothing of a data set is logged but the reason of a refusal; AE titles are logged without control characters.

The way of an instance (`arrival.Arrival`, the same for both routes)
    announced (command set, or group 2 of a posted file)
    -> disk rule (`admission.DiskRule`)
    -> bytes into one reusable buffer; the Part-10 header goes into room kept free before them, so that file and message
       are one piece of memory that was written once
    -> the head: SOP Class, SOP Instance and Study Instance UID, compared with what was announced
    -> up to ``inline_max_bytes`` as a file: CRC32C, message, log
       above: buffer by buffer into a one-member segment of the archive (`large.LargeInstance`), synced under its final
       key, then a message that names it
    -> the future -> C-STORE-RSP, or a line of the Store Instances response.
    A refusal on the way does not interrupt the sender: the rest is taken, forgotten, and answered with the status of
    `schemas.reasons.RejectReason`. Only the object limit ends an association (0xA700, then A-ABORT).

Memory per association, at most
    inline_max_bytes               the instance buffer, made with the first C-STORE, given back by the system's pages
    + 64 KiB                       read-ahead (`dimse.wire.READ_AHEAD_BYTES`)
    + 16 KiB                       a command set (`dimse.command.COMMAND_SIZE_MAX`)
    + 256 KiB, while negotiating   the A-ASSOCIATE-RQ, as far as it has arrived
    + one thread's stack, and the kernel's socket buffers.
    An acknowledgement that timed out leaves its buffer to the log; the log's own queue bounds those.
    Per STOW-RS request: 4 x inline_max_bytes, 64 KiB of head, 0.5 MiB of body being parsed.

Places (`admission.Seats`)
    associations_max associations, associations_per_caller_max from one address; over them A-ASSOCIATE-RJ (transient,
    local limit exceeded). Connections without an association, be it not yet or no longer, have places of their own, as
    many again; one more closes the oldest of them. Four further places are for associations that propose nothing but
    Verification, the oldest giving way: a C-ECHO is answered however many strangers sit there.

Time: artim_timeout_s for the whole A-ASSOCIATE-RQ and for a peer to close after our last word; idle_timeout_s for any
    silence later, and for each 64 KiB of a message (256 KiB of a STOW body), however they trickle; ack_timeout_s for
    the log (half a second more where an association's own thread hangs in the disk: then the accepting thread answers);
    shutdown_timeout_s for draining.

Life cycle
    bind (once, by the supervisor) -> run_edge in each process on the inherited socket -> ready -> accept -> stop: no
    more accepting; associations between two messages are aborted, an instance being received is finished and answered
    first -> at the deadline what is left is cut -> the log is synced and closed.

Crash cases (fault points in brackets)
    [edge.associated]     the sender loses the association and sends again.
    [edge.received]       nothing was acknowledged; at worst a message turns up that nobody was told of: harmless.
    between segment and message of a claim check: a segment that no message names, never visible; ``.part`` files are
                          swept when the archive is opened.
    [edge.acknowledged]   durable before: that was promise 1.
    [forwarder.*]         what was shipped and not freed is shipped again; the archive answers Same.

| module                  | what it holds |
|-------------------------|---------------|
| `edge`                  | binding, accepting, draining: the process |
| `admission`             | disk rule, places |
| `arrival`               | one instance being received |
| `intake`                | identity, publication, acknowledgement |
| `lanes`                 | which lane a study waits in |
| `lane_store`            | the same for all processes of one data folder, over restarts |
| `large`                 | claim checks |
| `forwarder`             | from an edge's spool to the log of the region |
| `dimse.acceptance`      | which presentation contexts, in which transfer syntax |
| `dimse.association_pdu` | association PDUs |
| `dimse.command`         | command sets |
| `dimse.wire`            | the socket |
| `dimse.association`     | one association on its thread |
| `stow`, `stow_parts`, `stow_answer`, `multipart` | STOW-RS: HTTP, parts, response, body |
"""
