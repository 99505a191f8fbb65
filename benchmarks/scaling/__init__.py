"""One load, one, two and four workers, and workers that come and go: ``python -m benchmarks.scaling --help``.

A region of real components runs on this machine. Devices offer one rate that does not saturate it, to 1, 2 and 4
workers of one lane in turn; then workers join, drain, are killed and come back under that load; then everything
acknowledged is held against the catalog.

| module   | what it holds |
|----------|---------------|
| `load`   | the devices, and who was acknowledged when |
| `pool`   | the workers of the lane: started, counted, stopped, killed |
| `legs`   | CPU of an instance at one number of workers |
| `events` | what a worker that comes or goes costs those who wait |
| `account`| what was acknowledged against what was committed; the spread over partitions |
| `report` | the figures as JSON and as tables |

Invariants
  * CPU is read from /proc between two moments while the load runs: neither start nor drain of a worker is in it.
  * An instance is counted by its worker at the moment its batch is committed, at the same two moments.
  * A wait is from the answer that the device got until the transaction that committed the instance began, both by this
    machine's clock: it lacks that transaction's own duration (some 50 ms).
"""
