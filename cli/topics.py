"""`sansfilm topics`: the topics of the log on Kafka, made, repaired and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from broker.kafka.topics import Finding, LogTopics

topics = typer.Typer(no_args_is_help=True, help="The topics of the log on Kafka: make, repair, check.")

Bootstrap = Annotated[Optional[str], typer.Option(help="Brokers, host:port,... [dim](SANSFILM_KAFKA_BOOTSTRAP)[/]")]  # noqa: UP045
Replication = Annotated[int, typer.Option(min=1, max=9, help="Replicas of each partition.")]
AllowSingle = Annotated[bool, typer.Option("--allow-single", help="Do not warn of a single replica.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]


@topics.command()
def apply(
    bootstrap: Bootstrap = None,
    partitions: Annotated[int, typer.Option(min=1, max=10000, help="Partitions of each lane; never lowered.")] = 12,
    replication: Replication = 3,
    allow_single: AllowSingle = False,
    as_json: Json = False,
) -> None:
    """Make the topics, or repair them, and let the workers' groups begin at the first message; then check.

    Messages with one key (a study) keep their order as long as the number of partitions stays: choose it once, 12 for
    a small region, 96 for a large one. Nothing is deleted, lowered or moved.

    [dim]Examples:[/]

      sansfilm topics apply --partitions 96

      sansfilm topics apply --bootstrap 127.0.0.1:9092 --partitions 4 --replication 1 --allow-single
    """
    log = _topics(bootstrap)
    done = log.apply(partitions=partitions, replication=replication)
    findings = log.check(partitions=partitions, replication=replication, allow_single=allow_single)
    _report(findings, done=done, as_json=as_json)


@topics.command()
def check(
    bootstrap: Bootstrap = None,
    partitions: Annotated[int, typer.Option(min=0, help="Partitions wanted of each lane; 0: any number.")] = 0,
    replication: Replication = 3,
    allow_single: AllowSingle = False,
    as_json: Json = False,
) -> None:
    """Say what is wrong with the topics, a line each; exit code 1 if something could lose or truncate messages.

    [dim]Example:[/]

      sansfilm topics check --partitions 96 --json
    """
    findings = _topics(bootstrap).check(partitions=partitions, replication=replication, allow_single=allow_single)
    _report(findings, done=None, as_json=as_json)


def _topics(bootstrap: str | None) -> LogTopics:
    from broker.kafka.topics import LogTopics
    from broker.opening import kafka_configuration
    from runtime.errors import Misconfigured
    from runtime.settings import CommonSettings, load_settings

    settings = load_settings(CommonSettings, kafka_bootstrap=bootstrap)
    if not settings.kafka_bootstrap:
        raise Misconfigured("no Kafka broker is named: set SANSFILM_KAFKA_BOOTSTRAP or --bootstrap to host:port,...")
    return LogTopics(kafka_configuration(settings))


def _report(findings: Sequence[Finding], *, done: Sequence[str] | None, as_json: bool) -> None:
    from cli.output import out, print_json

    if as_json:
        print_json({"done": list(done or ()), "findings": list(findings)})
    else:
        console = out()
        for line in done or ():
            console.print(line, markup=False)
        for finding in findings:
            console.print(f"{finding.level}: {finding.topic} {finding.text}", markup=False)
        if not done and not findings:
            console.print("the topics are as they should be")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
