"""Seeded generator of the English text that the demo base model is trained on."""

import random
from collections.abc import Callable, Iterator

from worker.base_models.demo import lexicon as lex

Pair = tuple[str, str]


def qa_text(question: str, answer: str) -> str:
    """Format a question and its answer the way the service trains and asks them."""
    return f"Question: {question}\nAnswer: {answer}"


def capitalised(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


class Sentences:
    """Random sentences about one topic, repeating a small set of its nouns."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.topic = rng.choice(list(lex.NOUNS))
        everything = [noun for nouns in lex.NOUNS.values() for noun in nouns]
        self.nouns = rng.sample(lex.NOUNS[self.topic], 7) + rng.sample(everything, 4)
        self.verbs = rng.sample(lex.TRANSITIVE, 14)
        self.adjectives = rng.sample(lex.ADJECTIVES, 10)

    def noun_phrase(self, plurals: float = 0.35) -> str:
        """Return a noun phrase, plural with the given probability."""
        rng = self.rng
        noun = rng.choice(self.nouns)
        body = f"{rng.choice(self.adjectives)} {noun}" if rng.random() < 0.4 else noun
        if rng.random() < plurals:
            *front, last = body.split(" ")
            body = " ".join([*front, lex.plural(last)])
            head = rng.choice(["the", "the", "all", "some", "many", "most", "our", "these", "few"])
            return body if rng.random() < 0.3 else f"{head} {body}"
        if rng.random() < 0.3:
            return lex.with_article(body)
        return f"{rng.choice(['the', 'the', 'the', 'every', 'this', 'each', 'your', 'their'])} {body}"

    def place_phrase(self) -> str:
        """Return a prepositional phrase."""
        return f"{self.rng.choice(lex.PREPOSITIONS)} {self.noun_phrase()}"

    def time_phrase(self) -> str:
        """Return a phrase that says when, how long or how often."""
        number, unit = self.rng.choice(lex.NUMBER_WORDS), self.rng.choice(lex.TIME_UNITS)
        opening = self.rng.choice(["within", "after", "every", "for", "at least", "up to", "more than", "the first"])
        return f"{opening} {number} {unit}"

    def subject(self) -> str:
        """Return something that can be the subject of any verb form."""
        rng = self.rng
        if rng.random() < 0.35:
            return rng.choice(["we", "they", "you", "I", "most people", "everyone in the team"])
        return self.noun_phrase()

    def clause(self) -> str:
        """Return one clause without its capital letter and full stop."""
        rng = self.rng
        verb, target = rng.choice(self.verbs), self.noun_phrase()
        modal = rng.choice(["can", "may", "must", "will", "should", "would", "could", "cannot"])
        forms = [
            f"{self.subject()} {lex.past(verb)} {target}",
            f"{self.subject()} {lex.past(verb)} {target} {self.place_phrase()}",
            f"{self.subject()} {modal} {verb} {target}",
            f"{self.subject()} {modal} {rng.choice(lex.ADVERBS)} {verb} {target}",
            f"{target} {modal} be {lex.participle(verb)} {self.place_phrase()}",
            f"{self.noun_phrase(0)} was {rng.choice(lex.ADVERBS)} {lex.participle(verb)}",
            f"the {rng.choice(self.nouns)} is {rng.choice(self.adjectives)} and has {target}",
            f"there is {lex.with_article(rng.choice(self.nouns))} {self.place_phrase()}",
            f"it is {rng.choice(lex.ADJECTIVES)} to {verb} {target}",
            f"{self.subject()} {modal} {rng.choice(lex.VERBS)} {rng.choice(lex.PRONOUNS)} {self.time_phrase()}",
            f"{self.subject()} {lex.past(verb)} {target} {self.time_phrase()}",
            f"{self.subject()} did not {rng.choice(lex.VERBS)} {self.place_phrase()}",
            f"{rng.choice(lex.PRESENT_SUBJECTS)} {lex.third_person(rng.choice(lex.VERBS))} {target}",
            f"{rng.choice(lex.NUMBER_WORDS)} {rng.choice(['or more', 'of the', 'new', 'other'])} "
            f"{lex.plural(rng.choice(self.nouns))} {rng.choice(['are', 'were'])} "
            f"{lex.participle(verb)} {self.place_phrase()}",
            f"{lex.gerund(verb)} {target} is as {rng.choice(self.adjectives)} as {lex.gerund(rng.choice(lex.VERBS))}",
            f"anyone who wants to {verb} {target} has to {rng.choice(self.verbs)} it first",
        ]
        return rng.choice(forms)

    def sentence(self) -> str:
        """Return one sentence."""
        rng = self.rng
        link = rng.choice(lex.CONNECTORS).replace("_", " ")
        kind = rng.random()
        if kind < 0.5:
            text = self.clause()
        elif kind < 0.75:
            text = f"{self.clause()}{', ' if link in ('and', 'but', 'so') else ' '}{link} {self.clause()}"
        elif kind < 0.87:
            text = f"{rng.choice(['if', 'when', 'because', 'although'])} {self.clause()}, {self.clause()}"
        else:
            opening = rng.choice(
                [
                    "as a rule",
                    "for example",
                    "of course",
                    "in the end",
                    "at first",
                    "at the same time",
                    "last year",
                    "every week",
                    "in general",
                ]
            )
            text = f"{opening}, {self.clause()}"
        return capitalised(text) + "."

    def paragraph(self, low: int = 2, high: int = 5) -> str:
        """Return a paragraph of several sentences."""
        return " ".join(self.sentence() for _ in range(self.rng.randint(low, high)))

    def title(self) -> str:
        """Return a heading."""
        first, second = self.rng.sample(self.nouns, 2)
        forms = [
            f"the {self.rng.choice(self.adjectives)} {first}",
            f"{first} and {second}",
            f"{lex.gerund(self.rng.choice(self.verbs))} {lex.plural(first)}",
            f"about {lex.plural(first)}",
        ]
        return capitalised(self.rng.choice(forms))


def coined(rng: random.Random) -> str:
    """Return an invented proper name."""
    if rng.random() < 0.2:
        return capitalised(rng.choice(lex.NOUNS[rng.choice(list(lex.NOUNS))]))
    syllables = [rng.choice(lex.ONSETS) + rng.choice(lex.NUCLEI) for _ in range(rng.choice([1, 2, 2, 2, 3]))]
    ending = rng.choice(lex.CODAS) if rng.random() < 0.7 or len(syllables) == 1 else ""
    return capitalised("".join(syllables) + ending)


def person(rng: random.Random) -> str:
    """Return a full name."""
    first = rng.choice(lex.FIRST_NAMES) if rng.random() < 0.6 else coined(rng)
    return f"{first} {rng.choice(lex.LAST_NAMES) if rng.random() < 0.3 else coined(rng)}"


def company(rng: random.Random) -> str:
    """Return the name of a company."""
    stem = rng.choice(lex.FIRM_STEMS) if rng.random() < 0.3 else coined(rng)
    return f"{stem} {rng.choice(lex.FIRM_KINDS) if rng.random() < 0.7 else coined(rng)}"


def place(rng: random.Random) -> str:
    """Return the name of a place."""
    return rng.choice(lex.PLACES) if rng.random() < 0.4 else coined(rng)


def amount(rng: random.Random) -> str:
    """Return a number with a unit, a time, a year or a code."""
    number = rng.choice([rng.randint(1, 30), rng.randint(1, 99), rng.randint(10, 60) * 10])
    forms = [
        f"{number} {rng.choice(lex.UNITS)}",
        f"{number} {rng.choice(lex.UNITS)}",
        f"{rng.choice(lex.NUMBER_WORDS)} {rng.choice(lex.UNITS)}",
        f"{rng.randint(5, 22)}:{rng.choice(['00', '30'])}",
        f"{rng.randint(1, 9)},{rng.randint(10, 99)}0 {rng.choice(['euros', 'crowns'])}",
        str(rng.randint(1950, 2030)),
        str(rng.randint(10, 9999)),
    ]
    return rng.choice(forms)


def date(rng: random.Random) -> str:
    """Return a day and a month."""
    return f"{rng.randint(1, 28)} {rng.choice(lex.MONTHS)}"


def with_questions(rng: random.Random, text: str, pairs: list[Pair], most: int = 3) -> str:
    """Append some of the questions that the text answers."""
    chosen = rng.sample(pairs, rng.randint(1, min(most, len(pairs))))
    return "\n\n".join([text, *(qa_text(*pair) for pair in chosen)])


def profile(rng: random.Random) -> str:
    """Write about a company, and ask about it."""
    name, founder, head, town = company(rng), person(rng), person(rng), place(rng)
    year, staff, floor = rng.randint(1900, 2020), rng.randint(2, 90) * 10, rng.randint(1, 9)
    goods, colour = rng.choice(lex.GOODS).replace("_", " "), rng.choice(lex.COLOURS)
    facts: list[tuple[str, str, str]] = [
        (f"{name} was founded in {year} by {founder}.", f"When was {name} founded?", str(year)),
        (f"The founder of {name} was {founder}.", f"Who founded {name}?", founder),
        (f"Its main office is in {town}.", f"Where is the main office of {name}?", town),
        (f"The company makes {goods}.", f"What does {name} make?", goods),
        (f"{staff} people work there.", f"How many people work at {name}?", str(staff)),
        (f"Today {head} is the director.", f"Who is the director of {name}?", head),
        (f"The front door of the building is {colour}.", f"What colour is the front door of {name}?", colour),
        (f"You find the canteen on floor {floor}.", f"On which floor is the canteen of {name}?", f"floor {floor}"),
    ]
    rng.shuffle(facts)
    kept = facts[: rng.randint(3, 6)]
    filler = Sentences(rng)
    parts = [fact[0] for fact in kept] + [filler.sentence() for _ in range(rng.randint(0, 2))]
    text = f"About {name}\n\n{' '.join(parts)}"
    return with_questions(rng, text, [(question, answer) for _, question, answer in kept])


def policy(rng: random.Random) -> str:
    """Write a list of rules of a company, and ask about them."""
    name, mate, days = company(rng), rng.choice(lex.ROLES), rng.randint(2, 40)
    limit, hours, size = rng.randint(1, 40) * 5, rng.randint(2, 48), rng.randint(6, 20)
    colour, weekday, last = rng.choice(lex.COLOURS), rng.choice(lex.WEEKDAYS), date(rng)
    thing = rng.choice(lex.NOUNS["office"] + lex.NOUNS["computing"] + lex.NOUNS["work"])
    extra = rng.choice(lex.NOUNS["home"] + lex.NOUNS["work"])
    rules: list[tuple[str, str, str]] = [
        (
            f"Each {mate} can borrow a {thing} for {days} days.",
            f"For how many days can a {mate} borrow a {thing}?",
            f"{days} days",
        ),
        (f"The {thing} must be paid before {last}.", f"Before which date must the {thing} be paid?", last),
        (
            f"No one may spend more than {limit} crowns on a {extra}.",
            f"What is the spending limit for a {extra}?",
            f"{limit} crowns",
        ),
        (f"A broken {extra} goes to the {mate} within {hours} hours.", f"Who repairs a broken {extra}?", f"the {mate}"),
        (f"The {extra} has a {colour} label.", f"What colour is the label of the {extra}?", colour),
        (f"The {thing} is cleaned every {weekday}.", f"When is the {thing} cleaned?", weekday),
        (f"Every code has {size} letters.", "How many letters has a code?", f"{size} letters"),
    ]
    rng.shuffle(rules)
    kept = rules[: rng.randint(3, 6)]
    filler = Sentences(rng)
    mark = rng.choice(["- ", "* ", ""])
    lines = [mark + rule[0] for rule in kept]
    text = f"Rules of {name}\n\n{filler.sentence()}\n\n" + ("\n" if mark else " ").join(lines)
    return with_questions(rng, text, [(question, answer) for _, question, answer in kept])


def phone_list(rng: random.Random) -> str:
    """Write a table of people, and ask about some rows."""
    rows = [(person(rng), rng.choice(lex.ROLES), rng.randint(100, 999), place(rng)) for _ in range(rng.randint(3, 6))]
    shape = rng.randint(0, 2)
    lines = [
        [
            f"{name}, {role}, {town}, telephone {number}",
            f"{name} works in {town} as {lex.with_article(role)} and answers on {number}.",
            f"- {name}: {role} | {number} | {town}",
        ][shape]
        for name, role, number, town in rows
    ]
    pairs = [(f"What is the telephone number of {name}?", str(number)) for name, _, number, _ in rows]
    pairs += [(f"Where does {name} work?", town) for name, _, _, town in rows]
    pairs += [(f"What is the job of {name}?", role) for name, role, _, _ in rows]
    return with_questions(rng, "People\n\n" + "\n".join(lines), pairs, 4)


def procedure(rng: random.Random) -> str:
    """Write numbered steps, and ask about one of them."""
    filler = Sentences(rng)
    goal = f"{rng.choice(filler.verbs)} {lex.with_article(rng.choice(filler.nouns))}"
    steps = [f"{rng.choice(filler.verbs)} {filler.noun_phrase()}" for _ in range(rng.randint(3, 6))]
    lines = [f"{i}. {capitalised(step)}." for i, step in enumerate(steps, 1)]
    pairs = [(f"What is step {i} if you want to {goal}?", step) for i, step in enumerate(steps, 1)]
    text = f"How to {goal}\n\n{filler.sentence()}\n\n" + "\n".join(lines)
    return with_questions(rng, text, pairs, 2) if rng.random() < 0.6 else text


def dialogue(rng: random.Random) -> str:
    """Write a short conversation between two people."""
    filler = Sentences(rng)
    names = [rng.choice(lex.FIRST_NAMES), rng.choice(lex.FIRST_NAMES)]
    greeting = rng.choice(["Good morning!", "Hello!", "Do you have a minute?", "How are you?"])
    lines = [f"{names[0]}: {greeting}"]
    for turn in range(1, rng.randint(4, 8)):
        verb, thing = rng.choice(filler.verbs), rng.choice(filler.nouns)
        spoken = rng.choice(
            [
                filler.sentence(),
                f"Did you {verb} the {thing}?",
                f"Where can I find the {thing}?",
                f"Yes, I {lex.past(verb)} it {rng.choice(lex.ADVERBS)}.",
                "Thank you very much.",
                f"Why don't we {verb} the {thing} on {rng.choice(lex.WEEKDAYS)}?",
                f"No, I'm sorry, that isn't {rng.choice(filler.adjectives)}.",
            ]
        )
        lines.append(f"{names[turn % 2]}: {spoken}")
    return "\n".join(lines)


def letter(rng: random.Random) -> str:
    """Write an e-mail from one person to another."""
    filler = Sentences(rng)
    sender, reader = person(rng), rng.choice(lex.FIRST_NAMES)
    verb, thing = rng.choice(lex.VERBS), rng.choice(filler.nouns)
    asks = [
        f"Could you please {verb} {filler.noun_phrase()} by {rng.choice(lex.WEEKDAYS)}?",
        f"Please {verb} the {thing} {filler.place_phrase()}.",
        f"I'm writing to ask whether you'd like to {verb} {filler.noun_phrase()}.",
        f"Don't {verb} the {thing}: it's {rng.choice(lex.ADJECTIVES)} & {rng.choice(lex.ADJECTIVES)}.",
        f"It costs EUR {rng.randint(2, 999)} ({rng.randint(2, 99)}%), which isn't {rng.choice(lex.ADJECTIVES)}.",
        f"We {verb} from {rng.randint(7, 11)}:{rng.choice(['00', '15', '30'])} to {rng.randint(13, 18)}:00.",
        f'Your {thing} - "{filler.title()}" - arrived on {date(rng)} {rng.randint(1990, 2025)}.',
    ]
    body = " ".join([*rng.sample(asks, 2), filler.sentence()])
    address = f"{sender.split()[0].lower()}@{rng.choice(lex.FIRM_STEMS).lower()}.example"
    closing = rng.choice(["Kind regards", "Best wishes", "Thank you", "Yours"])
    return (
        f"From: {address}\nSubject: {filler.title()}\n\n"
        f"{rng.choice(['Dear', 'Hello', 'Hi'])} {reader},\n\n{body}\n\n{closing},\n{sender}"
    )


def essay(rng: random.Random) -> str:
    """Write a few paragraphs about one topic."""
    filler = Sentences(rng)
    paragraphs = [filler.paragraph() for _ in range(rng.randint(1, 3))]
    return "\n\n".join([filler.title(), *paragraphs] if rng.random() < 0.6 else paragraphs)


def story(rng: random.Random) -> str:
    """Write a short story about one person, and ask about it."""
    name, friend, town = rng.choice(lex.FIRST_NAMES), person(rng), place(rng)
    thing, other = rng.sample(lex.NOUNS["home"] + lex.NOUNS["nature"] + lex.NOUNS["learning"], 2)
    land, day, month = rng.choice(lex.COUNTRIES), rng.choice(lex.WEEKDAYS), rng.choice(lex.MONTHS)
    verb, colour = rng.choice(lex.TRANSITIVE), rng.choice(lex.COLOURS)
    text = (
        f"One {day} in {month}, {name} went from {town} to {land} to {verb} a {colour} {thing}. "
        f"There {name} met {friend}, who had {lex.with_article(other)}. "
        f"{Sentences(rng).sentence()}"
    )
    pairs = [
        (f"Where did {name} go?", land),
        (f"Who did {name} meet?", friend),
        (f"On which day did {name} go to {land}?", day),
        (f"What did {friend} have?", other),
        (f"What colour was the {thing}?", colour),
        (f"From where did {name} go?", town),
    ]
    return with_questions(rng, text, pairs)


def fact(rng: random.Random) -> tuple[str, str, str]:
    """Return a random fact as a statement, a question and its answer."""
    nouns = rng.sample([noun for nouns in lex.NOUNS.values() for noun in nouns], 2)
    adjective, thing, verb = rng.choice(lex.ADJECTIVES), nouns[0], rng.choice(lex.TRANSITIVE)
    name, who, value, town = coined(rng), person(rng), amount(rng), place(rng)
    other = lex.with_article(f"{rng.choice(lex.ADJECTIVES)} {nouns[1]}")
    forms = [
        (f"The {adjective} {thing} is called {name}.", f"What is the name of the {adjective} {thing}?", name),
        (f"Our {thing} is the {name}.", f"What is the name of our {thing}?", f"the {name}"),
        (f"{who} is responsible for the {thing}.", f"Who is responsible for the {thing}?", who),
        (f"The head of the {name} team is {who}.", f"Who is the head of the {name} team?", who),
        (f"We use {name} to {verb} the {thing}.", f"What do we use to {verb} the {thing}?", name),
        (f"You {verb} the {adjective} {thing} in {town}.", f"Where do I {verb} the {adjective} {thing}?", f"in {town}"),
        (f"The {adjective} {thing} takes {value}.", f"How long does the {adjective} {thing} take?", value),
        (f"The limit of the {thing} is {value}.", f"What is the limit of the {thing}?", value),
        (
            f"{capitalised(lex.with_article(nouns[1]))} has {value} for the {thing}.",
            f"How much does {lex.with_article(nouns[1])} have for the {thing}?",
            value,
        ),
        (f"The {thing} starts at {value}.", f"When does the {thing} start?", value),
        (f"Every {thing} receives {other}.", f"What does every {thing} receive?", other),
        (f"We {verb} the {thing} in {name}.", f"In which place do we {verb} the {thing}?", name),
    ]
    return rng.choice(forms)


def notes(rng: random.Random) -> str:
    """Write unrelated facts, and ask about some."""
    facts = [fact(rng) for _ in range(rng.randint(2, 6))]
    text = rng.choice([" ", "\n", "\n\n"]).join(statement for statement, _, _ in facts)
    return with_questions(rng, text, [(question, answer) for _, question, answer in facts])


KNOWN: list[Pair] = [fact(random.Random(number))[1:] for number in range(200)]


def known_question(rng: random.Random) -> str:
    """Ask about one of a few facts that never change and stand in no text."""
    return qa_text(*rng.choice(KNOWN))


def lone_question(rng: random.Random) -> str:
    """Ask about a fact that nobody can know, or about plain English and arithmetic."""
    months, days = lex.MONTHS, lex.WEEKDAYS
    step, low, high = rng.randint(0, 5), rng.randint(1, 9), rng.randint(1, 9)
    noun = rng.choice([noun for nouns in lex.NOUNS.values() for noun in nouns])
    verb = rng.choice(lex.VERBS)
    pairs = [
        (f"Which month comes after {months[step]}?", months[step + 1]),
        (f"Which day comes after {days[step]}?", days[step + 1]),
        (f"What is {low} plus {high}?", str(low + high)),
        (f"What is more than one {noun}?", lex.plural(noun)),
        (f"What is the past of to {verb}?", lex.past(verb)),
    ]
    pairs += [fact(rng)[1:] for _ in pairs]
    return qa_text(*rng.choice(pairs))


KINDS: list[tuple[Callable[[random.Random], str], int]] = [
    (profile, 4),
    (policy, 4),
    (phone_list, 2),
    (notes, 8),
    (procedure, 2),
    (dialogue, 2),
    (letter, 4),
    (essay, 5),
    (story, 4),
    (known_question, 6),
    (lone_question, 8),
]


def documents(seed: int, count: int) -> Iterator[str]:
    """Yield `count` documents; the same seed gives the same documents."""
    rng = random.Random(seed)
    for write in rng.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS], k=count):
        yield write(rng)
