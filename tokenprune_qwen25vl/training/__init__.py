# SPDX-License-Identifier: Apache-2.0
"""How the shipped checkpoint is made: `python -m tokenprune_qwen25vl.training --out DIR`."""
