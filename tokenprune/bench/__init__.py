# SPDX-License-Identifier: Apache-2.0
"""What measures: benchmarks, speed, the runners that they ask. Above the core and `tokenprune.hf`, below the commands.

Importing the package imports nothing; `benchmark`, `choices`, `runner` and `speed` need no transformers.
"""
