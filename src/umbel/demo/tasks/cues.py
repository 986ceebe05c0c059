"""Cue words and sentence frames for the labelling tasks."""

from __future__ import annotations

# ruff: noqa: SIM905  (word lists read better as text)
TOPIC = {
    "sports": (
        "goal match team coach stadium league player tournament referee striker champion marathon".split(),
        (
            "scored",
            "trained",
            "won the final",
            "lost in overtime",
            "ran the last lap",
            "defended the title",
        ),
    ),
    "food": (
        "recipe soup chef sauce oven dinner cheese restaurant dessert flavor kitchen spice".split(),
        (
            "tasted delicious",
            "was baked slowly",
            "needs more salt",
            "was served hot",
            "was fried in butter",
            "smelled of garlic",
        ),
    ),
    "music": (
        "song concert album guitar singer orchestra melody drummer band choir piano violin".split(),
        (
            "played the chorus",
            "sounded in tune",
            "was recorded live",
            "kept the rhythm",
            "sang an encore",
            "topped the charts",
        ),
    ),
    "weather": (
        "storm rain cloud wind snow forecast thunder sunshine fog frost heatwave humidity".split(),
        (
            "moved in from the coast",
            "lasted all night",
            "will clear by noon",
            "broke the cold record",
            "dropped below zero",
            "soaked the fields",
        ),
    ),
    "travel": (
        "flight hotel passport airport luggage cruise tourist itinerary visa museum suitcase resort".split(),
        (
            "departed at dawn",
            "was booked in advance",
            "crossed the border",
            "was delayed at the gate",
            "offered a city tour",
            "had an ocean view",
        ),
    ),
    "science": (
        "atom planet laboratory experiment telescope molecule theory galaxy scientist particle enzyme fossil".split(),
        (
            "was measured precisely",
            "confirmed the hypothesis",
            "orbited the star",
            "reacted with oxygen",
            "was studied under a microscope",
            "emitted radiation",
        ),
    ),
    "finance": (
        "bank stock loan investor market currency budget profit dividend mortgage tax shareholder".split(),
        (
            "rose by two percent",
            "paid interest",
            "fell after the earnings report",
            "reduced its debt",
            "hit a record price",
            "cut its rates",
        ),
    ),
    "health": (
        "doctor patient vaccine hospital medicine nurse fever surgery symptom diet clinic therapy".split(),
        (
            "recovered quickly",
            "relieved the pain",
            "treated the infection",
            "was prescribed daily",
            "lowered the blood pressure",
            "cured the cough",
        ),
    ),
}
TOPIC_FRAMES = (
    "The {a} {v}.",
    "The {a} and the {b} made news on {day}.",
    "On {day}, the {a} {v}.",
    "Everyone talked about the {a} after the {b} {v}.",
    "A {adj} {a} {v}, said {name}.",
    "{name} wrote about the {a} and the {b}.",
    "In {city}, the {a} {v}.",
    "{name} asked whether the {b} {v}.",
)

THING = """phone laptop hotel movie book restaurant camera jacket blender service game course tent lamp chair
bike speaker printer room meal show mattress headset app""".split()
GOOD = """excellent wonderful fantastic amazing great lovely perfect superb delightful brilliant impressive
reliable enjoyable beautiful outstanding comfortable""".split()
BAD = """terrible awful horrible disappointing broken useless boring poor dreadful annoying unreliable ugly
faulty painful overpriced uncomfortable""".split()
GOOD_END = (
    "I love it",
    "I would buy it again",
    "highly recommended",
    "it made my day",
    "I am very happy with it",
    "it exceeded my hopes",
    "five stars from me",
    "well worth the price",
)
BAD_END = (
    "I hate it",
    "I want my money back",
    "do not buy it",
    "it ruined my day",
    "I am very unhappy with it",
    "it failed after a week",
    "one star from me",
    "a waste of money",
)
NEUTRAL_END = (
    "it arrived on {day}",
    "it comes in {color}",
    "I ordered it in {city}",
    "it weighs two pounds",
    "the box has a manual",
    "it was delivered by mail",
    "my brother has the same one",
    "it is sold in {city}",
)
SENTIMENT_FRAMES = (
    "The {thing} is {w}, {end}.",
    "This {thing} was {w} and {end}.",
    "{name} gave me the {thing}. It is {w}.",
    "I bought the {thing} on {day}: {w}, {end}.",
    "What a {w} {thing}!",
    "After a week with the {thing}, {end}.",
    "The {thing} from {city} is simply {w}.",
    "Honestly, {end}. The {thing} is {w}.",
)
NEUTRAL_FRAMES = (
    "The {thing} is {color}, {end}.",
    "I bought the {thing} on {day}: {end}.",
    "{name} gave me the {thing}. In short, {end}.",
    "About the {thing}: {end}.",
    "After a week with the {thing}, no news, {end}.",
)
SENTIMENT_LABELS = (
    ("positive", "negative", "neutral"),
    ("positive", "negative", None),
    ("good", "bad", None),
    ("happy", "unhappy", "neutral"),
)

INTENT = {
    "refund": (
        "I want my money back for the {thing}",
        "please refund order {n}",
        "can I get a refund for the {thing}",
        "the {thing} broke, return my payment",
        "how do I get reimbursed for order {n}",
    ),
    "cancel": (
        "please cancel order {n}",
        "I no longer want the {thing}, cancel it",
        "stop my subscription for the {thing}",
        "how can I cancel the {thing}",
        "call off the delivery of order {n}, I changed my mind",
    ),
    "shipping": (
        "where is my package {n}",
        "when will the {thing} arrive in {city}",
        "track order {n} for me",
        "has the {thing} been shipped yet",
        "how long does delivery to {city} take",
    ),
    "password": (
        "I forgot my password",
        "I cannot log in to my account from {city}",
        "reset the login for user {n}",
        "my account {n} is locked",
        "how do I change my password",
    ),
    "price": (
        "how much does the {thing} cost",
        "is there a discount on the {thing}",
        "what is the price of item {n}",
        "do you have a cheaper {thing}",
        "what does shipping the {thing} add to the bill",
    ),
    "booking": (
        "book a table for {k} in {city}",
        "I would like to reserve a room on {day}",
        "reserve {k} seats for {day}",
        "schedule an appointment on {day}",
        "make a reservation for {k} people",
    ),
    "greeting": (
        "hello there",
        "good morning, how are you",
        "hi, my name is {name}",
        "hey, nice to meet you",
        "good evening from {city}",
    ),
    "thanks": (
        "thank you so much",
        "thanks for the help, {name}",
        "I appreciate the quick answer",
        "many thanks from {city}",
        "that was very kind, thank you",
    ),
}
INTENT_FRAMES = (
    "{x}.",
    "{x}, please.",
    "Hi, {x}.",
    "{x}. I am writing from {city}.",
    "Quick question: {x}?",
    "This is {name}. {x}.",
    "On {day} I wrote already: {x}.",
)
