"""Ollama's templates, run by Go's own text/template as Ollama runs them; needs a Go compiler.

What Ollama does to a conversation first is restated from its template/template.go (`collate`, `Execute`) at commit
0097ef5ff1f346862f5bd1123f16fd3c5a71b893.
"""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from odd_talk import say, talks, uneven
from vocabularies import byte_level_json, mistral_json

from medmind.core.types import Message
from medmind.export.ollama import stops
from medmind.models.tokenizer import JsonTokenizer
from medmind.prompts.families import open_renderer

GO = r"""
package main

import ("bytes"; "encoding/json"; "os"; "strings"; "text/template")

type Message struct { Role, Content string }

// All system texts in one, a blank line between them, and they stay where they stood; neighbours of one role are one.
func lay(talk []Message) (string, []*Message) {
    said, laid := []string{}, []*Message{}
    for _, one := range talk {
        if one.Role == "system" { said = append(said, one.Content) }
        if end := len(laid) - 1; end >= 0 && laid[end].Role == one.Role {
            laid[end].Content += "\n\n" + one.Content
        } else {
            laid = append(laid, &Message{one.Role, one.Content})
        }
    }
    return strings.Join(said, "\n\n"), laid
}

func main() {
    var cases []struct { Template string; Messages []Message }
    json.NewDecoder(os.Stdin).Decode(&cases)
    texts := []string{}
    for _, one := range cases {
        var text bytes.Buffer
        system, laid := lay(one.Messages)
        values := map[string]any{"System": system, "Messages": laid, "Response": ""}
        parsed := template.Must(template.New("").Option("missingkey=zero").Parse(one.Template))
        if err := parsed.Execute(&text, values); err != nil { panic(err) }
        texts = append(texts, text.String())
    }
    json.NewEncoder(os.Stdout).Encode(texts)
}
"""


PLAIN = [
    say(*turns, system=system)
    for turns in (["One?"], ["One?", "First.", "Two?"], ["One?", "First.", "Two?", "Second.", "Three?"])
    for system in ("", "Be brief.")
]
ODD = [talk for number, talk in enumerate(talks(200, 5)) for talk in (talk, uneven(talk, random.Random(number)))]
TRIMMED = [[Message(role=one.role, text=one.text.strip()) for one in talk] for talk in ODD]
TALKS = [*PLAIN, *(talk for talk in TRIMMED if all(one.text for one in talk))]
"""What a Go template cannot do as the renderers do: take blanks off a text, or leave an empty turn out."""
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
            "Messages": [{"Role": message.role, "Content": message.text} for message in talk],
        }
        for talk in TALKS
    ]
    done = subprocess.run([go], input=json.dumps(cases), capture_output=True, encoding="utf-8", check=True)
    expected = [renderer.text(talk).removeprefix(renderer.bos if renderer.adds_bos else "") for talk in TALKS]
    for talk, got, wanted in zip(TALKS, json.loads(done.stdout), expected, strict=True):
        assert got == wanted, talk


@pytest.mark.parametrize("name", STOPS)
def test_a_modelfile_stops_at_every_end_and_at_a_new_question(name: str, tmp_path: Path) -> None:
    assert stops(open_renderer(name, write_tokenizer(name, tmp_path))) == STOPS[name]
