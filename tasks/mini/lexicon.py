"""The words of the built-in pool, by semantic class.

Written by hand for this project. A word is in at most one of the classes that tasks contrast (an
animal is never also a plant), so that every label is certain.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _rows(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row.split("/")) for row in text.split())


ANIMALS = _words("""
    dog cat horse cow pig sheep goat hen duck goose mouse rat rabbit fox wolf bear deer lion tiger
    monkey elephant zebra giraffe camel donkey snake frog toad turtle lizard whale shark dolphin
    seal otter beaver squirrel hamster eagle owl crow hawk parrot swan pigeon penguin ostrich bee
    ant spider beetle butterfly moth snail worm crab lobster salmon trout leopard panda koala
    kangaroo badger
""")
PLANTS = _words("""
    oak pine maple birch willow elm ash cedar fir poplar beech palm spruce bamboo ivy moss fern
    grass clover cactus rose tulip daisy lily violet orchid sunflower poppy iris lavender jasmine
    lotus daffodil marigold peony thistle nettle heather holly hazel juniper laurel reed rush sage
    thyme basil mint parsley rosemary wheat barley rye oats cotton flax hemp vine bush hedge shrub
    weed seedling
""")
FRUITS = _words("""
    apple pear plum peach cherry banana orange lemon lime grape melon mango fig date kiwi apricot
    strawberry raspberry blueberry pineapple coconut papaya
""")
VEGETABLES = _words("""
    carrot potato onion cabbage spinach lettuce tomato cucumber pepper bean pea leek radish turnip
    celery garlic pumpkin broccoli beetroot mushroom
""")
DISHES = _words("""
    bread cheese soup cake pie rice pasta pizza salad sandwich butter yogurt honey jam omelette
    pancake biscuit chocolate sausage stew pudding noodles burger curry toast waffle
""")
DRINKS = _words("water milk tea coffee juice wine beer cocoa lemonade cider")
TOOLS = _words("""
    hammer saw drill wrench screwdriver axe shovel rake hoe chisel pliers knife scissors ladder
    brush broom bucket needle ruler anvil spade file clamp crowbar trowel mallet lever pump razor
    tongs
""")
VEHICLES = _words("""
    car bus truck train tram bicycle motorcycle van taxi boat ship ferry canoe yacht plane
    helicopter rocket tractor scooter wagon sled cart jeep submarine balloon lorry raft limousine
    ambulance carriage
""")
CLOTHES = _words("""
    shirt coat hat dress skirt jacket scarf glove sock shoe boot sweater belt tie cap blouse vest
    sandal apron trousers jeans pyjamas robe suit
""")
FURNITURE = _words("""
    table chair sofa bed desk shelf lamp wardrobe bench stool cupboard drawer mirror carpet curtain
    bookcase armchair cradle couch dresser
""")
BODY_PARTS = _words("""
    arm leg hand foot head neck knee elbow shoulder finger toe ear eye nose mouth chin wrist ankle
    thumb back stomach heart tongue tooth
""")
INSTRUMENTS = _words("""
    piano violin guitar flute drum trumpet harp cello clarinet banjo organ accordion trombone tuba
""")
SPORTS = _words("""
    football tennis golf hockey rugby cricket basketball volleyball boxing swimming skiing rowing
    cycling judo
""")
JOBS = _words("""
    baker teacher doctor nurse farmer driver pilot sailor painter singer dancer writer lawyer judge
    cook waiter tailor plumber carpenter builder gardener barber butcher dentist soldier engineer
    librarian actor fisherman miner postman clerk chemist banker mechanic photographer journalist
    scientist shepherd potter
""")
WOMEN = _words("""
    Anna Mary Emma Sarah Laura Julia Alice Clara Diana Eva Grace Helen Irene Jane Kate Lucy Maria
    Nina Olivia Paula Rosa Sophie Tina Vera Wendy Zoe Bella Carol Ella Fiona Hannah Iris Leah Molly
    Nora Ruth
""")
MEN = _words("""
    Tom John Peter Paul David Mark James Adam Ben Carl Daniel Eric Frank George Henry Ivan Jack
    Kevin Leo Martin Nick Oscar Philip Robert Sam Thomas Victor William Simon Max Luke Alan Bruno
    Felix Hugo Oliver
""")
NAMES = WOMEN + MEN
CITIES = _words("""
    Paris London Berlin Rome Madrid Vienna Lisbon Athens Dublin Oslo Prague Moscow Cairo Tokyo
    Boston Chicago Toronto Sydney Delhi Lima Havana Geneva Milan Hamburg Seoul Nairobi
""")
COUNTRIES = _words("""
    France England Germany Italy Spain Austria Portugal Greece Ireland Norway Poland Russia Egypt
    Japan Canada Mexico Brazil India China Kenya Cuba Peru Turkey Sweden Denmark Finland
""")
PLACES = _words("""
    kitchen garden school park forest library hospital station market church museum office hotel
    bakery farm beach village theatre bank castle harbour cellar attic factory restaurant
""")
INDOOR_PLACES = _words("kitchen library hospital museum office hotel theatre bank cellar attic")
OUTDOOR_PLACES = _words("garden park forest beach farm meadow river mountain field lake")
COLOURS = _words("red blue green yellow black white brown grey pink purple golden silver")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("""
    January February March April May June July August September October November December
""")
MATERIALS = _words("""
    wood stone glass paper iron gold silver leather wool clay plastic copper rubber silk
""")
# What reviews are about.
REVIEWED = _words("film book meal hotel concert game holiday song show party")

UNITS = _words("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen
""")
TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")


def number_word(number: int) -> str:
    """Returns the English words of `number`, 0 to 99 ("forty-two")."""
    if number < 20:
        return UNITS[number]
    tens, units = divmod(number, 10)
    return TENS[tens - 2] + (f"-{UNITS[units]}" if units else "")


# base, third person, past, -ing form
VERBS = _rows("""
    walk/walks/walked/walking jump/jumps/jumped/jumping cook/cooks/cooked/cooking
    clean/cleans/cleaned/cleaning open/opens/opened/opening close/closes/closed/closing
    help/helps/helped/helping play/plays/played/playing paint/paints/painted/painting
    carry/carries/carried/carrying wash/washes/washed/washing watch/watches/watched/watching
    call/calls/called/calling visit/visits/visited/visiting push/pushes/pushed/pushing
    pull/pulls/pulled/pulling laugh/laughs/laughed/laughing smile/smiles/smiled/smiling
    talk/talks/talked/talking listen/listens/listened/listening dance/dances/danced/dancing
    climb/climbs/climbed/climbing wait/waits/waited/waiting work/works/worked/working
    travel/travels/travelled/travelling answer/answers/answered/answering
    plant/plants/planted/planting repair/repairs/repaired/repairing move/moves/moved/moving
    study/studies/studied/studying kick/kicks/kicked/kicking touch/touches/touched/touching
    start/starts/started/starting stop/stops/stopped/stopping love/loves/loved/loving
    hate/hates/hated/hating go/goes/went/going come/comes/came/coming see/sees/saw/seeing
    eat/eats/ate/eating drink/drinks/drank/drinking write/writes/wrote/writing
    read/reads/read/reading sing/sings/sang/singing swim/swims/swam/swimming run/runs/ran/running
    buy/buys/bought/buying sell/sells/sold/selling bring/brings/brought/bringing
    take/takes/took/taking give/gives/gave/giving find/finds/found/finding lose/loses/lost/losing
    make/makes/made/making sleep/sleeps/slept/sleeping speak/speaks/spoke/speaking
    drive/drives/drove/driving ride/rides/rode/riding fly/flies/flew/flying
    catch/catches/caught/catching throw/throws/threw/throwing teach/teaches/taught/teaching
    build/builds/built/building break/breaks/broke/breaking draw/draws/drew/drawing
    win/wins/won/winning hide/hides/hid/hiding wear/wears/wore/wearing leave/leaves/left/leaving
    feel/feels/felt/feeling
""")

GOOD = _words("""
    good great wonderful excellent lovely beautiful happy nice brilliant perfect delightful pleasant
    fantastic superb charming friendly kind clever delicious amazing fine cheerful brave honest
    gentle calm helpful elegant fresh bright splendid marvellous generous polite graceful
""")
BAD = _words("""
    bad awful terrible horrible ugly nasty sad boring poor dreadful unpleasant disgusting stupid
    rude angry cruel dirty rotten annoying useless dull evil foul lazy mean selfish gloomy painful
    ruined broken miserable hopeless clumsy noisy greedy
""")
# word/opposite: both directions hold
OPPOSITES = _rows("""
    hot/cold big/small tall/short fast/slow old/young rich/poor light/dark hard/soft wet/dry
    full/empty high/low early/late strong/weak thick/thin wide/narrow loud/quiet clean/dirty
    good/bad cheap/expensive near/far open/closed deep/shallow sharp/blunt sweet/bitter
    brave/cowardly rough/smooth true/false safe/dangerous easy/difficult alive/dead awake/asleep
    right/wrong front/rear inside/outside up/down north/south east/west summer/winter day/night
    morning/evening begin/end buy/sell push/pull win/lose love/hate give/take laugh/cry
    arrive/depart remember/forget friend/enemy brother/sister mother/father husband/wife boy/girl
    man/woman teacher/pupil question/answer peace/war first/last always/never before/after
    above/below many/few everything/nothing victory/defeat entrance/exit increase/decrease
    accept/refuse raise/lower polite/rude clever/stupid beautiful/ugly kind/cruel guilty/innocent
    ancient/modern tidy/messy public/private major/minor
""")
# word/word of the same meaning: asked in either direction
SYNONYMS = _rows("""
    big/large small/little fast/quick begin/start end/finish happy/glad sad/unhappy smart/clever
    rich/wealthy hard/difficult easy/simple quiet/silent angry/furious pretty/beautiful shut/close
    speak/talk rock/stone child/kid house/home road/street gift/present shop/store sick/ill
    tired/weary scared/afraid odd/strange correct/right mistake/error reply/answer jump/leap
    choose/select buy/purchase help/assist look/gaze jump/hop brave/courageous rude/impolite
    boat/vessel physician/doctor autumn/fall forest/wood picture/image job/work car/automobile
    wish/desire cry/weep hate/detest gather/collect keep/retain fix/repair build/construct
    shout/yell throw/toss
""")
_IRREGULAR = _rows("""
    mouse/mice goose/geese foot/feet tooth/teeth man/men woman/women child/children wolf/wolves
    knife/knives shelf/shelves leaf/leaves scarf/scarves
""")
IRREGULAR_PLURALS = {singular: plural for singular, plural in _IRREGULAR}
UNCOUNTED = frozenset(
    _words("""
    sheep deer salmon trout wheat barley rye oats cotton flax hemp grass moss thyme basil parsley
    rosemary bamboo lavender garlic spinach lettuce celery broccoli bread cheese soup rice pasta
    butter yogurt honey jam chocolate stew noodles toast curry pliers scissors tongs trousers jeans
    pyjamas sage mint clover heather ivy reed rush pudding jasmine hemp holly
""")
)
# For comparison tasks: each is clearly heavier than the one before.
BY_WEIGHT = _words("ant bee mouse frog hen cat dog sheep pig lion cow horse elephant whale")
# country/capital
CAPITALS = _rows("""
    France/Paris England/London Germany/Berlin Italy/Rome Spain/Madrid Austria/Vienna
    Portugal/Lisbon Greece/Athens Ireland/Dublin Norway/Oslo Russia/Moscow Egypt/Cairo Japan/Tokyo
    India/Delhi Peru/Lima Cuba/Havana Kenya/Nairobi
""")
# Class name -> its words: the classes that tasks on categories name.
CLASSES: dict[str, tuple[str, ...]] = {
    "animal": ANIMALS,
    "plant": PLANTS,
    "fruit": FRUITS,
    "vegetable": VEGETABLES,
    "tool": TOOLS,
    "vehicle": VEHICLES,
    "job": JOBS,
    "clothing": CLOTHES,
    "furniture": FURNITURE,
    "body part": BODY_PARTS,
    "colour": COLOURS,
    "instrument": INSTRUMENTS,
    "sport": SPORTS,
    "drink": DRINKS,
}
THINGS = tuple(
    word
    for words in (TOOLS, VEHICLES, CLOTHES, FURNITURE, INSTRUMENTS)
    for word in words
    if word not in UNCOUNTED
)
_CONTENT = (
    ANIMALS, PLANTS, FRUITS, VEGETABLES, TOOLS, VEHICLES, CLOTHES, FURNITURE, JOBS, PLACES, COLOURS,
    GOOD, BAD,
)  # fmt: skip
CONTENT_WORDS = tuple(dict.fromkeys(word for words in _CONTENT for word in words))


def plural(noun: str) -> str:
    """Returns the plural of a noun of this lexicon."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun in UNCOUNTED:
        return noun
    if noun.endswith(("fisherman", "postman")):
        return noun[:-3] + "men"
    if noun in ("potato", "tomato", "mango") or noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def with_article(noun: str) -> str:
    """Returns "an apple" or "a dog"."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun
