"""`medmind doctor`: versions, device, optional packages, caches, what may touch the network, and a self-test."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medmind.core.errors import EnvironmentFault

HELP = "what medmind finds on this machine, and whether it works; exit 3 when something needed is broken"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def run(args: argparse.Namespace) -> int:
    from medmind.estimate.doctor import examine

    found = examine(Path("runs"))
    print(json.dumps(found) if args.json else "\n".join(as_lines(found)))
    if found["faults"]:
        todo = "install medmind again with its pinned packages: make setup"
        raise EnvironmentFault("; ".join(found["faults"]), todo=todo)
    return 0


def as_lines(found: dict[str, Any]) -> Iterator[str]:
    yield "versions"
    yield from rows({name: value or "missing" for name, value in found["versions"].items()})
    if device := found["device"]:
        yield "device"
        memory = f"{gigabytes(device['memory_free'])} free of {gigabytes(device['memory_total'])}"
        hardware = ", ".join(name for name, known in device["dtypes"].items() if known)
        threads = f"{device['threads']} of {device['cores']} cores"
        yield from rows({device["kind"]: device["name"], "memory": memory, "threads": threads, "dtypes": hardware})
        yield from rows({"dtype auto": device["auto"]})
    yield "optional packages"
    yield from rows({name: f"{one['version'] or 'absent'}: {one['for']}" for name, one in found["bindings"].items()})
    yield "disk"
    cache = found["hub_cache"]
    yield from rows({found["disk"]["place"]: f"{gigabytes(found['disk']['free'])} free"})
    yield from rows({cache["place"]: f"the Hub's cache, {gigabytes(cache['size'])}; {gigabytes(cache['free'])} free"})
    yield from network(found["network"])
    test = found["self_test"]
    yield "self-test"
    said = test and f"{test['nats_per_token']} nats a token, by chance {test['by_chance']}"
    yield from rows({"nano reads a sentence": said or "failed"})


def network(found: dict[str, Any]) -> Iterator[str]:
    """Of tokens only whether there are any."""
    yield "network, which nothing but these can reach, each only when you use it"
    yield from rows(found["doors"])
    yield from rows({"Hub": found["hub"], "its address": found["endpoint"]})
    yield from rows({f"{name}, set by you": value for name, value in found["offline"].items() if value})
    off = ", ".join(f"{name}={value}" for name, value in found["telemetry"].items())
    yield from rows({"telemetry": f"off by {off}, set by medmind"})
    for title, group in (("proxies", found["proxies"]), ("tokens", found["tokens"])):
        yield from rows({title: ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in group.items())})


def rows(values: dict[str, str]) -> Iterator[str]:
    for name, value in values.items():
        yield f"  {name:<34}{value}"


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
