# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of a video model, plain and pruned; shapes and prompts are those of Qwen2.5-VL."""
