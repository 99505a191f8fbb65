"""`sansfilm archive`: verify everything stored, give back an original, rebuild the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

archive = typer.Typer(no_args_is_help=True, help="The archive: verify, get originals, rebuild the catalog.")

DataDir = Annotated[Optional[Path], typer.Option(help="Folder of everything this machine keeps.")]  # noqa: UP045
Tenant = Annotated[Optional[str], typer.Option(help="Tenant asked about.")]  # noqa: UP045
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]


@archive.command()
def verify(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Read everything stored again and compare every digest. Exit code 1 if anything is wrong.

    Safe while sansfilm runs.
    """
    from cli.archive_work import run_verify

    raise typer.Exit(run_verify(data_dir, as_json=as_json))


@archive.command()
def original(
    sop_instance_uid: Annotated[str, typer.Argument(help="The instance.", show_default=False)],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="The new file; otherwise standard output.", show_default=False),
    ] = None,
    version: Annotated[
        str, typer.Option(help="Digest of the version, or its first digits; otherwise the current one.")
    ] = "",
    dataset_only: Annotated[
        bool, typer.Option("--dataset-only", help="The data set alone, exactly as received, without a file header.")
    ] = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Give back an instance exactly as it was received, whatever it was transcoded to; its digest is verified.

    [dim]Example:[/]

      sansfilm archive original 1.2.3.4 -o original.dcm
    """
    from cli.archive_work import run_original

    raise typer.Exit(
        run_original(data_dir, tenant, sop_instance_uid, version=version, output=output, dataset_only=dataset_only)
    )


@archive.command()
def rebuild(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Build a new catalog from segments and journal alone.

    Embedded: verified, then put in the old one's place; needs the data folder to itself, so stop sansfilm first. On
    PostgreSQL: into the database of SANSFILM_CATALOG_URL, which must be empty and have its tables (sansfilm catalog
    migrate); if it does not come to its end, make the database anew.
    """
    from cli.archive_work import run_rebuild

    raise typer.Exit(run_rebuild(data_dir, as_json=as_json))


@archive.command()
def reconcile(data_dir: DataDir = None, as_json: Json = False) -> None:
    """After PostgreSQL was restored from a backup: commit what the archive has and the catalog does not know.

    Workers may run, and it may be run again. Until it was, the keeper neither collects nor compacts. Exit code 1 if
    something is wrong with the archive.
    """
    from cli.archive_work import run_reconcile

    raise typer.Exit(run_reconcile(data_dir, as_json=as_json))
