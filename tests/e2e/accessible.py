"""What every page owes to people with a keyboard, a screen reader or a phone, checked inside it."""

from typing import Any

PHONE = {"width": 390, "height": 844}
PROBLEMS = r"""
() => {
  const found = [];
  const each = (selector, wrong, what) => document.querySelectorAll(selector).forEach(
    (node) => { if (wrong(node)) found.push(`${what}: ${node.outerHTML.slice(0, 120)}`); });
  const name = (node) => (node.textContent + (node.getAttribute("aria-label") || "")
    + [...node.querySelectorAll("img")].map((image) => image.alt).join("")).trim();
  each("input:not([type=hidden]), select, textarea",
    (node) => node.labels.length === 0 && !node.ariaLabel, "no label");
  each("table", (node) => !node.caption || !node.caption.textContent.trim(), "no caption");
  each("th", (node) => !node.scope, "no scope");
  each("a, button", (node) => !name(node), "no name");
  each("img", (node) => !node.hasAttribute("alt"), "no alt");
  each("svg", (node) => node.getAttribute("aria-hidden") !== "true"
    && !(node.getAttribute("role") === "img" && node.getAttribute("aria-label")), "no text");
  each("nav, [role=region]", (node) => !node.getAttribute("aria-label")
    && !node.getAttribute("aria-labelledby"), "no name");
  each("[style]", () => true, "inline style");
  each("[aria-labelledby], [aria-describedby]", (node) =>
    [...(node.getAttribute("aria-labelledby") || "").split(" "),
     ...(node.getAttribute("aria-describedby") || "").split(" ")]
    .some((id) => id && !document.getElementById(id)), "names nothing");
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  const twice = ids.filter((id, index) => ids.indexOf(id) !== index);
  if (twice.length) found.push(`ids twice: ${twice}`);
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  if (document.querySelectorAll("main").length !== 1) found.push("not one main");
  if (!document.documentElement.lang || !document.title) found.push("no language or title");
  return found;
}
"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def check_page(page: Any, url: str) -> None:
    """At two widths: everything has a name, and nothing has to be scrolled sideways."""
    page.goto(url)
    assert page.evaluate(PROBLEMS) == [], url
    wide = page.viewport_size
    page.set_viewport_size(PHONE)
    assert page.evaluate(OVERFLOW) <= 0, f"{url} is wider than a phone"
    page.set_viewport_size(wide)
