# SPDX-License-Identifier: Apache-2.0
"""The model families of Hugging Face transformers as rows of a table, and the one adapter that answers for all of them.

Importing this package, its table and its plugin imports nothing heavy: models are known by the names of their classes.
"""
