// What the page computes, without a page: who leaves where, how many are right, how long it takes.
// The same definitions as offramp's scoring/policy.py, thresholds/time_model.py, thresholds/evaluation.py
// and common/intervals.py; tests/report/logic.test.js holds them against numbers from there.
"use strict";

const Logic = (() => {
  const ARRAYS = {
    float64: Float64Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array,
  };

  // An array that the page carries, little-endian in base64, as a typed array.
  function decode({ dtype, data }) {
    const text = atob(data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new ARRAYS[dtype](bytes.buffer);
  }

  // What the page carries, with its arrays ready for use: per exit a column of scores, of predicted
  // labels, and of whether these are right.
  function open(carried) {
    const { samples, exits } = carried;
    const labels = decode(carried.labels);
    const columns = (packed) => {
      const all = decode(packed);
      return Array.from({ length: exits }, (_, k) => all.subarray(k * samples, (k + 1) * samples));
    };
    const predicted = columns(carried.predicted);
    const right = predicted.map((said) => Uint8Array.from(said, (label, i) => label === labels[i]));
    return {
      ...carried, labels, predicted, right,
      scores: columns(carried.scores),
      ids: decode(carried.ids),
      order: decode(carried.order),
      time: {
        parts: decode(carried.time.parts), sizes: carried.time.sizes,
        removal: decode(carried.time.removal), batch: carried.time.batch,
      },
    };
  }

  // The exit, 1..K, at which each sample leaves: the first whose score is at or below its threshold,
  // else K. A threshold of null is a disabled exit.
  function exitsOf(scores, thresholds, samples) {
    const taken = new Uint16Array(samples).fill(thresholds.length + 1);
    for (let k = thresholds.length; k > 0; k--) { // the first that fires is written last
      const threshold = thresholds[k - 1];
      if (threshold === null) continue;
      const score = scores[k - 1];
      for (let i = 0; i < samples; i++) if (score[i] <= threshold) taken[i] = k;
    }
    return taken;
  }

  // At which exits the head runs and at which it is decided who leaves.
  function runsOf(thresholds, looksBack) {
    const decides = [...thresholds.map((t) => t !== null), true];
    if (!looksBack) return { heads: decides, decides };
    const last = thresholds.findLastIndex((t) => t !== null);
    return { heads: decides.map((d, k) => d || k < last), decides };
  }

  // How many samples of each batch of consecutive samples reach each stage, batches x K.
  function reachedBy(taken, batch, exits) {
    const batches = Math.ceil(taken.length / batch);
    const reached = new Uint32Array(batches * exits);
    for (let i = 0; i < taken.length; i++) {
      reached[Math.floor(i / batch) * exits + taken[i] - 1] += 1;
    }
    for (let b = 0; b < batches; b++) {
      for (let k = exits - 2; k >= 0; k--) reached[b * exits + k] += reached[b * exits + k + 1];
    }
    return reached;
  }

  // Predicted seconds of every stage, summed over the batches: of its block, and of asking whether to
  // leave there (head, decision, removal of those who leave).
  function stageSeconds(time, reached, { heads, decides }) {
    const exits = heads.length;
    const block = new Array(exits).fill(0);
    const asking = new Array(exits).fill(0);
    const part = (p, k, n) => time.parts[(p * exits + k) * time.sizes + n];
    for (let row = 0; row < reached.length; row += exits) {
      for (let k = 0; k < exits; k++) {
        const n = reached[row + k];
        const stay = k < exits - 1 ? reached[row + k + 1] : 0;
        block[k] += part(0, k, n);
        if (heads[k]) asking[k] += part(1, k, n);
        if (decides[k]) asking[k] += part(2, k, n);
        if (decides[k] && stay > 0 && stay < n) {
          const [a, b, c] = time.removal.subarray(3 * k, 3 * k + 3);
          asking[k] += Math.max(a + b * n + c * stay, 0);
        }
      }
    }
    return { block, asking };
  }

  // Predicted seconds of the full network: all blocks, the final head, and its decision.
  function fullSeconds(data) {
    const everyone = new Uint16Array(data.samples).fill(data.exits);
    const nobody = new Array(data.exits - 1).fill(null);
    const reached = reachedBy(everyone, data.time.batch, data.exits);
    const { block, asking } = stageSeconds(data.time, reached, runsOf(nobody, false));
    return sum(block) + sum(asking);
  }

  // What thresholds do on the samples that the page carries. By exit, from 0: how many reach it, how
  // many leave there and how many of these are right, and the seconds of its stage.
  function evaluate(data, thresholds) {
    const { samples, exits } = data;
    const taken = exitsOf(data.scores, thresholds, samples);
    const n = new Array(exits).fill(0);
    const correct = new Array(exits).fill(0);
    for (let i = 0; i < samples; i++) {
      const k = taken[i] - 1;
      n[k] += 1;
      correct[k] += data.right[k][i];
    }
    const runs = runsOf(thresholds, data.looks_back);
    const { block, asking } = stageSeconds(data.time, reachedBy(taken, data.time.batch, exits), runs);
    const reach = n.map((_, k) => sum(n.slice(k)));
    const total = sum(block) + sum(asking);
    return {
      taken, n, correct, reach, block, asking, runs,
      seconds: block.map((seconds, k) => seconds + asking[k]),
      total: { n: samples, correct: sum(correct), seconds: total, speedup: data.full.seconds / total },
    };
  }

  function sum(values) {
    return values.reduce((a, b) => a + b, 0);
  }

  // The 95 % interval of an accuracy, each end erring in at most 2.5 % of the cases (Clopper and
  // Pearson, 1934); null where there is no sample.
  function interval(correct, n) {
    if (n === 0) return null;
    const bound = (hits) => (hits <= 0 ? 0 : betaQuantile(0.025, hits, n - hits + 1));
    return [bound(correct), 1 - bound(n - correct)];
  }

  // ln of the gamma function: Stirling's series, from 15 on.
  function logGamma(x) {
    let shift = 0;
    while (x < 15) shift -= Math.log(x++);
    const y = 1 / (x * x);
    const series = (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y / 1680))) / x;
    return shift + (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series;
  }

  // The regularised incomplete beta function, by its continued fraction (Lentz's method; Press et al.,
  // "Numerical Recipes", 6.4).
  function betaShare(x, a, b) {
    if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
    if (x > (a + 1) / (a + b + 2)) return 1 - betaShare(1 - x, b, a);
    const tiny = 1e-300;
    const held = (value) => (Math.abs(value) < tiny ? tiny : value);
    let c = 1;
    let d = 1 / held(1 - ((a + b) * x) / (a + 1));
    let fraction = d;
    for (let m = 1; m < 10000; m++) {
      const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
      d = 1 / held(1 + even * d);
      c = held(1 + even / c);
      fraction *= d * c;
      const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
      d = 1 / held(1 + odd * d);
      c = held(1 + odd / c);
      fraction *= d * c;
      if (Math.abs(d * c - 1) < 1e-15) break;
    }
    return (fraction * betaFront(x, a, b)) / a;
  }

  function betaFront(x, a, b) {
    const ways = logGamma(a + b) - logGamma(a) - logGamma(b);
    return Math.exp(ways + a * Math.log(x) + b * Math.log1p(-x));
  }

  // Where the incomplete beta function is p: Newton's steps, halving where one leaves the bracket.
  function betaQuantile(p, a, b) {
    let [low, high, x] = [0, 1, a / (a + b)];
    for (let step = 0; step < 200; step++) {
      const over = betaShare(x, a, b) - p;
      if (over > 0) high = x;
      else low = x;
      const slope = betaFront(x, a, b) / (x * (1 - x));
      let next = x - over / slope;
      if (!(next > low && next < high)) next = (low + high) / 2;
      if (Math.abs(next - x) <= 1e-15 * x || high - low < 1e-16) return next;
      x = next;
    }
    return x;
  }

  // By frontier, the fewest seconds at which it is right at least as often; null where it never is.
  function needed(points, correct) {
    const enough = points.filter((point) => point.correct >= correct);
    return enough.length ? Math.min(...enough.map((point) => point.seconds)) : null;
  }

  // The policies of the run that have these thresholds, to the last digit, by name.
  function namesOf(policies, thresholds) {
    const same = (policy) => policy.thresholds.every((t, k) => t === thresholds[k]);
    return policies.filter(same).map((policy) => policy.name);
  }

  // The cutoff that all side exits share, null where they do not.
  function sharedCutoff(thresholds) {
    const [first] = thresholds;
    return thresholds.length && thresholds.every((t) => t === first) ? first : null;
  }

  // A view as the address carries it after its #.
  function toHash({ thresholds, label }) {
    const cutoff = sharedCutoff(thresholds);
    const words = thresholds.map((t) => (t === null ? "off" : String(t)));
    const parts = [cutoff !== null ? `cutoff=${cutoff}` : `thresholds=${words.join(",")}`];
    if (label !== null) parts.push(`class=${label}`);
    return `#${parts.join("&")}`;
  }

  // The view that an address asks for; what it does not say, or says in a way that makes no sense, is
  // null.
  function fromHash(hash, sideExits, classes) {
    const said = new URLSearchParams(hash.replace(/^#/, ""));
    const number = (word) => (/^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(word) ? Number(word) : NaN);
    const words = said.has("cutoff")
      ? new Array(sideExits).fill(said.get("cutoff"))
      : (said.get("thresholds") ?? "").split(",").filter((word) => word !== "");
    const found = words.map((word) => (word === "off" ? null : number(word)));
    const whole = found.length === sideExits && found.every((t) => t === null || Number.isFinite(t));
    const label = said.has("class") ? number(said.get("class")) : NaN;
    return {
      thresholds: whole && (said.has("cutoff") || said.has("thresholds")) ? found : null,
      label: Number.isInteger(label) && label >= 0 && label < classes ? label : null,
    };
  }

  // The policy as a file that the cascade loads.
  function policyFile(data, thresholds, result) {
    const { n, correct, seconds } = result.total;
    return JSON.stringify({
      ...data.policy_base,
      thresholds,
      origin: { made_by: "explorer.html" },
      expected: { split: "val", n, accuracy: correct / n, seconds },
    }, null, 2) + "\n";
  }

  // Up to `most` of the samples that leave at an exit, of one class if asked for, as places in `order`.
  function shownAt(data, taken, exit, label, most) {
    const found = [];
    for (let place = 0; place < data.order.length && found.length < most; place++) {
      const i = data.order[place];
      if (taken[i] === exit && (label === null || data.labels[i] === label)) found.push(place);
    }
    return found;
  }

  // A number between the ends of the scores, at a place 0..1 of a slider, and back. The scale is bent
  // so that the middle of the samples is near the middle of the slider.
  function scale({ low, high, bend }) {
    const span = high - low || 1;
    return {
      place: (score) => Math.min(Math.max((score - low) / span, 0), 1) ** (1 / bend),
      score: (place) => low + span * place ** bend,
    };
  }

  return {
    decode, open, exitsOf, runsOf, reachedBy, stageSeconds, fullSeconds, evaluate, interval,
    betaQuantile, needed, namesOf, sharedCutoff, toHash, fromHash, policyFile, shownAt, scale,
  };
})();

if (typeof module !== "undefined") module.exports = Logic;
