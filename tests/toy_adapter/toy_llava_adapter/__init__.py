# SPDX-License-Identifier: Apache-2.0
"""LLaVA for tokenprune, as another distribution would bring it."""
