"""Word lists from which every task builds its texts."""

from __future__ import annotations

import random

# ruff: noqa: SIM905  (word lists read better as text)
FIRST = """Maria Anna Tom Ben Lucy Omar Ivan Nina Carl Dora Emil Fatima George Helen Igor Julia Kenji Laura
Marco Nadia Oscar Paula Quinn Rosa Sam Tara Umar Vera Walter Xenia Yusuf Zoe Alice Boris Clara David
Elena Felix Greta Hugo Irene Jonas Karin Leo Mona Noah Olga Peter Ruth Simon Tina Victor Wendy Yara
Aaron Bella Cyrus Diana Erik Flora Gavin Hana Isaac Jade Kofi Lena Miguel Nora Otto Priya Ravi Sofia
Theo Ursula Vikram Wanda Amir Beth Chloe Dario Esther Frank""".split()

LAST = """Lopez Smith Chen Okafor Novak Silva Khan Meyer Rossi Tanaka Brown Petrov Larsen Garcia Dubois Kovacs
Nguyen Patel Jensen Walsh Costa Weber Moreau Haddad Ito Schmidt Kelly Bauer Romano Fischer Olsen
Mendes Singh Park Murphy Santos Keller Fraser Dahl Reyes Marin Baker Cooper Hughes Foster Turner
Palmer Stone Rivers Wood""".split()

CITY = """Lisbon Paris London Berlin Madrid Rome Vienna Prague Oslo Dublin Athens Cairo Delhi Tokyo Osaka Seoul
Lima Quito Bogota Boston Denver Austin Chicago Seattle Toronto Montreal Sydney Perth Nairobi Accra
Lagos Tunis Ankara Beirut Warsaw Krakow Zagreb Sofia Riga Tallinn Helsinki Bergen Geneva Zurich Lyon
Porto Seville Naples Milan Turin Hamburg Munich Bremen Leeds Bristol Cardiff Havana Santiago Manila
Jakarta""".split()

NOUN = """lamp chair table clock basket bottle hammer ladder mirror pillow blanket candle camera guitar piano
violin drum kettle spoon fork knife plate cup glass bowl jacket shirt scarf glove boot hat coat watch
ring necklace wallet umbrella backpack bicycle tent rope lantern compass map book notebook pencil
brush ribbon button needle thread box barrel bucket shovel rake seed flower tulip rose cactus fern
maple oak pine river lake mountain valley island bridge tower castle garden window door carpet curtain
shelf drawer cabinet printer keyboard monitor tablet phone radio speaker battery cable magnet engine
wheel saddle anchor sail oar whistle bell flag kite puzzle doll robot marble coin stamp ticket letter
parcel envelope""".split()

ADJ = """red blue green yellow purple orange silver golden black white brown pink gray amber crimson violet tiny
small big large huge old new bright dark soft hard heavy light round square smooth rough quiet loud
warm cold dry wet quick slow strong gentle brave calm clever happy lucky proud shiny sharp simple
sturdy wild wooden""".split()

ANIMAL = """cat dog rabbit fox wolf bear tiger lion otter badger beaver falcon eagle owl raven heron swan goose
duck hen sparrow robin parrot turtle frog lizard snake whale dolphin seal shark salmon trout crab
camel horse donkey goat sheep cow panda koala monkey mouse hedgehog squirrel moose deer bison lynx""".split()

FOOD = """bread cheese butter honey rice pasta soup salad apple pear plum cherry lemon peach grape melon carrot
potato onion garlic pepper tomato bean corn mushroom pie cake cookie waffle pancake noodle dumpling
curry stew omelet yogurt""".split()

COLOR = "red blue green yellow purple orange silver golden black white brown pink gray amber crimson violet".split()

JOB = """baker teacher nurse pilot farmer doctor lawyer painter singer plumber driver carpenter engineer chemist
writer editor gardener cook tailor sailor dentist librarian mechanic designer""".split()

DAY = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTH = "January February March April May June July August September October November December".split()

SYLLABLES = """ba be bo da de do fa fe fi ga go ka ke ki ko la le li lo lu ma me mi mo na ne ni no pa pe po ra
re ri ro ru sa se si so ta te ti to tu va ve vi vo za zo bel cor dan fen gal har kel lum mor nal
pen ran sel tar ven wen zan dra tri sto bri kla""".split()

PLAIN = NOUN + ADJ + ANIMAL + FOOD + JOB


def made_up(rng: random.Random, parts: int | None = None) -> str:
    """A capitalised made-up word of two or three syllables (or `parts`)."""
    return "".join(rng.choice(SYLLABLES) for _ in range(parts or rng.choice((2, 3, 3)))).capitalize()


def digits(rng: random.Random, n: int) -> str:
    """A string of `n` digits that does not start with 0."""
    return str(rng.randint(10 ** (n - 1), 10**n - 1))


def code(rng: random.Random) -> str:
    """A short code such as KX-27."""
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(2))
    return f"{letters}-{digits(rng, 2)}"


def first(rng: random.Random) -> str:
    """A first name, sometimes made up."""
    return made_up(rng, 2) if rng.random() < 0.15 else rng.choice(FIRST)


def full(rng: random.Random) -> str:
    """A first name and a surname, sometimes made up."""
    return f"{first(rng)} {made_up(rng) if rng.random() < 0.25 else rng.choice(LAST)}"


def city(rng: random.Random) -> str:
    """A city, sometimes made up."""
    return made_up(rng) if rng.random() < 0.25 else rng.choice(CITY)
