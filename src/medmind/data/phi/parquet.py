"""A Parquet file without its identifiers: its columns keep their types, except numbers and dates that were some."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medmind.core.errors import DataError
from medmind.core.jsonl import atomic
from medmind.data.phi.screen import Change, change_texts
from medmind.data.sources.parquet_table import AT_ONCE, plain


def write_parquet(
    path: Path, out: Path, pairs: Iterable[tuple[dict[str, Any], dict[str, Any]]], change: Change
) -> None:
    """`pairs` (rows as they are and without identifiers) tell which columns hold any; a second pass writes."""
    import pyarrow
    from pyarrow import parquet, types

    touched: set[str] = set()
    for was, now in pairs:
        touched |= {name for name in was if was[name] != now[name]}
    with parquet.ParquetFile(path) as file, atomic(out, "wb") as target:
        schema = file.schema_arrow
        if any(change(name, "") != name for field in schema for name in names_within(field.type)):
            todo = "rename it"
            raise DataError("the name of a field within a record is a patient identifier", where=str(path), todo=todo)
        worded = {name for name in touched if not types.is_nested(schema.field(name).type)}
        for name in worded:
            field = schema.field(name)
            if not types.is_large_string(field.type):
                schema = schema.set(schema.get_field_index(name), field.with_type(pyarrow.string()))

        def value(name: str, was: Any) -> Any:
            if name not in touched or was is None:
                return was
            changed = change_texts(plain(was), change, name)
            return str(changed) if name in worded else changed

        with parquet.ParquetWriter(target, schema) as writer:
            for batch in file.iter_batches(batch_size=AT_ONCE):
                rows = [{name: value(name, one) for name, one in row.items()} for row in batch.to_pylist()]
                try:
                    writer.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema=schema))
                except (pyarrow.ArrowException, TypeError) as error:
                    todo = "save the file as JSON lines first"
                    raise DataError(
                        f"an identifier within a list or record: {error}", where=str(path), todo=todo
                    ) from None


def names_within(kind: Any) -> Iterator[str]:
    """Of the fields of a record, however deep."""
    for field in (kind.field(number) for number in range(kind.num_fields)):
        yield field.name
        yield from names_within(field.type)
