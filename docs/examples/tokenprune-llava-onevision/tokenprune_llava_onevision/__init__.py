# SPDX-License-Identifier: Apache-2.0
"""An adapter that lets tokenprune shorten the videos and images of LLaVA-OneVision."""
