"""Real components on one machine, for tests, benchmarks and a region on a laptop. Never imported by the product.

Each module has one class: a context manager that starts the real server on free loopback ports in a folder it is given,
waits until it answers, and can `kill()` it (SIGKILL), `freeze()` and `thaw()` it (SIGSTOP, SIGCONT), `start()` it again
on the same data and ports, and `stop()` it. Its processes die with their parent.

| module  | what it starts |
|---------|----------------|
| `kafka` | Apache Kafka: one broker, or several as one cluster |
| `postgres` | PostgreSQL, as an unprivileged user |
| `seaweedfs` | the S3 protocol |
| `ports` | nothing: finds free ports for the others |
| `role` | one role of the product, as a process of its own |
| `cluster` | all of them together: a region |
"""
