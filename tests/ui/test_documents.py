"""The page of documents: dropped, uploaded, looked into, deleted."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.end_to_end.conftest import RunningStack
from tests.ui.browser import Visitor
from tests.waiting import until


def files(*named: tuple[str, bytes]) -> list[dict[str, object]]:
    return [{"name": name, "mimeType": "application/octet-stream", "buffer": content} for name, content in named]


def test_many_files_are_uploaded_and_a_bad_one_has_its_error_beside_it(someone: Visitor) -> None:
    page = someone.open("documents")
    chosen = files(("leave.md", b"# Leave\nThirty days."), ("broken.pdf", b"no pdf at all"), ("tool.exe", b"MZ"))
    page.locator("#files").set_input_files(chosen)
    uploads = page.get_by_role("region", name="Uploads")
    expect(uploads.get_by_role("heading")).to_have_text("2 files of 3 could not be taken")
    expect(uploads.locator("li", has_text="leave.md")).to_contain_text("uploaded")
    expect(uploads.locator("li", has_text="tool.exe").locator("code")).to_have_text("document_unsupported")
    expect(page.get_by_role("row", name="leave.md")).to_be_visible()


def test_files_are_dropped(someone: Visitor) -> None:
    page = someone.open("documents")
    dropped = page.evaluate_handle(
        """() => { const all = new DataTransfer();
        for (const name of ["dropped-1.txt", "dropped-2.txt"]) all.items.add(new File([name + " has words."], name));
        return all; }"""
    )
    page.locator(".drop").dispatch_event("drop", {"dataTransfer": dropped})
    for name in ("dropped-1.txt", "dropped-2.txt"):
        expect(page.get_by_role("row", name=name)).to_be_visible()


def test_a_text_can_be_looked_into_and_is_only_text(someone: Visitor, stack: RunningStack) -> None:
    stack.upload(("page.html", "<script>alert(1)</script><p>Something to read.</p>"), ("long.txt", "Word. " * 20_000))
    page = someone.open("documents")
    page.get_by_role("button", name="Look into page.html").click()
    dialog = page.get_by_role("dialog", name="page.html")
    dialog.get_by_role("button", name="File").click()
    expect(dialog.locator("pre")).to_have_text("<script>alert(1)</script><p>Something to read.</p>")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Look into long.txt").click()
    expect(page.get_by_role("dialog")).to_contain_text("This is the beginning of 120 kB")


def test_a_document_is_shown_in_its_chunks(someone: Visitor, stack: RunningStack) -> None:
    text = "\n\n".join(f"Paragraph {number} of the manual. " * 60 for number in range(60))
    (document,) = stack.upload(("manual.md", f"# Manual\n\n{text}"))
    until(lambda: bool(stack.get(f"/documents/{document['id']}/chunks")["data"]))
    page = someone.open("documents")
    page.get_by_role("button", name="Look into manual.md").click()
    chunks = page.get_by_role("dialog").get_by_role("listitem")
    expect(chunks).to_have_count(20)
    expect(chunks.first).to_contain_text("Manual")
    page.get_by_role("dialog").get_by_role("button", name="More").click()
    expect(chunks).not_to_have_count(20)
    assert [one.split(" ·")[0] for one in chunks.locator(".hint").all_inner_texts()[:22]][-1] == "Chunk 22"


def test_a_deleted_document_says_who_learned_from_it(someone: Visitor, stack: RunningStack) -> None:
    stack.upload(("forgotten.txt", "Nobody learned from this text."))
    page = someone.open("documents")
    page.get_by_role("button", name="Delete forgotten.txt").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status").filter(has_text="forgotten.txt is deleted")).to_contain_text("No version learned")
    expect(page.get_by_role("row", name="forgotten.txt")).to_have_count(0)


def test_names_are_text_and_nothing_else(someone: Visitor, stack: RunningStack) -> None:
    name = "<img src=x onerror=alert(1)>.txt"
    stack.upload((name, "Text of a file with an odd name."))
    page = someone.open("documents")
    expect(page.get_by_role("rowheader", name=name)).to_be_visible()
    assert page.locator("main img").count() == 0


def test_what_could_not_be_read_says_so_beside_the_file(someone: Visitor, stack: RunningStack) -> None:
    text = "\n\n".join(f"Paragraph {number} can be read." for number in range(30))
    (cut_off, whole) = stack.upload(("cut-off.pdf", b"%PDF-1.4 and no more"), ("whole.txt", text))
    made = stack.post("/fine-tuning/setup", document_ids=[cut_off["id"], whole["id"]], max_length=64, train=False)
    job = stack.wait(made["job_id"])
    assert job["status"] == "succeeded", job
    error = stack.get(f"/documents/{cut_off['id']}")["error"]
    page = someone.open("documents")
    row = page.get_by_role("row", name="cut-off.pdf")
    expect(row.locator(".status")).to_have_text("failed")
    expect(row.locator(".field-error")).to_have_text(f"{error['detail']} {error['code']}")
    expect(page.get_by_role("row", name="whole.txt").locator(".status")).to_have_text("extracted")
    page = someone.open(f"jobs/{made['job_id']}")
    expect(page.get_by_role("region", name="Result")).to_contain_text("cut-off.pdf")
