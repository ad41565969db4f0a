// Puts two rows of a board side by side. Everything is written as text, never as markup.
"use strict";
(() => {
  const { rows, tasks, groups } = window.board;
  const pick = { a: document.getElementById("a"), b: document.getElementById("b") };
  const places = new Map(rows.map((row, place) => [row.id, place]));
  const decimal = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
  const signed = (value) => (value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`);

  const node = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  };
  const shape = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  const verdictOf = (difference, half) => {
    if (difference === null) return ["–", "tie"];
    if (half === null) return ["not known", "tie"];
    if (Math.abs(difference) <= half) return ["tie", "tie"];
    return difference > 0 ? ["B higher", "higher"] : ["A higher", "lower"];
  };

  const bar = (difference, half, reach) => {
    const svg = shape("svg", { viewBox: "-84 0 168 16", width: 168, height: 16, class: "mark best", "aria-hidden": "true" });
    svg.append(shape("line", { x1: 0, y1: 1, x2: 0, y2: 15, class: "axis" }));
    if (difference !== null) {
      const x = (value) => Math.max(-80, Math.min(80, value / reach * 76));
      if (half !== null) svg.append(shape("line", { x1: x(difference - half), y1: 8, x2: x(difference + half), y2: 8, class: "error" }));
      svg.append(shape("circle", { cx: x(difference), cy: 8, r: 4, class: "dot" }));
    }
    return svg;
  };

  const head = (names, sortable) => node("thead", {}, node("tr", {}, ...names.map(([name, kind, first]) => {
    const text = name || node("span", { class: "unseen" }, "Chart");
    const inside = sortable ? node("button", { type: "button" }, text, node("i", { "aria-hidden": "true" })) : text;
    return node("th", { scope: "col", class: kind, "data-first": first }, inside);
  })));
  const cell = (shown, value, kind) =>
    node("td", { "data-value": value === null || value === undefined ? "" : String(value), class: kind }, shown);

  const fillGroups = (a, b) => {
    const table = document.getElementById("groups");
    const body = node("tbody");
    groups.forEach((name, place) => {
      const x = a.groups[place], y = b.groups[place];
      const difference = x === null || y === null ? null : y - x;
      body.append(node("tr", {}, node("th", { scope: "row", class: "name" }, name),
        cell(decimal(x)), cell(decimal(y)), cell(signed(difference))));
    });
    table.replaceChildren(
      node("caption", {}, "Averages of groups of tasks."),
      head([["Average of", "name"], [`A: ${a.method}`, "number"], [`B: ${b.method}`, "number"], ["B − A", "number"]], false),
      body);
  };

  const fillTasks = (a, b) => {
    const table = document.getElementById("task-table");
    const found = tasks.map((task, place) => {
      const x = a.tasks[place], y = b.tasks[place];
      const difference = x === null || y === null ? null : y - x;
      const p = a.errors[place], q = b.errors[place];
      const half = p === null || q === null ? null : 1.96 * Math.hypot(p, q);
      return { task, x, y, difference, half };
    });
    const reach = Math.max(0.01, ...found.map((one) => Math.abs(one.difference ?? 0) + (one.half ?? 0)));
    // Head and body stay when rows are replaced: the sorting holds on to them.
    const body = table.tBodies[0] ?? table.appendChild(node("tbody"));
    const lines = [];
    for (const { task, x, y, difference, half } of found) {
      const [text, kind] = verdictOf(difference, half);
      const near = task.near ? node("span", { class: "badge" }, "near chance") : null;
      lines.push(node("tr", {},
        node("th", { scope: "row", class: "name", "data-value": task.name.toLowerCase() },
          node("span", { class: "fit" }, task.name, " ", near, node("br"), node("small", {}, task.metric))),
        cell(decimal(x), x), cell(decimal(y), y),
        cell(node("b", {}, signed(difference)), difference),
        cell(bar(difference, half, reach), difference, "spark"),
        cell(node("span", { class: kind }, text), difference)));
    }
    body.replaceChildren(...lines);
    if (!table.tHead) {
      body.before(head([["Task", "name", "ascending"], ["A", "number", "descending"], ["B", "number", "descending"],
        ["B − A", "number", "descending"], ["", "spark", "descending"], ["Higher", "number", "descending"]], true));
    }
    for (const sorted of table.querySelectorAll("[aria-sort]")) sorted.removeAttribute("aria-sort");
    table.createCaption().textContent = `The chart reaches from −${reach.toFixed(3)} to +${reach.toFixed(3)}. Headings sort the table.`;
  };

  const show = () => {
    const i = places.get(pick.a.value), j = places.get(pick.b.value);
    const a = rows[i], b = rows[j];
    const tied = a.ties.some(([first, last]) => first <= j && j <= last);
    const difference = b.average - a.average;
    let text = `${b.method} (rank ${b.rank}, ${decimal(b.average)}) and ${a.method} (rank ${a.rank}, ${decimal(a.average)})`;
    if (i === j) text = "These are the same row.";
    else if (tied) text += " are too close to call.";
    else text += ` differ by ${Math.abs(difference).toFixed(3)}: ${difference > 0 ? "B" : "A"} is higher.`;
    document.getElementById("verdict").textContent = text;
    fillGroups(a, b);
    fillTasks(a, b);
    document.getElementById("tasks-section").hidden = !tasks.some((_, n) => a.tasks[n] !== null && b.tasks[n] !== null);
    history.replaceState(null, "", `#${new URLSearchParams({ a: a.id, b: b.id })}`);
  };

  const start = new URLSearchParams(location.hash.slice(1));
  const submitted = rows.filter((row) => !row.cited);
  const first = submitted[0] ?? rows[0];
  const second = submitted[1] ?? rows.find((row) => row !== first) ?? first;
  pick.a.value = places.has(start.get("a")) ? start.get("a") : second.id;
  pick.b.value = places.has(start.get("b")) ? start.get("b") : first.id;
  pick.a.addEventListener("input", show);
  pick.b.addEventListener("input", show);
  document.getElementById("swap").addEventListener("click", () => {
    [pick.a.value, pick.b.value] = [pick.b.value, pick.a.value];
    show();
  });
  show();
})();
