# SPDX-License-Identifier: Apache-2.0
"""`python -m tiny_qwen_world.card DIR`: measures a checkpoint and writes its model card beside it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from tiny_qwen_world.data import OUTSIDE
from tiny_qwen_world.measure import Scores, guess_from_text, held_out, measure, outside, overall
from tiny_qwen_world.outside import NOTE
from tiny_qwen_world.recipe import RECIPE
from tiny_qwen_world.store import Progress
from tokenprune.bench.world.clip import questions_of
from tokenprune.bench.world.questions import KINDS, SMALL_KINDS
from tokenprune.bench.world.scene import sample_scene

COLUMNS = ("plain", "from .mp4", "random 25 %", "random 10 %", "another video", "wording only", "chance")
ASKS = {
    "shape": "the shape of the object of a colour",
    "direction": "which way the object of a colour moves",
    "moves": "the colour of the one object that moves",
    "where": "on which side the flash of a colour was",
    "colour": "the colour of the flash on a side",
    "exists": "whether there was a flash of a colour",
    "count": "how many flashes there were",
    "first": "the colour of the first or last flash",
    "before": "the colour of the big or small object before or after the cut",
    "detail": "the letter on the sign",
}


def main() -> None:
    """Reads the command line, measures, writes `README.md` and `figures.json`."""
    parser = argparse.ArgumentParser(prog="python -m tiny_qwen_world.card", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-kind", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--state", type=Path, help="progress.json of the run, to say how far it came")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    columns, note = measure_all(args.folder, args.per_kind)
    progress = Progress(**json.loads(args.state.read_text())) if args.state else None
    figures = {name: {kind: asdict(score) for kind, score in scores.items()} for name, scores in columns.items()}
    figures[OUTSIDE] = {OUTSIDE: asdict(note[OUTSIDE])}
    _write(args.folder / "figures.json", json.dumps(figures, indent=1) + "\n")
    card = write_card(columns, note, args.per_kind, progress, args.folder)
    _write(args.folder / "README.md", card)
    sys.stdout.write(card)


def _write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def measure_all(folder: Path, per_kind: int) -> tuple[dict[str, Scores], Scores]:
    """Every column of the card's table but chance, and how often the note comes where it should."""
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    clips = held_out(per_kind)
    columns = {
        "plain": measure(model, tokenizer, clips),
        "from .mp4": measure(model, tokenizer, clips, mp4=True),
        "random 25 %": measure(model, tokenizer, clips, keep=0.25),
        "random 10 %": measure(model, tokenizer, clips, keep=0.1),
        "another video": measure(model, tokenizer, clips, shift=1),
        "wording only": guess_from_text(clips),
    }
    return columns, measure(model, tokenizer, outside(200))


def write_card(columns: dict[str, Scores], note: Scores, per_kind: int, progress: Progress | None, folder: Path) -> str:
    """The model card, as Markdown."""
    chance = {q.kind: 1 / len(q.options) for seed in range(60) for q in questions_of(sample_scene(seed))}
    lines = [
        "| kind | asks | " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for kind in KINDS:
        shares = [columns[name][kind].share for name in COLUMNS[:-1]] + [chance[kind]]
        star = " *" if kind in SMALL_KINDS else ""
        lines.append(f"| {kind}{star} | {ASKS[kind]} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")
    means = [overall(columns[name]) for name in COLUMNS[:-1]] + [sum(chance.values()) / len(chance)]
    lines.append("| **mean** | | " + " | ".join(f"**{mean:.3f}**" for mean in means) + " |")
    stages = "\n".join(
        f"| {s.name} | {s.steps} | {s.clips} | {s.questions or '-'} | {s.visual_tokens if s.questions else '-'} "
        f"| {s.word_weight:g} | {s.look_weight:g} | {s.rate:g} to {s.last_rate:g} |"
        for s in RECIPE.stages
    )
    stopped = ""
    if progress is not None and progress.stage < len(RECIPE.stages):
        stage = RECIPE.stages[progress.stage]
        stopped = f"\n\nThis run was stopped in stage `{stage.name}` after {progress.step} of {stage.steps} steps."
    size = (folder / "model.safetensors").stat().st_size / 1e6
    return _CARD.format(
        size=size,
        table="\n".join(lines),
        per_kind=per_kind,
        total=per_kind * len(KINDS),
        note=NOTE,
        note_share=note[OUTSIDE].share,
        note_asked=note[OUTSIDE].asked,
        stages=stages,
        stopped=stopped,
        seed=RECIPE.seed,
    )


_CARD = """---
license: apache-2.0
pipeline_tag: video-text-to-text
library_name: transformers
---

# The small model that ships with tokenprune

A `Qwen2_5_VLForConditionalGeneration` with the library's own processor and Qwen's chat format, trained from nothing on
a made-up world of coloured shapes. It is there so that every command answers offline in seconds and so that methods of
token reduction can be compared on a model that really looks. **It knows nothing else**: asked about anything outside
its world it says "{note}"

* 8 decoder layers of width 128 (4 query and 2 key-value heads, M-RoPE), vision tower of 2 blocks of width 96 (one
  windowed, one full), tied embeddings, byte-level tokenizer of 1023 entries; {size:.1f} MB of float32 weights.
* A clip is 16 frames of 168 x 168: 8 x 6 x 6 = 288 visual tokens. The processor resizes any video to about that many
  pixels a frame and reads files of 2 frames per second frame by frame.

## The world

`tokenprune.bench.world.sample(seed)`: 2 to 4 objects (4 shapes, 6 colours, 2 sizes), one or two of them moving, some
hiding others, coming or leaving, on textured ground with sensor noise and slowly changing light; a quarter of the clips
has a cut. Up to four small **flashes**, each inside one visual token of one time slot (2 frames), and in six of ten
clips a small **sign** with a letter, likewise. Training seeds lie below 10 000 000, held-out seeds from 1 000 000 000
on.

## Accuracy

{total} held-out questions ({per_kind} of each kind), greedy, the whole answer right. A star marks kinds whose evidence
is one visual token for each thing asked about. *from .mp4*: the clip went through an H.264 file. *random*: so many of
the visual tokens, drawn at random, reach the decoder. *another video*: the question is asked of the next clip.
*wording only*: for each wording the answer it most often has, counted over 20 000 training scenes.

{table}

Questions from outside the world are answered with the note in {note_share:.1%} of {note_asked} cases.

## Recipe

`docs/examples/tiny-qwen-world` of the repository: `python -m tiny_qwen_world --out DIR` (seed {seed}, `--resume` to go
on), on two CPU cores under bfloat16 autocast with float32 weights. All questions about a clip share its cost, yet each
is laid out as a prompt of one turn. Dense auxiliary labels (what lies under each visual token, where it is, how it
moves) help throughout; their heads are not part of the model. At first only some visual tokens reach the decoder, small
evidence always among them: finding one token of forty is learned far sooner than one of three hundred. *words*: weight
of a loss that brings the vector of a coloured token near the embedding of its colour word. *look*: weight of a loss on
where two heads of decoder layers 1 and 4 (from 0) look: from a question's colour word at tokens of that colour, from
its end at what shows the answer.

| stage | steps | clips a step | questions a clip | visual tokens | words | look | learning rate |
|---|---|---|---|---|---|---|---|
{stages}

AdamW (0.9, 0.98), decay 0.05 on matrices, clipping at 1. A quarter of the training clips has been through an .mp4 file.
The lengths and rates of the later stages were set while the shipped weights trained, so a new run follows the same
steps but ends in other weights. `python -m tiny_qwen_world.card DIR` measures a checkpoint and writes this
card.{stopped}

## Limits

* Answers are single words of the world; wording close to the trained one is understood, free wording is not.
* Clips of another length, frame rate or size than the world's, images and conversations of several turns were not
  trained on.
* Two heads in each of two layers were taught where to look. Methods that read a layer's attention find it clearer here
  than in a large model.
* The rotary base is 10 (prompts are short): do not read anything about long context from this model.
* Accuracy under pruning here ranks methods on small, brief, local evidence; it does not predict accuracy on real video.
"""


if __name__ == "__main__":
    main()
