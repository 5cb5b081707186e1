"""Where a model's files lie: in a folder, or on the Hub, which is asked only for a model the user named there."""

from pathlib import Path

from medmind.core.errors import DataError, EnvironmentFault, UsageError
from medmind.core.offline import keep_quiet
from medmind.models.spec import ModelSpec, unlock


def find_file(spec: ModelSpec, name: str) -> Path:
    if spec.local:
        return Path(spec.source) / name
    file = fetch(spec.source, name, spec.how_to_get)
    if file is None:
        raise DataError(f"the model has no {name}", where=spec.source, todo="choose one in the Hugging Face format")
    return file


def is_here(spec: ModelSpec, name: str) -> bool:
    """Whether `find_file` would need no network."""
    keep_quiet(allow_hub=True)
    from huggingface_hub import try_to_load_from_cache

    return spec.local or isinstance(try_to_load_from_cache(spec.source, name), str)


def fetch(source: str, name: str, todo: str = "check the network, or name a local folder") -> Path | None:
    """A file of a Hub model, out of the cache if it is there already; None where the model has no such file."""
    keep_quiet(allow_hub=True)
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(source, name))
    except GatedRepoError:
        raise EnvironmentFault("the model is gated", where=source, todo=unlock(source)) from None
    except RepositoryNotFoundError:
        todo = "check the name; a private one needs a login: hf auth login"
        raise UsageError("neither a folder here nor a model of the Hub", where=source, todo=todo) from None
    except LocalEntryNotFoundError:
        if try_to_load_from_cache(source, name) is _CACHED_NO_EXIST:
            return None
        what = f"cannot fetch {name}: the Hub cannot be reached, and its cache has none"
        raise EnvironmentFault(what, where=source, todo=todo) from None
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        what = f"cannot fetch {name}: {str(error).strip().splitlines()[0].rstrip('.')}"
        raise EnvironmentFault(what, where=source, todo=todo) from None
