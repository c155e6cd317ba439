"""Write the Word and PDF chapters of the example handbook: `python make_files.py`."""

import io
import zipfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import docx
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate

DOCUMENTS = Path(__file__).resolve().parent / "documents"
TITLE = "Kestrel Bay Instruments Staff Handbook"
REVIEWED = datetime(2025, 3, 3)


@dataclass(frozen=True)
class Chapter:
    """One chapter of the handbook; a paragraph of `body` that starts with `# ` is a heading."""

    name: str
    heading: str
    purpose: str
    team: str
    body: str
    summary: tuple[str, ...]

    def blocks(self) -> list[tuple[str, str]]:
        """Return the chapter as (style, text) pairs."""
        team = self.team
        blocks = [
            ("title", TITLE),
            ("chapter", self.heading),
            (
                "text",
                (
                    f"{self.purpose} It applies to everyone who works for the company, full-time or "
                    f"part-time. The {team} team keeps it up to date and last reviewed it in March 2025."
                ),
            ),
        ]
        for paragraph in self.body.strip().split("\n\n"):
            style = "section" if paragraph.startswith("# ") else "text"
            blocks.append((style, paragraph.removeprefix("# ").replace("\n", " ")))
        blocks.append(("section", "In short"))
        blocks += [("item", line) for line in self.summary]
        blocks += [
            ("section", "Questions about this chapter"),
            (
                "text",
                (
                    "If anything in this chapter is unclear, ask your team lead first. If your team lead "
                    f"does not know the answer, write to the {team} team at {team.lower()}"
                    f"@kestrelbay.example. The {team} team answers every message within two working days."
                ),
            ),
        ]
        return blocks


BENEFITS = Chapter(
    name="benefits",
    heading="Chapter 5: Benefits",
    purpose="This chapter explains which benefits you have at Kestrel Bay Instruments.",
    team="People",
    body="""# Salary and bonus

Your salary is paid on the 25th of every month. We review every salary in October, and a change starts in
January. If the company makes a profit, every employee receives a bonus in April.

# Pension

The company pays 8 percent of your salary into your pension from the first month. The pension is managed by
Northlight Mutual, and you can see your account at any time.

# Health

Every employee has private health insurance from Amrum Health. It covers the dentist as well, and you can add
your family for 40 euros a month. The company pays for an eye test every two years.

# Getting to work

The company pays half of your ticket for the train or the bus. You can lease a bicycle through the company for
up to three years.

# Family and community

You have 2 paid days a year for voluntary work. After ten years at the company you receive a brass barometer.
""",
    summary=(
        "Your salary is paid on the 25th.",
        "The pension starts in your first month.",
        "Use your two paid days for voluntary work.",
    ),
)

ONBOARDING = Chapter(
    name="onboarding",
    heading="Chapter 11: Your first weeks",
    purpose="This chapter explains how your first weeks work at Kestrel Bay Instruments.",
    team="People",
    body="""# Before you start

The People team sends you the contract and a welcome box at least two weeks before your first day. The welcome
box contains a mug, a notebook and a rain jacket.

# Your first day

Your first day starts at 9:00 at the reception in Port Ellery. Please bring your passport and the number of
your bank account. The Systems team gives you a laptop, a telephone and two hardware keys.

# Your first month

In the first week every new employee spends one day in the workshop at Stennis Head and builds a Plover. You
finish the safety course and the security course within 30 days.

# Probation

The probation period is 5 months. During the probation period the notice period is two weeks, and after that
it is three months.

# People who help you

Your mentor helps you for the first six months. Hanne Duarte from the People team is responsible for
onboarding. You can ask anything in the channel #new-here in Semaphore.
""",
    summary=(
        "Bring your passport on your first day.",
        "Finish both courses within 30 days.",
        "Ask anything in the channel #new-here.",
    ),
)

TRAVEL = Chapter(
    name="travel",
    heading="Chapter 6: Travel and expenses",
    purpose="This chapter explains how travel and expenses work at Kestrel Bay Instruments.",
    team="Finance",
    body="""# Before a trip

Your team lead approves every trip in advance. You book trains, planes and hotels with Marram Travel, the
travel agent of the company. If a train takes less than 6 hours, take the train and not the plane.

# During a trip

The company pays for a hotel of up to 130 euros a night. You receive 45 euros a day for meals, and you do not
need receipts for them. If you use your own car, you receive 38 cents a kilometre.

# Expenses

You enter expenses in Pelican within 20 days after a trip. Your team lead approves expenses within three
working days, and the Finance team pays them with your next salary. An expense of more than 500 euros has to
be agreed in advance.

# Company card

Employees who travel more than six times a year can ask for a company card. The limit of a company card is
2,500 euros a month. The head of the Finance team is Piet Lindqvist.
""",
    summary=(
        "Book your trip with Marram Travel.",
        "Enter expenses in Pelican within 20 days.",
        "Take the train if it takes less than 6 hours.",
    ),
)

SAFETY = Chapter(
    name="safety",
    heading="Chapter 12: Safety at work",
    purpose="This chapter explains how we keep everyone safe at Kestrel Bay Instruments.",
    team="Workshop",
    body="""# Fire

If you see a fire, press the nearest red button and leave the building. The meeting point in Port Ellery is
the old crane, and the meeting point at Stennis Head is the flagpole. There is a fire drill twice a year, in
May and in November.

# First aid

There are 16 first aiders at the company, and you know them by their green badge. In an emergency call 112
first and then extension 4444. Please report every accident in Drydock within 24 hours, even if nobody was
hurt.

# In the workshop

Everyone in the workshop wears safety glasses and safety shoes. Nobody may work alone in the workshop after
20:00.

# At sea

Everyone on a boat wears a life jacket. We do not go out if the wind is stronger than force 6. The head of the
boat decides, and the safety officer is Ragna Iversen.
""",
    summary=(
        "Press the red button and leave the building.",
        "Report every accident in Drydock.",
        "Wear safety glasses in the workshop.",
    ),
)


def word_file(chapter: Chapter) -> bytes:
    """Return the chapter as a Word file whose bytes depend on nothing but the chapter."""
    document = docx.Document()
    properties = document.core_properties
    properties.title, properties.author = f"{TITLE}: {chapter.heading}", "Kestrel Bay Instruments"
    properties.created = properties.modified = REVIEWED
    styles = {"title": "Title", "chapter": "Heading 1", "section": "Heading 2", "text": "Normal", "item": "List Bullet"}
    for style, text in chapter.blocks():
        document.add_paragraph(text, style=styles[style])
    raw, fixed = io.BytesIO(), io.BytesIO()
    document.save(raw)
    with zipfile.ZipFile(raw) as source, zipfile.ZipFile(fixed, "w") as target:
        for name in source.namelist():
            entry = zipfile.ZipInfo(name, date_time=REVIEWED.timetuple()[:6])
            target.writestr(entry, source.read(name), zipfile.ZIP_DEFLATED)
    return fixed.getvalue()


def pdf_file(chapter: Chapter) -> bytes:
    """Return the chapter as a PDF file whose bytes depend on nothing but the chapter."""
    styles = getSampleStyleSheet()
    names = {"title": "Title", "chapter": "Heading1", "section": "Heading2", "text": "BodyText", "item": "BodyText"}
    story: list[Flowable] = [
        Paragraph(f"- {text}" if style == "item" else text, styles[names[style]]) for style, text in chapter.blocks()
    ]
    target = io.BytesIO()
    SimpleDocTemplate(target, title=f"{TITLE}: {chapter.heading}", author="Kestrel Bay Instruments", invariant=1).build(
        story
    )
    return target.getvalue()


def main() -> None:
    """Write the files into the documents folder."""
    for chapter in (BENEFITS, ONBOARDING):
        (DOCUMENTS / f"{chapter.name}.docx").write_bytes(word_file(chapter))
    for chapter in (TRAVEL, SAFETY):
        (DOCUMENTS / f"{chapter.name}.pdf").write_bytes(pdf_file(chapter))


if __name__ == "__main__":
    main()
