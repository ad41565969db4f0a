// Comfort for the live pages: counts that come later, keys, images from the disk. All else works without.
"use strict";
document.documentElement.classList.add("script");

const count = document.querySelector("#count a");
if (count) {
  const place = count.parentNode;
  place.textContent = "Counting all that match …";
  fetch(count.href).then((answer) => answer.json()).then((found) => {
    place.textContent = found.error
      ? "All that match: not counted, " + found.error
      : "All that match: " + found.count.toLocaleString("en") + ".";
  }).catch(() => { place.textContent = ""; });
}

for (const image of document.querySelectorAll(".frame img")) {
  const failed = () => {
    const said = document.createElement("span");
    said.textContent = "no readable image";
    image.parentNode.classList.add("broken");
    image.replaceWith(said);
  };
  if (image.complete && image.src && !image.naturalWidth && image.currentSrc) failed();
  else image.addEventListener("error", failed);
}

const statement = document.querySelector("textarea");
if (statement) {
  statement.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) statement.form.requestSubmit();
  });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  const cards = [...document.querySelectorAll(".gallery.live a")];
  const step = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 }[event.key];
  if (step && cards.length) {
    const at = cards.indexOf(document.activeElement);
    const next = at < 0 ? (step > 0 ? 0 : cards.length - 1) : at + step;
    if (cards[next]) { cards[next].focus(); event.preventDefault(); }
  } else if (event.key === "/") {
    const words = document.querySelector("#words, textarea");
    if (words) { words.focus(); event.preventDefault(); }
  } else if (event.key === "n") {
    const next = document.querySelector("a[rel=next]");
    if (next) next.click();
  }
});

const upload = document.querySelector("#upload");
if (upload) {
  const input = upload.querySelector("input");
  input.addEventListener("change", async () => {
    if (!input.files.length) return;
    const answer = await fetch("/alike", { method: "POST", body: input.files[0] });
    const found = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = document.querySelector("main");
    main.replaceChildren(...document.importNode(found.querySelector("main"), true).childNodes);
    main.querySelector("h1").tabIndex = -1;
    main.querySelector("h1").focus();
  });
}
