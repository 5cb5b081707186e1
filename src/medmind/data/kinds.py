"""What a recipe may say of each source: a leaf, so that a recipe can be checked before any source is opened."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """`tasks`: what the rows can ask, the first being data.task when the recipe is silent. `keys`: settings that only
    some sources have. `files`: which files of a folder or a Hub data set are read, unless data.files says. `roles`:
    what data.columns can name.
    """

    tasks: tuple[str, ...]
    keys: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


MAPPED_ROLES = ("question", "answer", "reasoning", "context", "group", "id", "language")
MAPPED = Kind(("qa", "terms", "reasoned"), ("columns", "files"), roles=MAPPED_ROLES)
CONVERSATION = Kind(("qa",), ("columns", "files", "own_system_prompt"), roles=("messages", "id", "group"))
SUBJECTS = (
    "anatomy",
    "clinical_knowledge",
    "college_biology",
    "college_medicine",
    "medical_genetics",
    "professional_medicine",
)
"""The subjects of MMLU that are medical, as Med-PaLM and everyone after it counted them."""

KINDS: dict[str, Kind] = {
    "terms": Kind(("terms",), ("files",)),
    "four_part": Kind(("terms",), ("files",)),
    "medquad": Kind(("qa",), ("files",)),
    "pubmedqa": Kind(("choice",), ("files", "setting", "labels"), ("pqa_labeled/*", "ori_pqal.json*")),
    "medical_o1": Kind(("reasoned", "qa"), ("files",), ("medical_o1_sft.json*",)),
    "synthetic_qa": Kind(("qa",), ("files",)),
    "medqa": Kind(("multiple_choice",), ("files",)),
    "medmcqa": Kind(("multiple_choice",), ("files", "first_option")),
    "mmlu_medical": Kind(
        ("multiple_choice",), ("files", "first_option"), tuple(f"*{subject}*" for subject in SUBJECTS)
    ),
    "casimedicos": Kind(("multiple_choice",), ("files",)),
    "csv": MAPPED,
    "json": MAPPED,
    "jsonl": MAPPED,
    "parquet": MAPPED,
    "alpaca": Kind(("qa", "terms"), ("files",)),
    "sharegpt": CONVERSATION,
    "messages": CONVERSATION,
    "prose": Kind(("text",), ("files",)),
    "nano_corpus": Kind(("text",)),
}
