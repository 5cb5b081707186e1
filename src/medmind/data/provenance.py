"""Where the rows come from and what became of them: for licences.json, the manifest and the model card."""

from collections.abc import Iterator
from typing import Any

from medmind.core.rundir import sha256_file
from medmind.data.config import DataConfig
from medmind.data.licences import Ingredient, Use, attribution, find_licences, flags
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Origin, Source


def all_origins(config: DataConfig) -> Iterator[tuple[Source, Use, Origin]]:
    """Every file the stage reads, for what, and by which source."""
    source = SOURCES.get(config.source)
    for origin in source.origins(config):
        yield source, "training", origin
    for suite in config.suites.values():
        source = SOURCES.get(suite.source)
        for origin in source.origins(suite.as_data()):
            yield source, "evaluation", origin


def origins(config: DataConfig) -> list[dict[str, Any]]:
    """licences.json: every file read, with its licence and what that asks for."""
    return [
        {
            "source": source.name,
            "use": use,
            "file": str(one.path),
            "revision": one.revision,
            "licence": one.licence,
            "flags": flags(find_licences(one.licence)),
            "credit": source.credit,
            "sha256": sha256_file(one.path),
        }
        for source, use, one in all_origins(config)
    ]


def ingredients(config: DataConfig) -> list[Ingredient]:
    """The same for `medmind data licences`, each source and licence once."""
    found = [Ingredient(source.name, use, one.licence, source.credit) for source, use, one in all_origins(config)]
    return list(dict.fromkeys(found))


def facts(config: DataConfig, report: dict[str, Any], read: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says of the data: what was read, rows in and out with reasons, hashes of the id lists."""
    return {
        "origins": read,
        "attribution": attribution(one for one in ingredients(config) if one.use == "training"),
        "rows_read": report["rows_read"],
        "rows": report["parts"],
        "left_to_pretraining": report["left_to_pretraining"],
        "not_sampled": report["not_sampled"],
        "dropped": {fault: found["count"] for fault, found in report["dropped"]["by_reason"].items()},
        "ids_sha256": report["ids_sha256"],
        "leaks_allowed": report["leaks"]["allowed"],
    }
