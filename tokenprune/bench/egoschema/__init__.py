# SPDX-License-Identifier: Apache-2.0
"""EgoSchema (arXiv 2308.09126): its own files in, its submission format out."""
