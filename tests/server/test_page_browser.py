"""The page in Chromium: every task with nano, pictures' ways in, errors, Stop, keyboard, phone, dark, accessibility."""

import base64
import functools
import json
import time

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

from helpers.chromium import browsing, opened, playwright_api
from helpers.http_server import EXAMPLES, serving

from kosmos_edge import load
from kosmos_edge.server.scheduler import Scheduler

API = playwright_api()
KEY = "a-key-of-the-test"
CART, TRUCK = EXAMPLES[1], EXAMPLES[3]
PRICES = EXAMPLES[0].parent / "pages" / "prices.png"


@pytest.fixture(scope="module")
def browser():
    with browsing(API) as found:
        yield found


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def model():
    return load("nano", threads=1)


@pytest.fixture
def tab(browser, server):
    with opened(browser, server.url) as found:
        found.page.locator("#model").wait_for()
        yield found
        assert not found.complaints
        assert {url.split("/")[2] for url in found.requests if not url.startswith(("blob:", "data:"))} == {
            server.url.removeprefix("http://")
        }


@pytest.fixture
def slow(monkeypatch):
    """Each pass of the model takes a while."""
    step = Scheduler._step

    def later(self):
        time.sleep(0.1)
        step(self)

    monkeypatch.setattr(Scheduler, "_step", later)


def choose_task(tab, name):
    tab.page.get_by_role("tab", name=name).click()


def lit(tab, selector):
    return tab.page.locator(f"{selector}.lit").evaluate_all("all => all.map(one => Number(one.dataset.entity))")


# ---- tasks


def test_a_caption_and_its_boxes(tab, model):
    own = model.caption(CART.read_bytes(), ground=True)
    tab.take(CART)
    assert tab.finished() == own.text
    page = tab.page
    assert page.locator("#text .phrase").all_inner_texts() == [entity.phrase for entity in own.entities]
    assert page.locator("#status").inner_text() == f"Caption: {own.text}"  # what a screen reader says
    assert page.locator("#picture").get_attribute("alt") == own.text
    assert page.locator("#boxes .box").count() == len(own.boxes) == 3
    page.locator("#text .phrase").nth(1).hover()
    assert lit(tab, ".phrase") == lit(tab, ".box") == [1] and tab.text("#tag") == own.entities[1].phrase
    x1, y1, x2, y2 = own.entities[2].boxes[0].normalized
    area, drawn = page.locator("#picture").bounding_box(), page.locator('.box[data-entity="2"] .line').bounding_box()
    assert abs(drawn["x"] - area["x"] - x1 * area["width"]) < 4
    assert abs(drawn["height"] - (y2 - y1) * area["height"]) < 8
    page.mouse.move(area["x"] + (x1 + x2) / 2 * area["width"], area["y"] + (y1 + y2) / 2 * area["height"])
    assert lit(tab, ".phrase") == lit(tab, ".box") == [2]
    page.mouse.move(1, 1)
    assert lit(tab, ".phrase") == lit(tab, ".box") == []
    page.locator("#text .phrase").first.click()
    page.mouse.move(1, 1)
    page.locator("#tab-caption").focus()
    assert lit(tab, ".phrase") == lit(tab, ".box") == [0]
    page.get_by_label("Detailed").check()
    page.get_by_role("button", name="Caption", exact=True).click()
    page.locator("#text", has_text="The image features").wait_for()
    assert tab.finished() == model.caption(CART.read_bytes(), length="long", ground=True).text


def test_a_question(tab, model):
    tab.take(CART)
    choose_task(tab, "Ask")
    question = "What is left of the light bulb?"
    tab.page.get_by_label("Your question about the picture").fill(question)
    tab.page.get_by_role("button", name="Ask").click()
    assert tab.finished() == model.ask(CART.read_bytes(), question).text
    assert tab.text("#result-title") == question
    tab.page.get_by_label("Boxes in the answer").check()
    tab.page.get_by_role("button", name="Ask").click()
    assert "not trained for questions answered with boxes" in tab.text("#notes")  # the server's own note


def test_a_phrase_that_is_there_and_one_that_is_not(tab, model):
    tab.take(TRUCK)
    choose_task(tab, "Locate")
    tab.page.get_by_label("What to look for").fill("a fire truck")
    tab.page.keyboard.press("Enter")
    assert tab.finished() == "a fire truck" and tab.page.locator("#boxes .box").count() == 1
    assert tab.text("#found") == "1 box; the model is over 99 % sure."
    tab.page.get_by_label("What to look for").fill("a dog")
    tab.page.keyboard.press("Enter")
    tab.page.locator("#found", has_text="Not found").wait_for()
    assert tab.page.locator("#boxes .box").count() == 0
    assert tab.page.locator("[data-copy=coco]").is_disabled()


def test_a_box_drawn_with_the_mouse(tab, model):
    tab.take(TRUCK)
    tab.finished()
    choose_task(tab, "Describe")
    tab.page.get_by_role("button", name="Describe", exact=True).click()
    assert "Draw a box" in tab.text("#error")
    area = tab.page.locator("#picture").bounding_box()
    x1, y1, x2, y2 = model.locate(TRUCK.read_bytes(), "a fire truck").boxes[0].normalized
    tab.page.mouse.move(area["x"] + x2 * area["width"], area["y"] + y1 * area["height"])
    tab.page.mouse.down()
    tab.page.mouse.move(area["x"] + x1 * area["width"], area["y"] + y2 * area["height"], steps=4)
    tab.page.mouse.up()
    assert "fire truck" in tab.finished()
    given = [float(tab.page.locator(f"[name={name}]").input_value()) for name in ("x1", "y1", "x2", "y2")]
    asked = [x1 * 320, y1 * 320, x2 * 320, y2 * 320]
    assert all(abs(a - b) < 1.5 for a, b in zip(given, asked, strict=True)), (given, asked)
    for name, value in zip(("x1", "y1", "x2", "y2"), ("150", "150", "260", "300"), strict=True):
        tab.page.locator(f"[name={name}]").fill(value)
    tab.page.get_by_role("button", name="Describe", exact=True).click()
    tab.page.locator("#text", has_text="diamond").wait_for()


def test_a_model_that_only_reads(browser):
    own = load("nano-read", threads=1).read(PRICES)
    with serving(lambda: load("nano-read", threads=1), id="nano-read") as reader, opened(browser, reader.url) as tab:
        tab.page.locator("#tab-read[aria-selected=true]").wait_for()
        for name in ("Caption", "Ask", "Locate", "Describe"):
            found = tab.page.get_by_role("tab", name=name)
            assert found.get_attribute("aria-disabled") == "true"
            found.click(force=True)
            assert tab.text("#tab-reason").startswith("nano-read cannot do this: this model has no ")
            assert found.get_attribute("aria-describedby") == "tab-reason"
        assert tab.page.locator("#panel-read").is_visible()
        tab.page.get_by_role("button", name="A list of prices").click()
        assert tab.finished() == own.text and tab.text("#found") == "3 lines."
        assert tab.page.locator("#boxes .box").count() == 3
        tab.page.get_by_label("As Markdown").check()
        tab.page.get_by_role("button", name="Read").click()
        tab.page.locator("#found").wait_for(state="hidden")
        assert tab.finished() == load("nano-read", threads=1).read(PRICES, markdown=True).text
        assert not tab.complaints


def test_copies_are_those_of_python(browser, server, model):
    own = model.caption(CART.read_bytes(), ground=True)
    with opened(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as tab:
        tab.take({"name": "a (b) <c>.png", "mimeType": "image/png", "buffer": CART.read_bytes()})
        tab.finished()
        copied = {}
        for name in ("Text", "Markdown", "JSON", "COCO"):
            tab.page.get_by_role("button", name=name).click()
            tab.page.locator("#copied", has_text=name).wait_for()
            copied[name] = tab.page.evaluate("navigator.clipboard.readText()")
        assert copied["Text"] == own.text
        assert copied["Markdown"] == own.to_markdown("a (b) <c>.png") and "%28b%29" in copied["Markdown"]
        assert json.loads(copied["COCO"]) == own.to_coco(file_name="a (b) <c>.png")
        answer = json.loads(copied["JSON"])
        assert answer["entities"] == [entity.to_dict() for entity in own.entities] and answer["model"] == "nano"
        # Without the clipboard's permission, as on a page of http: elsewhere.
        tab.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        tab.page.get_by_role("button", name="Text").click()
        tab.page.locator("#copied", has_text="Copied as Text").wait_for()


def test_a_model_without_boxes(browser, server, model):
    """As if nano had none: the caption comes from another route."""
    with opened(browser, "about:blank") as tab:
        about = server.get("/v1/about").json()
        about["tasks"]["ground"] = "ground: this model has no location tokens"
        tab.page.route("**/v1/about", lambda route: route.fulfill(json=about))
        tab.page.goto(server.url)
        tab.page.locator("#model").wait_for()
        tab.take(CART)
        assert tab.finished() == model.caption(CART.read_bytes()).text
        assert tab.page.locator("#text .phrase").count() == 0 and tab.page.locator("#boxes .box").count() == 0
        assert [url for url in tab.requests if "/v1/" in url][-1] == f"{server.url}/v1/caption"
        choose_task(tab, "Ask")
        assert not tab.page.get_by_label("Boxes in the answer").is_visible()
        assert not tab.complaints


# ---- pictures


def transfer(tab, path, kind="image/png"):
    """A DataTransfer with a file."""
    script = """([bytes, name, kind]) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], name, {type: kind}));
        return data;
    }"""
    return tab.page.evaluate_handle(script, [base64.b64encode(path.read_bytes()).decode(), path.name, kind])


def test_drop_paste_camera_and_examples(tab, model):
    data = transfer(tab, TRUCK)
    tab.page.dispatch_event("body", "dragover", {"dataTransfer": data})
    assert tab.page.locator("#drop-hint").is_visible()
    tab.page.dispatch_event("body", "drop", {"dataTransfer": data})
    assert tab.finished() == model.caption(TRUCK.read_bytes()).text
    assert not tab.page.locator("#drop-hint").is_visible()
    data.evaluate("data => data.items.add(new File(['x'], 'second.png', {type: 'image/png'}))")
    tab.page.dispatch_event("body", "drop", {"dataTransfer": data})
    assert tab.text("#intake-error") == f"Only {TRUCK.name} was taken: one picture at a time."
    tab.page.evaluate(
        "data => document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}))",
        transfer(tab, CART),
    )
    tab.page.locator("#text", has_text="shopping cart").wait_for()
    tab.page.get_by_role("button", name="Camera").click()
    tab.page.get_by_role("button", name="Take the picture").click()
    tab.page.locator("#picture-name", has_text="camera.jpg").wait_for()
    tab.finished()
    assert tab.page.locator("#video").evaluate("video => video.srcObject") is None
    tab.page.get_by_role("button", name="Close").click()
    assert tab.focused("element.textContent") == "Choose a picture"
    tab.page.get_by_role("button", name="A Christmas tree and a truck").click()
    assert "Christmas tree" in tab.finished()


def test_the_history_of_the_session(tab):
    tab.take(CART)
    first = tab.finished()
    tab.take(TRUCK)
    tab.page.locator("#text", has_text="fire truck").wait_for()
    second = tab.finished()
    entries = tab.page.locator("#entries button")
    entries.nth(1).wait_for()
    assert [one.rpartition("\n")[2] for one in entries.all_inner_texts()] == [second, first]
    entries.nth(1).click()
    assert tab.finished() == first and CART.name in tab.text("#picture-name")
    assert tab.page.locator("#picture").evaluate("image => image.complete && image.naturalWidth") == 320
    assert tab.page.locator("#boxes .box").count() == 3
    tab.page.get_by_role("button", name="Clear").click()
    assert not tab.page.locator("#history").is_visible()
    assert tab.page.locator("#picture").evaluate("image => image.decode().then(() => true)")  # still shown
    tab.page.reload()
    tab.page.locator("#model").wait_for()
    assert not tab.page.locator("#history").is_visible()
    assert tab.page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]


# ---- errors and Stop


def test_files_that_are_no_pictures(tab):
    tab.take({"name": "letter.txt", "mimeType": "text/plain", "buffer": b"Dear model"})
    assert tab.text("#intake-error") == "letter.txt is not a picture that this browser can show."
    tab.take({"name": "broken.png", "mimeType": "image/png", "buffer": CART.read_bytes()[:20]})
    tab.page.locator("#intake-error", has_text="broken.png is not a picture").wait_for()
    tab.take({"name": "half.png", "mimeType": "image/png", "buffer": CART.read_bytes()[:3000]})
    assert tab.text("#error") == "The server cannot use this picture. Image file is truncated. Try again"
    assert not tab.page.locator("#intake-error").is_visible()
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
    tab.take({"name": "drawing.svg", "mimeType": "image/svg+xml", "buffer": drawing})
    tab.page.locator("#picture-name", has_text="drawing.svg").wait_for()
    tab.page.locator("#error:not([hidden])").wait_for()
    tab.complaints = [text for text in tab.complaints if "422" not in text]  # the browser logs the status
    assert tab.page.locator("#error").get_attribute("role") == "alert"
    tab.take(CART)
    tab.finished()
    assert not tab.page.locator("#error").is_visible()


def test_a_picture_that_is_too_large(browser):
    with serving(max_body=1 << 17) as small, opened(browser, small.url) as tab:
        tab.page.locator("#model").wait_for()
        tab.take(CART)
        assert tab.text("#intake-error") == (
            "scene-00001.png is too large for the server: 149 KB; it takes files of up to 93 KB."
        )
        assert not [url for url in tab.requests if "/v1/ground" in url]


def test_a_key(browser):
    with serving(api_key=KEY) as locked, opened(browser, locked.url) as tab:
        tab.page.locator("#key-form").wait_for()
        assert tab.focused() == "key"
        tab.take(CART)
        tab.page.get_by_label("API key").fill("wrong-key")
        tab.page.keyboard.press("Enter")
        assert tab.text("#key-error") == "The server does not know this key."
        tab.page.get_by_label("API key").fill(KEY)
        tab.page.keyboard.press("Enter")
        assert "shopping cart" in tab.finished()
        assert not tab.page.locator("#key-form").is_visible()
        tab.page.reload()
        tab.page.locator("#model").wait_for()  # the tab still has it
        assert not [url for url in tab.requests if KEY in url]


def test_a_server_that_is_gone_and_one_that_breaks_off(browser, slow):
    with serving() as running, opened(browser, running.url) as tab:
        tab.take(CART)
        tab.finished()
        tab.page.route("**/v1/ground", lambda route: route.abort("connectionrefused"))
        tab.page.get_by_role("button", name="Caption", exact=True).click()
        assert tab.text("#error").startswith("The server cannot be reached. Is kosmos-edge serve still running?")
        tab.page.unroute("**/v1/ground")
        tab.page.get_by_role("button", name="Try again").click()
        assert "shopping cart" in tab.finished() and not tab.page.locator("#error").is_visible()
        tab.page.get_by_label("Detailed").check()
        tab.page.get_by_role("button", name="Caption", exact=True).click()
        tab.page.locator("#text.streaming").wait_for()
        running.server.force_exit = running.server.should_exit = True
        assert "The answer broke off." in tab.text("#error") or "The server cannot answer" in tab.text("#error")
    # nobody listens any more


LATE = {"error": {"message": "no answer within 120 s", "type": "server_error", "param": None, "code": "timeout"}}
BEGUN = 'event: text\ndata: {"text": "a shopping", "tokens": 2}\n\n'
IN_WORDS = [  # a response, and what the page says
    ({"status": 413, "json": LATE}, "This picture is too large for the server. It takes files of up to 14.9 MB."),
    (
        {"status": 429, "json": LATE, "headers": {"Retry-After": "7"}},
        "The server is busy. Too many requests are waiting. Try again in 7 s.",
    ),
    ({"status": 504, "json": LATE}, "The answer took too long. No answer within 120 s."),
    ({"status": 502, "body": "<html>a proxy"}, "The server made an error. Status 502."),
    (
        {"body": f"{BEGUN}event: error\ndata: {json.dumps(LATE)}\n\n"},
        "The answer took too long. No answer within 120 s.",
    ),
    ({"body": BEGUN}, "The answer broke off. The connection to the server was lost."),
]


def fulfill(response, route):
    route.fulfill(**response)


def test_errors_in_plain_words(browser, server):
    with opened(browser, server.url) as tab:
        tab.page.locator("#model").wait_for()
        for number, (response, words) in enumerate(IN_WORDS):
            tab.page.unroute("**/v1/ground")
            tab.page.route("**/v1/ground", functools.partial(fulfill, response))
            if number:
                tab.page.get_by_role("button", name="Try again").click()
                assert tab.focused() == "work"
            else:
                tab.take(CART)
            tab.page.locator("#error", has_text=words).wait_for()
            begun = BEGUN in response.get("body", "")
            assert ("a shopping" in tab.page.locator("#text").inner_text()) == begun  # what had come stays


def test_text_streams_and_stop_ends_it_in_the_server(tab, server, slow):
    tab.page.get_by_label("Detailed").check()
    tab.take(CART)
    tab.page.locator("#text.streaming").wait_for()
    part = tab.text("#text")
    tab.page.wait_for_function("part => document.querySelector('#text').textContent.length > part.length", arg=part)
    assert server.service.scheduler.running == 1
    stop = tab.page.get_by_role("button", name="Stop")
    stop.focus()
    tab.page.keyboard.press("Enter")
    tab.page.locator("#notes", has_text="Stopped.").wait_for()
    server.settle()
    end = time.monotonic() + 5
    while server.service.scheduler.running:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert tab.page.locator("#text").inner_text().startswith(part.split()[0])
    assert tab.focused("element.textContent") == "Caption" and not stop.is_visible()
    tab.page.keyboard.press("Enter")
    tab.page.locator("#text.streaming").wait_for()
    tab.page.keyboard.press("Escape")
    tab.page.locator("#notes", has_text="Stopped.").wait_for()
    server.settle()


# ---- keyboard, phone, colours, accessibility


def press_until(tab, key, condition, most=40):
    for _ in range(most):
        tab.page.keyboard.press(key)
        if tab.focused(condition):
            ring = tab.focused("getComputedStyle(element).outlineStyle + getComputedStyle(element).outlineWidth")
            assert ring.startswith("solid") or tab.focused("element.matches('.box')"), ring
            return
    raise AssertionError(condition)


def test_the_keyboard_alone(tab):
    press = tab.page.keyboard.press
    press_until(tab, "Tab", "element.matches('.skip')", 1)
    press_until(tab, "Tab", "element.matches('[data-example]')")
    press("Enter")
    tab.finished()
    assert tab.focused() == "work"  # what had the focus is gone
    press_until(tab, "Tab", "element.id === 'tab-caption'", 1)
    press_until(tab, "Tab", "element.matches('.phrase')")
    assert lit(tab, ".box") == [0]
    press("Enter")
    assert tab.focused("element.ariaPressed") == "true"
    press("Enter")
    press_until(tab, "Shift+Tab", "element.matches('.box')")
    seen = {tab.focused("element.dataset.entity")}
    for _ in range(2):
        press("ArrowRight")
        seen.add(tab.focused("element.dataset.entity"))
        assert lit(tab, ".phrase") == [int(tab.focused("element.dataset.entity"))]
    assert seen == {"0", "1", "2"}
    press_until(tab, "Tab", "element.id === 'tab-caption'")
    for task in ("ask", "locate"):
        press("ArrowRight")
        assert tab.focused() == f"tab-{task}"
    press_until(tab, "Tab", "element.id === 'phrase'", 1)
    tab.page.keyboard.type("a light bulb")
    press("Enter")
    tab.page.locator("#found").wait_for()
    press_until(tab, "Shift+Tab", "element.id === 'tab-locate'")
    press("ArrowRight")
    press("ArrowRight")
    assert tab.focused() == "tab-read" and "nano cannot do this" in tab.text("#tab-reason")
    press("ArrowLeft")
    press_until(tab, "Tab", "element.textContent === 'Place a box'")
    press("Enter")
    assert tab.focused() == "draft"
    for key, times in (("Shift+ArrowLeft", 12), ("ArrowRight", 20), ("Shift+ArrowUp", 8), ("ArrowDown", 3)):
        for _ in range(times):
            press(key)
    tab.page.locator("#status", has_text="Box: ").wait_for()
    press("Enter")
    tab.page.locator("#text", has_text="light bulb").wait_for()


def test_a_phone(browser, server):
    phone = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
    with opened(browser, server.url, **phone) as tab:
        tab.page.locator("#model").wait_for()

        def fits():
            """The width of the page, and what reaches into its margin or out of its card."""
            return tab.page.evaluate("""() => {
                const edge = one => (one.closest(".panel") && !one.matches(".panel") ? 292 : 308);
                const wide = [...document.querySelectorAll("main *")].filter(
                    one => !one.closest(".unseen, #boxes") && one.getBoundingClientRect().right > edge(one) + 0.5);
                return [document.documentElement.scrollWidth, wide.map(one => one.outerHTML.slice(0, 90))];
            }""")

        assert fits() == [320, []]
        tab.take(CART)
        tab.finished()
        for name in ("Caption", "Ask", "Locate", "Describe"):
            choose_task(tab, name)
            assert fits() == [320, []], name
            assert tab.page.get_by_role("tab", name=name).bounding_box()["height"] >= 40
        box = tab.page.locator("#picture").bounding_box()
        script = """([[ax, ay], [bx, by]]) => {
            const frame = document.getElementById("frame");
            const send = (type, x, y) => frame.dispatchEvent(new PointerEvent(type, {pointerId: 1, pointerType: "touch",
                isPrimary: true, clientX: x, clientY: y, bubbles: true, cancelable: true}));
            frame.setPointerCapture = () => {};
            send("pointerdown", ax, ay); send("pointermove", bx, by); send("pointerup", bx, by);
        }"""
        corner = [
            [box["x"] + share * box["width"], box["y"] + down * box["height"]]
            for share, down in ((0.65, 0.3), (0.92, 0.68))
        ]
        tab.page.evaluate(script, corner)
        assert "light bulb" in tab.finished()
        assert tab.page.locator("#frame").evaluate("frame => getComputedStyle(frame).touchAction") == "none"


def test_dark_light_and_less_motion(browser, server, slow):
    def paper(tab):
        colour = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 3

    with opened(browser, server.url, color_scheme="dark", reduced_motion="reduce") as tab:
        assert paper(tab) < 60
        tab.page.get_by_role("button", name="Switch between light and dark").click()
        assert paper(tab) > 200
        tab.page.reload()
        assert paper(tab) > 200
        tab.take(CART)
        tab.page.locator("#text.streaming").wait_for()
        assert tab.page.evaluate("getComputedStyle(document.querySelector('#text'), '::after').animationName") == "none"
    with opened(browser, server.url, color_scheme="light") as tab:
        assert paper(tab) > 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_no_objection(browser, server, scheme):
    with opened(browser, server.url, color_scheme=scheme, reduced_motion="reduce") as tab:
        tab.page.locator("#model").wait_for()
        assert not tab.violations(), "without a picture"
        tab.take(CART)
        tab.finished()
        assert not tab.violations(), "with a result"
        tab.page.locator("#text .phrase").first.focus()
        assert not tab.violations(), "with a lit phrase"
        choose_task(tab, "Ask")
        tab.page.get_by_role("button", name="Ask").click()
        tab.page.locator("#error").wait_for()
        assert not tab.violations(), "with an error"
        choose_task(tab, "Describe")
        tab.page.get_by_role("button", name="Place a box").click()
        assert not tab.violations(), "with a box"
        tab.page.get_by_role("button", name="Camera").click()
        tab.page.locator("#shoot:enabled").wait_for()
        assert not tab.violations(), "with the camera"


def test_axe_and_the_key(browser):
    with serving(api_key=KEY) as locked, opened(browser, locked.url) as tab:
        tab.page.locator("#key-form").wait_for()
        tab.page.get_by_label("API key").fill("wrong")
        tab.page.keyboard.press("Enter")
        tab.page.locator("#key-error").wait_for()
        assert not tab.violations()
