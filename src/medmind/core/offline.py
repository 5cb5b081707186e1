"""No outbound connection: the one place that tells every library to stay at home, before it is imported."""

import logging
import os
import sys
import warnings

SILENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "USE_HUB_KERNELS": "NO",
    "TOKENIZERS_PARALLELISM": "false",
}
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
set_here: set[str] = set()
"""Which of them this process set itself: what the user set stays."""


def keep_home() -> None:
    """As though the user had said so: from here on no `keep_quiet` opens the Hub."""
    os.environ.update(dict.fromkeys(OFFLINE, "1"))
    set_here.clear()


def is_kept_home() -> bool:
    return OFFLINE[0] in os.environ and OFFLINE[0] not in set_here


def keep_quiet(allow_hub: bool) -> None:
    """Telemetry and update checks off, always; the Hub off too, unless the user named a model or data set there."""
    os.environ.update(SILENT)
    # The package "kernels" fetches compiled code from the Hub when others merely import it; here it is not installed.
    sys.modules["kernels"] = None  # type: ignore[assignment]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns that it could not fetch them
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # about its own next version
    for name in OFFLINE:
        if allow_hub and name in set_here:
            del os.environ[name]
            set_here.remove(name)
        elif not allow_hub and name not in os.environ:
            os.environ[name] = "1"
            set_here.add(name)
