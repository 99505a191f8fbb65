"""Settings: one frozen model per role, parsed once at start.

Order: command-line flag > environment (``SANSFILM_`` and the field's name) > ``sansfilm.toml`` in the working directory
> default. Sizes are in bytes and times in seconds, as the names say. docs/settings.md is generated from this module.
"""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from runtime.errors import Misconfigured
from schemas.identifiers import is_tenant
from schemas.message import Lane

S = TypeVar("S", bound="CommonSettings")
SETTINGS_FILE = Path("sansfilm.toml")
MIB = 1024 * 1024
GIB = 1024 * MIB


class CommonSettings(BaseSettings):
    """What every role reads."""

    model_config = SettingsConfigDict(env_prefix="SANSFILM_", frozen=True, extra="ignore", validate_default=True)

    data_dir: Path = Field(Path("data"), description="Folder of everything this machine keeps.")
    tenant: str = Field(
        "default",
        description="Tenant that instances received here belong to: lower-case letters, digits, hyphens; 63 at most.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe event logged.")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON.")
    inline_max_bytes: int = Field(
        MIB, ge=4096, description="Larger instances travel as claim checks: a one-member segment of their own."
    )
    kafka_bootstrap: str = Field("", description="Kafka brokers, host:port,...; empty: the local log.")
    kafka_security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext",
        description="How Kafka is spoken to: ssl is TLS, with a client certificate where one is set; sasl_ssl is TLS "
        "with a user and a password. Brokers on other machines are reached with TLS and credentials only.",
    )
    kafka_ca_file: str = Field(
        "", description="PEM file of who signs the brokers' certificates; empty: those whom this system trusts."
    )
    kafka_certificate_file: str = Field("", description="PEM file of the client certificate shown to the brokers.")
    kafka_key_file: str = Field("", description="PEM file of the client certificate's private key.")
    kafka_key_password: SecretStr = Field(SecretStr(""), description="Password of that key, if it is encrypted.")
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        "SCRAM-SHA-512", description="How the password is proved to the brokers; PLAIN sends it."
    )
    kafka_user: str = Field("", description="User that the brokers know.")
    kafka_password: SecretStr = Field(SecretStr(""), description="Password of that user.")
    kafka_topic_prefix: str = Field(
        "sansfilm", pattern=r"^[A-Za-z0-9._-]{1,200}$", description="Topics of the log are <prefix>.<lane>."
    )
    log_file_max_bytes: int = Field(256 * MIB, ge=MIB, description="Size at which the local log opens its next file.")
    disk_reserve_bytes: int = Field(
        2 * GIB,
        ge=0,
        description="Free space kept back: receiving stops below it plus 1.1 x the log that is not committed yet.",
    )
    shutdown_timeout_s: float = Field(25.0, gt=0, description="Deadline for stop, drain, sync, commit and close.")
    catalog_url: SecretStr = Field(
        SecretStr(""),
        description="The catalog: postgresql://user:password@host:port/database; empty: SQLite in the data folder.",
    )
    catalog_statement_timeout_s: float = Field(
        60.0, gt=0, description="PostgreSQL: longest time of one statement; then it is tried again later."
    )
    catalog_lock_timeout_s: float = Field(
        20.0, gt=0, description="PostgreSQL: longest wait for what another worker's transaction holds."
    )
    catalog_idle_timeout_s: float = Field(
        120.0,
        gt=0,
        description="PostgreSQL: a transaction in which nothing happens for so long is undone: its worker is frozen or "
        "gone. Above the 60 s that comparing one re-encoded instance may take.",
    )
    insecure_demo: bool = Field(
        False,
        description="Allow a bind address other than loopback, and Kafka and an object store elsewhere, without "
        "TLS and credentials. Shown on every page.",
    )
    store_url: str = Field("", description="Object store of the archive: s3://bucket/prefix; empty: the folder.")
    s3_endpoint: str = Field("", description="Address of the object store: https://host:port.")
    s3_region: str = Field("us-east-1", min_length=1, description="Region that requests to the object store name.")
    s3_access_key_id: str = Field("", description="Access key of the object store.")
    s3_secret_access_key: SecretStr = Field(SecretStr(""), description="Secret key of the object store.")
    s3_connect_timeout_s: float = Field(5.0, gt=0, description="Longest wait for a connection to the object store.")
    s3_read_timeout_s: float = Field(
        15.0, gt=0, description="Longest silence of the object store in an answer, and time to repeat a request in."
    )
    s3_request_timeout_s: float = Field(
        120.0, gt=0, description="Longest time that one request to the object store may take, its body included."
    )
    s3_retries_max: int = Field(2, ge=0, le=10, description="Repetitions of a request that the object store failed.")

    @field_validator("tenant")
    @classmethod
    def _may_be_a_folder(cls, tenant: str) -> str:
        """Refused here: everything of it would be acknowledged, and could never be put."""
        if not is_tenant(tenant):
            raise ValueError("a tenant is named by lower-case letters, digits and hyphens, 63 at most, not journal")
        return tenant

    @property
    def log_dir(self) -> Path:
        """The local log."""
        return self.data_dir / "log"

    @property
    def archive_dir(self) -> Path:
        """The archive: segments and journal; with it alone everything else can be rebuilt."""
        return self.data_dir / "archive"

    @property
    def staged_dir(self) -> Path:
        """Where an edge that spools keeps large instances until they are shipped: segments, as in an archive."""
        return self.data_dir / "staged" if self.store_url else self.archive_dir

    @property
    def catalog_path(self) -> Path:
        """The SQLite catalog."""
        return self.data_dir / "catalog" / "catalog.sqlite"

    @property
    def lanes_path(self) -> Path:
        """The lanes that this machine's receivers gave to studies."""
        return self.data_dir / "lanes" / "lanes.sqlite"

    @property
    def run_dir(self) -> Path:
        """Sockets, locks and attempt counts of running processes."""
        return self.data_dir / "run"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=_from_file(SETTINGS_FILE))


class EdgeSettings(CommonSettings):
    """The receiver."""

    bind_address: str = Field("127.0.0.1", description="Address on which DICOM associations are accepted.")
    dicom_port: int = Field(11112, ge=1, le=65535, description="Port on which DICOM associations are accepted.")
    ae_title: str = Field("SANSFILM", min_length=1, max_length=16, description="This application entity's title.")
    require_called_ae: bool = Field(False, description="Refuse associations that call another AE title than ours.")
    lane: Lane = Field(Lane.ROUTINE, description="Lane of what no rule of `lane_rules` is about.")
    lane_rules: str = Field(
        "",
        description="Lanes by sender, the first that fits: PATTERN=LANE,... with patterns of calling AE titles, "
        "or of called ones after called: (CT_ER*=urgent,called:EMERGENCY=urgent). A study keeps its first lane, in all "
        "processes of the data folder and over restarts.",
    )
    ack_mode: Literal["spool", "kafka"] = Field(
        "spool",
        description="With Kafka, Success is said when an instance is synced in the edge's own spool, which is shipped "
        "later (spool), or when all in-sync replicas have it (kafka).",
    )
    associations_max: int = Field(64, ge=1, description="Associations at one time, per edge process.")
    associations_per_caller_max: int = Field(32, ge=1, description="Associations at one time from one address.")
    pdu_max_bytes: int = Field(131072, ge=4096, le=MIB, description="Largest P-DATA-TF PDU we announce and accept.")
    object_max_bytes: int = Field(4 * GIB, ge=MIB, description="Largest instance accepted.")
    artim_timeout_s: float = Field(10.0, gt=0, description="Wait for an A-ASSOCIATE-RQ, and for a peer to close.")
    idle_timeout_s: float = Field(60.0, gt=0, description="Longest silence inside an association.")
    ack_timeout_s: float = Field(25.0, gt=0, description="Longest wait for the log before 0xA700 is answered.")
    edge_processes: int = Field(1, ge=1, le=64, description="Edge processes that accept on the one socket.")


class WorkerSettings(CommonSettings):
    """The pool."""

    lanes: tuple[Lane, ...] = Field(tuple(Lane), min_length=1, description='Lanes this worker takes: ["urgent"], ...')
    transcode: Literal["keep", "htj2k"] = Field("htj2k", description="What to do with native pixel data.")
    transcode_max_bytes: int = Field(256 * MIB, ge=MIB, description="Larger instances are stored as they came.")
    worker_threads: int = Field(2, ge=1, le=64, description="Threads of each lane that parse, hash and encode.")
    batch_max_messages: int = Field(256, ge=1, description="Messages in a batch.")
    batch_max_bytes: int = Field(64 * MIB, ge=MIB, description="Bytes in a batch.")
    urgent_wait_s: float = Field(0.1, ge=0, description="Longest wait to fill a batch of the urgent lane.")
    routine_wait_s: float = Field(0.25, ge=0, description="Longest wait to fill a batch of the routine lane.")
    bulk_wait_s: float = Field(5.0, ge=0, description="Longest wait to fill a batch of the bulk lane.")
    kafka_poll_interval_max_s: float = Field(
        300.0,
        ge=10,
        le=86400,
        description="Longest time a worker may be busy with one batch before its partitions of Kafka go to others.",
    )
    retry_wait_max_s: float = Field(30.0, gt=0, description="Longest pause between attempts while a fault lasts.")


class KeeperSettings(CommonSettings):
    """What is done behind the catalog's back: events published, segments merged and collected, the log trimmed."""

    relay_period_s: float = Field(0.5, gt=0, description="Pause after which events are looked for where none were.")
    relay_rows_max: int = Field(64, ge=1, le=10_000, description="Rows of events (a batch each) published at once.")
    study_stable_after_s: float = Field(
        60.0, gt=0, description="A study in which nothing changed for so long is told of as stable."
    )
    tide_period_s: float = Field(
        60.0, gt=0, description="How often the catalog's life is compared with the archive's, and the tide raised."
    )
    collect_period_s: float = Field(
        6 * 3600.0, gt=0, description="Pause between two searches for what can be collected: each lists the archive."
    )
    collect_after_s: float = Field(
        86400.0,
        gt=0,
        description="Age, in the store, of a segment that nothing refers to before it is given up. Nothing is while "
        "the log holds uncommitted messages of half this age. Covers the time from a claim check's upload to its "
        "message's publishing.",
    )
    collect_grace_s: float = Field(3600.0, ge=0, description="From giving a segment up to deleting it.")
    replaced_keep_s: float = Field(
        8 * 86400.0,
        ge=3600,
        description="How long segments stay whose content was compacted into others: at least as long as the oldest "
        "backup of the catalog that may be restored, and as readers may take with what they have looked up.",
    )
    compact_period_s: float = Field(300.0, gt=0, description="Pause between two searches for small segments.")
    compact_after_s: float = Field(3600.0, ge=0, description="Age at which a small segment may be compacted.")
    compact_below_bytes: int = Field(8 * MIB, ge=4096, description="Segments of at least this size are left alone.")
    compact_wait_s: float = Field(
        86400.0, ge=0, description="Longest wait for enough small segments of a tenant to fill a compacted one."
    )
    compact_target_bytes: int = Field(
        64 * MIB, ge=MIB, description="Size of compacted segments; one is held in memory while it is made."
    )
    janitor_period_s: float = Field(3600.0, gt=0, description="Pause between two deletions from Kafka's topics.")
    log_keep_s: float = Field(
        72 * 3600.0, ge=0, description="How long committed messages stay in Kafka, where they could be replayed."
    )


class WebSettings(EdgeSettings):
    """The readers, and STOW-RS."""

    http_port: int = Field(8080, ge=1, le=65535, description="Port of the pages, DICOMweb, metrics and health.")
    viewer_dir: Path = Field(Path("viewer"), description="Folder of the OHIF viewer; absent: no viewer.")
    query_limit_max: int = Field(1000, ge=1, description="Most rows one QIDO-RS answer gives.")
    decode_processes: int = Field(1, ge=1, le=64, description="Child processes that decode compressed pixel data.")
    decode_timeout_s: float = Field(30.0, gt=0, description="Time one decode may take.")
    decode_memory_max_bytes: int = Field(2 * GIB, ge=256 * MIB, description="Memory one decode may take.")
    answer_memory_max_bytes: int = Field(
        GIB, ge=MIB, description="Memory of large answers that wait for their clients to read them; over it 503."
    )
    http_connections_max: int = Field(2048, ge=16, description="HTTP connections at one time, idle ones included.")
    http_idle_timeout_s: float = Field(
        10.0, ge=1, description="Longest wait for a request on an HTTP connection, and for the form it brings."
    )
    http_send_timeout_s: float = Field(
        60.0, gt=0, description="Longest wait until a client has read the next piece of an answer."
    )


class SupervisedSettings(CommonSettings):
    """What watches over the processes of one machine."""

    ready_timeout_s: float = Field(60.0, gt=0, description="Longest wait for all roles to become ready at start.")
    restart_wait_max_s: float = Field(10.0, gt=0, description="Longest pause before a role that ended is restarted.")
    role_log_max_bytes: int = Field(
        16 * MIB, ge=4096, description="Size at which a role's log file is renamed to .1 and begun anew."
    )


class EdgeGroupSettings(EdgeSettings, SupervisedSettings):
    """The receivers of one machine, supervised."""


class UpSettings(WebSettings, WorkerSettings, SupervisedSettings):
    """All roles on one machine."""


def load_settings(model: type[S], **flags: Any) -> S:
    """Parse the settings of a role; flags that are None are not given.

    Raises:
        Misconfigured: names each wrong setting, its environment variable and what is wrong with it; or the file of
            settings cannot be read, or holds what is no setting of any role.
    """
    try:
        return model(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(f"SANSFILM_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise Misconfigured(f"settings are wrong: {wrong}") from error


def _from_file(path: Path) -> dict[str, Any]:
    """What the file says; nothing if there is none. It is shared by all roles, so each may find the others' in it."""
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Misconfigured(f"{path} cannot be read: {error}") from error
    known = _names(CommonSettings)
    if unknown := [name for name in given if name not in known]:
        raise Misconfigured(f"{path}: there is no setting {', '.join(_with_a_guess(name, known) for name in unknown)}")
    return given


def _names(model: type[CommonSettings]) -> frozenset[str]:
    """Every setting of a role and of those made from it."""
    return frozenset(model.model_fields).union(*map(_names, model.__subclasses__()))


def _with_a_guess(name: str, known: frozenset[str]) -> str:
    meant = get_close_matches(name, known, n=1)
    return f"{name} ({meant[0]}?)" if meant else name
