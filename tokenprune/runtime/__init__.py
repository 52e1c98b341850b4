# SPDX-License-Identifier: Apache-2.0
"""Carrying a prefill through a pipeline: layouts, decisions, reports and the session."""
