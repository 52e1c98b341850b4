# SPDX-License-Identifier: Apache-2.0
"""The options that say where and how a model runs, the same in every command, and checked before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import typer

from tokenprune.cli._usage import UsageError
from tokenprune.messages import not_one_of, shown

DTYPES = ("auto", "float32", "bfloat16", "float16")
ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
DEVICES = ("cpu", "cuda", "mps", "xpu", "npu", "hpu")

DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU where there is one.", show_default=False)
]
DtypeOption = Annotated[
    str | None, typer.Option(help="auto, float32 (fp32), bfloat16 (bf16) or float16 (fp16).", show_default=False)
]
AttnOption = Annotated[str | None, typer.Option(help="Attention implementation: sdpa, eager, ...", show_default=False)]
PixelsOption = Annotated[
    int | None,
    typer.Option(help="Most pixels of a frame after resizing; long videos get less, sides are whole visual tokens."),
]


@dataclass(frozen=True)
class Machine:
    """What the options said; ``dtype`` by its full name."""

    device: str | None
    dtype: str | None
    attn: str | None

    @classmethod
    def check(cls, device: str | None, dtype: str | None, attn: str | None, as_json: bool) -> Machine:
        """The options, as far as they can be judged without the libraries that know the machine.

        Raises:
            UsageError: an unknown dtype, or what names no device.
        """
        if dtype is not None and dtype not in (*DTYPES, *ALIASES):
            raise UsageError(not_one_of("--dtype", [*DTYPES, *ALIASES], dtype), as_json)
        if device is not None and not re.fullmatch(rf"({'|'.join(DEVICES)})(:(0|[1-9][0-9]{{0,3}}))?", device):
            raise UsageError(f"--device must be cpu, cuda, cuda:1, mps, ..., got {shown(device)}", as_json)
        return cls(device, None if dtype is None else ALIASES.get(dtype, dtype), attn)


def check_pixels(max_pixels: int | None, as_json: bool) -> None:
    """Raise :class:`UsageError` for a number of pixels that no frame can have."""
    if max_pixels is not None and max_pixels < 1:
        raise UsageError(f"--max-pixels must be at least 1, got {shown(max_pixels)}", as_json)
