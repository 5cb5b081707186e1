"""What medmind finds on this machine: versions, device, optional packages, caches, the network's doors, a self-test."""

import importlib
import math
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medmind.core.offline import OFFLINE, SILENT, set_here
from medmind.estimate.machine import disk, hub_cache, main_memory, size_of
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer

NEEDED = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "huggingface_hub", "gguf")
BINDINGS = {
    "bitsandbytes": "train.method qlora and lora8, optimisers in 8 bits",
    "numba": "faster LoRA on a CPU",
    "cyllama": "llama.cpp: q4_k_m, q5_k_m and q6_k files, and proof that the export says what the model says",
    "llama-cpp-python": "the same, compiled for this machine: prompts read several times faster where it has AVX-512",
    "spacy": "names and places in the screen for patient data",
    "sentencepiece": "the tokenizer of Mistral shapes for medmind models make",
    "tensorboard": "train.report_to tensorboard",
    "mlflow": "train.report_to mlflow",
    "wandb": "train.report_to wandb",
    "trackio": "train.report_to trackio",
}
"""Packages that need not be there, and what each would add."""
DOORS = {
    "model, data.path, suites": "the Hub, where they name something there: fetched once, then read from its cache",
    "export push": "the Hub, with the repository you name",
    "train.report_to": "the online trackers you name",
    "--endpoint, an address as TARGET": "the server you name",
    "export --ollama": "OLLAMA_HOST, or this machine's Ollama",
    "serve": "is asked, and asks nobody; on 127.0.0.1 unless serve.host says otherwise",
}
"""All that can connect to anything, each only when it is used."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN")
SENTENCE = "Asthma is a disease of the lungs."


def examine(place: Path) -> dict[str, Any]:
    """Everything, as JSON; `place` is where runs would be written. What is broken stands under "faults"."""
    versions = {name: find_version(name) for name in ("medmind", *NEEDED, *BINDINGS)}
    faults = [f"{name} is not installed" for name in ("medmind", *NEEDED) if versions[name] is None]
    device, trouble = attempt(describe_device)
    result, failed = attempt(try_model)
    faults += [f"{what}: {why}" for what, why in (("device", trouble), ("self-test", failed)) if why]
    faults += [f"{name} is installed but cannot be imported: {why}" for name, why in broken(versions).items()]
    return {
        "versions": {"python": platform.python_version(), **{name: versions[name] for name in ("medmind", *NEEDED)}},
        "device": device,
        "bindings": {name: {"version": versions[name], "for": what} for name, what in BINDINGS.items()},
        "disk": {"place": str(place.absolute()), "free": disk(place).free},
        "hub_cache": {"place": str(hub_cache()), "size": size_of(hub_cache()), "free": disk(hub_cache()).free},
        "network": describe_network(os.environ),
        "self_test": result,
        "faults": faults,
    }


def find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def attempt(work: Any) -> tuple[Any, str]:
    """Its result, or why there is none: whatever is wrong with this machine is what one came to hear."""
    try:
        return work(), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}".splitlines()[0]


def broken(versions: Mapping[str, str | None]) -> dict[str, str]:
    """Optional packages with code of their own for this machine, which may not load."""
    modules = {"bitsandbytes": "bitsandbytes", "numba": "numba", "cyllama": "cyllama"}
    modules["llama-cpp-python"] = "medmind.infer.native"
    here = {name: module for name, module in modules.items() if versions[name]}
    tried = {name: attempt(lambda module=module: importlib.import_module(module))[1] for name, module in here.items()}
    return {name: why for name, why in tried.items() if why}


def describe_device() -> dict[str, Any]:
    from medmind.models.device import count_threads, find_device, hardware_dtypes, resolve_dtype

    device, memory = find_device(), main_memory()
    return {
        "kind": device.kind,
        "name": device.name,
        "memory_free": memory.free if device.free is None else device.free,
        "memory_total": memory.total if device.total is None else device.total,
        "cores": os.cpu_count(),
        "threads": count_threads(),
        "dtypes": hardware_dtypes(),
        "auto": resolve_dtype("auto")[0],
    }


def describe_network(environment: Mapping[str, str]) -> dict[str, Any]:
    """Who could reach outside and by what; of tokens only whether there are any."""
    home = hub_cache().parent
    kept = {"token file of the Hub": (home / "token").is_file()}
    return {
        "endpoint": urlsplit(environment.get("HF_ENDPOINT", "https://huggingface.co")).hostname,
        "doors": DOORS,
        "hub": "off, unless a recipe names a model or data set there" if set_here else "as the settings say",
        "offline": {name: environment.get(name, "") for name in OFFLINE if name not in set_here},
        "telemetry": {name: environment.get(name, "") for name in SILENT if name.startswith(("HF", "DIS", "DO"))},
        "proxies": {name: bool(environment.get(name) or environment.get(name.lower())) for name in PROXIES},
        "tokens": {name: bool(environment.get(name)) for name in TOKENS} | kept,
    }


def try_model() -> dict[str, Any]:
    """nano reads a sentence; it must be less surprised than by chance."""
    from medmind.infer.open import open_generator

    spec = find_model("nano")
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    ids = renderer.passage(SENTENCE).ids
    [found] = open_generator(spec, None, renderer).log_likelihoods([(ids[:1], ids[1:])])
    nats = -sum(found) / len(found)
    chance = math.log(spec.shape.vocab_size)
    if not nats < chance:
        raise RuntimeError(f"nano gives {nats:.2f} nats a token, by chance it were {chance:.2f}")
    return {"model": spec.id, "nats_per_token": round(nats, 3), "by_chance": round(chance, 3)}
