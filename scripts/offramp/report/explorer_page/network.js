// The network as a staircase: a stage is as wide as its seconds and as tall as the samples that reach
// it; what leaves at its exit is the riser at its end.
"use strict";

const Network = (() => {
  const HEIGHT = 280;
  const MARGIN = { top: 8, right: 64, bottom: 40, left: 46 };
  const RISER = 7;

  function make(page) {
    const { data } = page;
    const svg = d3.select("#network").append("svg").attr("height", HEIGHT).attr("role", "img");
    hatch(svg.append("defs"), "hatch");
    const axes = {
      x: svg.append("g").attr("class", "axis"),
      y: svg.append("g").attr("class", "axis"),
      title: svg.append("text").attr("class", "axis-title"),
    };
    const full = svg.append("rect").attr("class", "full");
    const stages = svg.append("g").selectAll("g").data(d3.range(data.exits)).join("g");
    const y = d3.scaleLinear([0, data.samples], [HEIGHT - MARGIN.bottom, MARGIN.top]);
    const drawings = stages.nodes().map((node) => makeStage(d3.select(node), y));
    axes.y.attr("transform", `translate(${MARGIN.left},0)`)
      .call(d3.axisLeft(y).ticks(4).tickSize(3));
    return {
      draw(result) {
        const width = Math.max(svg.node().parentNode.clientWidth, 280);
        svg.attr("width", width);
        const end = Math.max(1.15 * data.full.seconds, result.total.seconds);
        const x = d3.scaleLinear([0, end], [MARGIN.left, width - MARGIN.right]);
        drawAxis(axes, x, width, data);
        full.attr("x", x(0)).attr("width", x(data.full.seconds) - x(0))
          .attr("y", y(data.samples)).attr("height", y(0) - y(data.samples));
        let from = 0;
        let free = 0; // where the next label may begin
        drawings.forEach((stage, k) => {
          free = stage.draw(result, k, from, x, free);
          from += result.seconds[k];
        });
      },
      rest: (result) => svg.attr("aria-label", inWords(result)),
    };
  }

  function hatch(defs, id) {
    const pattern = defs.append("pattern").attr("id", id).attr("width", 4).attr("height", 4)
      .attr("patternUnits", "userSpaceOnUse").attr("patternTransform", "rotate(45)");
    pattern.append("rect").attr("width", 4).attr("height", 4).attr("class", "wrong");
    pattern.append("rect").attr("width", 1.3).attr("height", 4).attr("class", "gap");
  }

  function drawAxis(axes, x, width, data) {
    const unit = Words.axisUnit(x.domain()[1]);
    const shown = d3.scaleLinear(x.domain().map((s) => s / unit[0]), x.range());
    axes.x.attr("transform", `translate(0,${HEIGHT - MARGIN.bottom})`)
      .call(d3.axisBottom(shown).ticks(Math.min(8, width / 90)).tickSizeOuter(0));
    axes.title.attr("x", width - MARGIN.right).attr("y", HEIGHT - 6).attr("text-anchor", "end")
      .text(`predicted ${unit[1]} for ${Words.plural(data.samples, "sample")}`);
  }

  function makeStage(place, y) {
    const block = place.append("rect").attr("class", "block");
    const asking = place.append("rect").attr("class", "asking");
    const right = place.append("rect").attr("class", "right");
    const wrong = place.append("rect").attr("class", "wrong").attr("fill", "url(#hatch)");
    const number = place.append("text").attr("class", "number");
    const share = place.append("text").attr("class", "share");
    return {
      // Returns where the label of the next riser may begin.
      draw({ reach, n, correct, block: blocks, asking: askings, runs }, k, from, x, free) {
        const enabled = runs.decides[k];
        const [start, middle, end] = [from, from + blocks[k], from + blocks[k] + askings[k]].map(x);
        const box = (rect, left, to, high, low) => rect.attr("x", left).attr("y", y(high))
          .attr("width", Math.max(to - left, 0)).attr("height", Math.max(y(low) - y(high), 0));
        box(block, start, middle, reach[k], 0);
        box(asking, middle, end, reach[k], 0);
        const stay = reach[k] - n[k];
        box(right, end - RISER / 2, end + RISER / 2, reach[k], stay + n[k] - correct[k]);
        box(wrong, end - RISER / 2, end + RISER / 2, stay + n[k] - correct[k], stay);
        number.attr("x", (start + end) / 2).attr("y", y(0) - 8)
          .text(end - start > 12 && reach[k] > 0 ? k + 1 : "").classed("off", !enabled);
        const text = Words.percent(n[k] / Math.max(reach[0], 1), 0);
        const tall = y(stay) - y(reach[k]);
        const shown = enabled && tall > 13 && end + RISER >= free;
        share.attr("x", end + RISER).attr("y", (y(stay) + y(reach[k])) / 2 + 4)
          .text(shown ? text : "");
        return shown ? Math.max(free, end + RISER - 2) : free;
      },
    };
  }

  function inWords({ reach, n, seconds }) {
    const stage = (_, k) => `${Words.count(reach[k])} samples reach exit ${k + 1}, which takes ` +
      `${Words.duration(seconds[k])}, and ${Words.count(n[k])} leave there`;
    return `The stages of the network. ${reach.map(stage).join(". ")}.`;
  }

  return { make };
})();
