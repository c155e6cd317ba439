"""Word lists and inflection rules for the generated English of the demo corpus."""


def words(text: str) -> list[str]:
    """Return the words of a text."""
    return text.split()


NOUNS: dict[str, list[str]] = {
    topic: sorted(set(words(text)))
    for topic, text in {
        "office": """office desk chair meeting agenda report manager colleague department contract
            letter folder printer telephone screen notebook calendar deadline project budget team
            director assistant visitor reception corridor elevator badge envelope document form
            signature presentation schedule workshop proposal committee headquarters branch
            decision task goal role career interview candidate position salary promotion
            business organisation management administration office-hours newsletter""",
        "people": """person employee staff member customer client supplier partner guest neighbour
            friend family child parent student teacher engineer designer accountant lawyer nurse
            driver cook baker farmer painter carpenter mechanic librarian secretary supervisor
            trainer apprentice volunteer owner founder president chairman contractor technician
            developer analyst consultant clerk guard cleaner buyer seller writer editor""",
        "money": """payment invoice price cost fee tax bank account loan receipt refund discount
            bonus pension insurance claim allowance expense amount currency profit loss revenue
            income share investment fund grant wage charge bill deposit purchase order sale market
            limit rate percentage total balance transfer card cash record audit""",
        "computing": """computer laptop keyboard mouse server network password file backup database
            program application website page link message email account browser update version
            error problem ticket device cable battery camera software system service user login
            code key token data storage cloud channel chat wiki tool feature test release""",
        "travel": """train bus car bicycle taxi plane ticket passenger station airport hotel road
            bridge map journey trip route platform luggage suitcase passport border country city
            village town street square harbour island coast mountain valley river lake forest
            distance kilometre hour arrival departure delay reservation class seat mileage""",
        "home": """house flat room kitchen window door wall floor roof garden table bed lamp mirror
            carpet curtain shelf cupboard oven kettle cup plate bowl spoon knife fork glass bottle
            bread butter cheese soup rice apple orange potato onion coffee tea sugar salt water
            breakfast lunch dinner recipe blanket pillow towel soap fire candle clock""",
        "nature": """weather rain snow wind storm cloud sun moon star sky morning evening night
            spring summer autumn winter tree flower leaf grass seed root branch field stone sand
            wave tide sea ocean bird fish horse dog cat sheep cow hen bee wolf fox rabbit season
            temperature pressure light shadow heat cold ice fog earth""",
        "work": """machine engine motor pump valve pipe tool hammer saw drill screw nail bolt wire
            switch sensor instrument gauge meter box crate pallet truck warehouse factory workshop
            line product part sample material wood metal steel glass paper plastic cloth leather
            paint quality repair inspection delivery shipment stock label package design""",
        "safety": """safety risk accident injury fire alarm exit helmet glove boot mask first-aid
            kit emergency doctor hospital medicine illness health rule law policy procedure
            permission warning sign lock key gate fence guard incident hazard drill extinguisher
            evacuation training certificate standard regulation duty responsibility protection""",
        "time": """day week month year hour minute holiday weekend leave absence shift break overtime
            notice period quarter anniversary birthday vacation sabbatical probation start end
            beginning date appointment season century moment term return request approval calendar
            Monday Tuesday Wednesday Thursday Friday Saturday Sunday""",
        "learning": """school university course lesson book library exam question answer idea theory
            subject language word sentence story chapter page history science music art picture
            song museum theatre game rule team player match prize knowledge skill practice advice
            guide handbook manual example exercise research experiment result method
            introduction feedback mentor conference graduate diploma lecture paragraph""",
        "general": """thing way place part case point group number reason fact change area name kind
            level process activity condition purpose need use help support effort chance choice
            difference matter interest opinion attention experience information news list item
            section step detail summary copy change benefit value quality access size shape colour
            piece pair set half middle side top bottom front back corner edge""",
        "society": """government council election law court police citizen tax nation language
            culture tradition custom charity festival church club union newspaper radio television
            journalist public community population region industry agriculture energy electricity
            peace freedom history century industry trade export import""",
        "wellbeing": """doctor dentist eye vision hand foot head heart body sleep diet meal exercise
            gym massage stress pain fever flu vaccine therapy treatment patient pharmacy check-up
            wellbeing mood smile habit hobby rest energy cycling swimming running walking""",
        "service": """support request service hotline response priority complaint solution issue
            outage upgrade subscription warranty return replacement spare guarantee feedback review
            survey visit customer satisfaction standard engineer shift on-call rota answer""",
    }.items()
}

PRESENT_SUBJECTS: list[str] = words("""he she it everybody nobody somebody anyone""")

PRONOUNS: list[str] = words("""me you him her it us them something anything nothing everything someone
    anyone myself yourself himself herself itself ourselves themselves another""")

TIME_UNITS: list[str] = words("minutes hours days weeks months years times people things others")

NUMBER_WORDS: list[str] = words("""one two three four five six seven eight nine ten eleven twelve thirteen
    fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty
    ninety""")

VERBS: list[str] = words("""accept add agree allow announce answer apply approve arrange arrive ask attach
    attend avoid bake become begin believe belong book borrow break bring build buy call cancel carry
    change charge check choose clean close collect compare complete confirm connect consider contact
    contain continue copy cost count cover create cut decide deliver describe design discuss divide
    draw drive drop earn eat encourage enjoy ensure enter examine expect explain fill find finish fix
    follow forget gather give grow guide handle happen have hear help hire hold hope imagine improve
    include increase inform inspect install introduce invite join keep know launch lead learn leave
    lend let like list listen lock look lose maintain make manage mark measure meet mention miss move
    need notice offer open order organise own pack paint pass pay plan plant play prefer prepare
    present print produce promise protect provide publish pull push put reach read receive recommend
    record reduce refuse register remember remove rent repair repeat replace reply report request
    require reserve return review save search see select sell send serve set share show sign solve
    speak spend start stay stop store study submit suggest supply support take talk teach tell test
    thank think touch train translate travel trust try turn understand update use visit wait walk want
    warn wash watch wear win wish work write""")

TRANSITIVE: list[str] = words("""accept add approve arrange attach avoid book borrow bring build buy cancel
    carry change check choose clean close collect compare complete confirm contact copy cover create
    cut deliver describe design discuss divide draw examine explain fill find finish fix follow forget
    gather give handle help hold improve include inspect install introduce keep know lead leave like
    list lock lose maintain make manage mark measure mention miss move need notice offer open order
    organise own pack paint pay plan prefer prepare present print produce protect provide publish pull
    push put read receive recommend record reduce refuse register remember remove rent repair replace
    report request require reserve return review save see select sell send serve share show sign solve
    store study submit suggest supply support take teach test touch train trust update use visit want
    wash watch wear write""")

IRREGULAR_PAST: dict[str, str] = dict(
    pair.split(":")
    for pair in words("""become:became begin:began break:broke bring:brought build:built buy:bought
    choose:chose cost:cost cut:cut draw:drew drive:drove eat:ate find:found forget:forgot give:gave
    grow:grew have:had hear:heard hold:held keep:kept know:knew lead:led leave:left lend:lent let:let
    lose:lost make:made meet:met pay:paid put:put read:read see:saw sell:sold send:sent set:set
    show:showed speak:spoke spend:spent take:took teach:taught tell:told think:thought
    understand:understood wear:wore win:won write:wrote""")
)

IRREGULAR_PARTICIPLE: dict[str, str] = dict(
    pair.split(":")
    for pair in words("""become:become begin:begun break:broken choose:chosen draw:drawn drive:driven
    eat:eaten forget:forgotten give:given grow:grown know:known see:seen show:shown speak:spoken
    take:taken wear:worn write:written""")
)

ADJECTIVES: list[str] = words("""able active additional annual available basic big blue bright broken busy
    careful central cheap clean clear cold comfortable common complete correct curious daily damaged
    dark deep different difficult digital direct dry early easy electric empty equal exact expensive
    external extra fair familiar famous fast final fine flexible foreign formal free fresh friendly
    full general gentle good great green happy hard healthy heavy helpful high honest hot important
    independent internal international kind large last late legal light local long loud low main
    medical modern monthly narrow national natural necessary new next nice normal official old online
    open ordinary original paid patient perfect permanent personal plain pleasant polite poor popular
    possible practical previous private proper public quick quiet ready recent red regular reliable
    remote responsible rich right round safe senior separate serious sharp short silent similar simple
    single slow small smooth social soft solid special stable standard strange strict strong suitable
    sure sweet tall technical temporary thick thin tidy tired total traditional typical unusual useful
    usual valid various warm weak weekly wet whole wide wild wise wooden wrong yearly yellow young
    """)

ADVERBS: list[str] = words("""again almost already also always away carefully certainly clearly completely
    directly early easily especially finally frequently gently gladly hardly immediately later mainly
    mostly nearly never normally now often only otherwise perhaps politely probably promptly quickly
    quietly rarely really recently regularly safely seldom simply slowly sometimes soon still suddenly
    then there today together tomorrow usually well yesterday""")

CONNECTORS: list[str] = words("""because although when if while since before after unless until
    whenever where so_that as_soon_as even_though and but so""")

PREPOSITIONS: list[str] = words("""about above across after against along among around at before behind below
    beside between beyond by during for from in inside into near of on onto outside over past
    through to towards under until up with within without""")

FIRST_NAMES: list[str] = words("""Adam Agnes Albert Alice Amir Anna Anton Astrid Ben Bianca Boris Carla
    Cecil Clara Daniel Daria David Dora Edgar Elena Elsa Emil Erik Eva Fatima Felix Fiona Frank Gina
    George Hanna Harold Hugo Ida Igor Irene Ivan Jack Jana Jasper Joan John Julia Karim Kate Kurt
    Laura Leo Lily Lucas Maria Mark Martin Maya Mila Nadia Nina Noah Olga Oscar Paul Peter Rosa Ruth
    Sam Sara Simon Sofia Stefan Tara Thomas Tom Ursula Vera Victor Walter Yasmin Zoe""")

LAST_NAMES: list[str] = words("""Abbot Adler Baker Barton Becker Bell Berg Brandt Burke Carter Clarke Cole
    Conrad Cooper Cross Dalton Diaz Dixon Drake Eaton Ellis Evans Fischer Ford Foster Garcia Gibson
    Grant Gray Hale Harper Hart Hayes Hill Holm Howard Hughes Jansen Kaplan Keller Khan King Klein
    Lambert Lane Larsen Lopez Marsh Mason Meyer Miller Moore Morgan Nash Newman Nolan Novak Olsen
    Palmer Parker Perez Porter Price Quinn Reed Rossi Russell Santos Schmidt Sharp Silva Singh Stone
    Swan Taylor Turner Vogel Wagner Walsh Ward Weber West Wood Young Zimmer""")

PLACES: list[str] = words("""Ashford Barnwell Bexton Birchhill Bradmoor Carlow Castleton Dunmore Eastbrook
    Elmstead Fairford Glenwood Greenhill Halford Hartwell Highcliff Kingsport Lakeside Langdon
    Linden Longmoor Marlow Midvale Millbrook Newhaven Norwood Oakdale Oldbridge Redhill Ridgeway
    Riverton Rosewood Saltburn Sandford Shelby Silverton Southwick Stonefield Summerton Thornbury
    Upton Wakefield Westbury Weston Whitford Willowby Winslow Woodstock""")

COUNTRIES: list[str] = words("""Austria Belgium Brazil Canada Chile Denmark Egypt England Finland France
    Germany Greece India Ireland Italy Japan Kenya Mexico Morocco Norway Peru Poland Portugal Scotland
    Spain Sweden Switzerland Turkey Wales""")

FIRM_STEMS: list[str] = words("""Alder Amber Anchor Apex Arrow Atlas Beacon Birch Cedar Cobalt Comet Copper
    Coral Crown Delta Eagle Ember Falcon Fern Granite Grove Hazel Iron Ivory Juniper Lantern Laurel
    Lotus Maple Meridian Mosaic Nimbus Opal Orchid Pioneer Prism Quarry Raven Ruby Sable Sierra Slate
    Spruce Summit Thistle Topaz Union Velvet Vertex Violet Willow Zenith""")

FIRM_KINDS: list[str] = words("""Bakery Books Brothers Builders Chemicals Clinics Consulting Electric
    Energy Farms Foods Furniture Games Garages Glass Holdings Industries Insurance Labs Logistics
    Media Mills Motors Packaging Partners Pharmacy Press Printing Robotics Shipping Software Sports
    Studios Systems Textiles Toys Tractors Trading Travel Works""")

GOODS: list[str] = words("""bread clocks bicycles shoes tractors lamps chairs board_games maps carpets
    cameras printers windows soap pencils violins batteries boats garden_tools coats glasses
    magazines medicines toys tents kettles cables paper_bags school_books coffee_machines""")

ROLES: list[str] = words("""manager director accountant engineer designer librarian cook driver nurse
    secretary supervisor trainer receptionist analyst developer mechanic editor buyer""")

MONTHS: list[str] = words("""January February March April May June July August September October November
    December""")

WEEKDAYS: list[str] = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

COLOURS: list[str] = words("red blue green yellow black white orange purple brown grey silver pink")

VOWELS = "aeiou"
DOUBLED = set(words("plan stop drop cut put let set win begin forget submit run"))


ONSETS: list[str] = words(
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p pl pr qu r s sh sk sl sp st t th tr v w y z"
)

NUCLEI: list[str] = words("a e i o u a e i o ai au ea ee ie io oa ou")

CODAS: list[str] = words("b ck d l ll m n nd ng nt r rd rn rt s sh st t th x")

UNITS: list[str] = words("""days hours weeks months years minutes euros crowns percent kilometres metres kilograms
    people pages letters times""")


def plural(noun: str) -> str:
    """Return the plural of a regular English noun (and of a few irregular ones)."""
    irregular = {"person": "people", "child": "children", "knife": "knives", "leaf": "leaves"}
    if noun in irregular:
        return irregular[noun]
    return third_person(noun)


def third_person(word: str) -> str:
    """Add the -s ending that plurals and third-person verbs share."""
    if word == "have":
        return "has"
    if word.endswith("y") and word[-2] not in VOWELS:
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "sh", "ch", "x")) else "s")


def past(verb: str) -> str:
    """Return the simple past of a verb."""
    if verb in IRREGULAR_PAST:
        return IRREGULAR_PAST[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in VOWELS:
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in DOUBLED else "") + "ed"


def participle(verb: str) -> str:
    """Return the past participle of a verb."""
    return IRREGULAR_PARTICIPLE.get(verb, past(verb))


def gerund(verb: str) -> str:
    """Return the -ing form of a verb."""
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    return verb + (verb[-1] if verb in DOUBLED else "") + "ing"


def with_article(phrase: str) -> str:
    """Put the right indefinite article in front of a phrase."""
    return ("an " if phrase[0].lower() in VOWELS else "a ") + phrase
