"""Ollama's templates, run by Go's own text/template as Ollama runs them; needs a Go compiler."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from odd_talk import say
from vocabularies import byte_level_json, mistral_json

from medmind.export.ollama import stops
from medmind.models.tokenizer import JsonTokenizer
from medmind.prompts.families import open_renderer

GO = """
package main

import ("bytes"; "encoding/json"; "os"; "text/template")

type Message struct { Role, Content string }

func main() {
    var cases []struct { Template, System string; Messages []*Message }
    json.NewDecoder(os.Stdin).Decode(&cases)
    texts := []string{}
    for _, one := range cases {
        var text bytes.Buffer
        values := map[string]any{"System": one.System, "Messages": one.Messages, "Response": ""}
        if err := template.Must(template.New("").Parse(one.Template)).Execute(&text, values); err != nil { panic(err) }
        texts = append(texts, text.String())
    }
    json.NewEncoder(os.Stdout).Encode(texts)
}
"""
TALKS = [
    say(*turns, system=system)
    for turns in (["One?"], ["One?", "First.", "Two?"], ["One?", "First.", "Two?", "Second.", "Three?"])
    for system in ("", "Be brief.")
]
STOPS = {
    "mistral-v3": ["</s>", "[INST]"],
    "llama-3": ["<|eot_id|>", "<|end_of_text|>", "<|start_header_id|>"],
    "chatml": ["<|im_end|>", "<|im_start|>"],
    "instruction-response": ["</s>", "### Instruction:"],
    "question-answer": ["</s>", "### Question:"],
}


def write_tokenizer(name: str, folder: Path) -> JsonTokenizer:
    vocabularies = {"llama-3": "llama-bpe", "chatml": "qwen2"}
    text = byte_level_json(vocabularies[name]) if name in vocabularies else mistral_json()
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    return JsonTokenizer(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("go")
    if not compiler:
        pytest.skip("needs a Go compiler")
    folder = tmp_path_factory.mktemp("go")
    (folder / "main.go").write_text(GO, encoding="utf-8")
    subprocess.run([compiler, "build", "-o", "run", "main.go"], cwd=folder, check=True)
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("name", STOPS)
def test_the_ollama_template_says_what_the_renderer_says(name: str, go: Path, tmp_path: Path) -> None:
    renderer = open_renderer(name, write_tokenizer(name, tmp_path))
    cases = [
        {
            "Template": renderer.ollama_template,
            "System": "".join(message.text for message in talk if message.role == "system"),
            "Messages": [{"Role": message.role, "Content": message.text} for message in talk],
        }
        for talk in TALKS
    ]
    done = subprocess.run([go], input=json.dumps(cases), capture_output=True, text=True, check=True)
    expected = [renderer.text(talk).removeprefix(renderer.bos if renderer.adds_bos else "") for talk in TALKS]
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("name", STOPS)
def test_a_modelfile_stops_at_every_end_and_at_a_new_question(name: str, tmp_path: Path) -> None:
    assert stops(open_renderer(name, write_tokenizer(name, tmp_path))) == STOPS[name]
