"""No outbound connection: the one place that tells every library to stay at home, before it is imported."""

import os
import sys

SILENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "USE_HUB_KERNELS": "NO",
    "TOKENIZERS_PARALLELISM": "false",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


_before: dict[str, str | None] = {}


def keep_quiet(allow_hub: bool) -> None:
    """Telemetry and update checks off, always; the Hub off too, unless the user named a model or data set there.

    With `allow_hub`, what an earlier call switched off is as the user had it, who may have it off.
    """
    os.environ.update(SILENT)
    # The package "kernels" fetches compiled code from the Hub when others merely import it; here it is not installed.
    sys.modules["kernels"] = None  # type: ignore[assignment]
    if not allow_hub:
        for name, value in OFFLINE.items():
            _before.setdefault(name, os.environ.get(name))
            os.environ[name] = value
        return
    while _before:
        name, old = _before.popitem()
        if old is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = old
