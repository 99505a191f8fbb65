"""The command tree. Each command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from cli.archive import archive
from cli.catalog import catalog
from cli.conflict import conflict
from cli.errors import SentenceGroup
from cli.quarantine import quarantine
from cli.spool import spool
from cli.topics import topics
from cli.version import VERSION

app = typer.Typer(
    name="sansfilm",
    cls=SentenceGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="An open DICOM ingest pipeline: receive, keep every byte, show.",
    epilog="Begin with [bold]sansfilm up[/], then [bold]sansfilm demo[/] in a second terminal. "
    "Every setting is an environment variable too: SANSFILM_DATA_DIR, SANSFILM_DICOM_PORT, ... (docs/settings.md).",
)
RUN, SEND, ASK = "Run", "Send", "Ask and decide"

DataDir = Annotated[Optional[Path], typer.Option(help="Folder of everything this machine keeps. [dim](./data)[/]")]  # noqa: UP045
Tenant = Annotated[Optional[str], typer.Option(help="Tenant asked about. [dim](default)[/]")]  # noqa: UP045
BindAddress = Annotated[Optional[str], typer.Option(help="Address to listen on. [dim](127.0.0.1)[/]")]  # noqa: UP045
DicomPort = Annotated[Optional[int], typer.Option(help="Port for DICOM associations. [dim](11112)[/]")]  # noqa: UP045
HttpPort = Annotated[Optional[int], typer.Option(help="Port for pages and DICOMweb. [dim](8080)[/]")]  # noqa: UP045
AeTitle = Annotated[Optional[str], typer.Option(help="Our AE title. [dim](SANSFILM)[/]")]  # noqa: UP045
InsecureDemo = Annotated[
    bool, typer.Option("--insecure-demo", help="Allow an address other than loopback, without TLS or sign-in.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]


def main() -> None:
    """The entry point of the command `sansfilm`."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        print(f"sansfilm {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An open DICOM ingest pipeline: receive, keep every byte, show."""


# ---- run ------------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=RUN)
def up(
    data_dir: DataDir = None,
    bind_address: BindAddress = None,
    dicom_port: DicomPort = None,
    http_port: HttpPort = None,
    ae_title: AeTitle = None,
    insecure_demo: InsecureDemo = False,
) -> None:
    """Run edge, worker and web on this machine until Ctrl-C.

    Roles that end are restarted; Ctrl-C or SIGTERM drains and stops, a second one kills. Nothing acknowledged is lost
    either way. Each role's log is in the data folder under logs/; only warnings come to the terminal.

    [dim]Examples:[/]

      sansfilm up

      SANSFILM_EDGE_PROCESSES=2 sansfilm up --data-dir /srv/sansfilm --dicom-port 104
    """
    from cli.up import run_up

    flags = _flags(data_dir, bind_address, dicom_port, http_port, ae_title, insecure_demo)
    raise typer.Exit(run_up(_load("UpSettings", flags)))


@app.command(rich_help_panel=RUN)
def edge(
    data_dir: DataDir = None,
    bind_address: BindAddress = None,
    dicom_port: DicomPort = None,
    ae_title: AeTitle = None,
    insecure_demo: InsecureDemo = False,
) -> None:
    """Run the receivers alone: DICOM associations into the log, or into this machine's spool and from there to Kafka.

    Exit code 1 if acknowledged messages stay behind in the spool: keep the disk, and ship them later.
    """
    from cli.edges import run_edges

    flags = _flags(data_dir, bind_address, dicom_port, None, ae_title, insecure_demo)
    raise typer.Exit(run_edges(_load("EdgeGroupSettings", flags)))


@app.command(rich_help_panel=RUN)
def worker(data_dir: DataDir = None) -> None:
    """Run a worker alone: from the log into the archive."""
    from cli.roles import run_worker_role

    raise typer.Exit(run_worker_role(_load("WorkerSettings", {"data_dir": data_dir})))


@app.command(rich_help_panel=RUN)
def web(
    data_dir: DataDir = None,
    bind_address: BindAddress = None,
    http_port: HttpPort = None,
    insecure_demo: InsecureDemo = False,
) -> None:
    """Run the readers alone: pages, viewer, DICOMweb."""
    from cli.roles import run_web_alone

    flags = _flags(data_dir, bind_address, None, http_port, None, insecure_demo)
    raise typer.Exit(run_web_alone(_load("WebSettings", flags)))


@app.command(rich_help_panel=RUN)
def keeper(data_dir: DataDir = None) -> None:
    """Run a keeper alone: events to other systems, and the archive's and the log's upkeep. For a region.

    Where several run, one at a time does each duty and the others stand by.
    """
    from cli.roles import run_keeper_role

    raise typer.Exit(run_keeper_role(_load("KeeperSettings", {"data_dir": data_dir})))


app.add_typer(topics, name="topics", rich_help_panel=RUN)
app.add_typer(spool, name="spool", rich_help_panel=RUN)


# ---- send -----------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=SEND)
def send(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders; folders are walked.", show_default=False)],
    to: Annotated[str, typer.Option(help="Whom to call, as AE@host:port.", show_default=False)],
    associations: Annotated[int, typer.Option("--associations", "-n", min=1, max=64, help="Associations at once.")] = 1,
    calling_ae: Annotated[str, typer.Option(help="The AE title we call ourselves.")] = "SANSFILM-SCU",
    retries: Annotated[int, typer.Option(min=0, max=100, help="Further attempts for what got no answer.")] = 2,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Longest silence of the peer, in seconds.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Send DICOM files by C-STORE: each file's own bytes, in its own transfer syntax.

    Exit code 1 if any file was not accepted, or could not be read.

    [dim]Examples:[/]

      sansfilm send exam/ --to SANSFILM@127.0.0.1:11112

      sansfilm send a.dcm b.dcm --to ORTHANC@pacs.example:4242 -n 4 --json
    """
    from cli.association import Peer
    from cli.send import run_send

    peer = Peer.parse(to, calling_ae=calling_ae)
    raise typer.Exit(
        run_send(paths, peer, associations=associations, retries=retries, timeout_s=timeout_s, as_json=as_json)
    )


@app.command(rich_help_panel=SEND)
def demo(
    slices: Annotated[int, typer.Option(min=1, max=400, help="Slices in each series.")] = 24,
    series: Annotated[str, typer.Option(help="Which series, of T1,T2,FLAIR.")] = "T1,T2,FLAIR",
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Make the very same exam again, UIDs included; otherwise every run is a new one."),
    ] = None,
    bind_address: BindAddress = None,
    dicom_port: DicomPort = None,
    http_port: HttpPort = None,
    ae_title: AeTitle = None,
    wait_s: Annotated[float, typer.Option(min=0, help="Longest wait until it can be opened.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Send a synthetic brain MR to a running sansfilm and print the link that opens it.

    [dim]Examples:[/]

      sansfilm demo

      sansfilm demo --slices 150 --series T1 --seed 7
    """
    from cli.demo import run_demo

    settings = _load("WebSettings", _flags(None, bind_address, dicom_port, http_port, ae_title, False))
    raise typer.Exit(
        run_demo(settings, slices=slices, series=series.split(","), seed=seed, wait_s=wait_s, as_json=as_json)
    )


# ---- ask ------------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=ASK)
def status(
    data_dir: DataDir = None,
    tenant: Tenant = None,
    wait_drained: Annotated[
        bool, typer.Option("--wait-drained", help="Wait until everything in the log is committed.")
    ] = False,
    timeout_s: Annotated[float, typer.Option(min=0, help="Longest wait with --wait-drained.")] = 300.0,
    as_json: Json = False,
) -> None:
    """Show what runs, what waits in the log, what the archive holds, and the disk.

    [dim]Examples:[/]

      sansfilm status

      sansfilm status --wait-drained --timeout-s 60 --json
    """
    from cli.status import run_status

    settings = _load("WebSettings", {"data_dir": data_dir, "tenant": tenant})
    raise typer.Exit(run_status(settings, wait_drained=wait_drained, timeout_s=timeout_s, as_json=as_json))


@app.command(rich_help_panel=ASK)
def trace(
    uid: Annotated[str, typer.Argument(help="A Study, Series or SOP Instance UID.", show_default=False)],
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show everything known of a study, series or instance: association, times, verdict, segment, digests.

    [dim]Example:[/]

      sansfilm trace 1.2.826.0.1.3680043.10.1471.1 --json
    """
    from cli.trace import run_trace

    raise typer.Exit(run_trace(_load("CommonSettings", {"data_dir": data_dir, "tenant": tenant}), uid, as_json=as_json))


app.add_typer(quarantine, name="quarantine", rich_help_panel=ASK)
app.add_typer(conflict, name="conflict", rich_help_panel=ASK)
app.add_typer(archive, name="archive", rich_help_panel=ASK)
app.add_typer(catalog, name="catalog", rich_help_panel=ASK)


@app.command(rich_help_panel=ASK)
def replay(
    since: Annotated[
        str, typer.Option("--from", help="Where the stretch begins: a time or offsets.", show_default=False)
    ],
    until: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--to", help="Where it ends, itself excluded. [dim](what the workers have committed)[/]"),
    ] = None,
    topic: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="One lane, or its topic. [dim](all lanes)[/]"),
    ] = None,
    ae: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Only from this calling AE title; * and ? as in lane rules. Repeatable."),
    ] = None,
    study: Annotated[str, typer.Option(help="Only this study, by its Study Instance UID.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what differs and commit nothing.")] = False,
    shadow: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Into an archive of its own in this folder, made if there is none, and compare."),
    ] = None,
    transcode: Annotated[
        Optional[Literal["keep", "htj2k"]],  # noqa: UP045
        typer.Option(help="The shadow's policy. [dim](SANSFILM_TRANSCODE)[/]"),
    ] = None,
    partial_ok: Annotated[
        bool, typer.Option("--partial-ok", help="No error if part of the stretch is not in the log any more.")
    ] = False,
    limit: Annotated[int, typer.Option(min=0, help="Most messages listed that differ.")] = 50,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Run a stretch of Kafka's log again, into the live archive or into a shadow, and say what differs.

    After a suspected fault: what is archived already is left alone, so it is a no-op if all is well; what was missing
    is committed as a worker would have done it. It takes nothing away from workers and reads nothing that they have not
    committed yet. They may run meanwhile, except where the archive is SQLite and a folder, which has one writer:
    stop the worker before, unless it is for a shadow. Operators' decisions in the log are not repeated.

    Before a new release or policy goes live: yesterday's traffic into a shadow, compared message by message with the
    live archive, which is only read. A shadow is of one policy and one version: use another folder for another one.

    A time is that at which a message came into Kafka, in this machine's zone unless it says another. An offset is one
    of every partition (0) or of some (3@1200,4@80), as trace shows them. The keeper deletes what is committed and older
    than its SANSFILM_LOG_KEEP_S.

    Exit code 1 if something differs, if part of the stretch is not in the log any more or may not be, or if no message
    was selected.

    [dim]Examples:[/]

      sansfilm replay --from 2026-11-24T14:00 --to 2026-11-24T15:00 --ae 'CT_ER*' --dry-run

      sansfilm replay --from 2026-11-24 --to 2026-11-25 --shadow /srv/shadow --transcode keep

      sansfilm replay --topic urgent --from 3@1200 --to 3@1201 --json
    """
    from cli.replay import Asked, run_replay
    from runtime.logs import configure_logs
    from workers.replay import Selection

    configure_logs(role="replay", level="warning")
    asked = Asked(
        since=since,
        until=until,
        topic=topic,
        selection=Selection(calling_ae=tuple(ae or ()), study_uid=study),
        dry_run=dry_run,
        shadow=shadow,
        transcode=transcode,
        partial_ok=partial_ok,
        limit=limit,
    )
    raise typer.Exit(run_replay(_load("WorkerSettings", {"data_dir": data_dir}), asked, as_json=as_json))


@app.command(rich_help_panel=ASK)
def doctor(
    data_dir: DataDir = None,
    bind_address: BindAddress = None,
    dicom_port: DicomPort = None,
    http_port: HttpPort = None,
    as_json: Json = False,
) -> None:
    """Check this machine: Python, packages, ports, the data folder, fsync, the viewer, DCMTK.

    Exit code 1 if something would keep `sansfilm up` from working.
    """
    from cli.doctor import run_doctor

    settings = _load("UpSettings", _flags(data_dir, bind_address, dicom_port, http_port, None, False))
    raise typer.Exit(run_doctor(settings, as_json=as_json))


def _flags(
    data_dir: Path | None,
    bind_address: str | None,
    dicom_port: int | None,
    http_port: int | None,
    ae_title: str | None,
    insecure_demo: bool,
) -> dict[str, object]:
    return {
        "data_dir": data_dir,
        "bind_address": bind_address,
        "dicom_port": dicom_port,
        "http_port": http_port,
        "ae_title": ae_title,
        "insecure_demo": insecure_demo or None,
    }


def _load(model: str, flags: dict[str, object]) -> Any:
    """The settings model of that name, parsed; imported late because its library is slow to load."""
    from runtime import settings

    return settings.load_settings(getattr(settings, model), **flags)


if __name__ == "__main__":
    main()
