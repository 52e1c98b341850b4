# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of a video model, plain and pruned: Qwen-VL of all generations, and LLaVA-OneVision."""
