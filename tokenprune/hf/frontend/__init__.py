# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint, a video file and a question to a timed answer, written once for all model families.

`family` says what a family has to tell, `loading` makes a model of a name, `video` frames of a file, `chat` inputs of
both; `features` looks at a clip once, `answering` generates and takes the time, `runner` is what the commands ask.
"""
