"""A week of a region, replayed: ``python -m benchmarks.replay_mri --help``.

A profile says what a region sends in a week; a schedule makes exams of it, always the same ones for the same seed;
devices send them over real associations, each as its scanner would, paced by the clock or as fast as they are answered;
probes ask the readers when what was acknowledged can be read. The report holds what came out against the profile.

| module     | what it holds |
|------------|---------------|
| `profile`  | what a region sends in a week: the stress and the department profile, the curve of the week |
| `schedule` | the exams of that week: device, start, instances, bytes, lane; always the same for one seed |
| `devices`  | who sends which exams, and how fast |
| `content`  | the data sets: made once an exam, stamped for each instance |
| `sender`   | processes that send devices' exams |
| `tally`    | the plan they go by, and what they write down of the answers |
| `sink`     | a receiver that does nothing: the sender's own ceiling |
| `probes`   | from the acknowledgement until QIDO-RS finds an instance and WADO-RS gives it |
| `gauges`   | what runs meanwhile: rate and lag from /metrics; CPU, memory and bytes written from /proc |
| `targets`  | `sansfilm up` or a whole region in a folder of its own, or a system that runs already |
| `replay`   | one run: devices against a target, until everything is committed |
| `urgent`   | the urgent lane alone and beside saturating bulk |
| `report`   | the figures as JSON and as tables |
| `picture`  | rate and lag over time as SVG |

Invariants
  * The sender is bounded: per association the data sets of one exam (`content.EXAM_BYTES_MAX`, or one instance), per
    process `tally.LATENCIES_MAX` latencies a lane, `probes.PENDING_MAX` instances asked for a lane.
  * What the senders and probes cost is told apart, and the sender's ceiling against a sink stands beside every rate.
  * Latencies are of one clock: CLOCK_MONOTONIC, which all processes of a machine share.
"""
