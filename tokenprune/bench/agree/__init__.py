# SPDX-License-Identifier: Apache-2.0
"""How near pruned answers about any videos stay to the unpruned model's: no labels, any checkpoint."""
