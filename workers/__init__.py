"""The pool: from messages of the log to committed instances.

`pipeline` reads as steps 4-9 of docs/ARCHITECTURE.md and does nothing else; the other modules are its parts.

| module       | what it does |
|--------------|--------------|
| `pipeline`   | take, prepare, put, commit, commit positions; the next batch is prepared while this one commits |
| `batches`    | gathers messages of one lane into batches bounded by count, bytes and time |
| `preparation`| judges one message: parse, hint, transcode with proof; gives a member or nothing to do |
| `claims`     | reads what the edge wrote as a claim check, in bounded memory |
| `attempts`   | counts deaths, and isolates the message that kills its worker |
| `worker`     | composes the role: one lane, one thread; one committer for all of them |

Invariants
    * A position is committed to the log only after the catalog committed every instance before it.
    * Nothing here decides New, Same or Conflict: the catalog's transaction does. The hint only saves work: a version
      found there is already committed, and committed versions never vanish.
    * A bad message fails alone. Whatever the parser or the codec raises becomes a quarantine entry with a reason.
    * What was damaged since its receipt is never committed: the log verifies messages, `preparation` claim checks.
    * A passing fault (database busy, disk full, store away) repeats the step that failed, with growing pauses; a
      segment that was put is not put again. The log is the buffer.
    * On a disk that is nearly full a claim check is filed where it lies (`no_room`) instead of being written a second
      time: what the edge keeps back is for the log's instances, so everything acknowledged can still be committed.

Limits
    Memory of a lane: two batches of `batch_max_bytes` (one in commit, one in preparation), their encoded forms, and one
    claim check of at most `transcode_max_bytes`; larger claim checks are mapped from a temporary file.

Crash cases
    * before put: nothing is visible; the log delivers again.
    * between put and commit: a segment that no catalog row refers to; the log delivers again; the second copy is used.
    * between commit and the positions: the log delivers again, the verdicts are Same.
    * always at the same message: after two unclean resumptions at one message the worker goes message by message and
      makes each attempt durable first; three deaths alone in flight quarantine it (`kills_worker`).
"""
