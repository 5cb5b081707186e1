"""No outbound connection: the one place that tells every library to stay at home, before it is imported."""

import os

SILENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "USE_HUB_KERNELS": "NO",
    "TOKENIZERS_PARALLELISM": "false",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def keep_quiet(allow_hub: bool) -> None:
    """Telemetry and update checks off, always; the Hub off too, unless the user named a model or data set there."""
    os.environ.update(SILENT)
    if not allow_hub:
        os.environ.update(OFFLINE)
