# SPDX-License-Identifier: Apache-2.0
"""`python -m tiny_qwen_world --out DIR [--resume]`: trains the shipped checkpoint from nothing."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(prog="python -m tiny_qwen_world", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for state, log and export")
    parser.add_argument("--resume", action="store_true", help="go on from the state in --out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop, resumable, after so long")
    parser.add_argument("--eager", action="store_true", help="do without torch.compile")
    args = parser.parse_args()

    import torch

    from tiny_qwen_world import store
    from tiny_qwen_world.build import build
    from tiny_qwen_world.loop import Trainer
    from tiny_qwen_world.recipe import RECIPE

    until = time.time() + 60 * args.minutes
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    folder: Path = args.out
    progress = store.load_progress(folder)
    if progress is not None and not args.resume:
        raise SystemExit(f"{folder} holds a run: pass --resume to go on with it, or another --out")
    folder.mkdir(parents=True, exist_ok=True)
    built = build(RECIPE.seed, device)
    trainer = Trainer(
        model=built.model,
        heads=built.heads,
        forward=built.forward,
        tokenizer=built.processor.tokenizer,
        recipe=RECIPE,
        folder=folder,
        device=device,
        compiled=not args.eager,
        on_save=lambda: store.export(folder / "export", built.model, built.processor),
    )
    if progress is not None:
        store.load_parts(folder, trainer.parts)
    done = trainer.run(progress or store.Progress(), until)
    store.export(folder / "export", built.model, built.processor)
    sys.stdout.write("done\n" if done else "stopped: go on with --resume\n")


if __name__ == "__main__":
    main()
