"""The readers: QIDO-RS, WADO-RS, the study list and the viewer, on one HTTP port (PS3.18).

Every read goes through `Reading`: it takes a scope (principal, tenant), asks the catalog which instances are visible
and where their bytes lie, and reads those bytes by range. Nothing here writes, and nothing here opens a segment.

| module                                | what it holds |
|---------------------------------------|---------------|
| `app`, `serve`                        | every address in one table; granian in this process, on a given socket |
| `access`                              | around every answer: access event, metrics, security headers, limits |
| `reading`                             | what every reader works with; threads, and reading once more what moved |
| `qido`, `qido_parameters`, `attributes` | searching |
| `wado`, `frames`, `native`            | instances, frames, bulk data, in the transfer syntax asked for |
| `metadata`, `heads`                   | heads in the DICOM JSON Model, and a bounded memory of them |
| `waiting`                             | large answers in memory until they are read, within a budget |
| `accept`, `multipart`, `forms`, `problems` | what HTTP needs: media types, multipart/related, bodies, refusals |
| `pages`, `viewer`, `status`           | the study list, OHIF, health and metrics |
| `machine`                             | gauges of the machine as a whole, true while other roles are down |

Invariants:

* What a path names is found through the catalog or answered with 404; a UID that could not be a key is never tried.
* A patient attribute leaves in bodies only: never in a log line, a metric, an address or a sentence of refusal. Our
  pages and the viewer search by POST (``/search`` below the DICOMweb root); the standard's GET is there for others.
* The transfer syntax of an answer is decided before its first byte (`wado.choose`, `frames.choose_frame`). An instance
  of several that proves undecodable later is given as it is stored, under its own syntax: it must not go missing.
* An answer that fails after it began is broken off, so that no client takes it for complete.

Limits: `http_connections_max` connections, each closed after `http_idle_timeout_s` without a request, or with a form
that has not come whole by then, and broken off when a piece of its answer is not read within `http_send_timeout_s`;
pieces are of 256 KiB, about two are under way for each answer. A decoded instance is whole in memory, at most a quarter
of `decode_memory_max_bytes`, while it is decoded (`decode_processes` + 1 at a time) and until it is read
(`answer_memory_max_bytes` of all of them). Heads are remembered in 64 MiB; a study's records are listed as a whole,
3 kB each; blocking work runs in 32 threads.

Life cycle: a socket is bound by the supervisor, `run_web` opens catalog and store read-only, serves until told to stop,
finishes the answers under way under one deadline, breaks off the rest and closes. A crash loses nothing: this role
holds no state.
"""
