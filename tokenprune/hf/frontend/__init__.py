# SPDX-License-Identifier: Apache-2.0
"""What comes before a processor, whatever the model family: files to frames."""
