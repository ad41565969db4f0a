// Filters the standings. What is chosen stands in the address, so that a view can be shared.
// Of many rows the first hundred are laid out, until all are asked for.
"use strict";
(() => {
  const bar = document.getElementById("filters");
  if (!bar) return;
  const find = document.getElementById("find"), track = document.getElementById("track");
  const cited = document.getElementById("cited"), shown = document.getElementById("shown");
  const body = document.querySelector("#board tbody"), all = document.getElementById("all");
  let most = 100;
  const number = new Intl.NumberFormat("en");

  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of body.rows) {
      const is = (!track.value || row.dataset.track === track.value)
        && (!cited || cited.checked || !row.classList.contains("cited"))
        && words.every((word) => row.dataset.text.includes(word));
      row.hidden = !is;
      count += is;
      row.classList.toggle("later", is && count > most);
    }
    shown.textContent = `${number.format(count)} of ${number.format(body.rows.length)} rows`
      + (count > most ? `, the first ${most} shown` : "");
    all.hidden = count <= most;
    all.textContent = `Show all ${number.format(count)}`;
    const state = new URLSearchParams();
    if (find.value) state.set("find", find.value);
    if (track.value) state.set("track", track.value);
    if (cited && !cited.checked) state.set("cited", "no");
    const hash = state.toString() ? `#${state}` : " ";
    if (location.hash !== hash.trim()) history.replaceState(null, "", hash.trim() || location.pathname);
  };

  const start = new URLSearchParams(location.hash.slice(1));
  find.value = start.get("find") ?? "";
  track.value = ["filtering", "byod"].includes(start.get("track")) ? start.get("track") : "";
  if (cited) cited.checked = start.get("cited") !== "no";
  for (const control of [find, track, cited]) control?.addEventListener("input", filter);
  all.addEventListener("click", () => { most = Infinity; filter(); });
  // Whatever was sorted, the first rows are to be seen.
  document.querySelector("#board thead").addEventListener("click", filter);
  filter();
})();
