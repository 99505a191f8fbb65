"""Where speed and memory are shown: `make bench`, never in `make check`.

Every figure stands beside a peer and a ceiling measured in turn in the same run; medians and spread are printed, and
host, commit, versions and parameters go with them as JSON. The smoke sizes run in the tests, so that no benchmark rots.

| module      | what it holds |
|-------------|---------------|
| `exam`      | the load: MR slices of 0.5 MB with a fixed seed |
| `processes` | a receiver as a process tree: its CPU, peak memory and bytes written |
| `receivers` | sansfilm and its peers, each started on loopback with its settings printed |
| `ingest`    | the runs: durable acknowledgement, and sent → found by QIDO |
| `stages`    | what each stage costs an instance, alone |
| `flames`    | flame graphs of edge and worker under load |
| `kafka`     | the log on Kafka beside the local one: rates, and CPU of client and broker |
| `scaling`   | one load to 1, 2 and 4 workers of a region; what workers that come and go cost; the account |
| `small_objects` | 1,635 small files through a region to S3 and to a folder: time and PUTs |
| `replay_mri`| a week of a region replayed at a scale and speed-up: rate, lag, latencies by lane, urgent under load |
| `ceilings`  | what the machine itself can do: disk with sync, loopback, memory |
| `floor_peer`, `pynetdicom_peer` | two of the receivers: the least a durable one costs, and pynetdicom's own |
"""
