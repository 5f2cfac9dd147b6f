// The page itself: its state, and who is told when that changes.
"use strict";

(() => {
  const data = Logic.open(JSON.parse(document.getElementById("data").textContent));
  Words.countIn(data.costs_in);
  const byId = (id) => document.getElementById(id);
  const nobody = new Array(data.exits - 1).fill(null);
  const full = { name: "full", thresholds: nobody };
  const start = data.policies.find((policy) => policy.name === "best") ?? full;
  const state = { thresholds: start.thresholds, label: null };
  let resting = 0;

  // What parts may do: look at the state, change thresholds, change the class.
  const page = {
    data,
    state,
    policies: [...data.policies, full],
    load: (thresholds) => change({ thresholds }),
    filter: (label) => change({ label }),
  };

  function change(to) {
    Object.assign(state, to);
    draw();
    clearTimeout(resting);
    resting = setTimeout(rest, 250);
  }

  function draw() {
    const result = Logic.evaluate(data, state.thresholds);
    page.result = result;
    for (const part of parts) part.draw(result);
  }

  // What may wait until the hand rests: the address, the file, and what a screen reader is told.
  function rest() {
    const hash = Logic.toHash(state);
    if (location.hash !== hash) history.replaceState(null, "", hash);
    for (const part of parts) part.rest?.(page.result);
  }

  function fromAddress() {
    const asked = Logic.fromHash(location.hash, data.exits - 1, data.classes.length);
    state.thresholds = asked.thresholds ?? start.thresholds;
    state.label = asked.label;
    draw();
    rest();
  }

  function makeNumbers() {
    const { samples, about } = data;
    const accuracy = data.full.correct / samples;
    document.title = `${about.model} on ${about.dataset}: where may a sample leave?`;
    byId("speedup-about").textContent = "over the full network";
    const unit = about.unit ? `${about.criterion}, in ${about.unit},` : about.criterion;
    byId("lead").textContent =
      `A sample leaves the network at the first exit whose ${unit} is at or below that exit's ` +
      `threshold. Move the thresholds: everything below is counted anew on the ` +
      `${Words.count(samples)} validation samples of ${about.dataset}, for the network ` +
      `${about.model}, exactly as the run's tables have it.`;
    if (samples < data.of) {
      byId("carried").hidden = false;
      byId("carried").textContent =
        `This page holds the first ${Words.count(samples)} of ${Words.count(data.of)} validation ` +
        "samples, so that it stays small. The tables have all.";
    }
    byId("footer").textContent =
      `offramp · ${about.model} on ${about.dataset}, weights ${about.weights_sha256.slice(0, 8)} · ` +
      `times of ${about.device_name || "the machine of the run"}, batches of ${data.time.batch} · ` +
      "drawn with d3";
    const show = (id, text, exact) => {
      byId(id).textContent = text;
      byId(id).dataset.exact = exact;
    };
    return {
      draw({ total }) {
        show("accuracy", Words.percent(total.correct / total.n), total.correct);
        const gap = Words.points(total.correct / total.n - accuracy);
        const ends = Words.interval(Logic.interval(total.correct, total.n));
        byId("accuracy-about").textContent = `${ends} · ${gap} to the full network`;
        show("seconds", Words.duration(total.seconds), total.seconds);
        byId("seconds-about").textContent = `full network ${Words.duration(data.full.seconds)}`;
        show("speedup", Words.ratio(total.speedup), total.speedup);
      },
      rest({ total }) {
        byId("said").textContent =
          `${Words.percent(total.correct / total.n)} right, ${Words.duration(total.seconds)}, ` +
          `${Words.ratio(total.speedup)} as fast as the full network`;
      },
    };
  }

  function makeTest() {
    byId("test-about").textContent =
      "The sliders never look at test data: who tunes on it can no longer trust it. These are the " +
      `policies that the run had chosen before it looked, once, at ${Words.count(data.about.tests)} ` +
      "test samples. A policy that you make here has no row.";
    const live = data.policies.some((policy) => policy.live);
    const names = ["policy", "accuracy [95 %]", "predicted time", "speed-up"];
    if (live) names.push("speed-up, live [two halves]", "live answers unlike the tables'");
    const table = d3.select("#test");
    table.append("caption").attr("class", "unseen").text("The saved policies on test data");
    table.append("thead").append("tr").selectAll("th").data(names).join("th")
      .attr("scope", "col").text((name) => name);
    const rows = table.append("tbody").selectAll("tr").data(data.policies).join("tr");
    rows.append("th").attr("scope", "row").text((p) => Words.policy(p.name));
    rows.selectAll("td").data(({ test, live: seen }) => [
      `${Words.percent(test.correct / test.n)} ${Words.interval(test.interval)}`,
      Words.duration(test.seconds),
      Words.ratio(test.speedup),
      ...(seen ? [
        `${Words.ratio(seen.speedup_measured)} [${seen.speedup_low.toFixed(2)}, ` +
          `${seen.speedup_high.toFixed(2)}]`,
        `${Words.count(seen.differ)} of ${Words.count(seen.n_live)}`,
      ] : live ? ["", ""] : []),
    ]).join("td").text((text) => text);
    return {
      draw() {
        const now = Logic.namesOf(data.policies, state.thresholds);
        rows.classed("now", (policy) => now.includes(policy.name));
      },
    };
  }

  const parts = [
    makeNumbers(), Controls.make(page), Network.make(page), Frontier.make(page),
    Gallery.make(page), makeTest(),
  ];
  addEventListener("hashchange", fromAddress);
  addEventListener("resize", draw);
  fromAddress();
})();
