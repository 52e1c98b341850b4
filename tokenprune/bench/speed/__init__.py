# SPDX-License-Identifier: Apache-2.0
"""Measuring what pruning costs and saves: seconds, memory, arithmetic. No model is known here, adapters bring them."""
