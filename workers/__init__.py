"""The pool: from messages of the log to committed instances.

`pipeline` reads as steps 4-9 of docs/ARCHITECTURE.md and does nothing else; `lanes` is the loop that takes a batch
through them; the other modules are their parts.

| module       | what it does |
|--------------|--------------|
| `worker`     | composes the role: one lane, one thread; one committer for all of them |
| `rooms`      | one archive, opened for filing |
| `lanes`      | the loop of a lane: the next batch is prepared while this one commits; repeats through passing faults |
| `batches`    | gathers messages of one lane into batches bounded by count, bytes and time |
| `pipeline`   | the steps of a batch: prepare, put, commit, commit positions |
| `judging`    | judges a message with what the worker has at hand: claims, the room left, the catalog |
| `preparation`| judges bytes: parse, hint, transcode with proof; gives a member or nothing to do |
| `decisions`  | operators' decisions: considered with their batch, executed after its instances |
| `claims`     | reads what the edge wrote as a claim check, in bounded memory |
| `committing` | the one thread that puts and commits for all lanes |
| `healing`    | versions whose segment was lost, and whose bytes came again |
| `attempts`   | counts deaths, and says which message to isolate |
| `isolation`  | lets the isolated message be alone in flight in the whole process |
| `receipts`   | which committed version a message brought |
| `replay`     | no part of the role: a stretch of the log into the live archive once more |
| `shadow`     | the same into an archive of its own, compared with the live one |
| `patience`   | how these two go through passing faults, and end |

Invariants
    * A position is committed to the log only after the catalog committed every instance before it.
    * Nothing here decides New, Same or Conflict: the catalog's transaction does. The hint only saves work: a version
      found there is already committed, and committed versions never vanish. Their bytes may: where the segment of a
      hint is not there, the instance is put again and its version moves there.
    * A bad message fails alone. Whatever the parser or the codec raises becomes a quarantine entry with a reason; so
      does a decision that cannot be read, and a claim check that is not there (`claim_lost`: its entry says where it
      lay; brought back, it is filed by a replay) unless its message was committed before.
    * What was damaged since its receipt is never committed: the log verifies messages, `preparation` claim checks.
    * A passing fault (database busy, disk full, store away) repeats the step that failed, whichever of them it is, with
      growing pauses; a segment that was put is not put again. The log is the buffer.
    * What stops the process and is no message's doing (the product's own errors, the system's) is no death: whoever
      was in flight is not blamed. A kill is one, so are a lack of memory and an error that nobody thought of.
    * Whoever is blamed was alone: while one lane isolates, the others wait for its one message.
    * On a disk that is nearly full a claim check is filed where it lies (`no_room`) instead of being written a second
      time: what the edge keeps back is for the log's instances, so everything acknowledged can still be committed.

Limits
    Memory of a lane: two batches of `batch_max_bytes` (one in commit, one gathering or in preparation), a message more
    that did not fit, and their encoded forms; beside them, for each of its `worker_threads`, one claim check of at most
    `transcode_max_bytes`. Larger ones are mapped from their segment, or from an object store through a file without a
    name in `run_dir`.

Crash cases
    * before put: nothing is visible; the log delivers again.
    * between put and commit: a segment that no catalog row refers to; the log delivers again; the second copy is used.
    * between commit and the positions: the log delivers again, the verdicts are Same.
    * after the positions were lost: the log gives everything again that it still has; a claim check that was rewritten
      and removed is known by its message, or by its digest, to be committed.
    * always at the same message: after two unclean resumptions at one message the worker goes message by message and
      makes each attempt durable first; three deaths alone in flight quarantine it (`kills_worker`) without a look into
      it; a decision is then not executed.
"""
