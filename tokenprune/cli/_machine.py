# SPDX-License-Identifier: Apache-2.0
"""The options that say where and how a model runs, the same in every command, and checked before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._output import UsageError
from tokenprune.messages import not_one_of, shown

if TYPE_CHECKING:
    from tokenprune.bench.runner import VideoModel, VideoRunner

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


@dataclass(frozen=True)
class Machine:
    """What the options said, as far as it can be judged without the libraries that know the machine.

    Args:
        device: as torch names it.
        dtype: or its short name, which becomes the full one.
        attn: the attention implementation.

    Raises:
        UsageError: an unknown dtype, or what names no device.
    """

    device: DeviceOption = None
    dtype: DtypeOption = None
    attn: AttnOption = None

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in (*DTYPES, *ALIASES):
            raise UsageError(not_one_of("--dtype", [*DTYPES, *ALIASES], self.dtype))
        if self.device is not None and not re.fullmatch(
            rf"({'|'.join(DEVICES)})(:(0|[1-9][0-9]{{0,3}}))?", self.device
        ):
            raise UsageError(f"--device must be cpu, cuda, cuda:1, mps, ..., got {shown(self.device)}")
        object.__setattr__(self, "dtype", ALIASES.get(self.dtype or "", self.dtype))

    def facts(self) -> dict[str, str | None]:
        """What results depend on, JSON-ready."""
        return {"device": self.device, "dtype": self.dtype, "attention": self.attn}

    def load(self, runner: VideoRunner, model: str | None) -> VideoModel:
        """The model, here."""
        return runner.load(model, self.device, self.dtype, self.attn)
