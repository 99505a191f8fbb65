"""`sansfilm send`: find files, send them, say what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.association import Peer
from cli.files import Sendable, Unsendable, find_files
from cli.output import err, out, print_json, size_text, table
from cli.sender import Outcome, Sender, Summary, meaning

_FAILURES_SHOWN = 20


def run_send(
    paths: Sequence[Path], peer: Peer, *, associations: int, retries: int, timeout_s: float, as_json: bool
) -> int:
    """Send everything found in `paths`; gives 1 if any of it was not accepted or not readable, else 0."""
    found = list(find_files(paths))
    files = [one for one in found if isinstance(one, Sendable)]
    unreadable = [one for one in found if isinstance(one, Unsendable)]
    summary = send_with_progress(files, peer, associations=associations, retries=retries, timeout_s=timeout_s)
    if as_json:
        print_json(_as_json(summary, unreadable))
    else:
        _show(summary, unreadable, peer)
    return 1 if summary.failed or unreadable or not files else 0


def send_with_progress(
    files: Sequence[Sendable], peer: Peer, *, associations: int, retries: int = 2, timeout_s: float = 60.0
) -> Summary:
    """Send with a progress bar on standard error, drawn on terminals only."""
    with progress_bar() as bar:
        task = bar.add_task(f"sending to {escape(str(peer))}", total=len(files))

        def advance(outcome: Outcome) -> None:
            bar.advance(task)

        return Sender(peer, associations=associations, retries=retries, timeout_s=timeout_s, on_outcome=advance).send(
            files
        )


def progress_bar() -> Progress:
    """The one look of progress."""
    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _show(summary: Summary, unreadable: Sequence[Unsendable], peer: Peer) -> None:
    rows = [(f"{status:04X}H", meaning(status), count) for status, count in summary.by_status()]
    unanswered = [outcome for outcome in summary.outcomes if outcome.status is None]
    if unanswered:
        rows.append(("", "not sent", len(unanswered)))
    if unreadable:
        rows.append(("", "not readable as DICOM", len(unreadable)))
    if rows:
        out().print(table("", ("status", "meaning", "files"), rows))
    accepted = len(summary.outcomes) - len(summary.failed)
    rate = summary.sent_bytes / summary.seconds if summary.seconds else 0.0
    out().print(
        f"\n{accepted} of {len(summary.outcomes) + len(unreadable)} files accepted by {peer}, "
        f"{size_text(summary.sent_bytes)} in {summary.seconds:.1f} s ({size_text(rate)}/s)",
        markup=False,
    )
    reasons = [(outcome.file.path, outcome.problem or f"{outcome.status:04X}H") for outcome in summary.failed]
    reasons += [(one.path, one.reason) for one in unreadable]
    for path, reason in reasons[:_FAILURES_SHOWN]:
        err().print(f"  {path}: {reason}", markup=False)
    if len(reasons) > _FAILURES_SHOWN:
        err().print(f"  and {len(reasons) - _FAILURES_SHOWN} more (--json lists all)")


def _as_json(summary: Summary, unreadable: Sequence[Unsendable]) -> dict[str, object]:
    return {
        "accepted": len(summary.outcomes) - len(summary.failed),
        "failed": len(summary.failed),
        "unreadable": len(unreadable),
        "bytes": summary.sent_bytes,
        "seconds": round(summary.seconds, 3),
        "statuses": {f"{status:04X}": count for status, count in summary.by_status()},
        "files": [
            {
                "path": str(outcome.file.path),
                "sop_instance_uid": outcome.file.sop_instance_uid,
                "status": None if outcome.status is None else f"{outcome.status:04X}",
                "problem": outcome.problem,
            }
            for outcome in summary.outcomes
        ]
        + [{"path": str(one.path), "status": None, "problem": one.reason} for one in unreadable],
    }
