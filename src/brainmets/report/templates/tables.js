/* Frames of class "long": a search field, and columns that sort. In columns of class "num" numbers sort as numbers,
   and a missing value comes last whichever way they are sorted. */
(function () {
  const number = (text) => {
    const plain = String(text).replace(/[<>,%\s]/g, "").replace(/^([-+]?)inf$/i, "$1Infinity");
    return plain === "" ? NaN : Number(plain);
  };
  const last = (order) => (a, b) => Number(isNaN(a)) - Number(isNaN(b)) || order * (a === b ? 0 : a - b) || 0;
  DataTable.type("measure", { order: { pre: number, asc: last(1), desc: last(-1) } });
  document.addEventListener("DOMContentLoaded", () => {
    for (const table of document.querySelectorAll(".frame.long > table")) {
      new DataTable(table, {
        paging: false, order: [], autoWidth: false, orderMulti: true,
        columnDefs: [{ targets: "num", type: "measure" }, { targets: "_all", type: "string" }],
        layout: { topStart: "search", topEnd: "info", bottomStart: null, bottomEnd: null },
        language: {
          search: "Search", info: "_TOTAL_ rows", infoEmpty: "no row",
          infoFiltered: "of _MAX_", zeroRecords: "No row holds this text.",
        },
      });
    }
    document.body.dataset.sortable = "yes";
  });
})();
