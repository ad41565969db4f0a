// Sorts the tables of the leaderboard, each by itself. Rows without a value stay last, whichever way it is sorted.
"use strict";
document.documentElement.classList.add("script");
for (const table of document.querySelectorAll(".sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const body = table.tBodies[0];

  const collator = new Intl.Collator("en", { numeric: true });
  const isText = (head) => head.matches(".name, .filters");

  const sort = (head, column) => {
    const now = head.getAttribute("aria-sort");
    const way = now === "ascending" ? "descending" : now === "descending" ? "ascending"
      : head.dataset.first;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", way);
    const sign = way === "ascending" ? 1 : -1;
    const compare = isText(head) ? collator.compare : (a, b) => a - b;
    const value = (row) => row.cells[column].dataset.value;
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * compare(x, y);
    });
    body.append(...rows);
  };

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sort(head, column));
  });
}
