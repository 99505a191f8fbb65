"""The command `sansfilm`: it composes the roles, and `up` supervises them.

| module        | what it holds |
|---------------|---------------|
| `main`        | the command tree, and how errors become exit codes |
| `roles`       | one role as a process: logs, signals, health, then its room's own loop |
| `folder`      | the data folder: writable, not full, and ours alone |
| `supervisor`  | starts, watches, restarts and stops child processes |
| `role_log`    | a child's output: a bounded file, and its warnings for the terminal |
| `up`          | all roles on one machine |
| `association` | one outgoing association: the C-STORE SCU |
| `files`       | what can be sent: Part-10 files, their syntax and where their data set begins |
| `sender`      | many files over several associations, and a summary of what was answered |
| `phantom`     | a synthetic head, slice by slice |
| `exam`        | the phantom as a brain MR exam |
| `demo`        | sends that exam and waits until it can be opened |
| `edges`       | the receivers of one machine and the forwarder of their spool, supervised |
| `output`      | how a command speaks: tables and JSON on standard output, the rest on standard error |
| `errors`      | how an error ends a command: one sentence and an exit code |
| `access`      | access events of what commands read |
| `replay`      | a stretch of the log again, and what differs |
| `archive_work` | what the commands of `archive` do |
| `place`       | opens the archive of a data folder for reading, and sends decisions to its worker |
| `status` `trace` `quarantine` `conflict` `archive` `catalog` `spool` `topics` `doctor` | one command or group each |
| `reference`   | writes docs/settings.md, docs/metrics.md and docs/cli.md |

Invariants
    * A command never opens the catalog for writing while a worker runs: decisions travel through the log and the
      worker executes them; `archive rebuild` and `up` hold the same lock.
    * What a command reads of studies and instances leaves an access event; a decision carries its user's name.
    * Without a catalog nothing is said of an archive that is not empty, but that it must be rebuilt.
    * Nothing heavy is imported before a command needs it: `sansfilm --help` answers in well under half a second.
    * With `--json` standard output carries JSON and nothing else; progress and warnings go to standard error.

Exit codes
    0 done · 1 something failed, as the message says · 2 wrong use, a wrong setting or a wrong state of the machine, in
    one sentence · 130 interrupted

Life cycle of `up`
    lock the folder → bind both sockets → import every role once → fork edge × N, worker, web → wait until each says it
    is ready → print the panel → watch. A child that ends is forked again from the already imported parent
    (milliseconds), first at once, then with doubling pauses. SIGTERM or SIGINT: stop edges, let the worker finish, stop
    web, all before one deadline; a second signal kills. Should the supervisor itself be killed, the kernel kills its
    children, and the next `up` goes on where they were.
"""
