# SPDX-License-Identifier: Apache-2.0
"""Seconds and peak memory of reading 8, 64 and 768 frames of ten minutes of 720p.

python docs/examples/read_video.py ten-minutes.mp4            # made where it is missing
python docs/examples/read_video.py ten-minutes.mp4 --frames 8 # one reading, in this process
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

COUNTS = (8, 64, 768)
FPS, SECONDS, HEIGHT, WIDTH = 10, 600, 720, 1280


def make(path: Path) -> None:
    """6000 frames that move, H.264 with the encoder's usual key frames."""
    import av

    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for place in range(FPS * SECONDS):
            shown = np.ascontiguousarray(np.roll(picture, (place, 3 * place), axis=(0, 1)))
            shown[::8, ::8] = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())


def read(path: Path, frames: int) -> dict[str, float]:
    """One reading; memory is what the process gained at most."""
    from transformers import Qwen2VLVideoProcessor

    from tokenprune_qwen25vl.video import load_clip

    options = {}
    try:
        from tokenprune.hf.frontend.pixels import PixelOptions
        from tokenprune.hf.frontend.video import ProcessorFit

        fit = ProcessorFit(PixelOptions(Qwen2VLVideoProcessor()))
        fit.resize(np.zeros((64, 64, 3), np.uint8), (32, 32))  # imports are not what is measured
        options = {"fit": fit}
    except ImportError:  # before the reader could scale
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    clip = load_clip(path, frames=frames, **options)
    seconds = time.perf_counter() - start
    gained = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"frames": frames, "seconds": seconds, "mib": gained / 1024, "clip_mib": clip.frames.nbytes / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int)
    asked = parser.parse_args()
    if not asked.video.exists():
        make(asked.video)
    if asked.frames is not None:
        print(json.dumps(read(asked.video, asked.frames)))
        return
    for count in COUNTS:  # a process each, so that each has a peak of its own
        subprocess.run([sys.executable, __file__, str(asked.video), "--frames", str(count)], check=True)


if __name__ == "__main__":
    main()
