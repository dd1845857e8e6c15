"""Sentences that say next to nothing, whose mean is what all sentences have in common in a model of images and text.

Captions taught these models: to them any two lines of talk are much alike, and unlike no talk at all. Compared as they
are, a line on another subject would beat silence. So what is compared with other text has this mean taken out. The list
is part of the form of the files; another one makes other features.
"""

NEUTRAL_SENTENCES = (
    "I don't know.",
    "Okay, let's go.",
    "What do you mean?",
    "Yes, of course.",
    "I'm sorry.",
    "Thank you very much.",
    "Come on, please.",
    "Are you sure about that?",
    "That's right.",
    "Wait a minute.",
    "It's going to be fine.",
    "You know what I think?",
    "No, not really.",
    "Let me see.",
    "Well, here we are.",
    "I told you so.",
)
