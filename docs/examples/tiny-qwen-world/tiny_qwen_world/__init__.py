# SPDX-License-Identifier: Apache-2.0
"""How the shipped checkpoint is made: `python -m tiny_qwen_world --out DIR`."""
