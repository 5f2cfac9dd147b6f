// Validation samples that leave at each exit: pictures, or a table where there are none.
"use strict";

const Gallery = (() => {
  const MOST = 30;
  const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

  function make(page) {
    const { data, state } = page;
    makeFilter(page);
    const pictured = data.pictures !== null;
    const what = pictured ? "pictures" : "samples";
    d3.select("#gallery-about").text(
      `Up to ${MOST} ${what} per exit, drawn by lot once and for all` +
      (data.order.length < data.samples ? ` from ${Words.count(data.order.length)} of the samples` : "") +
      (pictured ? ". Point at one, or go to it with the tab and arrow keys, to see its scores." : "."));
    if (pictured) loadSheet(data.pictures);
    const card = pictured ? makeCard(page) : null;
    const place = pictured ? d3.select("#gallery") : makeTable(page);
    const makeOne = pictured ? makeStrip : makeRows;
    const exits = d3.range(data.exits).map((k) => makeOne(place, page, k, card));
    return {
      draw(result) {
        d3.select("#label").property("value", state.label ?? "");
        exits.forEach((exit, k) => {
          exit.draw(result, Logic.shownAt(data, result.taken, k + 1, state.label, MOST));
        });
      },
    };
  }

  // One rule for all pictures: the sheet's address is megabytes long, and is to be read once.
  function loadSheet({ address, width, height, columns, rows }) {
    d3.select("head").append("style").text(`.tile i, .picture {
      background-image: url(${address}); aspect-ratio: ${width} / ${height};
      background-size: ${100 * columns}% ${100 * rows}%; }`);
  }

  function makeFilter(page) {
    const options = [["", "any"], ...page.data.classes.map((name, label) => [label, name])];
    d3.select("#label").on("change", (event) => {
      page.filter(event.target.value === "" ? null : Number(event.target.value));
    }).selectAll("option").data(options).join("option")
      .attr("value", ([value]) => value).text(([, name]) => name);
  }

  function titleOf({ data, state }, k, { taken, n, correct }) {
    if (state.label === null) {
      const right = n[k] ? `, ${Words.percent(correct[k] / n[k], 1)} right` : "";
      return `${Words.count(n[k])} leave${right}`;
    }
    let [all, hits] = [0, 0];
    for (let i = 0; i < taken.length; i++) {
      if (taken[i] !== k + 1 || data.labels[i] !== state.label) continue;
      all += 1;
      hits += data.right[k][i];
    }
    const right = all ? `, ${Words.percent(hits / all, 1)} right` : "";
    return `${Words.count(all)} of class ${data.classes[state.label]} leave${right}`;
  }

  function makeStrip(gallery, page, k, card) {
    const { data } = page;
    const strip = gallery.append("section").attr("class", "strip");
    const title = strip.append("h3");
    title.append("span").text(`Exit ${k + 1}`);
    const about = title.append("span").attr("class", "soft");
    const list = strip.append("div").attr("class", "tiles").attr("role", "group")
      .attr("aria-label", `Samples that leave at exit ${k + 1}`);
    const tiles = d3.range(MOST).map((i) => makeTile(list, i, card));
    const shown = new Array(MOST).fill(null);
    return {
      draw(result, places) {
        about.text(titleOf(page, k, result));
        list.attr("hidden", places.length ? null : "");
        tiles.forEach((tile, i) => {
          const at = places[i] ?? null;
          if (at === shown[i]) return;
          shown[i] = at;
          tile.hidden = at === null;
          if (at === null) return;
          const sample = data.order[at];
          tile.className = `tile ${data.right[k][sample] ? "right" : "wrong"}`;
          tile.sample = { sample, k, at };
          tile.setAttribute("aria-label", inWords(page, sample, k));
          tile.firstChild.style.backgroundPosition = positionOf(data.pictures, at);
        });
      },
    };
  }

  function positionOf({ columns, rows }, at) {
    const [row, column] = [Math.floor(at / columns), at % columns];
    return `${columns > 1 ? (100 * column) / (columns - 1) : 0}% ${rows > 1 ? (100 * row) / (rows - 1) : 0}%`;
  }

  function makeTile(list, i, card) {
    const tile = list.append("button").attr("type", "button").attr("tabindex", i ? -1 : 0).node();
    tile.append(document.createElement("i"));
    tile.hidden = true;
    d3.select(tile)
      .on("pointerenter focus", () => card.show(tile))
      .on("pointerleave blur", () => card.hide())
      .on("keydown", (event) => {
        if (event.key === "Escape") card.hide();
        if (!(event.key in STEPS)) return;
        const others = [...tile.parentNode.querySelectorAll("button:not([hidden])")];
        const next = others[others.indexOf(tile) + STEPS[event.key]];
        if (next) {
          for (const other of others) other.tabIndex = -1;
          next.tabIndex = 0;
          next.focus();
        }
        event.preventDefault();
      });
    return tile;
  }

  function inWords({ data }, sample, k) {
    const said = data.classes[data.predicted[k][sample]];
    const verdict = data.right[k][sample] ? "right" : `wrong, it is ${data.classes[data.labels[sample]]}`;
    const scores = data.scores.map((column, j) => `exit ${j + 1} ${Words.score(column[sample])}`);
    return `Sample ${data.ids[sample]}: ${said}, ${verdict}. Scores: ${scores.join(", ")}`;
  }

  // What is known of one sample, beside its picture.
  function makeCard(page) {
    const { data, state } = page;
    const card = d3.select("#card");
    const scale = Logic.scale(data.scale);
    let shown = null;
    addEventListener("scroll", () => shown && beside(card.node(), shown), { passive: true });
    return {
      hide() {
        shown = null;
        card.attr("hidden", "");
      },
      show(tile) {
        shown = tile;
        const { sample, k, at } = tile.sample;
        card.attr("hidden", null).html("");
        card.append("i").attr("class", "picture")
          .style("background-position", positionOf(data.pictures, at));
        const words = card.append("div");
        words.append("b").text(data.classes[data.labels[sample]]);
        words.append("span").attr("class", "soft").text(` · sample ${data.ids[sample]}`);
        const rows = words.append("table").selectAll("tr").data(data.scores).join("tr")
          .attr("class", (_, j) => (j === k ? "here" : j > k ? "later" : ""));
        rows.append("td").text((_, j) => j + 1);
        const bar = rows.append("td").append("span").attr("class", "bar");
        bar.append("i").style("width", (scores) => `${100 * scale.place(scores[sample])}%`);
        bar.filter((_, j) => (state.thresholds[j] ?? null) !== null).append("em")
          .style("left", (_, j) => `${100 * scale.place(state.thresholds[j])}%`);
        rows.append("td").attr("class", "figure").text((scores) => Words.score(scores[sample]));
        rows.append("td").attr("class", (_, j) => (data.right[j][sample] ? "right" : "wrong"))
          .text((_, j) => `${data.right[j][sample] ? "✓" : "✕"} ${data.classes[data.predicted[j][sample]]}`);
        words.append("p").attr("class", "soft").text(`leaves at exit ${k + 1}; the line is the threshold`);
        beside(card.node(), tile);
      },
    };
  }

  function beside(card, tile) {
    const place = tile.getBoundingClientRect();
    const { width, height } = card.getBoundingClientRect();
    const left = Math.min(Math.max(place.left + place.width / 2 - width / 2, 8), innerWidth - width - 8);
    const above = place.top - height - 8;
    card.style.left = `${left}px`;
    card.style.top = `${above > 8 ? above : place.bottom + 8}px`;
  }

  function makeTable(page) {
    const { data } = page;
    const box = d3.select("#gallery").append("div").attr("class", "scroll tall").attr("tabindex", 0)
      .attr("role", "region").attr("aria-labelledby", "gallery-title");
    const table = box.append("table");
    const names = ["sample", "class", "answer", ...data.scores.map((_, k) => `score at ${k + 1}`)];
    table.append("thead").append("tr").selectAll("th").data(names).join("th")
      .attr("scope", "col").text((name) => name);
    return table;
  }

  function makeRows(table, page, k) {
    const { data } = page;
    const body = table.append("tbody");
    const title = body.append("tr").append("th").attr("scope", "rowgroup")
      .attr("colspan", 3 + data.exits).attr("class", "group");
    let shown = "";
    return {
      draw(result, places) {
        title.text(`Exit ${k + 1}: ${titleOf(page, k, result)}`);
        if (shown === places.join()) return;
        shown = places.join();
        const samples = places.map((at) => data.order[at]);
        const rows = body.selectAll("tr.sample").data(samples).join("tr").attr("class", "sample");
        rows.selectAll("td").data((i) => [
          data.ids[i], data.classes[data.labels[i]],
          `${data.right[k][i] ? "✓" : "✕"} ${data.classes[data.predicted[k][i]]}`,
          ...data.scores.map((scores) => Words.score(scores[i])),
        ]).join("td").text((text) => text)
          .attr("class", function kind(text, j) {
            return j === 2 ? (text.startsWith("✓") ? "right" : "wrong") : j > k + 3 ? "later" : "";
          });
      },
    };
  }

  return { make };
})();
