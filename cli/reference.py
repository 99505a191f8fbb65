"""Writes docs/settings.md, metrics.md, cli.md and events.md from the models they describe: ``python -m cli.reference``.

A test fails while a page is stale.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from prometheus_client.metrics import MetricWrapperBase
from pydantic.fields import FieldInfo
from typer.main import get_command

from runtime import metrics
from runtime.settings import (
    CommonSettings,
    EdgeSettings,
    KeeperSettings,
    SupervisedSettings,
    WebSettings,
    WorkerSettings,
)
from schemas.events import EVENTS, json_schema

_ROLES: Final = (
    ("Every role", CommonSettings, ()),
    ("edge", EdgeSettings, (CommonSettings,)),
    ("worker", WorkerSettings, (CommonSettings,)),
    ("keeper", KeeperSettings, (CommonSettings,)),
    ("web", WebSettings, (CommonSettings, EdgeSettings)),
    ("`sansfilm up` and `sansfilm edge`", SupervisedSettings, (CommonSettings,)),
)
_BOUNDS: Final = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "at least", "max_length": "at most"}


def pages() -> dict[str, str]:
    """Every generated page by its path in the repository."""
    return {
        "docs/settings.md": settings_page(),
        "docs/metrics.md": metrics_page(),
        "docs/cli.md": cli_page(),
        "docs/events.md": events_page(),
    }


def settings_page() -> str:
    """Each setting with its variable, default, bounds and meaning."""
    lines = [
        "# Settings",
        "",
        "Command-line flag > environment > `sansfilm.toml` in the working directory > default. In the file a setting "
        "has its variable's name without the prefix, in lower case: `dicom_port = 104`.",
        "",
    ]
    for title, model, parents in _ROLES:
        inherited = {name for parent in parents for name in parent.model_fields}
        rows = [_setting(name, field) for name, field in model.model_fields.items() if name not in inherited]
        lines += [f"## {title}", "", *_table(("variable", "default", "allowed", "meaning"), rows), ""]
        if title == "web":
            lines += ["The web role reads the edge's settings too: it receives STOW-RS under the same limits.", ""]
    return "\n".join(lines)


def metrics_page() -> str:
    """Each metric with its type, labels and meaning."""
    declared = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    rows = [(f"`{_exposed(metric)}`", *_described(metric)) for metric in declared]
    lines = [
        "# Metrics",
        "",
        "`/metrics` of the web role gives those of every process of the machine, in Prometheus text format. Each "
        "sample carries `role` (edge, worker, keeper, web) and `process` (its index) besides the labels below; those "
        "from `sansfilm_waiting_messages` on are of the machine as a whole, looked at for each scrape, and carry none "
        "of the two: they hold while a role is down. Histograms have "
        "`_bucket`, `_sum` and `_count`. On Linux each process adds `process_cpu_seconds_total`, "
        "`process_resident_memory_bytes` and `process_open_fds`. No label ever holds a UID, an AE title, an address "
        "or a patient attribute.",
        "",
        *_table(("metric", "type", "labels", "meaning"), rows),
        "",
    ]
    return "\n".join(lines)


def events_page() -> str:
    """Each event with the JSON Schema of its data."""
    lines = [
        "# Events",
        "",
        "The keeper of a region publishes what was committed to the Kafka topic `<prefix>.events`, as CloudEvents 1.0 "
        "in the binary mode of their Kafka binding: the attributes are headers (`ce_id`, `ce_type`, `ce_source`, "
        "`ce_time`, `ce_tenant`), the value is the data in JSON, the key is `<tenant>/<StudyInstanceUID>`. Delivery is "
        "at least once: a repetition has the same `ce_source` and `ce_id`. Events stay seven days unless the topic is "
        "set otherwise; they are no source of truth, the archive is. None holds an attribute of a patient.",
        "",
    ]
    for event in EVENTS:
        schema = json.dumps(json_schema(event), indent=2, ensure_ascii=False)
        lines += [f"## {event.type}", "", " ".join((event.__doc__ or "").split()), "", "```json", schema, "```", ""]
    return "\n".join(lines)


def cli_page() -> str:
    """Each command with its arguments and options."""
    from cli.main import app

    root = get_command(app)
    lines = [
        "# Commands",
        "",
        "`sansfilm COMMAND --help` says the same, with examples. Exit codes: 0 done, 1 something failed, 2 wrong use, "
        "setting or state of the machine, 130 interrupted.",
        "",
    ]
    for path, command in _commands("sansfilm", root):
        rows = [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
        lines += [f"## {path}", "", _prose(command.help or ""), ""]
        lines += [*_table(("argument or option", "default", "meaning"), rows), ""] if rows else []
    return "\n".join(lines)


def main(root: Path) -> int:
    """Write the pages that changed; gives 0."""
    for name, text in pages().items():
        path = root / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {name}")
    return 0


def _setting(name: str, field: FieldInfo) -> tuple[str, ...]:
    variable = f"`SANSFILM_{name.upper()}`"
    default = getattr(field.default, "value", field.default)
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    return variable, f"`{shown}`", _allowed(field), field.description or ""


def _allowed(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if isinstance(kind, type) and hasattr(kind, "__members__"):
        return ", ".join(f"`{member.value}`" for member in kind)  # type: ignore[attr-defined]
    rules = [(rule, key) for rule in field.metadata for key in _BOUNDS if hasattr(rule, key)]
    bounds = [f"{_BOUNDS[key]} {getattr(rule, key)}" for rule, key in rules]
    if kind is str and bounds:
        return " and ".join(bounds) + " characters"
    return ", ".join(bounds) or ("`true`, `false`" if kind is bool else "")


def _described(metric: MetricWrapperBase) -> tuple[str, str, str]:
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return str(metric._type), labels, metric._documentation


def _exposed(metric: MetricWrapperBase) -> str:
    return str(metric._name) + ("_total" if metric._type == "counter" else "")


def _commands(path: str, command: Any) -> Iterable[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from _commands(f"{path} {name}", child)


def _parameter(parameter: Any) -> tuple[str, ...]:
    is_option = parameter.param_type_name == "option"
    names = parameter.opts if is_option else [parameter.metavar or str(parameter.name).upper()]
    has_default = is_option and not parameter.required and parameter.default not in (None, False, "")
    default = f"`{parameter.default}`" if has_default else ""
    return ", ".join(f"`{name}`" for name in names), default, _prose(parameter.help or "").replace("\n", " ")


def _prose(text: str) -> str:
    """Help text without the terminal's markup."""
    for mark in ("[dim]", "[bold]", "[/]"):
        text = text.replace(mark, "")
    lines = (f"    {line.strip()}" if line.startswith("  ") else line.strip() for line in text.split("\n"))
    return "\n".join(lines).strip()


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    shown = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *(f"| {row} |" for row in shown)]


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
