# SPDX-License-Identifier: Apache-2.0
"""A model and its processor, from a path or an id."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.errors import InvalidValueError, ModelLoadError, NoAdapterError
from tokenprune.hf.frontend.family import Family, Loaded
from tokenprune.messages import meant, shown

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load(
    family: Family,
    model_path: str | Path | None = None,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> Loaded:
    """Load a checkpoint of a family for inference.

    >>> from tokenprune_qwen25vl.family import QWEN25VL
    >>> load(QWEN25VL, device="cpu").model.config.model_type
    'qwen2_5_vl'

    Args:
        family: what it must be.
        model_path: a directory, or an ``owner/name`` id that the Hugging Face library resolves; None is the small
            checkpoint that ships with the family's adapter.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; None takes the GPU where there is one.
        dtype: a torch dtype or one of ``auto``, ``float32``, ``bfloat16``, ``float16``; None is ``auto``, what the
            checkpoint was saved in, except on the CPU: float32.
        attn_implementation: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``, ...; None leaves the library's choice.

    Raises:
        ModelLoadError: no such checkpoint, an incomplete one, or one that this machine cannot load.
        NoAdapterError: a checkpoint of another architecture.
        InvalidValueError: an unknown dtype or device.
    """
    source = str(shipped(family) if model_path is None else model_path)
    reason = why_not(family, source)
    if reason is not None:
        raise NoAdapterError(f"cannot load {source}: {family.name} {reason}")
    target = device_named(device)
    loaded_dtype = dtype_named(dtype, target)
    import transformers
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        processor = transformers.AutoProcessor.from_pretrained(source)
        options: dict[str, Any] = {"dtype": loaded_dtype, "output_loading_info": True}
        if attn_implementation is not None:
            options["attn_implementation"] = attn_implementation
        loaded: Any = getattr(transformers, family.model_class).from_pretrained(source, **options)
        model, info = loaded
        model = model.to(target)
    except Exception as error:  # whatever the library raises about files, weights or backends
        raise ModelLoadError(f"cannot load {source}: {first_line(error)}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelLoadError(f"{source} is incomplete: {len(missing)} weights are missing, {missing[0]} the first")
    return Loaded(model.eval(), processor, family.parts(model))


def shipped(family: Family) -> Path:
    """Directory of the checkpoint in the adapter's package."""
    try:
        return family.shipped()
    except FileNotFoundError as error:
        raise ModelLoadError(f"{error}, or name a model") from error


def why_not(family: Family, source: str) -> str | None:
    """None if ``source`` names a checkpoint of the family, or what it is instead; only its configuration is read.

    Raises:
        ModelLoadError: ``source`` is no checkpoint at all. What is neither a directory nor an ``owner/name`` id is
            refused before anything asks the network.
    """
    path = Path(source)
    if not source.strip():  # the empty path is the working directory
        raise ModelLoadError("no such checkpoint: its name is empty")
    if path.is_file():
        raise ModelLoadError(f"a checkpoint is a directory, but {source} is a file")
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelLoadError(f"{source} is no checkpoint: it holds no config.json")
    elif not _HUB_ID.fullmatch(source):
        raise ModelLoadError(f"no such checkpoint: {source} is neither a directory nor an owner/name id{_near(path)}")
    import transformers

    try:
        config, _ = transformers.PretrainedConfig.get_config_dict(source)
    except Exception as error:  # OSError, connection errors, broken JSON: all mean the same here
        from tokenprune.hf.frontend.auto import AUTO

        known = {*family.known, *AUTO.known}
        guess = "" if path.is_dir() or source in known else meant(source, sorted(known))
        raise ModelLoadError(f"cannot read the configuration of {source}: {first_line(error)}{guess}") from error
    return family.declines(source, config)


def _near(path: Path) -> str:
    """A guess at which of the directories beside it was meant."""
    try:
        return meant(path.name, [other.name for other in path.parent.iterdir() if other.is_dir()])
    except OSError:
        return ""


def device_named(device: str | None) -> torch.device:
    """The device; None is the GPU where there is one. Raises :class:`InvalidValueError` for one that is not there."""
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidValueError(f"device must be cpu, cuda, cuda:1, mps, ..., got {shown(device)}") from error
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise InvalidValueError(f"device {shown(device)} is not there: torch sees {torch.cuda.device_count()} GPUs")
    return target


def dtype_named(dtype: str | torch.dtype | None, device: torch.device) -> str | torch.dtype:
    """The dtype, or ``"auto"``; None is ``"auto"``, on a CPU float32. Raises :class:`InvalidValueError` for others."""
    import torch

    if isinstance(dtype, torch.dtype):
        if not dtype.is_floating_point:
            raise InvalidValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
        return dtype
    if dtype is None:
        return torch.float32 if device.type == "cpu" else "auto"
    if dtype not in DTYPES:
        raise InvalidValueError(f"dtype must be one of {', '.join(DTYPES)}, got {shown(dtype)}")
    return dtype if dtype == "auto" else getattr(torch, dtype)


def first_line(error: BaseException) -> str:
    """The library's messages run over many lines; the first says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
