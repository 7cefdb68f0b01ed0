"""What people come for, in a real browser: from a search to an adapter, and from a form to what lookups return."""

import base64
import json
import re
from urllib.parse import quote, unquote

import browsing
import pytest
from browsing import CONFIG, HOSTILE, LISTED, PHONE
from playwright.sync_api import Error, expect
from zoo import llama

from loradar.registry.checking import check_text

CLIPBOARD = ["clipboard-read", "clipboard-write"]


def figures(page):
    """Return the number of trained parameters on the page of an architecture."""
    return int(page.locator("[data-parameters]").inner_text().replace(",", ""))


def copy_snippet(page, label):
    """Copy the snippet for a tool by its button, and return it with the name of its file."""
    page.locator(".tabs > label", has_text=re.compile(f"^{re.escape(label)}$")).click()
    panel = page.locator(".panel:visible")
    expect(panel).to_contain_text("32")
    panel.get_by_role("button", name=re.compile("Copy")).click()
    expect(panel.get_by_role("button")).to_have_text("Copied")
    return page.evaluate("navigator.clipboard.readText()"), panel.locator(".mono").inner_text()


def run_copied(snippet, folder):
    """Run a snippet on a small model in place of the one that it loads, and return the adapted model."""
    llama().model.save_pretrained(folder)
    text, replaced = re.subn(r'from_pretrained\(\s*"[^"]+"', f'from_pretrained("{folder}"', snippet)
    assert replaced
    names = {}
    exec(compile(text, "snippet.py", "exec"), names)  # noqa: S102 - our own snippet
    return names["model"]


def test_from_a_search_to_a_snippet_that_runs(visit, service, tmp_path):
    """A checkpoint is typed; preset and rank are chosen; each copied snippet adapts the layers that the page shows."""
    page = visit(permissions=CLIPBOARD)
    page.goto("/")
    page.get_by_role("searchbox").or_(page.get_by_role("combobox")).fill("Llama-2-7b-hf")
    page.keyboard.press("Enter")
    page.wait_for_url("**/architectures/transformers/llama**")
    expect(page.locator("h1")).to_have_text("llama")
    page.locator(".choices").get_by_role("link", name="attention", exact=True).click()
    page.wait_for_url("**preset=attention**")
    before = figures(page)
    slider = page.get_by_label("Rank", exact=True)
    slider.fill("32")
    expect(page).to_have_url(re.compile("rank=32"))
    assert figures(page) > before
    labels = page.locator(".tabs > label").all_inner_texts()
    assert len(labels) >= 7
    for label in labels:
        snippet, file = copy_snippet(page, label)
        check = check_text(service.registry, snippet, file, "llama")
        assert (check.is_sound, check.parts[0].matched) == (True, 4 * 32), label
        if label in ("loradar", "PEFT"):
            model = run_copied(snippet, tmp_path / label)
            trained = [name for name, one in model.named_parameters() if one.requires_grad]
            adapted = {found[1] for found in map(re.compile(r"(\w+)\.lora_A").search, trained) if found}
            assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_towers_are_switched_by_links(visit):
    """Of a model that sees; each choice is a page of its own, which can be linked to."""
    page = visit(path="/architectures/transformers/qwen2_vl")
    page.locator(".choices").get_by_role("link", name=re.compile("vision")).first.click()
    page.wait_for_url("**towers=**vision**")
    expect(page.locator("pre").first).to_contain_text("qkv")
    assert "vision" in unquote(page.url)


def test_the_navigation_shows_the_current_page_on_a_phone(visit):
    """Its bar scrolls sideways, also to the last one; the page stays at its top."""
    page = visit(path="/docs", viewport=PHONE)
    current = page.locator(".nav [aria-current]")
    expect(current).to_have_text("Docs")
    expect(current).to_be_in_viewport(ratio=0.9)
    assert page.evaluate("scrollY") == 0


@pytest.mark.parametrize("javascript", [True, False], ids=["with-scripts", "without"])
def test_search_and_architecture_need_no_javascript(visit, javascript):
    """The same path with and without: search, choose, change the rank by its button."""
    page = visit(path="/", java_script_enabled=javascript)
    page.locator("main input[name=q]").fill("mistral")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="mistral", exact=True).first.click() if "/search" in page.url else None
    expect(page.locator("h1")).to_have_text("mistral")
    expect(page.locator("pre").first).to_contain_text("q_proj")
    page.locator(".choices").get_by_role("link", name="default", exact=True).click()
    expect(page.locator("pre").first).to_have_text(re.compile("q_proj.*v_proj"))
    buttons = page.get_by_role("button", name=re.compile("Copy"))
    expect(buttons.first).to_be_attached() if javascript else expect(buttons).to_have_count(0)


def test_suggestions_follow_the_keys(visit):
    """Arrow keys choose one, Enter opens it, Escape closes the list."""
    page = visit(path="/architectures/transformers/gpt2")
    box = page.get_by_role("combobox")
    box.press_sequentially("qwen3")
    options = page.get_by_role("option")
    expect(options.first).to_be_visible()
    box.press("Escape")
    expect(options.first).to_be_hidden()
    box.press("Backspace")
    expect(options.first).to_be_visible()
    box.press("ArrowDown")
    chosen = options.first
    expect(chosen).to_have_attribute("aria-selected", "true")
    box.press("Enter")
    page.wait_for_url("**/architectures/**qwen**")


def test_a_mapping_is_submitted_reviewed_and_served(visit):
    """With the mouse: a name is mended by the preview, the checks are waited for, another person approves."""
    ada = visit("ada", "/submissions/new")
    ada.get_by_label("Architecture", exact=True).fill("olmo2")
    ada.get_by_label("Target modules").fill("q_proj v_prj")
    preview = ada.locator("#preview")
    expect(preview).to_contain_text("attention.query")
    expect(preview).to_contain_text("matches nothing")
    ada.get_by_label("Target modules").fill("q_proj v_proj k_proj")
    expect(preview).not_to_contain_text("matches nothing")
    ada.get_by_label("Why", exact=True).fill(HOSTILE)
    ada.get_by_role("button", name="Submit").click()
    ada.wait_for_url(re.compile(r"/submissions/\d+$"))
    number = int(ada.url.rpartition("/")[2])
    expect(ada.locator(".stamp", has_text="needs review")).to_be_visible()  # the page comes again by itself
    expect(ada.locator("#decide + p, #decide ~ p").first).to_contain_text("another person reviews it")

    eve = visit("eve", "/submissions?status=needs_review")
    eve.get_by_role("link", name="transformers:olmo2").first.click()
    expect(eve.locator(".said", has_text="</script><script>")).to_have_count(1)
    assert eve.title() != "owned"
    expect(eve.locator("section[aria-labelledby=served] tr.more")).to_contain_text("k_proj")
    eve.get_by_label("Your review").fill("Reaches all 16 blocks.")
    eve.get_by_role("button", name="Approve and publish").click()
    expect(eve.locator(".stamp", has_text="published")).to_be_visible()
    served = eve.request.get("/v1/targets/olmo2").json()
    assert served["source"] == {"kind": "community", "version": f"submission-{number}"}
    assert served["target_modules"] == ["q_proj", "k_proj", "v_proj"]


def test_a_mapping_is_submitted_and_reviewed_by_keyboard_alone(visit, service):
    """From signing in on: Tab, typing, arrows and Enter; of a model of somebody's own, by the list of its layers."""
    ada = visit(path="/submissions/new")
    sign_in_by_keyboard(ada, service.tokens["ada"])
    tab_to(ada, "library")
    ada.keyboard.type("torch")
    for name, text in (("name", "mine.Net"), ("target_modules", "mix.q mix.v"), ("rationale", "My own.")):
        tab_to(ada, name)
        ada.keyboard.type(text)
    tab_to(ada, "", "summary")
    ada.keyboard.press("Enter")
    tab_to(ada, "layers")
    ada.keyboard.insert_text(LISTED)
    expect(ada.locator("#preview")).to_contain_text("as you list them")
    tab_to(ada, "", "button", "Submit")
    ada.keyboard.press("Enter")
    ada.wait_for_url(re.compile(r"/submissions/\d+$"))
    expect(ada.locator(".stamp", has_text="needs review")).to_be_visible()
    path = ada.url

    eve = visit(path=path)
    tab_to(eve, "", "a", "Sign in to decide")
    sign_in_by_keyboard(eve, service.tokens["eve"])
    assert eve.url == path
    tab_to(eve, "comment")
    eve.keyboard.type("Plausible.")
    tab_to(eve, "", "button", "Approve and publish")
    eve.keyboard.press("Enter")
    expect(eve.locator(".stamp", has_text="published")).to_be_visible()
    served = eve.request.get("/v1/targets/mine.Net", params={"library": "torch"}).json()
    assert served["target_modules"] == ["q", "v"]  # the shortest names of the same layers


def sign_in_by_keyboard(page, token):
    """Sign in from a page that leads there, and come back to it."""
    if "/login" not in page.url:
        if page.evaluate("document.activeElement.tagName") != "A":
            tab_to(page, "", "a", re.compile("^sign in$"))
        page.keyboard.press("Enter")
        page.wait_for_url("**/login**")
    tab_to(page, "token")
    page.keyboard.type(token)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/login" not in url)


FOCUSED = """() => {
  const at = document.activeElement;
  return [at.name || "", at.tagName.toLowerCase(), at.innerText || ""];
}"""


def tab_to(page, name, tag=None, text=None, most=150):
    """Press Tab until a control has the focus: one by the name of its field, or by its tag and text."""
    for _ in range(most):
        page.keyboard.press("Tab")
        at, its_tag, its_text = page.evaluate(FOCUSED)
        matches = re.fullmatch(text, its_text.strip()) if text else True
        if at == name if name else its_tag == tag and matches:
            return
    pytest.fail(f"no key leads to {name or text}")


def test_signing_out_ends_what_another_tab_may_do(visit):
    """A form of before is rejected, in words that say what to do."""
    page = visit("ada", "/submissions/new")
    other = page.context.new_page()
    other.goto("/login")
    other.get_by_role("button", name="Sign out").click()
    expect(other.locator("h1")).to_have_text("Sign in")
    page.get_by_label("Architecture", exact=True).fill("llama")
    page.get_by_label("Target modules").fill("q_proj")
    expect(page.locator("#preview")).to_contain_text("32")
    assert page.context.cookies() == [] or all(one["httpOnly"] for one in page.context.cookies())


@pytest.mark.parametrize(
    "path",
    [
        "/search?q={}",
        "/architectures?q={}",
        "/architectures/transformers/{}",
        "/compare?a={}&b=llama",
        "/submissions/new?name={}&target_modules={}&rationale={}",
        "/submissions?name={}",
        "/login?after={}",
        "/{}",
    ],
)
def test_hostile_text_stays_text(visit, path):
    """In the address of each page that shows it again: no element, no script and no template comes of it."""
    page = visit(expects=("404", "422"))
    page.goto(path.format(*[quote(HOSTILE, safe="")] * 3))
    assert page.locator("img[src=x]").count() == 0
    assert page.title() != "owned"
    assert "49" not in page.locator("main").inner_text().split()


def test_a_pasted_configuration_is_scanned_by_keyboard_alone(visit):
    """A config.json of other sizes than the registered one: its own targets, costs and snippets."""
    page = visit(path="/scan")
    tab_to(page, "text")
    page.keyboard.insert_text(CONFIG)
    tab_to(page, "", "button", "Scan")
    page.keyboard.press("Enter")
    page.wait_for_url("**/scan/*")
    expect(page.locator("h1")).to_contain_text("olmo2")
    expect(page.locator("main")).to_contain_text("4 of 4 blocks")
    expect(page.locator("pre").first).to_contain_text("q_proj")


@pytest.mark.parametrize("javascript", [True, False], ids=["with-scripts", "without"])
def test_a_dropped_header_is_scanned_and_submitted(visit, tmp_path, javascript):
    """Where scripts run, the header alone is sent; the form for a mapping is filled in with what it says.

    Without them all is done by keyboard alone: Enter on the field opens the browser's own dialog.
    """
    inner = "mixer" if javascript else "attention"  # an equal statement would be rejected
    shapes = {f"net.{n}.{inner}.{name}.weight": (64, 64) for n in range(3) for name in ("q_proj", "k_proj", "v_proj")}
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(safetensors_of(shapes))
    page = visit("ada", "/scan", java_script_enabled=javascript)
    sent = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    if javascript:
        drop(page, weights)
        expect(page.locator(".chosen")).to_contain_text("are sent")
    else:
        # A dialog is caught only if its first listener came before: the keys of the way there are answered in between.
        page.on("filechooser", lambda _: None)
        tab_to(page, "file")
        with page.expect_file_chooser() as dialog:
            page.keyboard.press("Enter")
        dialog.value.set_files(weights)
    tab_to(page, "", "button", "Scan")
    page.keyboard.press("Enter")
    page.wait_for_url("**/scan/*")
    size = int(sent[0].all_headers()["content-length"])
    assert size > 500
    assert (size < weights.stat().st_size) == javascript
    expect(page.locator("pre").first).to_contain_text("q_proj")
    page.get_by_role("button", name=re.compile("Submit")).click()
    expect(page.locator("h1")).to_have_text("Submit a mapping")
    expect(page.locator("#preview")).to_contain_text("as you list them")
    page.get_by_role("button", name="Submit", exact=True).click()
    page.wait_for_url(re.compile(r"/submissions/\d+$"))


def safetensors_of(shapes):
    """Return a file of weights: a header, and zeros."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def drop(page, path):
    """Drop a file on the form."""
    content = base64.b64encode(path.read_bytes()).decode()
    given = page.evaluate_handle(
        """([name, content]) => {
          const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
          const given = new DataTransfer();
          given.items.add(new File([bytes], name));
          return given;
        }""",
        [path.name, content],
    )
    page.locator("form.scan").dispatch_event("drop", {"dataTransfer": given})


def test_a_page_that_breaks_ends_what_waits_for_it(browser, service):
    """At once, with the reason: an error in a script would else be a wait for what never comes."""
    with browsing.visiting(browser, service) as (page, seen):
        page.goto("/scan")
        page.evaluate("setTimeout(() => { throw new Error('broken'); })")
        with pytest.raises((Error, AssertionError), match="closed"):
            expect(page.locator("#never")).to_be_visible()
    assert seen.problems == ["broken"]
