# SPDX-License-Identifier: Apache-2.0
"""Questions from outside the world, and the note that answers them."""

from __future__ import annotations

import numpy as np

NOTE = "I only know my small world of coloured shapes."

_NOUNS = """car dog cat person man woman child bird tree house street river mountain phone book table chair ball
player kitchen car door window bus train horse boat cup plate robot sky sun road city beach garden cake bottle hat
shirt shoe bag clock lamp guitar piano computer screen game team baby fish cow sheep elephant bear flower grass
building bridge plane kite skateboard ski pizza apple banana knife spoon oven sofa bed mirror box rope hammer nail
engine wheel rabbit fox squirrel butterfly monkey teacher doctor driver singer dancer crowd""".split()
_VERBS = """eat run jump cook drive sing dance read write sleep swim climb open close throw catch hold carry cut wash
paint build play laugh cry talk walk fly fall push pull kick hit clean buy sell fix wear drink pour""".split()
_PLACES = """room kitchen park street office school house garden forest beach field stadium shop museum station
background video scene picture film clip""".split()
_PLAIN = (
    "What is this video about?",
    "Describe the video.",
    "Describe this clip in detail.",
    "Summarise what happens.",
    "Please summarize the video.",
    "What happens in this video?",
    "Tell me a story.",
    "Hello!",
    "Hi, how are you?",
    "Who are you?",
    "What can you do?",
    "What is your name?",
    "What is the capital of France?",
    "What is 2 + 2?",
    "Write a poem about the sea.",
    "Translate this into German.",
    "Why is the sky blue?",
    "What time is it?",
    "Is this indoors or outdoors?",
    "How is the weather?",
    "What language do they speak?",
    "What does the text say?",
    "Can you help me?",
    "Explain quantum physics.",
    "Where was this filmed?",
    "How long is the video?",
    "What is going on here?",
    "Give me a recipe for soup.",
    "Thanks!",
    "Why?",
)
_PATTERNS = (
    "What is the {n} doing?",
    "Is there a {n} in the {p}?",
    "How many {n}s are there?",
    "How many people {v} in the {p}?",
    "What colour is the {n}?",
    "What color is the {n}?",
    "Where is the {n}?",
    "Where does the {n} go?",
    "Who is the {n}?",
    "Why does the {n} {v}?",
    "Why did the {n} {v} the {m}?",
    "Does the {n} {v}?",
    "Does the {n} {v} the {m}?",
    "What does the {n} {v}?",
    "When does the {n} {v}?",
    "Which {n} is bigger?",
    "Which way does the {n} move?",
    "In which direction does the {n} {v}?",
    "Is the {n} next to the {m}?",
    "What happens after the {n} {v}s?",
    "What is in the {p}?",
    "Describe the {n}.",
    "Can you see the {n} and the {m}?",
    "Is the {p} full of {n}s?",
    "What shape is the {n}?",
    "What is the {n} made of?",
    "Tell me about the {n} in the {p}.",
    "How does the {n} {v}?",
    "What letter is on the {n}?",
    "Do you like the {n}?",
    "What will the {n} do next?",
    "Did a {n} {v} in the {p} before the {m} came?",
)
_SYLLABLES = "ka lo mi tra ven sho ul pe ris ton fa gre ny bo za qui dar em st ol win hu".split()


def outside_question(rng: np.random.Generator) -> str:
    """An everyday question that the world cannot answer; some words are made up, so that any word may come."""
    if rng.random() < 0.2:
        text = _choose(rng, _PLAIN)
    else:
        text = _choose(rng, _PATTERNS).format(n=_noun(rng), m=_noun(rng), v=_choose(rng, _VERBS), p=_choose(rng, _PLACES))
    chance = rng.random()
    if chance < 0.08:
        return text.lower()
    return text.rstrip("?.!") if chance < 0.14 else text


def _choose(rng: np.random.Generator, words: tuple[str, ...] | list[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _noun(rng: np.random.Generator) -> str:
    if rng.random() < 0.7:
        return _choose(rng, _NOUNS)
    return "".join(_choose(rng, _SYLLABLES) for _ in range(int(rng.integers(1, 4))))
