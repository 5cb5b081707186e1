"""Where the packaged facts say they can be checked, something stands, and it stands there once."""

import io
import json
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import zstandard

from medmind.data.sources.facts import read_facts

CHECKS = [check for row in read_facts() for check in row.raw["check"]]


def test_every_medquad_check_names_one_answer(shared_data: Path) -> None:
    answers: Counter[tuple[str, str]] = Counter()
    with tarfile.open(shared_data / "medquad" / "medquad_xml.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".xml") else None
            if file is None:
                continue
            for pair in ElementTree.parse(file).getroot().iter("QAPair"):
                question = pair.find("Question")
                if question is not None and (pair.findtext("Answer") or "").strip():
                    answers[member.name.split("/")[-2], question.get("qid") or ""] += 1
    asked = [(check["folder"], check["id"]) for check in CHECKS if check["source"] == "medquad"]
    assert len(asked) > 150
    assert [one for one in asked if answers[one] != 1] == []


def test_every_openstax_check_names_a_section(shared_data: Path) -> None:
    with open(shared_data / "prose_medical" / "openstax_medical.jsonl.zst", "rb") as raw:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8", newline="\n")
        titles = {json.loads(line)["title"] for line in lines}
    asked = [check["section"] for check in CHECKS if check["source"] == "openstax"]
    assert len(asked) > 150
    assert [section for section in asked if section not in titles] == []
