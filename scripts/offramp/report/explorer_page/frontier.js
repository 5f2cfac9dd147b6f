// Time against accuracy: the frontiers, the run's policies, and where the present thresholds lie.
"use strict";

const Frontier = (() => {
  const HEIGHT = 360;
  const MARGIN = { top: 14, right: 24, bottom: 42, left: 52 };
  const SHAPES = { shared: d3.symbolCircle, targets: d3.symbolSquare, joint: d3.symbolTriangle };
  const SIZES = { shared: 20, targets: 30, joint: 26 };
  const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };

  function make(page) {
    const { data } = page;
    const wholes = data.frontiers.flatMap(({ kind, points }) =>
      points.map((point) => ({ ...point, kind, what: nameOf(kind, point) })));
    const saved = savedOf(page);
    const svg = d3.select("#frontier").append("svg").attr("height", HEIGHT)
      .attr("role", "group").attr("aria-label", "Time against accuracy on validation data");
    const drawing = makeDrawing(svg, page, wholes, saved);
    const between = d3.select("#between");
    makeKey(data.frontiers);
    describe(page, drawing.nearest, drawing.hover, svg);
    return {
      draw(result) {
        drawing.draw(result);
        between.text(placeInWords(data, result.total));
      },
    };
  }

  function makeKey(frontiers) {
    const kinds = [...frontiers.map(({ kind }) => [kind, SHAPES[kind], Words.kind(kind)]),
      ["saved", d3.symbolDiamond, "policy of this run"]];
    const items = d3.select("#frontier-key").selectAll("span").data(kinds).join("span");
    items.append("svg").attr("class", ([kind]) => `mark ${kind}`).attr("viewBox", "-7 -7 14 14")
      .attr("aria-hidden", "true").append("path").attr("d", ([, shape]) => d3.symbol(shape, 70)());
    items.append("span").text(([, , words]) => words);
    const here = d3.select("#frontier-key").append("span");
    here.append("svg").attr("class", "mark here").attr("viewBox", "-7 -7 14 14")
      .attr("aria-hidden", "true").append("circle").attr("r", 5);
    here.append("span").text("these thresholds [95 %]");
  }

  function nameOf(kind, { thresholds }) {
    if (kind === "shared") return `shared cutoff ${Words.score(thresholds[0])}`;
    return kind === "joint" ? "thresholds chosen jointly" : "the same target at every exit";
  }

  // The run's policies on validation data, those with the same thresholds together.
  function savedOf(page) {
    const groups = d3.group(page.policies, ({ thresholds }) => JSON.stringify(thresholds));
    return [...groups.values()].map((same) => {
      const { total } = Logic.evaluate(page.data, same[0].thresholds);
      const what = same.map(({ name }) => Words.policy(name)).join(", ");
      return { ...total, thresholds: same[0].thresholds, kind: "saved", what };
    });
  }

  // Errors on a scale of ratios: what matters lies near the top.
  function scales(page, points) {
    const { samples } = page.data;
    const error = (correct) => Math.max(1 - correct / samples, 0.5 / samples);
    const errors = d3.extent(points, (point) => error(point.correct));
    const seconds = d3.extent(points, (point) => point.seconds);
    const room = 0.04 * (seconds[1] - seconds[0] || seconds[1] || 1);
    const x = d3.scaleLinear([Math.max(seconds[0] - room, 0), seconds[1] + room], [0, 1]);
    const y = d3.scaleLog([errors[1] * 1.12, errors[0] / 1.3], [HEIGHT - MARGIN.bottom, MARGIN.top]);
    return { x, y: (correct) => y(error(correct)), ticks: ticksOf(y) };
  }

  // Round accuracies, not too close to each other; the finest near the top, where the scale is finest.
  function ticksOf(y) {
    const [worst, best] = y.domain();
    const found = [];
    for (const step of [0.1, 0.05, 0.01, 0.005, 0.001]) {
      const enough = found.length >= 3;
      if (enough && step < 0.01) break;
      const above = enough && step < 0.05 ? d3.max(found, ({ tick }) => tick) : 0;
      for (let tick = step * Math.ceil((1 - worst) / step); tick <= 1 - best; tick += step) {
        const place = y(Math.max(1 - tick, 1e-9));
        if (tick >= above && found.every((other) => Math.abs(other.place - place) > 30)) found.push({ tick, place });
      }
    }
    return found;
  }

  function makeDrawing(svg, page, wholes, saved) {
    const { data } = page;
    const points = [...wholes, ...saved];
    const layers = Object.fromEntries(
      ["grid", "x", "unit", "lines", "cross", "marks", "saved", "names", "near", "here"]
        .map((name) => [name, svg.append("g").attr("class", name)]));
    const kinds = d3.group(wholes, (point) => point.kind);
    const lines = layers.lines.selectAll("path").data(kinds).join("path").attr("class", ([k]) => k);
    const groups = layers.marks.selectAll("g").data(kinds).join("g")
      .attr("class", ([kind]) => kind).attr("role", "group")
      .attr("aria-label", ([kind, all]) => `${Words.kind(kind)}: ${all.length} points; ` +
        "arrow keys go along, Enter loads");
    const marks = groups.selectAll("path").data(([, all]) => all).join("path")
      .attr("d", (point) => d3.symbol(SHAPES[point.kind], SIZES[point.kind])());
    const stars = layers.saved.attr("role", "group").attr("aria-label", "policies of this run")
      .selectAll("path").data(saved).join("path").attr("d", d3.symbol(d3.symbolDiamond, 90)());
    const names = layers.names.attr("aria-hidden", "true").selectAll("text").data(saved).join("text")
      .text((point) => point.what);
    for (const all of [...groups.nodes(), layers.saved.node()]) makeKeys(all, page);
    const near = layers.near.append("circle").attr("r", 8).attr("visibility", "hidden");
    const cross = ["v", "h"].map((name) => layers.cross.append("line").attr("class", name));
    const here = layers.here.attr("aria-hidden", "true");
    const whisker = here.append("line");
    for (const name of ["halo", "ring"]) here.append("circle").attr("class", name).attr("r", 7);
    let place = null;
    return {
      nearest(px, py) {
        if (!place) return null;
        const gap = (p) => Math.hypot(place.x(p.seconds) - px, place.y(p.correct) - py);
        return points.reduce((best, p) => (gap(p) < gap(best) - (p.kind === "saved" ? -3 : 0) ? p : best));
      },
      hover(point) {
        near.attr("visibility", point ? "visible" : "hidden");
        if (point) near.attr("cx", place.x(point.seconds)).attr("cy", place.y(point.correct));
      },
      draw({ total }) {
        const width = Math.max(svg.node().parentNode.clientWidth, 280);
        svg.attr("width", width);
        place = scales(page, [...points, total]);
        place.x.range([MARGIN.left, width - MARGIN.right]);
        drawAxes(layers, place, width, data);
        const at = (p) => `translate(${place.x(p.seconds)},${place.y(p.correct)})`;
        lines.attr("d", ([, all]) => d3.line((p) => place.x(p.seconds), (p) => place.y(p.correct))(all));
        marks.attr("transform", at);
        stars.attr("transform", at);
        nameSaved(names, place, width);
        const [px, py] = [place.x(total.seconds), place.y(total.correct)];
        cross[0].attr("x1", px).attr("x2", px).attr("y1", py).attr("y2", HEIGHT - MARGIN.bottom);
        cross[1].attr("x1", MARGIN.left).attr("x2", px).attr("y1", py).attr("y2", py);
        here.selectAll("circle").attr("cx", px).attr("cy", py);
        const ends = Logic.interval(total.correct, total.n).map((end) => place.y(end * total.n));
        whisker.attr("x1", px).attr("x2", px)
          .attr("y1", Math.min(ends[0], HEIGHT - MARGIN.bottom)).attr("y2", Math.max(ends[1], MARGIN.top));
      },
    };
  }

  function drawAxes(layers, place, width, data) {
    const floor = HEIGHT - MARGIN.bottom;
    const rows = layers.grid.selectAll("g").data(place.ticks).join((enter) => {
      const row = enter.append("g");
      row.append("line");
      row.append("text");
      return row;
    });
    rows.attr("transform", (tick) => `translate(0,${tick.place})`);
    rows.select("line").attr("x1", MARGIN.left).attr("x2", width - MARGIN.right);
    rows.select("text").attr("x", MARGIN.left - 8).attr("dy", "0.32em").attr("text-anchor", "end")
      .text(({ tick }) => `${Number((100 * tick).toFixed(1))} %`);
    layers.x.attr("class", "x axis").attr("transform", `translate(0,${floor})`)
      .call(d3.axisBottom(place.x).ticks(Math.min(8, width / 90)).tickSizeOuter(0)
        .tickFormat(place.x.domain()[1] < 0.01 ? (s) => Words.duration(s) : null));
    layers.unit.selectAll("text").data([0]).join("text").attr("class", "axis-title")
      .attr("x", width - MARGIN.right).attr("y", HEIGHT - 6).attr("text-anchor", "end")
      .text(`predicted ${data.costs_in === "s" ? "seconds" : data.costs_in} for ${Words.plural(data.samples, "validation sample")}`);
  }

  // Names beside the policies, on the side where there is room, none over another.
  function nameSaved(names, place, width) {
    const used = [];
    names.each(function draw(point) {
      const text = d3.select(this);
      const [px, py] = [place.x(point.seconds), place.y(point.correct)];
      const long = 6.4 * point.what.length;
      const left = px + long + 14 > width - MARGIN.right;
      const box = (y) => ({ from: left ? px - long - 12 : px, to: left ? px : px + long + 12, y });
      const free = (y) => used.every((other) => Math.abs(other.y - y) > 13
        || other.to < box(y).from || other.from > box(y).to);
      const y = [18, -10, 32, -24, 46, 60].map((dy) => py + dy)
        .find((tried) => free(tried) && tried < HEIGHT - MARGIN.bottom - 3 && tried > 10);
      text.attr("visibility", y === undefined ? "hidden" : "visible")
        .attr("text-anchor", left ? "end" : "start").attr("x", px + (left ? -6 : 6)).attr("y", y ?? 0);
      if (y !== undefined) used.push(box(y));
    });
  }

  // One stop of the tab key for a row of points; arrow keys go along, Enter and space load.
  function makeKeys(group, page) {
    const marks = d3.select(group).selectAll("path");
    const nodes = marks.nodes();
    marks.attr("role", "button").attr("tabindex", (_, i) => (i === nodes.length - 1 ? 0 : -1))
      .attr("aria-label", (point) => inWords(page.data, point))
      .on("click", (_, point) => page.load(point.thresholds))
      .on("keydown", (event, point) => {
        const next = nodes[nodes.indexOf(event.currentTarget) + (STEPS[event.key] ?? 0)];
        if (["Enter", " "].includes(event.key)) page.load(point.thresholds);
        else if (next && event.key in STEPS) {
          marks.attr("tabindex", -1);
          d3.select(next).attr("tabindex", 0);
          next.focus();
        } else return;
        event.preventDefault();
      });
  }

  function inWords(data, { what, correct, seconds }) {
    return `${what}: ${Words.percent(correct / data.samples)} in ${Words.duration(seconds)}`;
  }

  // What is under the pointer or the keys, in words; a click loads it.
  function describe(page, nearest, hover, svg) {
    const readout = d3.select("#readout");
    const hint = page.data.frontiers.length ? "Click a point to load it." : "";
    const say = (point) => {
      readout.text(point ? inWords(page.data, point) : hint);
      hover(point);
    };
    say(null);
    svg.on("pointermove", (event) => say(nearest(...d3.pointer(event))))
      .on("pointerleave focusout", () => say(null))
      .on("focusin", (event) => say(d3.select(event.target).datum()))
      .on("click", (event) => {
        const point = event.target.closest("[role=button]") ? null : nearest(...d3.pointer(event));
        if (point) page.load(point.thresholds);
      });
  }

  // Between which frontiers the policy lies.
  function placeInWords(data, { correct, seconds }) {
    if (!data.frontiers.length) return "";
    const parts = data.frontiers.map(({ kind, points }) => {
      const least = Logic.needed(points, correct);
      return `${Words.kind(kind)} ${least === null ? "out of reach" : Words.duration(least)}`;
    });
    return `This takes ${Words.duration(seconds)}. To be right as often: ` +
      `${parts.join(", ")}. The frontiers were fitted to these same samples, which flatters ` +
      "them, the joint one most. The axis is stretched towards the top: equal steps are equal ratios of errors.";
  }

  return { make };
})();
