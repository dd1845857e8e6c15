"""The words of the embedded corpus: who and what its small world holds, and how English speaks of it.

Whatever has several names lists them with the one that stands for the concept first. A verb is a pair
(third person, -ing form); only its first word carries the meaning ("looks at" is `looks`).
"""

from __future__ import annotations

from typing import NamedTuple

Verb = tuple[str, str]


class Show(NamedTuple):
    """A series: its characters (name -> what they are called otherwise) and where it plays."""

    characters: dict[str, str]
    places: tuple[str, ...]


class Action(NamedTuple):
    """Something done with an object: its verbs and the groups of objects it can be done with."""

    verbs: tuple[Verb, ...]
    groups: tuple[str, ...]


class SpeechAct(NamedTuple):
    """A way of talking: how a description calls it and what is said."""

    verbs: tuple[Verb, ...]
    lines: tuple[str, ...]


SHOWS = {
    "harbor": Show(
        {
            "Nora": "captain",
            "Felix": "mechanic",
            "Ines": "diver",
            "Otto": "cook",
            "Ruby": "journalist",
            "Amir": "sailor",
        },
        ("dock", "kitchen", "garage", "office", "street", "rooftop"),
    ),
    "precinct": Show(
        {
            "Dana": "detective",
            "Marcus": "sergeant",
            "Lena": "coroner",
            "Victor": "attorney",
            "Priya": "rookie",
            "Hugo": "informant",
        },
        ("office", "hallway", "basement", "street", "lobby", "garage"),
    ),
    "campus": Show(
        {
            "Theo": "professor",
            "Grace": "librarian",
            "Milo": "student",
            "Yara": "dancer",
            "Simon": "janitor",
            "Kira": "coach",
        },
        ("library", "bedroom", "cafeteria", "hallway", "garden", "attic"),
    ),
    "clinic": Show(
        {
            "Elena": "surgeon",
            "Jonas": "nurse",
            "Mei": "intern",
            "Walter": "patient",
            "Tessa": "receptionist",
            "Omar": "paramedic",
        },
        ("lobby", "cafeteria", "office", "rooftop", "hallway", "balcony"),
    ),
    "bakery": Show(
        {
            "Clara": "baker",
            "Leo": "waiter",
            "Hannah": "owner",
            "Boris": "neighbor",
            "Zoe": "florist",
            "Ravi": "courier",
        },
        ("kitchen", "garden", "street", "bedroom", "basement", "balcony"),
    ),
}

PLACES = (
    ("dock", "pier"),
    ("kitchen",),
    ("garage", "workshop"),
    ("office", "study"),
    ("street", "sidewalk"),
    ("rooftop", "roof"),
    ("hallway", "corridor"),
    ("basement", "cellar"),
    ("lobby", "foyer"),
    ("library",),
    ("bedroom",),
    ("cafeteria", "canteen"),
    ("garden", "yard"),
    ("attic", "loft"),
    ("balcony", "terrace"),
)

OPEN_PLACES = frozenset({"dock", "street", "rooftop", "balcony"})  # one is on them, not in them

OBJECT_GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "container": (("box", "carton"), ("drawer",), ("suitcase", "luggage"), ("bag", "purse"), ("cabinet", "cupboard")),
    "drink": (("coffee", "espresso"), ("wine",), ("tea",), ("juice", "lemonade"), ("beer",)),
    "reading": (
        ("book", "novel"),
        ("letter", "note"),
        ("newspaper", "magazine"),
        ("map", "chart"),
        ("photo", "picture"),
    ),
    "tool": (("phone", "cellphone"), ("camera",), ("laptop", "computer"), ("lamp", "lantern"), ("radio", "stereo")),
    "thing": (("umbrella",), ("hat", "cap"), ("coat", "jacket"), ("plate", "dish"), ("vase", "jar"), ("rope", "cord")),
    "furniture": (("chair", "stool"), ("table", "desk"), ("couch", "sofa"), ("bench",), ("ladder",)),
    "opening": (("door", "gate"), ("window",), ("curtain", "blind")),
}

ACTIONS = (
    Action((("opens", "opening"), ("unlocks", "unlocking")), ("container", "opening")),
    Action((("closes", "closing"), ("shuts", "shutting")), ("container", "opening", "reading")),
    Action((("picks up", "picking up"), ("grabs", "grabbing"), ("takes", "taking")), ("reading", "tool", "thing")),
    Action((("puts down", "putting down"), ("sets down", "setting down")), ("tool", "thing", "drink")),
    Action((("throws", "throwing"), ("tosses", "tossing"), ("hurls", "hurling")), ("reading", "thing", "container")),
    Action((("breaks", "breaking"), ("smashes", "smashing")), ("tool", "furniture", "opening")),
    Action((("cleans", "cleaning"), ("wipes", "wiping"), ("scrubs", "scrubbing")), ("furniture", "opening", "tool")),
    Action((("drinks", "drinking"), ("sips", "sipping"), ("gulps", "gulping")), ("drink",)),
    Action((("pours", "pouring"), ("serves", "serving")), ("drink",)),
    Action((("spills", "spilling"),), ("drink",)),
    Action((("reads", "reading"), ("skims", "skimming")), ("reading",)),
    Action((("hides", "hiding"), ("conceals", "concealing")), ("reading", "tool", "container")),
    Action((("drops", "dropping"),), ("tool", "thing", "drink")),
    Action((("fixes", "fixing"), ("repairs", "repairing"), ("mends", "mending")), ("tool", "furniture", "opening")),
    Action((("carries", "carrying"), ("hauls", "hauling")), ("container", "furniture", "thing")),
    Action((("points at", "pointing at"), ("gestures at", "gesturing at")), ("opening", "furniture", "reading")),
    Action((("inspects", "inspecting"), ("examines", "examining")), ("reading", "container", "tool")),
    Action((("kicks", "kicking"),), ("furniture", "opening", "container")),
    Action((("pushes", "pushing"), ("shoves", "shoving")), ("furniture", "container", "thing")),
    Action((("searches", "searching"), ("rummages through", "rummaging through")), ("container", "thing")),
    Action((("folds", "folding"), ("wraps", "wrapping")), ("reading", "thing")),
    Action((("steals", "stealing"), ("swipes", "swiping")), ("tool", "thing", "drink")),
    Action((("smells", "smelling"), ("sniffs", "sniffing")), ("drink", "thing")),
    Action((("leans on", "leaning on"), ("rests on", "resting on")), ("furniture", "opening")),
)

TOPICS: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {
    ("wedding", "marriage"): (("cake",), ("dress", "gown"), ("guest",), ("ring",)),
    ("trial", "lawsuit"): (("jury",), ("verdict", "ruling"), ("witness",), ("judge",)),
    ("vacation", "holiday"): (("beach", "shore"), ("flight",), ("hotel", "resort"), ("passport",)),
    ("surgery", "operation"): (("scar",), ("anesthesia",), ("kidney",), ("scalpel",)),
    ("exam", "quiz"): (("grade", "mark"), ("cheating",), ("essay",), ("tutor",)),
    ("loan", "mortgage"): (("bank",), ("debt",), ("rent",), ("salary", "wage")),
    ("birthday",): (("balloon",), ("candle",), ("gift", "present"), ("surprise",)),
    ("murder", "homicide"): (("alibi",), ("suspect",), ("blood",), ("motive",)),
    ("storm", "hurricane"): (("wind",), ("flood",), ("lightning", "thunder"), ("shelter",)),
    ("baby", "infant"): (("diaper",), ("crib", "cradle"), ("nanny",), ("pregnancy",)),
    ("divorce", "separation"): (("custody",), ("settlement",), ("therapist",), ("affair",)),
    ("dinner", "supper"): (("recipe",), ("steak",), ("spice",), ("oven", "stove")),
    ("car", "vehicle"): (("engine", "motor"), ("brake",), ("tire",), ("mileage",)),
    ("movie", "film"): (("actor", "actress"), ("ending",), ("popcorn",), ("sequel",)),
    ("dog", "puppy"): (("leash",), ("vet",), ("barking",), ("flea",)),
    ("football", "soccer"): (("goal",), ("referee",), ("stadium",), ("injury",)),
    ("ghost", "spirit"): (("haunting",), ("scream",), ("curse",), ("shadow",)),
    ("job", "career"): (("interview",), ("boss", "manager"), ("promotion",), ("resume",)),
    ("concert", "gig"): (("band",), ("drummer",), ("song", "tune"), ("ticket",)),
    ("apartment", "flat"): (("lease",), ("landlord",), ("plumbing",), ("elevator",)),
}

SPEECH_ACTS = (
    SpeechAct(
        (("asks about", "asking about"), ("inquires about", "inquiring about")),
        (
            "What about the {detail}, is the {topic} still on?",
            "Can you tell me who knows of the {topic} and the {detail}?",
        ),
    ),
    SpeechAct(
        (("complains about", "complaining about"), ("whines about", "whining about")),
        ("I hate this {topic}, the {detail} is awful.", "The {detail} is terrible and so is the whole {topic}."),
    ),
    SpeechAct(
        (("jokes about", "joking about"), ("laughs about", "laughing about")),
        ("That {detail} is hilarious, what a funny {topic}.", "Funny, a {topic} with a {detail} like a clown."),
    ),
    SpeechAct(
        (("worries about", "worrying about"), ("frets about", "fretting about")),
        (
            "I am afraid the {topic} goes wrong because of the {detail}.",
            "The {detail} scares me, and so does the {topic}.",
        ),
    ),
    SpeechAct(
        (("brags about", "bragging about"), ("boasts about", "boasting about")),
        ("My {detail} was the best in any {topic}.", "Nobody ever did a {topic} like me, look at the {detail}."),
    ),
    SpeechAct(
        (("lies about", "lying about"), ("makes up a story about", "making up a story about")),
        ("I swear I never heard of a {topic} or a {detail}.", "Honestly, there was no {detail} and no {topic}."),
    ),
    SpeechAct(
        (("argues about", "arguing about"), ("quarrels about", "quarreling about")),
        ("You are wrong, the {topic} needs the {detail}.", "No, stop it, the {detail} has ruined this {topic}."),
    ),
    SpeechAct(
        (("apologizes for", "apologizing for"), ("feels sorry about", "feeling sorry about")),
        (
            "I am sorry for the {detail}, forgive me this {topic}.",
            "Forgive me, the {topic} and the {detail} were my fault.",
        ),
    ),
)

SMALL_TALK = (
    "Okay, okay.",
    "All right, let us go.",
    "Oh my god.",
    "I do not know.",
    "Come on, {name}.",
    "Really?",
    "Wait a minute, {name}.",
    "Yes, of course.",
    "Thank you so much.",
    "What do you mean?",
    "Hey, {name}, listen.",
    "Well, maybe later.",
)

# Words that say little by themselves; their vectors are short, so that they weigh less in a pooled clip.
_FUNCTION_WORDS = """
a an the and or but of in on at to for from by with without about through up down over into onto as is are am was were
be been do does did has have had will would can could should may might it its this that these those there here he she
they we you i him her them us me his their our your my who whom what which when where why how not no so if then than
while because just also very too any some all both each other one
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


def known_words() -> list[tuple[str, str, str]]:
    """Every word of the lexicon that carries a meaning.

    Returns:
        (word, concept, category): synonyms and inflections share the concept, which is named by its first word.
    """
    words: list[tuple[str, str, str]] = []

    def add(category: str, names: tuple[str, ...]) -> None:
        words.extend((name.split()[0].lower(), names[0].split()[0].lower(), category) for name in names)

    for show in SHOWS.values():
        for name, role in show.characters.items():
            add("person", (name, role))
    for place in PLACES:
        add("place", place)
    for group in OBJECT_GROUPS.values():
        for names in group:
            add("object", names)
    for category, acts in (("action", ACTIONS), ("speech", SPEECH_ACTS)):
        for act in acts:
            add(category, tuple(form for verb in act.verbs for form in verb))
    for topic, details in TOPICS.items():
        add("topic", topic)
        for names in details:
            add("topic", names)
    return words
