// The midtone transfer function: x from black (0) to white (1); m is where it reaches one half.
const m = midtones.value, low = black.value;
const transfer = (x) => x <= 0 ? 0 : x >= 1 ? 1 : (m - 1) * x / ((2 * m - 1) * x - m);
const show = (value) => transfer((value - low) / (white - low));
const table = new Uint8Array(65536);
for (let code = 0; code < table.length; code++) table[code] = Math.round(255 * show(bottom + code * step));
const [from, into] = [linear.data.image[0], shown.data.image[0]];
const bins = new Array(64).fill(0);
let dark = 0, bright = 0;
for (let i = 0; i < from.length; i++) {
  const level = table[from[i]];
  into[i] = level;
  bins[level >> 2]++;
  if (level === 0) dark++;
  if (level === 255) bright++;
}
shown.change.emit();
const most = Math.max(...bins);
after.data = {left: bins.map((_, i) => i / 64), right: bins.map((_, i) => (i + 1) / 64), top: bins.map((n) => n / most)};
curve.data = {level: levels, height: levels.map(show)};
const percent = (count) => (100 * count / from.length).toFixed(1);
said.text = `The median pixel (${sky.toFixed(0)} e⁻) is shown at <b>${(100 * show(sky)).toFixed(0)} %</b> of white; `
  + `${percent(dark)} % of the pixels are black, ${percent(bright)} % white.`;
