// A click on a column's head, or Enter there, sorts the table by it; another one turns it round.
"use strict";

const value = (row, column) => {
  const text = row.cells[column].textContent.trim().replaceAll(",", "");
  const number = parseFloat(text);
  return Number.isNaN(number) ? text : number;
};

const order = (a, b) =>
  typeof a === typeof b ? (a > b) - (a < b) : typeof a === "number" ? -1 : 1;

const sort = (head) => {
  const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  // The row of all exits together stays below them.
  const total = (row) => row.cells[0].textContent === "all";
  const rows = [...body.rows].filter((row) => !total(row));
  rows.sort((a, b) => (down ? -1 : 1) * order(value(a, column), value(b, column)));
  body.append(...rows, ...[...body.rows].filter(total));
};

for (const head of document.querySelectorAll("thead th")) {
  head.tabIndex = 0;
  head.title = "sort by this column";
  head.addEventListener("click", () => sort(head));
  head.addEventListener("keydown", (event) => event.key === "Enter" && sort(head));
}
