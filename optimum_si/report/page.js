// Click a heading to sort by its column; a second click turns the order around.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const body = heading.closest("table").tBodies[0];
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => Number(row.cells[heading.cellIndex].dataset.value);
    const rows = [...body.rows].sort((one, other) => (up ? 1 : -1) * (value(one) - value(other)));
    body.append(...rows);
  });
}
