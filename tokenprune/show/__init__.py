# SPDX-License-Identifier: Apache-2.0
"""Pictures of what a pipeline did to a video: a contact sheet and a page with a time slider.

Needs the extra ``plot`` (Pillow and Jinja2), imported when something is drawn.
"""
