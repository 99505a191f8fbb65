"""Many small files through the whole pipeline, to S3 and to a folder: ``python -m benchmarks.small_objects --help``.

| module      | what it holds |
|-------------|---------------|
| `study_set` | 1,635 slices of 356 MB, of sizes as they occur |
| `systems`   | a region on S3, the same region on a folder, and `sansfilm up` |
| `runs`      | one sending: until all is acknowledged, until all is found; PUTs and segments |
| `report`    | the figures as JSON and as tables |

Invariants
  * The two regions differ in the setting of the store alone: the same brokers, database, edge, worker, keeper and web.
  * PUTs are those that the S3 server counted; segments and journal entries are listed in the archive itself.
"""
