"""What tests of sources share: reading one to its end, and writing the same rows in every format."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from medmind.core.errors import MedmindError
from medmind.data.config import DataConfig
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Dropped, Row

FORMATS = ("csv", "json", "jsonl", "parquet")


def read(source: str, path: Path | str, **settings: Any) -> tuple[list[Row], list[Dropped]]:
    config = DataConfig(source=source, path=str(path), **settings)
    assert config.conflicts() == []
    found = list(SOURCES.get(source).read(config))
    return [one for one in found if isinstance(one, Row)], [one for one in found if isinstance(one, Dropped)]


def refused(source: str, path: Path | str, **settings: Any) -> MedmindError:
    with pytest.raises(MedmindError) as caught:
        read(source, path, **settings)
    return caught.value


def write(path: Path, rows: list[dict[str, Any]], ascii_only: bool = False) -> Path:
    """In the format of the file's name; a CSV holds lists and objects as JSON."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        parquet.write_table(pa.Table.from_pylist(rows), path, compression="none")  # so that damage reaches the texts
        return path
    if name.endswith(".csv"):
        flat = [{key: json.dumps(one) if isinstance(one, dict | list) else one for key, one in r.items()} for r in rows]
        with open(path.with_name(name), "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(flat[0]))
            writer.writeheader()
            writer.writerows(flat)
    elif name.endswith(".jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
        path.with_name(name).write_text(text, encoding="utf-8")
    else:
        path.with_name(name).write_text(json.dumps(rows, ensure_ascii=ascii_only, indent=1), encoding="utf-8")
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.with_name(name).read_bytes()))
        path.with_name(name).unlink()
    return path
