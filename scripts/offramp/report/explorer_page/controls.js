// Policies to choose from, the slider of the shared cutoff and one per exit, and the policy as a file.
"use strict";

const Controls = (() => {
  const BINS = 48;
  const HEIGHT = 34;

  function make(page) {
    const { data, state } = page;
    const scale = Logic.scale(data.scale);
    const policies = makePolicies(page);
    const shared = makeShared(page, scale);
    const exits = Array.from({ length: data.exits }, (_, k) => makeExit(page, scale, k));
    const file = makeFile(page);
    const nothing = data.exits === 1;
    d3.selectAll("#shared, #copy, #file-about, .controls .key").attr("hidden", nothing ? "" : null);
    return {
      draw(result) {
        policies.draw();
        shared.draw();
        for (const exit of exits) exit.draw(result);
        file.draw();
      },
      rest: (result) => file.rest(result, state.thresholds),
    };
  }

  function makePolicies(page) {
    const labels = d3.select("#policies").selectAll("label").data(page.policies).join("label");
    labels.append("input").attr("type", "radio").attr("name", "policy")
      .attr("value", (policy) => policy.name)
      .on("change", (_, policy) => page.load(policy.thresholds));
    labels.append("span").text((policy) => Words.policy(policy.name));
    return {
      draw() {
        const now = Logic.namesOf(page.policies, page.state.thresholds);
        labels.classed("now", (policy) => now.includes(policy.name));
        const kept = document.querySelector("#policies :checked")?.value;
        const wanted = now.includes(kept) ? kept : now[0];
        labels.select("input").property("checked", (policy) => policy.name === wanted);
      },
    };
  }

  // A slider with a field for its number; both call `moved` with a score.
  function makeSlider(place, name, moved, scale) {
    const range = place.append("input").attr("type", "range").attr("aria-label", name)
      .attr("min", 0).attr("max", 1).attr("step", 0.001)
      .on("input", (event) => moved(rounded(scale.score(event.target.valueAsNumber))));
    const field = place.append("input").attr("type", "text").attr("inputmode", "decimal")
      .attr("aria-label", `${name}, as a number`).attr("spellcheck", "false")
      .on("focus", () => { field.property("value", field.attr("data-exact")); })
      .on("blur", () => show(field.attr("data-exact")))
      .on("change", (event) => {
        const found = Number(event.target.value.trim().replace(",", "."));
        if (event.target.value.trim() !== "" && Number.isFinite(found)) moved(found);
        else show(field.attr("data-exact"));
      });
    const show = (exact) => {
      field.attr("data-exact", exact);
      if (document.activeElement !== field.node()) {
        field.property("value", exact === "" ? "" : Words.score(Number(exact)));
      }
    };
    return {
      range,
      draw(score, said) {
        show(score === null ? "" : String(score));
        if (score !== null) range.property("value", scale.place(score));
        range.attr("aria-valuetext", said);
      },
    };
  }

  // What a slider gives: four digits are enough, and read well in the policy's file.
  function rounded(score) {
    return Number(score.toPrecision(4));
  }

  function makeShared(page, scale) {
    const place = d3.select("#shared");
    const title = place.append("div").attr("class", "title");
    title.append("span").text("Shared cutoff");
    const note = title.append("span").attr("class", "soft");
    const line = place.append("div").attr("class", "line");
    const moved = (score) => page.load(page.state.thresholds.map(() => score));
    const slider = makeSlider(line, "Cutoff shared by all exits", moved, scale);
    return {
      draw() {
        const cutoff = Logic.sharedCutoff(page.state.thresholds);
        place.classed("off", cutoff === null);
        note.text(cutoff === null ? "each exit has its own" : "the same at every exit");
        const said = cutoff === null ? "each exit has its own" : Words.score(cutoff);
        slider.draw(cutoff, said);
        const places = page.state.thresholds.filter((t) => t !== null).map(scale.place);
        if (cutoff === null && places.length) slider.range.property("value", d3.mean(places));
      },
    };
  }

  function makeExit(page, scale, k) {
    const { data, state } = page;
    const final = k === data.exits - 1;
    const place = d3.select("#exits").append("div").attr("class", "slider exit").classed("final", final);
    const title = place.append("div").attr("class", "title");
    let remembered = null;
    const set = (score) => page.load(state.thresholds.map((t, j) => (j === k ? score : t)));
    const check = final ? null : title.append("label");
    if (final) title.append("span").text(`Exit ${k + 1}`);
    else {
      check.append("input").attr("type", "checkbox").on("change", (event) => {
        const middle = rounded(scale.score(0.5));
        set(event.target.checked ? remembered ?? middle : null);
      });
      check.append("span").text(`Exit ${k + 1}`);
    }
    const about = title.append("span").attr("class", "soft about");
    const shape = final ? null : makeShape(place, data, scale, k);
    const line = final ? null : place.append("div").attr("class", "line");
    const slider = final ? null : makeSlider(line, `Threshold of exit ${k + 1}`, set, scale);
    return {
      draw(result) {
        const n = result.n[k];
        const share = n ? `, ${Words.percent(result.correct[k] / n, 1)} right` : "";
        const leave = `${Words.count(n)} ${final ? "remain" : "leave"} (${Words.percent(n / data.samples, 0)})${share}`;
        const ends = Words.interval(Logic.interval(result.correct[k], n), 0);
        about.text(`${leave} ${ends}`.trim()).attr("data-n", n).attr("data-correct", result.correct[k]);
        if (final) return;
        const threshold = state.thresholds[k];
        if (threshold !== null) remembered = threshold;
        place.classed("off", threshold === null);
        check.select("input").property("checked", threshold !== null);
        slider.range.property("disabled", threshold === null);
        slider.draw(threshold, threshold === null ? "disabled" : `${Words.score(threshold)}: ${leave}`);
        shape.draw(result, threshold);
      },
    };
  }

  // Where the scores of those who come to an exit lie, the right ones and on them the wrong ones; in
  // full colour up to the threshold.
  function makeShape(place, data, scale, k) {
    const svg = place.append("svg").attr("class", "shape").attr("aria-hidden", "true")
      .attr("viewBox", `0 0 ${BINS} ${HEIGHT}`).attr("preserveAspectRatio", "none");
    const clip = svg.append("clipPath").attr("id", `leave-${k}`).append("rect").attr("height", HEIGHT);
    const layers = ["pale", "strong"].map((kind) => {
      const layer = svg.append("g").attr("class", kind);
      if (kind === "strong") layer.attr("clip-path", `url(#leave-${k})`);
      return ["right", "wrong"].map((name) => layer.append("path").attr("class", name));
    });
    const bins = Uint16Array.from(data.scores[k], (score) => Math.min(scale.place(score) * BINS, BINS - 1));
    const area = d3.area().x((_, i) => i).curve(d3.curveStepAfter);
    return {
      draw({ taken }, threshold) {
        clip.attr("width", threshold === null ? 0 : BINS * scale.place(threshold));
        const right = new Array(BINS + 1).fill(0);
        const all = new Array(BINS + 1).fill(0);
        for (let i = 0; i < taken.length; i++) {
          if (taken[i] <= k) continue;
          all[bins[i]] += 1;
          right[bins[i]] += data.right[k][i];
        }
        [right[BINS], all[BINS]] = [right[BINS - 1], all[BINS - 1]];
        // A bent height, so that a crowded bin leaves the others something to see.
        const most = Math.sqrt(Math.max(...all, 1));
        const y = (n) => HEIGHT - (HEIGHT - 1) * Math.sqrt(n) / most;
        const shapes = [area.y0(HEIGHT).y1(y)(right), area.y0((_, i) => y(right[i])).y1(y)(all)];
        for (const layer of layers) layer.forEach((path, j) => path.attr("d", shapes[j]));
      },
    };
  }

  function makeFile(page) {
    const { data, state } = page;
    const text = () => Logic.policyFile(data, state.thresholds, page.result);
    const button = d3.select("#copy");
    const file = d3.select("#file");
    const words = button.text();
    const say = (word) => {
      button.text(word);
      d3.select("#said").text(word);
      setTimeout(() => button.text(words), 2000);
    };
    button.on("click", async () => {
      file.property("value", text());
      try {
        await navigator.clipboard.writeText(text());
        say("Copied");
      } catch { // no right to the clipboard: the text is there to be copied by hand
        d3.select("#file-about").attr("open", "");
        file.node().select();
        say(document.execCommand("copy") ? "Copied" : "Selected: copy it with your keyboard");
      }
    });
    return { draw() {}, rest: () => file.property("value", text()) };
  }

  return { make };
})();
