# SPDX-License-Identifier: Apache-2.0
"""Operators, one file each: mergers that act before the LLM and selectors that act inside it."""
