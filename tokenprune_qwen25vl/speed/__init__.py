# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of Qwen2.5-VL, plain and pruned, behind the hook ``tokenprune_speed``."""
