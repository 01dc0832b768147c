// Draws curves of printed formulas and moves them with sliders, without a server. Used by the dashboard and by exported pages.
// data: {series: [{title, colour, dash, code, needs}], sliders: [{name, label, low, high, value, help}], over, unit, units, words}
// `code` is an expression printed by costmodel from its own formulas; texts only ever become text nodes.
function liveChart(root, data, released) {
  const narrow = (root.clientWidth || window.innerWidth) < 520;
  const SVG = "http://www.w3.org/2000/svg", WIDTH = narrow ? 380 : 720, HEIGHT = narrow ? 250 : 300;
  const LEFT = 74, RIGHT = 14, TOP = 14, BOTTOM = 34, POINTS = 160;
  const log = Math.log2;
  const state = root.liveState || (root.liveState = {values: {}});
  const names = data.sliders.map((slider) => slider.name);
  const formulas = data.series.map((series) => new Function(...series.needs, "return " + series.code));
  const over = data.sliders.find((slider) => slider.name === data.over);
  for (const slider of data.sliders) state.values[slider.name] = slider.value;
  const value = (place, at) => formulas[place](...data.series[place].needs.map((name) => (name in at ? at[name] : 1)));

  const make = (kind, parent, attributes = {}, text = null) => {
    const element = document.createElementNS(SVG, kind);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== null) element.textContent = text;
    return parent.appendChild(element);
  };
  const tag = (kind, parent, text = null, className = null) => {
    const element = document.createElement(kind);
    if (text !== null) element.textContent = text;
    if (className) element.className = className;
    return parent.appendChild(element);
  };
  const digits = (number) => (number >= 1000 ? number.toFixed(0) : String(Number(number.toPrecision(4))));
  const scaled = (number, base, prefixes) => {
    let power = 0;
    while (Math.abs(number) >= base && power < prefixes.length - 1) { number /= base; power += 1; }
    return [digits(number), prefixes[power]];
  };
  const shown = (number) => {
    if (data.unit !== "bytes") { const [text, prefix] = scaled(number, 1000, ["", "k", "M", "G", "T", "P", "E", "Z", "Y"]); return `${text} ${prefix}${data.unit}`; }
    const binary = data.units === "GiB";
    const [text, prefix] = scaled(number, binary ? 1024 : 1000, binary ? ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] : ["", "k", "M", "G", "T", "P", "E"]);
    return `${text} ${prefix}B`;
  };
  const plain = (number) => (number >= 1048576 && number % 1048576 === 0 ? `${number / 1048576}M` : number >= 1024 && number % 1024 === 0 ? `${number / 1024}k` : number.toLocaleString("en-US"));

  root.replaceChildren();
  const box = tag("div", root, null, "live-chart");
  const sliders = tag("div", box, null, "live-sliders");
  const plot = make("svg", box, {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": data.words, preserveAspectRatio: "xMidYMid meet"});
  const grid = make("g", plot), lines = make("g", plot), marks = make("g", plot);
  const readouts = tag("div", box, null, "live-readouts");
  const paths = data.series.map((series) => make("path", lines, {fill: "none", stroke: series.colour, "stroke-width": 2.5, "stroke-dasharray": series.dash}));
  const dots = data.series.map((series) => make("circle", marks, {r: 5, fill: series.colour}));
  const upright = make("line", marks, {stroke: "#808080", "stroke-dasharray": "4 3", y1: TOP, y2: HEIGHT - BOTTOM});
  const numbers = data.series.map((series) => {
    const item = tag("div", readouts, null, "live-readout");
    const key = make("svg", item, {viewBox: "0 0 30 8", width: 30, height: 8, "aria-hidden": "true"});
    make("line", key, {x1: 0, x2: 30, y1: 4, y2: 4, stroke: series.colour, "stroke-width": 3, "stroke-dasharray": series.dash});
    tag("span", item, series.title);
    return tag("strong", item);
  });

  // the vertical axis holds still while a slider moves: it spans all that the sliders can reach
  const corner = (end) => Object.fromEntries(data.sliders.map((slider) => [slider.name, slider.name === data.over ? slider[end] : slider.name in state.values ? state.values[slider.name] : slider[end]]));
  const bounds = () => {
    const all = formulas.flatMap((_, place) => [value(place, corner("low")), value(place, corner("high"))]).filter((number) => number > 0);
    return all.length ? [Math.min(...all), Math.max(...all)] : [1, 2];
  };
  let [bottom, top] = bounds();
  const across = (number) => LEFT + (WIDTH - LEFT - RIGHT) * (log(number) - log(over.low)) / (log(over.high) - log(over.low));
  const up = (number) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (log(Math.max(number, bottom)) - log(bottom)) / (log(top) - log(bottom) || 1);

  // round numbers within the vertical axis, five or so: powers of two for KiB and the like, else 1, 2 and 5 times powers of ten
  const ticks = () => {
    const all = [];
    if (data.unit === "bytes" && data.units === "GiB") {
      for (let power = Math.ceil(log(bottom) - 1e-9); power <= log(top) + 1e-9; power += 1) all.push(2 ** power);
    } else {
      const steps = top / bottom > 200 ? [1] : [1, 2, 5];
      for (let power = Math.floor(Math.log10(bottom)); power <= Math.log10(top); power += 1)
        all.push(...steps.map((step) => step * 10 ** power).filter((number) => number >= bottom && number <= top));
    }
    const every = Math.ceil(all.length / 6);
    return all.filter((_, place) => place % every === 0);
  };
  const axes = () => {
    grid.replaceChildren();
    const step = Math.max(1, Math.ceil((log(over.high) - log(over.low)) / 6));
    for (let power = Math.ceil(log(over.low)); power <= log(over.high); power += step) {
      const x = across(2 ** power);
      make("line", grid, {x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM, class: "live-grid"});
      make("text", grid, {x, y: HEIGHT - BOTTOM + 18, "text-anchor": "middle"}, plain(2 ** power));
    }
    for (const number of ticks()) {
      const y = up(number);
      make("line", grid, {x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y, class: "live-grid"});
      make("text", grid, {x: LEFT - 6, y: y + 4, "text-anchor": "end"}, shown(number));
    }
  };
  const redraw = () => {
    const start = performance.now(), at = {...state.values}, here = at[data.over];
    const [low, high] = bounds();
    if (low < bottom || high > top) { bottom = Math.min(low, bottom); top = Math.max(high, top); axes(); }
    data.series.forEach((series, place) => {
      let path = "";
      for (let point = 0; point <= POINTS; point += 1) {
        at[data.over] = Math.round(2 ** (log(over.low) + (log(over.high) - log(over.low)) * point / POINTS));
        path += `${point ? "L" : "M"}${across(at[data.over]).toFixed(1)} ${up(value(place, at)).toFixed(1)}`;
      }
      paths[place].setAttribute("d", path);
      at[data.over] = here;
      const number = value(place, at);
      dots[place].setAttribute("cx", across(here));
      dots[place].setAttribute("cy", up(number));
      numbers[place].textContent = shown(number);
      numbers[place].dataset.value = String(number);
    });
    upright.setAttribute("x1", across(here));
    upright.setAttribute("x2", across(here));
    root.lastRedrawMs = box.dataset.redrawMs = performance.now() - start;
  };
  for (const slider of data.sliders) {
    const label = tag("label", sliders);
    const title = tag("span", label, slider.label);
    const input = tag("input", label), output = tag("output", label);
    Object.assign(input, {type: "range", min: 0, max: 1000, step: 1, title: slider.help});
    input.dataset.name = slider.name;
    const place = (number) => 1000 * (log(number) - log(slider.low)) / (log(slider.high) - log(slider.low));
    const number = () => {
      const raw = 2 ** (log(slider.low) + (log(slider.high) - log(slider.low)) * input.value / 1000);
      return Math.round(raw / slider.step) * slider.step || slider.step;
    };
    input.value = place(slider.value);
    const tell = () => { output.textContent = plain(state.values[slider.name]); input.setAttribute("aria-valuetext", `${title.textContent}: ${output.textContent}`); };
    input.addEventListener("input", () => { state.values[slider.name] = number(); tell(); redraw(); });
    input.addEventListener("change", () => released && released({...state.values}));
    tell();
  }
  axes();
  redraw();
}
