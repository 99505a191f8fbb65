"""Every metric of the product, declared once: type, unit in the name, bounded labels, text.

Each process serves its own on its health socket; the web role merges them at ``/metrics`` and adds those of `MACHINE`.
docs/metrics.md is generated from what is declared here. No label ever holds a UID, an AE title or an address.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()
#: What the web role says of its machine as a whole, looked at for each scrape: true also while a role is down.
MACHINE = CollectorRegistry()
_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

ASSOCIATIONS_OPEN = Gauge("sansfilm_associations_open", "Associations open now.", registry=REGISTRY)
ASSOCIATIONS = Counter("sansfilm_associations_total", "Associations by outcome.", ["outcome"], registry=REGISTRY)
INSTANCES_RECEIVED = Counter(
    "sansfilm_instances_received_total",
    "Instances acknowledged, by route (cstore, stow).",
    ["route"],
    registry=REGISTRY,
)
BYTES_RECEIVED = Counter(
    "sansfilm_received_bytes_total", "Bytes of data sets acknowledged, by route.", ["route"], registry=REGISTRY
)
INSTANCES_REJECTED = Counter(
    "sansfilm_instances_rejected_total", "Instances refused, by reason.", ["reason"], registry=REGISTRY
)
LANES_NOT_KEPT = Counter(
    "sansfilm_lanes_not_kept_total",
    "Studies whose lane this process decided without the store that it shares with others: the store failed.",
    registry=REGISTRY,
)
ACKNOWLEDGE_SECONDS = Histogram(
    "sansfilm_acknowledge_seconds",
    "From an instance's last byte to its Success.",
    buckets=_LATENCY_S,
    registry=REGISTRY,
)
LOG_SYNCS = Counter("sansfilm_log_syncs_total", "fdatasync calls of the local log.", registry=REGISTRY)
LOG_TORN = Counter(
    "sansfilm_log_torn_total", "Pieces of the log set aside as .torn, by kind.", ["kind"], registry=REGISTRY
)
SPOOL_MESSAGES = Gauge(
    "sansfilm_spool_messages",
    "Messages of an edge's spool that the log has not taken yet, by lane.",
    ["lane"],
    registry=REGISTRY,
)
FORWARDED = Counter(
    "sansfilm_forwarded_total",
    "Messages that an edge's forwarder shipped to the log, by lane.",
    ["lane"],
    registry=REGISTRY,
)
LOG_LAG_MESSAGES = Gauge(
    "sansfilm_log_lag_messages",
    "Messages not committed yet, by lane, as the worker saw it when it last took a batch.",
    ["lane"],
    registry=REGISTRY,
)
LOG_PUBLISH_SECONDS = Histogram(
    "sansfilm_log_publish_seconds",
    "From a message's publishing to Kafka's acknowledgement, or to its failure.",
    buckets=_LATENCY_S,
    registry=REGISTRY,
)
LOG_PUBLISH_FAILURES = Counter(
    "sansfilm_log_publish_failures_total", "Messages that Kafka did not acknowledge.", registry=REGISTRY
)
LOG_QUEUE_MESSAGES = Gauge(
    "sansfilm_log_queue_messages",
    "Messages on their way to Kafka, in this process, by lane.",
    ["lane"],
    registry=REGISTRY,
)
LOG_PARTITIONS = Gauge(
    "sansfilm_log_partitions", "Partitions of Kafka that this process reads, by lane.", ["lane"], registry=REGISTRY
)
LOG_REBALANCES = Counter(
    "sansfilm_log_rebalances_total",
    "Changes of the partitions that this process reads, by kind (assigned, revoked, lost).",
    ["kind"],
    registry=REGISTRY,
)
LOG_DELETED_MESSAGES = Counter(
    "sansfilm_log_deleted_messages_total",
    "Messages deleted from Kafka's topics after all had been committed, by lane.",
    ["lane"],
    registry=REGISTRY,
)
KAFKA_ERRORS = Counter(
    "sansfilm_kafka_errors_total",
    "Complaints of Kafka's clients (brokers away, connections lost), by client (producer, consumer).",
    ["client"],
    registry=REGISTRY,
)
VERDICTS = Counter(
    "sansfilm_verdicts_total",
    "What became of messages: new, same, conflict, quarantined, decision.",
    ["verdict"],
    registry=REGISTRY,
)
QUARANTINED = Counter("sansfilm_quarantined_total", "Instances quarantined, by reason.", ["reason"], registry=REGISTRY)
KEPT = Counter("sansfilm_kept_total", "Instances stored as they came, by reason.", ["reason"], registry=REGISTRY)
BATCH_SECONDS = Histogram(
    "sansfilm_batch_seconds",
    "Time a batch spends in each step (prepare, put, commit, positions).",
    ["step"],
    buckets=_LATENCY_S,
    registry=REGISTRY,
)
BATCH_RETRIES = Counter("sansfilm_batch_retries_total", "Attempts repeated after a passing fault.", registry=REGISTRY)
ARCHIVED_BYTES = Counter("sansfilm_archived_bytes_total", "Bytes written to segments.", registry=REGISTRY)
KEEPER_ROUNDS = Counter(
    "sansfilm_keeper_rounds_total",
    "Rounds of the keeper, by duty (relay, collect, compact, janitor, tide) and outcome (done, failed, refused; idle: "
    "another keeper has the duty).",
    ["duty", "outcome"],
    registry=REGISTRY,
)
KEEPER_SECONDS = Histogram(
    "sansfilm_keeper_seconds",
    "Time of a round of the keeper, by duty.",
    ["duty"],
    buckets=(*_LATENCY_S, 60.0, 300.0, 1800.0),
    registry=REGISTRY,
)
KEEPER_REFUSES = Gauge(
    "sansfilm_keeper_refuses",
    "1 while the keeper neither collects nor compacts: the catalog was restored; run sansfilm archive reconcile.",
    registry=REGISTRY,
)
OUTBOX_ROWS = Gauge(
    "sansfilm_outbox_rows", "Rows of events that are not published yet, counted up to 100,000.", registry=REGISTRY
)
OUTBOX_AGE_SECONDS = Gauge("sansfilm_outbox_age_seconds", "Age of the oldest of them.", registry=REGISTRY)
EVENTS_PUBLISHED = Counter(
    "sansfilm_events_published_total",
    "Events that Kafka acknowledged, by type (instance.committed, instance.quarantined, study.stable).",
    ["type"],
    registry=REGISTRY,
)
SEGMENTS_COLLECTED = Counter(
    "sansfilm_segments_collected_total",
    "Segments that the collector condemned, and deleted (condemned or replaced ones).",
    ["kind"],
    registry=REGISTRY,
)
SEGMENTS_UNREPRESENTED = Gauge(
    "sansfilm_segments_unrepresented",
    "Old segments that no transaction committed and whose content the catalog lacks: run sansfilm archive reconcile.",
    registry=REGISTRY,
)
COMPACTED = Counter(
    "sansfilm_compacted_total",
    "What the compactor wrote and left behind: segments written, segments replaced, members moved.",
    ["kind"],
    registry=REGISTRY,
)
HTTP_REQUESTS = Counter(
    "sansfilm_http_requests_total",
    "HTTP requests, by service and status class.",
    ["service", "status"],
    registry=REGISTRY,
)
HTTP_SECONDS = Histogram(
    "sansfilm_http_seconds",
    "Time to the end of the answer, by service.",
    ["service"],
    buckets=_LATENCY_S,
    registry=REGISTRY,
)

WAITING_MESSAGES = Gauge(
    "sansfilm_waiting_messages",
    "Messages that no worker has committed yet, by lane; NaN while Kafka does not answer.",
    ["lane"],
    registry=MACHINE,
)
WAITING_BYTES = Gauge(
    "sansfilm_waiting_bytes", "Bytes of this machine's log, or of its spool, that are still needed.", registry=MACHINE
)
WAITING_OLDEST_SECONDS = Gauge(
    "sansfilm_waiting_oldest_seconds",
    "Age of the oldest message that waits in this machine's log, or in its spool, by lane; 0 without any.",
    ["lane"],
    registry=MACHINE,
)
QUARANTINE_OPEN = Gauge(
    "sansfilm_quarantine_open_entries",
    "Quarantine entries that nobody has decided; NaN while the catalog does not answer.",
    registry=MACHINE,
)
CONFLICTS = Gauge(
    "sansfilm_conflict_instances",
    "Instances with more than one version; NaN while the catalog does not answer.",
    registry=MACHINE,
)
DISK_FREE_BYTES = Gauge("sansfilm_disk_free_bytes", "Free space on the disk of the data folder.", registry=MACHINE)
DISK_NEEDED_BYTES = Gauge(
    "sansfilm_disk_needed_bytes", "Free space below which receiving stops, as of now.", registry=MACHINE
)
PROCESS_UP = Gauge(
    "sansfilm_process_up",
    "Whether a process that is meant to run on this machine answers, by name (edge-0).",
    ["name"],
    registry=MACHINE,
)
PROCESS_RESTARTS = Gauge(
    "sansfilm_process_restarts",
    "How often a process was started again since its supervisor began, by name.",
    ["name"],
    registry=MACHINE,
)
