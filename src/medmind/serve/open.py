"""Opens what is served: the engine that a set of weights runs in, and the names it answers to."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medmind.core.rundir import sha256_file, sha256_lines
from medmind.infer.decoder import Decoder, Sampling
from medmind.models.spec import ModelSpec
from medmind.models.weights import list_weights
from medmind.prompts.chat import Renderer
from medmind.serve.config import ServeConfig
from medmind.serve.engine import Engine
from medmind.serve.served import Facts, Served


@dataclass(frozen=True)
class Speaker:
    """How a model is spoken to, whichever engine it runs in."""

    name: str
    spec: ModelSpec
    renderer: Renderer
    system_prompt: str
    temperature: float


def open_gguf(speaker: Speaker, path: Path, config: ServeConfig) -> Served:
    def decoder() -> Decoder:
        from medmind.infer.decode_llamacpp import LlamaCppDecoder

        return LlamaCppDecoder(path, config.max_concurrent, config.context, tokenizer=speaker.renderer.tokenizer)

    engine = start(decoder, config)
    return served(speaker, engine, facts_of(speaker, [path], engine.dtype), config)


def open_checkpoint(spoken: Sequence[tuple[Speaker, Path | None]], weights: Path, config: ServeConfig) -> list[Served]:
    """Each with what was trained, None for the base in `weights`; whatever shares a base shares its weights."""
    trained = list(dict.fromkeys(folder for _, folder in spoken if folder))

    def decoder() -> Decoder:
        from medmind.infer.decode_hf import open_hf

        return open_hf(spoken[0][0].spec, trained, config.max_concurrent, config.context)

    engine = start(decoder, config)
    found = []
    for speaker, folder in spoken:
        facts = facts_of(speaker, weight_files(folder or weights), engine.dtype)
        found.append(served(speaker, engine, facts, config, voice_of(folder, trained)))
    return found


def voice_of(folder: Path | None, trained: Sequence[Path]) -> str:
    """What the engine calls it."""
    if folder is None:
        return "base" if trained else ""
    place = trained.index(folder)
    return str(place + 1) if place else ""


def open_remote(speaker: Speaker, url: str, key: str, config: ServeConfig) -> Served:
    """A model that another server runs; after a # in the address stands its name there."""
    from medmind.infer.decode_endpoint import EndpointDecoder
    from medmind.infer.endpoint import open_endpoint

    address, _, name = url.partition("#")
    endpoint = open_endpoint(address, name, speaker.renderer.tokenizer, speaker.spec.context, key=key)
    engine = start(lambda: EndpointDecoder(endpoint, config.max_concurrent, config.context), config)
    called = replace(speaker, name=endpoint.server.model.removesuffix(":latest"))
    digest = sha256_lines([address, called.name])
    return served(called, engine, describe(called, int(time.time()), 0, digest, engine.dtype), config)


def start(decoder: Callable[[], Decoder], config: ServeConfig) -> Engine:
    engine = Engine(decoder, config.queue)
    engine.wait_ready()
    return engine


def served(speaker: Speaker, engine: Engine, facts: Facts, config: ServeConfig, voice: str = "") -> Served:
    return Served(
        name=speaker.name,
        engine=engine,
        renderer=speaker.renderer,
        system_prompt=speaker.system_prompt,
        sampling=Sampling(temperature=speaker.temperature),
        facts=facts,
        max_new_tokens=config.max_new_tokens,
        screened=config.redact_phi,
        voice=voice,
    )


def weight_files(folder: Path) -> list[Path]:
    """Of an adapter or a whole checkpoint."""
    return sorted(folder.glob("adapter_model*.safetensors")) or list_weights(folder)


def facts_of(speaker: Speaker, files: list[Path], dtype: str) -> Facts:
    """The digest is over the bytes of the weights: the same model has the same one everywhere."""
    digests = [sha256_file(file) for file in files]
    digest = digests[0] if len(digests) == 1 else sha256_lines(digests)
    created, size = max(file.stat().st_mtime for file in files), sum(file.stat().st_size for file in files)
    return describe(speaker, int(created), size, digest, dtype)


def describe(speaker: Speaker, created: int, size: int, digest: str, dtype: str) -> Facts:
    return Facts(
        created=created,
        size=size,
        digest=digest,
        family=speaker.spec.family,
        parameters=speaker.spec.shape.parameters,
        quantisation=dtype,
        licence=speaker.spec.licence,
        parent=speaker.spec.id,
    )
